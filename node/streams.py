"""py-libp2p's streams and ours, each in the other's shape.

`MuxedBytes` puts a muxer's stream under `protocols.Stream`; `AsNetStream` gives a `protocols.Stream` to those parts of
py-libp2p that want its own (Kademlia), so that the registry's bounds hold for them too.
"""

from __future__ import annotations

from typing import Any

import trio
from libp2p.io.exceptions import IncompleteReadError, IOException
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.network.stream.net_stream import NetStream
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError
from libp2p.stream_muxer.yamux.yamux import YamuxStream

from node.upgrade.guarded_yamux import GuardedYamux
from protocols import EndOfStream, Stream, StreamReset

# saying that a stream ends mustn't wait long for a peer that takes nothing
END_TIMEOUT = 1.0

# how a stream of py-libp2p says that it can't go on
BROKEN = (IOException, MuxedStreamError, MuxedConnError, OSError, trio.ClosedResourceError, trio.BrokenResourceError)


class MuxedBytes:
    """A stream of the muxer as a `protocols.ByteStream`."""

    def __init__(self, stream: NetStream) -> None:
        self.stream = stream

    async def receive_some(self, max_bytes: int) -> bytes:
        muxed = self.stream.muxed_stream
        try:
            if not isinstance(muxed, YamuxStream) or not isinstance(muxed.conn, GuardedYamux):
                return await self.stream.read(max_bytes)
            # py-libp2p's read takes the bytes and then awaits once more: cancelled there, they would be lost
            await muxed.conn.readable(muxed)
            with trio.CancelScope(shield=True):
                return await self.stream.read(max_bytes)
        except StreamEOF:
            if getattr(self.stream.muxed_stream, "cut_off", False):
                raise StreamReset("the connection was lost before the stream's end") from None
            if getattr(self.stream.muxed_stream, "reset_received", False):
                raise StreamReset("the stream was reset by the peer") from None  # py-libp2p's muxer takes it for an end
            return b""
        except BROKEN as error:
            raise StreamReset(f"the stream was reset: {error}") from error

    async def send_all(self, data: bytes) -> None:
        try:
            await self.stream.write(data)
        except BROKEN as error:
            raise StreamReset(f"the stream was reset: {error}") from error

    async def send_eof(self) -> None:
        try:
            await self.stream.close_write()
        except BROKEN as error:
            raise StreamReset(f"the stream was reset: {error}") from error

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + END_TIMEOUT):
            try:
                await self.stream.close()
            except BROKEN:
                await self.stream.remove()

    async def reset(self) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + END_TIMEOUT):
            await self.stream.reset()


class AsNetStream:
    """A `protocols.Stream` as py-libp2p's handlers expect a stream: read, write, close, reset, `muxed_conn.peer_id`."""

    def __init__(self, stream: Stream, peer_id: Any) -> None:
        self._stream = stream
        self.peer_id = peer_id
        self.metric_send_channel = None

    @property
    def muxed_conn(self) -> AsNetStream:
        return self

    async def read(self, n: int | None = None) -> bytes:
        try:
            return await (self._stream.receive() if n is None else self._stream.receive_some(n))
        except EndOfStream:
            raise IncompleteReadError("the stream has ended", n or 0, 0) from None

    async def write(self, data: bytes) -> None:
        await self._stream.send(data)

    async def close(self) -> None:
        await self._stream.close()

    async def reset(self) -> None:
        await self._stream.reset()
