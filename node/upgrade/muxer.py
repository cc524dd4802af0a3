"""Yamux on a secured connection: the trio shell around `yamux.Session`, in the shape that py-libp2p gives a muxer.

    reader task:  connection --receive--> Session.receive --events--> wakes streams, hands out new ones
    flush:        Session.output --send_nowait--> connection      synchronous: no cancellation cuts a frame
    writer task:  flushes what streams wrote in this turn of the event loop, and waits while the connection is full
    pulse task:   pings, for the round trip and for links that died; ends readers' waits that took too long

What streams write is queued. It goes out at once where one stream says one thing, when a stream that wrote goes on to
wait for an answer, or else by the writer, one turn later: what many streams say together goes out in few messages. A
reader that doesn't read stops the peer's stream by its window, and nothing else. When the connection is lost every
stream is reset. A peer that goes away is left when its last stream has ended, or at once if it names a reason.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p.abc import IMuxedConn, IMuxedStream
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import IOException
from libp2p.network.connection.exceptions import RawConnError
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamError,
)
from multiaddr import Multiaddr

from node.log import get_logger
from node.upgrade.muxed_stream import MuxedStream
from node.upgrade.secure import BATCH, SecureConn
from node.upgrade.yamux import Session
from node.upgrade.yamux_state import MAX_CONTROL, Event, Limits, Opened, Pong, Stream, WentAway, Writable
from protocols import ProtocolError
from protocols.handshake.engine import MAX_HELD_BYTES

PROTOCOL_ERROR = 1
FLUSH_TIMEOUT = 0.2
# a peer whose socket takes nothing for so long isn't slow: a slow reader stops its own stream, by the window
WRITE_TIMEOUT = 60.0
# others run after so many frames: small ones take as long as large ones, and a message holds five thousand
MANY_FRAMES = 512
# of many streams that answer at once so many go out together: the peer works on them while the next ones are answered
TOGETHER = 4
PULSE = 30.0
# a stream that we have closed and the peer hasn't is reset after so long
LINGER = 60.0

_LOST = (IOException, RawConnError, OSError, trio.ClosedResourceError, trio.BrokenResourceError)

log = get_logger("muxer")


class Muxer(IMuxedConn):
    """A multiplexed connection. `start` runs as long as it lives."""

    def __init__(self, conn: SecureConn, peer_id: ID, limits: Limits | None = None) -> None:
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
        self._accepted: dict[int, MuxedStream] = {}  # opened by the peer, and not taken yet
        self._arrived = trio.Event()
        self._work = trio.Event()
        self._drained = trio.Event()
        self._watched_until = math.inf  # no reader's deadline is before it
        self._sooner = trio.Event()
        self._answered: trio.Event | None = None  # somebody waits to open a stream
        self._asked_at: float | None = None  # when a ping went out that isn't answered yet
        self._pings = 0
        self._alive = True  # whether bytes went either way since the pulse last looked
        self._full = False  # the connection takes nothing; the writer waits for it
        self._failure: Exception | None = None  # of a flush
        self._deferred = 0
        self._said_at_once = False  # whether something went out at once since the reader or the writer last ran
        self._woken = 0  # streams woken by what came last whose readers haven't run yet

    # what py-libp2p asks of a muxer

    @property
    def is_initiator(self) -> bool:
        return self.secured_conn.is_initiator

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and not self.lost

    @property
    def leaving(self) -> bool:
        """Whether the peer takes no new streams: the connection ends with those that are open."""
        return self.session.went_away

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
        """A new stream. Waits while the peer hasn't answered many others.

        Raises MuxedConnUnavailable, and MuxedStreamError at the limit.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.session.backlogged and not self.lost:
            if self._answered is None:
                self._answered = trio.Event()
            await self._answered.wait()
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
        return self._accepted.pop(next(iter(self._accepted)))

    async def close(self) -> None:
        """Says go-away, if the peer takes it soon, and closes. Idempotent."""
        if not self.event_closed.is_set() and not self.lost:
            self.session.go_away()
            await self._wait_flushed()
        with trio.CancelScope(shield=True):
            await self._end()

    def get_transport_addresses(self) -> list[Multiaddr]:
        return self.secured_conn.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        return self.secured_conn.get_connection_type()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.secured_conn.get_remote_address()

    # what its streams ask

    def flush_soon(self) -> None:
        """There is something to write: it goes out in this turn of the event loop or the next."""
        self._work.set()

    def flush_now_or_soon(self) -> None:
        """As `flush_soon`, for what is whole in itself: at once, unless more is likely to come in this turn."""
        self._deferred += 1
        if (self._woken and self._deferred < TOGETHER) or self._said_at_once:
            self._work.set()
        else:
            self._deferred = 0
            self._said_at_once = not self._woken
            self._flush()

    def flush_before_waiting(self) -> None:
        """Somebody goes to wait for an answer: nothing more comes from there, nor soon from others."""
        if self.session.ready:
            if self._woken:
                self._work.set()  # in case that they don't
            else:
                self._flush()

    def woken(self) -> None:
        """A reader that was woken runs."""
        if self._woken:
            self._woken -= 1

    def watch(self, deadline: float) -> None:
        """Somebody waits until then: the pulse wakes whoever's time is over."""
        if deadline < self._watched_until:
            self._watched_until = deadline
            self._sooner.set()

    def forget_gone(self, stream: MuxedStream) -> None:
        """Drops a stream that is over on both sides."""
        if not stream.state.gone:
            return
        # by identity: the peer may have used the number again
        if self._streams.get(stream.stream_id) is stream:
            del self._streams[stream.stream_id]
        if stream.state.reset and self._accepted.get(stream.stream_id) is stream:
            del self._accepted[stream.stream_id]
        self._let_open()

    # its tasks

    async def _read(self) -> None:
        session = self.session
        try:
            while True:
                while session.control_pending > MAX_CONTROL and not self.lost:
                    self._work.set()
                    await self._drained.wait()
                messages = await self.secured_conn.receive()
                if not messages:
                    return
                self._alive = True
                self._woken = 0
                self._said_at_once = False
                for message in messages:
                    for event in session.receive(message):
                        self._handle(event)
                    if session.frames > MANY_FRAMES:
                        session.frames = 0
                        await trio.lowlevel.checkpoint()
                session.frames = 0
                self._let_open()
                if session.went_away and not session.streams:
                    self._work.set()
                if session.ready:
                    self._flush()
        except _LOST as error:
            log.debug("connection_lost", peer=str(self.peer_id), error=repr(error))
        except _AccusedError as error:
            log.debug("muxer_ended", peer=str(self.peer_id), error=str(error))
        except ProtocolError as error:
            log.debug("muxer_ended", peer=str(self.peer_id), error=str(error))
            self.fault = str(error)
            session.go_away(PROTOCOL_ERROR)
            await self._wait_flushed()

    def _flush(self) -> None:
        """Sends what there is, until the connection takes no more; the rest is the writer's, and so is a failure."""
        if self._full or self._failure is not None or self.lost:
            return
        session, conn = self.session, self.secured_conn
        finished: list[Event] = []
        try:
            while not self._full and session.ready:
                messages: list[bytes | memoryview] = []
                while len(messages) < BATCH and session.ready:
                    message, events = session.output()
                    if not message:
                        break
                    messages.append(message)
                    finished += events
                if not messages:
                    break
                self._full = not conn.send_nowait(messages)
        except (*_LOST, ProtocolError) as error:
            self._failure = error
        if self._full or self._failure is not None:
            self._work.set()
        for event in finished:
            self._handle(event)

    async def _write(self, scope: trio.CancelScope) -> None:
        try:
            with trio.CancelScope() as stalled:
                await self._write_until_gone(stalled)
            if stalled.cancelled_caught:
                log.debug("peer_takes_nothing", peer=str(self.peer_id))
        except (*_LOST, ProtocolError) as error:
            log.debug("connection_lost", peer=str(self.peer_id), error=repr(error))
        scope.cancel()

    async def _write_until_gone(self, stalled: trio.CancelScope) -> None:
        """Returns when the peer has gone away and nothing is left of its streams and ours."""
        session = self.session
        while self._full or session.streams or session.ready or not session.went_away:
            if self._full:
                now = trio.current_time()
                stalled.deadline = now + WRITE_TIMEOUT
                self._full = not await self.secured_conn.flush()
                # a slow link takes long to bring the answer to a ping, but it takes something meanwhile
                self._alive |= trio.current_time() > now
            if not self._full:
                self._flush()
            if self._failure is not None:
                raise self._failure
            if session.control_pending <= MAX_CONTROL:
                self._set_drained()
            if not self._full:
                stalled.deadline = math.inf
                await self._work.wait()
                self._work = trio.Event()
                self._said_at_once = False

    async def _wait_flushed(self) -> None:
        """Waits a little until all that was written is on its way."""
        self._work.set()
        with trio.move_on_after(FLUSH_TIMEOUT):
            while (self.session.ready or self._full) and not self.lost:
                await self._drained.wait()

    async def _pulse(self, scope: trio.CancelScope) -> None:
        next_ping = trio.current_time()
        while True:
            now = trio.current_time()
            if now >= next_ping:
                if self._asked_at is None:
                    self._pings += 1
                    self._asked_at = now
                    self.session.ping(self._pings & 0xFFFFFFFF)
                    self._work.set()
                elif not self._alive:
                    log.debug("peer_silent", peer=str(self.peer_id))
                    scope.cancel()
                    return
                self._alive = False
                self._reset_lingering(now)
                next_ping = now + PULSE
            if now >= self._watched_until:
                self._watched_until = min((stream.expire(now) for stream in self._streams.values()), default=math.inf)
            with trio.move_on_at(min(next_ping, self._watched_until)):
                await self._sooner.wait()
            self._sooner = trio.Event()

    def _reset_lingering(self, now: float) -> None:
        for stream in list(self._streams.values()):
            state = stream.state
            if stream.closed_at is None:
                continue
            if state.unsent_size != stream.left or (state.unsent_size and state.send_window > 0):
                # the peer still takes what we wrote, or it isn't the peer that it waits for
                stream.closed_at, stream.left = now, state.unsent_size
            elif now - stream.closed_at > LINGER:
                self.session.reset(stream.state)
                stream.wake()
            self.forget_gone(stream)

    def _handle(self, event: Event) -> None:
        if isinstance(event, Opened):
            state = self.session.streams.get(event.stream)
            known = self._streams.get(event.stream)
            # it may have been reset in the same breath, and opened again
            if state is not None and (known is None or known.state is not state):
                self._accepted[event.stream] = self._new(state)
                self._arrived.set()
                self._arrived = trio.Event()
        elif isinstance(event, Pong):
            if event.value == self._pings & 0xFFFFFFFF and self._asked_at is not None:
                measured, self._asked_at = trio.current_time() - self._asked_at, None
                self.round_trip = measured if not self.round_trip else 0.75 * self.round_trip + 0.25 * measured
        elif isinstance(event, WentAway):
            self._work.set()
            if event.reason:
                raise _AccusedError(f"the peer ended the connection for reason {event.reason}")
        else:
            stream = self._streams.get(event.stream)
            if stream is not None:
                if isinstance(event, Writable):
                    stream.wake_writer()
                else:
                    self._woken += stream.wake()
                if stream.closed_at is not None or stream.state.reset:
                    self.forget_gone(stream)

    def _new(self, state: Stream) -> MuxedStream:
        stream = self._streams[state.number] = MuxedStream(self, state)
        return stream

    def _set_drained(self) -> None:
        self._drained.set()
        self._drained = trio.Event()

    def _let_open(self) -> None:
        if self._answered is not None and not (self.session.backlogged and not self.lost):
            self._answered.set()
            self._answered = None

    async def _end(self) -> None:
        self.lost = True
        self._let_open()
        for stream in list(self._streams.values()):
            stream.wake()
        self._streams.clear()
        self._arrived.set()
        self._set_drained()
        self._work.set()
        if not self.event_closed.is_set():
            self.event_closed.set()
            await self.secured_conn.close()


class _AccusedError(Exception):
    """The peer says that we broke the rules, or that it can't go on."""


def muxer(limits: Limits) -> Callable[[Any, ID], Any]:
    """What makes muxers of those limits."""
    return lambda conn, peer_id: Muxer(conn, peer_id, limits)
