"""Streams of a connection, in the shapes that py-libp2p and `protocols` want.

`ConnStream` is a muxer's stream: a `protocols.ByteStream` for our protocols, an `INetStream` for those parts of
py-libp2p that open streams themselves. It stands where py-libp2p's `NetStream` would, which takes a lock, and with it a
turn of the event loop, for each read, write and change of state. `AsNetStream` gives a `protocols.Stream` to the
handlers of py-libp2p (its pubsub's), so that the registry's bounds hold for them too.
"""

from __future__ import annotations

import math
import typing
from contextlib import suppress
from typing import Any

import trio
from libp2p.abc import IMuxedStream, INetStream
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import IncompleteReadError, IOException
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamEOF, MuxedStreamError
from libp2p.stream_muxer.yamux.yamux import YamuxStream

from node.counting import NEGOTIATION, Flow
from node.quic.stream import QuicStream
from node.upgrade.guarded_yamux import GuardedYamux
from node.upgrade.muxed_stream import MuxedStream
from protocols import EndOfStream, Stream, StreamReset

# saying that a stream ends mustn't wait long for a peer that takes nothing
END_TIMEOUT = 1.0

# how a stream of py-libp2p says that it can't go on
BROKEN = (IOException, MuxedStreamError, MuxedConnError, OSError, trio.ClosedResourceError, trio.BrokenResourceError)


class Owner(typing.Protocol):
    """What a stream needs of its connection."""

    @property
    def leaving(self) -> bool:
        """Whether it takes no new streams."""


class ConnStream(INetStream):
    """A stream; one of `streams` until it is closed or reset. `flow` counts its bytes."""

    metric_send_channel = None

    def __init__(self, muxed: IMuxedStream, streams: set[ConnStream], owner: Owner, flow: Flow | None = None) -> None:
        self.flow = flow or Flow(NEGOTIATION)
        self.muxed_stream = muxed
        self._owner = owner
        self.muxed_conn = muxed.muxed_conn
        self._protocol: TProtocol | None = None
        self._streams = streams
        self._fast = muxed if isinstance(muxed, MuxedStream | QuicStream) else None
        streams.add(self)

    # a ByteStream

    @property
    def leaving(self) -> bool:
        return self._owner.leaving

    def receive_nowait(self, max_bytes: int) -> bytes:
        if self._fast is None:
            return b""
        data = self._fast.read_nowait(max_bytes)
        if data:
            self.flow.received += len(data)
        return data

    async def receive_some(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            if self._fast is not None:
                data = await self._fast.read(max_bytes, timeout)
                self.flow.received += len(data)
                return data
            with trio.fail_after(math.inf if timeout is None else timeout):
                return await self.read(max_bytes)
        except MuxedStreamEOF:
            if getattr(self.muxed_stream, "cut_off", False):
                raise StreamReset("the connection was lost before the stream's end") from None
            if getattr(self.muxed_stream, "reset_received", False):
                raise StreamReset("the stream was reset by the peer") from None  # py-libp2p's muxer takes it for an end
            return b""
        except BROKEN as error:
            raise StreamReset(f"the stream was reset: {error}") from error

    def send_nowait(self, data: bytes) -> bool:
        if self._fast is None:
            return False
        try:
            taken = self._fast.write_nowait(data, now=True)
        except BROKEN as error:
            raise StreamReset(f"the stream was reset: {error}") from error
        if taken:
            self.flow.sent += len(data)
        return taken

    async def send_all(self, data: bytes) -> None:
        try:
            await self.muxed_stream.write(data)
        except BROKEN as error:
            raise StreamReset(f"the stream was reset: {error}") from error
        self.flow.sent += len(data)

    async def send_eof(self) -> None:
        try:
            # py-libp2p's Yamux closes our side by `close`
            await getattr(self.muxed_stream, "close_write", self.muxed_stream.close)()
        except BROKEN as error:
            raise StreamReset(f"the stream was reset: {error}") from error

    async def aclose(self) -> None:
        self._streams.discard(self)
        if self._fast is not None:
            self._fast.close_nowait()
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + END_TIMEOUT), suppress(*BROKEN):
            await self.muxed_stream.close()

    async def reset(self) -> None:
        self._streams.discard(self)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + END_TIMEOUT), suppress(*BROKEN):
            await self.muxed_stream.reset()

    # an INetStream

    def get_protocol(self) -> TProtocol | None:
        return self._protocol

    def set_protocol(self, protocol_id: TProtocol) -> None:
        self._protocol = protocol_id

    async def read(self, n: int | None = None) -> bytes:
        muxed = self.muxed_stream
        if not isinstance(muxed, YamuxStream) or not isinstance(muxed.conn, GuardedYamux):
            data = await muxed.read(n)
            self.flow.received += len(data)
            return data
        # py-libp2p's read takes the bytes and then awaits once more: cancelled there, they would be lost
        await muxed.conn.readable(muxed)
        with trio.CancelScope(shield=True):
            data = await muxed.read(n)
        self.flow.received += len(data)
        return data

    async def write(self, data: bytes) -> None:
        await self.muxed_stream.write(data)
        self.flow.sent += len(data)

    async def close(self) -> None:
        await self.aclose()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.muxed_stream.get_remote_address()


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
