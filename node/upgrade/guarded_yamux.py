"""py-libp2p's Yamux, with the guards that it needs until the project's own muxer replaces it (docs/upstream.md).

- inbound frames pass a `FrameMeter`: windows and the limits before admission are enforced;
- a frame that has begun to go out goes out whole: cancelling a writer can't cut it and ruin the connection;
- a frame that the socket doesn't take for `WRITE_TIMEOUT` ends the connection;
- a reader can wait for bytes without taking them (`readable`): cancelling py-libp2p's read loses what it took;
- a stream that ends because the connection is lost is marked `cut_off`;
- closing says go-away if it can at once, waits for nobody, and doesn't sleep.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import trio
from libp2p.abc import ISecureConn
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.exceptions import RawConnError
from libp2p.peer.id import ID
from libp2p.stream_muxer.yamux.yamux import (
    DEFAULT_WINDOW_SIZE,
    GO_AWAY_NORMAL,
    TYPE_GO_AWAY,
    YAMUX_HEADER_FORMAT,
    Yamux,
    YamuxStream,
)

from node.upgrade.frame_meter import FrameMeter

WRITE_TIMEOUT = 30.0
GO_AWAY_TIMEOUT = 0.2


class _Metered:
    """The secured connection, with each read shown to the meter."""

    def __init__(self, inner: ISecureConn, meter: FrameMeter) -> None:
        self._inner = inner
        self._meter = meter

    async def read(self, n: int | None = None) -> bytes:
        data = await self._inner.read(n)
        self._meter.feed(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class GuardedYamux(Yamux):
    """`Yamux` with guards. `meter.admitted` is set by whoever admits the peer."""

    def __init__(self, secured_conn: ISecureConn, peer_id: ID) -> None:
        self.meter = FrameMeter(self._window)
        super().__init__(_Metered(secured_conn, self.meter), peer_id, is_initiator=secured_conn.is_initiator)  # type: ignore[arg-type]

    def admitted(self) -> None:
        """The peer is admitted: it may send more than what is held."""
        self.meter.admitted = True

    def _window(self, stream_id: int) -> int | None:
        stream = self.streams.get(stream_id)
        if stream is not None:
            return stream.recv_window
        # the peer's own next stream may bring data with its SYN; anything else is a stray of a stream that has ended
        remote = stream_id % 2 == (0 if self.is_initiator_value else 1)
        return DEFAULT_WINDOW_SIZE if remote else None

    async def readable(self, stream: YamuxStream) -> None:
        """Waits until a read of `stream` finds bytes, or its end, without waiting. Safe to cancel."""
        while True:
            buffer, event = self.stream_buffers.get(stream.stream_id), self.stream_events.get(stream.stream_id)
            if (
                buffer is None
                or event is None
                or buffer
                or stream.recv_closed
                or stream.closed
                or stream.reset_received
            ):
                await trio.lowlevel.checkpoint()
                return
            if event.is_set():  # its news has been read; as in py-libp2p, each wait starts with a new one
                event = self.stream_events[stream.stream_id] = trio.Event()
            await event.wait()

    async def _write_frame(self, data: bytes) -> None:
        async with self._write_lock:
            if self.event_closed.is_set():
                raise RawConnError  # without a text py-libp2p takes it for the end that it is, and logs no error
            with trio.CancelScope(shield=True, deadline=trio.current_time() + WRITE_TIMEOUT) as scope:
                try:
                    await self.secured_conn.write(data)
                except (RawConnError, ConnectionClosedError):
                    # py-libp2p would go on reading what the dead peer had sent, and try to answer each frame
                    await self._abandon()
                    raise
            if scope.cancelled_caught:
                await self._abandon()
                raise ConnectionClosedError(f"the peer took nothing for {WRITE_TIMEOUT:g} s")

    async def close(self, error_code: int = GO_AWAY_NORMAL) -> None:
        if not self.event_closed.is_set() and not self.event_shutting_down.is_set():
            header = struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_GO_AWAY, 0, 0, error_code)
            with trio.move_on_after(GO_AWAY_TIMEOUT):
                # not through _write_frame: its shield would wait for a peer that takes nothing
                async with self._write_lock:
                    with suppress(RawConnError, ConnectionClosedError):  # it is gone already, which is what we want
                        await self.secured_conn.write(header)
        await self._abandon()

    async def _cleanup_on_error(self) -> None:
        await self._abandon()

    async def _abandon(self) -> None:
        """Closes the socket, and wakes everybody who waits on the connection."""
        self.event_shutting_down.set()
        self.new_stream_send_channel.close()
        for stream_id, stream in self.streams.items():
            # for readers, who would take the loss of the connection for the peer's proper end
            stream.cut_off = not stream.recv_closed or bool(self.stream_buffers.get(stream_id))  # type: ignore[attr-defined]
            stream.closed = stream.send_closed = stream.recv_closed = stream.reset_received = True
        # the tables stay as they are: whoever is between two looks at them finds what it found before
        for event in self.stream_events.values():
            event.set()
        self.event_closed.set()
        with trio.CancelScope(shield=True):  # closing a socket doesn't wait for the peer
            await self.secured_conn.close()
