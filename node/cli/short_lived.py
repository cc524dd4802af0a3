"""A node for one command: it listens nowhere, knows nobody, and ends with the command.

It has a peer ID of its own, made for the occasion: the data directory's identity belongs to the node that runs there.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import trio
import trio.from_thread
import trio.to_thread

from node.api.functions import invoke
from node.config import Config
from node.identity import Identity
from node.log import configure
from node.node import Node

Ask = Callable[..., dict[str, Any]]


def run(config: Config, command: Callable[[Ask], int]) -> int:
    """Runs `command` with a function that asks such a node, in the form of `Client.call`; its exit status."""
    configure(form="text", level="error", stream=sys.stderr)
    return trio.run(
        _run,
        dataclasses.replace(
            config,
            listen=(),
            bootstrap=(),
            rendezvous=(),
            rendezvous_point="off",
            dht="off",
            pool="off",
            addressbook="memory",
        ),
        command,
    )


async def _run(config: Config, command: Callable[[Ask], int]) -> int:
    async with Node(config, identity=Identity.generate()) as node:

        def ask(name: str, **params: Any) -> dict[str, Any]:
            answer: dict[str, Any] = msgspec.to_builtins(trio.from_thread.run(invoke, node, name, params))
            return answer

        # commands are synchronous, since most of the time they ask over a socket: this one gets a thread
        return await trio.to_thread.run_sync(command, ask, abandon_on_cancel=True)  # type: ignore[call-arg]  # old stubs
