"""Yamux on a secured connection: the trio shell around `yamux.Session`, in the shape that py-libp2p gives a muxer.

    reader task:  connection --read--> Session.receive --events--> wakes streams, hands out new ones
    writer task:  Session.output --write--> connection     the only one that writes: no cancellation cuts a frame
    pulse task:   pings, for the round trip and for links that died

A read takes bytes and awaits nothing afterwards, so that cancelling it loses none. A write returns when all of it has
gone to the connection; cancelled half way it leaves a hole, and the stream can only be reset. A reader that doesn't
read stops the peer's stream by its window, and nothing else. When the connection is lost every stream is reset.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import trio
from libp2p.abc import IMuxedConn, IMuxedStream, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import IOException
from libp2p.network.connection.exceptions import RawConnError
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamError,
    MuxedStreamReset,
)
from multiaddr import Multiaddr

from node.log import get_logger
from node.upgrade.yamux import Session
from node.upgrade.yamux_state import MAX_CONTROL, Event, Limits, Opened, Pong, Stream, WentAway, Writable
from protocols import ProtocolError
from protocols.handshake.engine import MAX_HELD_BYTES

PROTOCOL_ERROR = 1
FLUSH_TIMEOUT = 0.2
# a peer whose socket takes nothing for so long isn't slow: a slow reader stops its own stream, by the window
WRITE_TIMEOUT = 60.0
PULSE = 30.0
# a stream that we have closed and the peer hasn't is reset after so long
LINGER = 60.0

_LOST = (IOException, RawConnError, OSError, trio.ClosedResourceError, trio.BrokenResourceError)

log = get_logger("muxer")


class MuxedStream(IMuxedStream):
    """One stream. One task may read while another writes; writers take turns."""

    def __init__(self, conn: Muxer, state: Stream) -> None:
        self.muxed_conn = conn
        self.conn = conn
        self.stream_id = state.number
        self.state = state
        self.closed_at: float | None = None
        self._changed = trio.Event()
        self._written = trio.Event()
        self._write_lock = trio.Lock()
        self._hole = False

    def wake(self) -> None:
        """Something has changed for whoever reads; at the stream's end, for whoever writes too."""
        self._changed.set()
        self._changed = trio.Event()
        if self.state.reset or self.conn.lost:
            self._written.set()

    def written(self) -> None:
        """What was given to `write` has gone to the connection."""
        self._written.set()

    async def read(self, n: int | None = None) -> bytes:
        """Up to `n` bytes, at least one. Raises MuxedStreamEOF at the peer's end, MuxedStreamReset."""
        if n == 0:
            return b""
        await trio.lowlevel.checkpoint_if_cancelled()
        state, session = self.state, self.conn.session
        while not state.size:
            if state.reset or self.conn.lost:
                raise MuxedStreamReset("the stream was reset, or its connection is lost")
            if state.ended:
                raise MuxedStreamEOF("the peer has ended the stream")
            if state.abandoned:
                raise MuxedStreamClosed("the stream is closed")
            if not state.announced:
                session.announce(state)
                self.conn.wake_writer()
            await self._changed.wait()
        wanted = state.size if n is None or n < 0 else n
        data = session.take(state, wanted, trio.current_time(), self.conn.round_trip)
        if session.control_pending:
            self.conn.wake_writer()
        return data

    async def write(self, data: bytes) -> None:
        """Returns when all of `data` has gone to the connection. Raises MuxedStreamClosed, MuxedStreamReset."""
        async with self._write_lock:
            self._need_open()
            if not data:
                return
            state = self.state
            self._written = trio.Event()
            self.conn.session.send(state, data)
            self.conn.wake_writer()
            try:
                await self._written.wait()
            except trio.Cancelled:
                if state.pending is not None:
                    self._hole = len(state.pending) < len(data)
                    self.conn.session.give_up(state)
                raise
            if state.reset or self.conn.lost:
                raise MuxedStreamReset("the stream was reset, or its connection is lost")

    async def close_write(self) -> None:
        """Says that we send no more."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._hole:
            await self.reset()
        else:
            self.conn.session.end(self.state)
            self.conn.wake_writer()

    async def close(self) -> None:
        """Ends our side and reads no more. Idempotent."""
        if self.closed_at is None:
            self.closed_at = trio.current_time()
            self.conn.session.abandon(self.state)
            if self._hole:
                self.conn.session.reset(self.state)
            else:
                self.conn.session.end(self.state)
            self.conn.forget_gone(self)
            self.conn.wake_writer()
            self.wake()
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        """Ends both sides at once. Idempotent."""
        self.conn.session.reset(self.state)
        self.state.reset = True
        self.conn.forget_gone(self)
        self.conn.wake_writer()
        self.wake()
        await trio.lowlevel.checkpoint()

    def set_deadline(self, ttl: int) -> None:
        raise NotImplementedError("deadlines are the caller's: use trio.fail_after")

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.conn.secured_conn.get_remote_address()

    def _need_open(self) -> None:
        if self.state.reset or self.conn.lost:
            raise MuxedStreamReset("the stream was reset, or its connection is lost")
        if self.state.end_wanted or self._hole:
            raise MuxedStreamClosed("the stream is closed for writing, or a write to it was cut off")

    async def __aenter__(self) -> MuxedStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Muxer(IMuxedConn):
    """A multiplexed connection. `start` runs as long as it lives."""

    def __init__(self, conn: ISecureConn, peer_id: ID, limits: Limits | None = None) -> None:
        self.secured_conn = conn
        self.peer_id = peer_id
        self.session = Session(initiator=conn.is_initiator, limits=limits, held=MAX_HELD_BYTES)
        self.event_started = trio.Event()
        self.event_closed = trio.Event()
        self.lost = False
        self.fault = ""  # how the peer broke the rules, if it did
        self.round_trip = 0.0
        self.on_close: Callable[[], Awaitable[None]] | None = None
        self._streams: dict[int, MuxedStream] = {}
        self._accepted: deque[MuxedStream] = deque()
        self._arrived = trio.Event()
        self._work = trio.Event()
        self._drained = trio.Event()
        self._pong = trio.Event()
        self._pings = 0
        self._writing = False

    # what py-libp2p asks of a muxer

    @property
    def is_initiator(self) -> bool:
        return self.secured_conn.is_initiator

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and not self.lost

    @property
    def is_closed(self) -> bool:
        return self.event_closed.is_set()

    @property
    def streams(self) -> dict[int, Stream]:
        """The streams that are open on either side."""
        return self.session.streams

    def admitted(self) -> None:
        """The peer is admitted: it may send more than what is held."""
        self.session.admitted()

    async def start(self) -> None:
        """Runs the connection. Returns when it has ended, however it did."""
        if self.event_started.is_set():
            return
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, nursery.cancel_scope)
                nursery.start_soon(self._pulse, nursery.cancel_scope)
                self.event_started.set()
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self._end()

    async def open_stream(self) -> IMuxedStream:
        """A new stream. Raises MuxedConnUnavailable, and MuxedStreamError at the limit."""
        await trio.lowlevel.checkpoint()
        if self.lost or self.session.went_away or self.session.exhausted:
            raise MuxedConnUnavailable("the connection takes no new streams")
        if len(self.session.streams) >= self.session.limits.max_streams:
            raise MuxedStreamError(f"there are {self.session.limits.max_streams} streams open, which is the limit")
        return self._new(self.session.open())

    async def accept_stream(self) -> IMuxedStream:
        """The next stream that the peer has opened. Raises MuxedConnUnavailable at the connection's end."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._accepted:
            if self.lost:
                raise MuxedConnUnavailable("the connection has ended")
            await self._arrived.wait()
        return self._accepted.popleft()

    async def close(self) -> None:
        """Says go-away, if the peer takes it soon, and closes. Idempotent."""
        if not self.event_closed.is_set() and not self.lost:
            self.session.go_away()
            self.wake_writer()
            with trio.move_on_after(FLUSH_TIMEOUT):
                while (self.session.control_pending or self._writing) and not self.lost:
                    await self._drained.wait()
        with trio.CancelScope(shield=True):
            await self._end()

    def get_transport_addresses(self) -> list[Multiaddr]:
        return self.secured_conn.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        return self.secured_conn.get_connection_type()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.secured_conn.get_remote_address()

    # what its streams ask

    def wake_writer(self) -> None:
        """There may be something to write."""
        self._work.set()

    def forget_gone(self, stream: MuxedStream) -> None:
        """Drops a stream that is over on both sides."""
        if stream.state.gone:
            self._streams.pop(stream.stream_id, None)

    # its tasks

    async def _read(self) -> None:
        try:
            while True:
                while self.session.control_pending > MAX_CONTROL:
                    await self._drained.wait()
                data = await self.secured_conn.read()
                if not data:
                    return
                for event in self.session.receive(data):
                    self._handle(event)
                if self.session.ready:
                    self._work.set()
        except _LOST as error:
            log.debug("connection_lost", peer=str(self.peer_id), error=repr(error))
        except ProtocolError as error:
            log.debug("muxer_ended", peer=str(self.peer_id), error=str(error))
            self.fault = str(error)
            self.session.go_away(PROTOCOL_ERROR)
            self._work.set()
            with trio.move_on_after(FLUSH_TIMEOUT):
                while self.session.control_pending or self._writing:
                    await self._drained.wait()

    async def _write(self, scope: trio.CancelScope) -> None:
        try:
            while True:
                data, events = self.session.output()
                if not data:
                    self._set_drained()
                    await self._work.wait()
                    self._work = trio.Event()
                    continue
                self._writing = True
                with trio.fail_after(WRITE_TIMEOUT):
                    await self.secured_conn.write(data)
                self._writing = False
                for event in events:
                    self._handle(event)
                if self.session.control_pending <= MAX_CONTROL:
                    self._set_drained()
        except (*_LOST, trio.TooSlowError) as error:
            log.debug("connection_lost", peer=str(self.peer_id), error=repr(error))
            scope.cancel()

    async def _pulse(self, scope: trio.CancelScope) -> None:
        while True:
            self._pings += 1
            self._pong = trio.Event()
            sent = trio.current_time()
            self.session.ping(self._pings & 0xFFFFFFFF)
            self._work.set()
            with trio.move_on_after(PULSE):
                await self._pong.wait()
            if not self._pong.is_set():
                log.debug("peer_silent", peer=str(self.peer_id))
                scope.cancel()
                return
            measured = trio.current_time() - sent
            self.round_trip = measured if not self.round_trip else 0.75 * self.round_trip + 0.25 * measured
            await trio.sleep(PULSE)
            self._reset_lingering(trio.current_time())

    def _reset_lingering(self, now: float) -> None:
        for stream in list(self._streams.values()):
            if stream.closed_at is not None and now - stream.closed_at > LINGER:
                self.session.reset(stream.state)
            self.forget_gone(stream)

    def _handle(self, event: Event) -> None:
        if isinstance(event, Opened):
            state = self.session.streams.get(event.stream)
            if state is not None:  # else it was reset in the same breath
                self._accepted.append(self._new(state))
                self._arrived.set()
                self._arrived = trio.Event()
        elif isinstance(event, Pong):
            if event.value == self._pings & 0xFFFFFFFF:
                self._pong.set()
        elif not isinstance(event, WentAway):
            stream = self._streams.get(event.stream)
            if stream is not None:
                if isinstance(event, Writable):
                    stream.written()
                else:
                    stream.wake()
                if stream.closed_at is not None or stream.state.reset:
                    self.forget_gone(stream)

    def _new(self, state: Stream) -> MuxedStream:
        stream = self._streams[state.number] = MuxedStream(self, state)
        return stream

    def _set_drained(self) -> None:
        self._drained.set()
        self._drained = trio.Event()

    async def _end(self) -> None:
        self.lost = True
        for stream in list(self._streams.values()):
            stream.wake()
        self._streams.clear()
        self._arrived.set()
        self._set_drained()
        self._work.set()
        if not self.event_closed.is_set():
            self.event_closed.set()
            await self.secured_conn.close()


def muxer(limits: Limits) -> Callable[[ISecureConn, ID], Any]:
    """What makes muxers of those limits."""
    return lambda conn, peer_id: Muxer(conn, peer_id, limits)
