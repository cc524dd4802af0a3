"""What nodes say to each other. Nothing here knows the node that runs it.

A protocol's author needs three words: `Protocol` (an ID, its bounds, a handler), `Stream` (what the handler is given)
and `Network` (what a client asks for streams).
"""

from __future__ import annotations

from protocols.base import (
    ByteStream,
    EndOfStream,
    Network,
    NotConnected,
    NotSupported,
    Protocol,
    ProtocolError,
    Stream,
    StreamError,
    StreamReset,
    StreamTimeout,
)

__all__ = [
    "ByteStream",
    "EndOfStream",
    "Network",
    "NotConnected",
    "NotSupported",
    "Protocol",
    "ProtocolError",
    "Stream",
    "StreamError",
    "StreamReset",
    "StreamTimeout",
]
