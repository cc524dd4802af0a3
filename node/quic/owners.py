"""What the parts of QUIC need of each other: a stream of its connection, a connection of its endpoint."""

from __future__ import annotations

import typing

from node.quic.configurations import Configurations
from node.quic.datagrams import Local
from node.quic.native import Address, Native

if typing.TYPE_CHECKING:
    from node.quic.link import Link
    from node.quic.stream import QuicStream


class StreamOwner(typing.Protocol):
    """What a stream needs of its connection, a `QuicConnection`."""

    lost: bool
    reason: str

    def get_remote_address(self) -> tuple[str, int] | None: ...

    def queue(self, stream: QuicStream, data: bytes | memoryview, *, fin: bool = False) -> None:
        """Sends `data` when it can. Raises MuxedStreamReset if the stream is over."""

    def room(self, stream: QuicStream) -> bool:
        """Whether a write needn't wait."""

    def flush(self) -> None:
        """Sends what can be sent."""

    def flush_soon(self) -> None:
        """The same, after whatever else happens in this turn of the event loop."""

    def has_read(self, count: int) -> None:
        """So many bytes don't wait any more."""

    def say_reset(self, stream: QuicStream) -> None:
        """Ends both sides at once."""

    def say_stop(self, stream: QuicStream) -> None:
        """Reads no more of it."""

    def forget_gone(self, stream: QuicStream) -> None:
        """The stream may be over on both sides."""


class ConnectionOwner(typing.Protocol):
    """What a connection needs of its endpoint."""

    configurations: Configurations

    def transmit(self, conn: Link, native: Native) -> bool:
        """Sends what there is. Whether there may be more. Raises QuicError."""

    def flush_soon(self, conn: Link) -> None:
        """Calls `flush` in this turn of the event loop or the next."""

    def arm(self, conn: Link) -> None:
        """Calls `tick` when `deadline` has come."""

    def register(self, cid: bytes, conn: Link) -> None:
        """Datagrams for that ID are for `conn`."""

    def unregister(self, cid: bytes) -> None:
        """They aren't any more."""

    def reset_token(self, cid: bytes) -> bytes:
        """With that token we may say that we know nothing of the connection any more."""

    def proven(self, conn: Link) -> None:
        """The client has shown that it is where it says."""

    def refuse(self, first: bytes, addr: Address, local: Local | None, original: bytes, retried: bytes | None) -> None:
        """Tells a client that there is no place for it."""

    def forget(self, conn: Link) -> None:
        """It is over: nothing more is sent or taken."""
