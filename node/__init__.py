"""The node: a libp2p host that admits only peers of its own network, and what users and operators need around it.

    from node import Config, Node

The names below are the public ones. They are loaded when first used, since importing py-libp2p takes a second that
`vouch --help` doesn't have.
"""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
    from node.config import Config
    from node.errors import (
        BackoffError,
        DialError,
        LimitError,
        NotConnectedError,
        RefusedError,
        UsageError,
        VouchError,
    )
    from node.events import (
        Admitted,
        Connected,
        Disconnected,
        Event,
        EventStream,
        Identified,
        Listening,
        MessageRejected,
        PeerFlaky,
        PeerLost,
        PeerSteady,
        Refused,
    )
    from node.identity import Identity
    from node.node import Node

__all__ = [
    "Admitted",
    "BackoffError",
    "Config",
    "Connected",
    "DialError",
    "Disconnected",
    "Event",
    "EventStream",
    "Identified",
    "Identity",
    "LimitError",
    "Listening",
    "MessageRejected",
    "Node",
    "NotConnectedError",
    "PeerFlaky",
    "PeerLost",
    "PeerSteady",
    "Refused",
    "RefusedError",
    "UsageError",
    "VouchError",
]

_ERRORS = ("BackoffError", "DialError", "LimitError", "NotConnectedError", "RefusedError", "UsageError", "VouchError")
_HOMES = {"Config": "node.config", "Identity": "node.identity", "Node": "node.node"} | dict.fromkeys(
    _ERRORS, "node.errors"
)


def __getattr__(name: str) -> typing.Any:
    if name not in __all__:
        raise AttributeError(f"module 'node' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "node.events")), name)
