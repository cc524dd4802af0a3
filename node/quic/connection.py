"""One QUIC connection, in the shape that py-libp2p gives a muxer: `Native` and its streams, driven by an `Endpoint`.

    NEW --handshake()--> SECURED --start()--> ... --closed, lost, timed out--> ended

The endpoint brings datagrams and time (`receive`, `tick`) and takes datagrams (`flush`); nothing here waits for a
socket. When the connection is lost every stream is reset.

How much of what the peer sends is taken, and with that its credit, is up to `Credit`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio
from libp2p.abc import IMuxedConn, IMuxedStream
from libp2p.connection_types import ConnectionType
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError, MuxedStreamReset
from multiaddr import Multiaddr

from node.log import get_logger
from node.quic.credit import Credit
from node.quic.native import Address, Event, Native, QuicError
from node.quic.owners import ConnectionOwner
from node.quic.stream import MAX_UNSENT, QuicStream
from node.quic.tls import peer_key
from protocols import ProtocolError
from protocols.handshake.engine import MAX_HELD_BYTES

NO_ERROR = 0
PROTOCOL_ERROR = 1
FLUSH_TIMEOUT = 0.2
# a stream that we have closed and the peer hasn't is reset after so long
LINGER = 60.0
# of so many parts of the idle timeout each begins with a ping, if the peer has been silent
BEATS = 3
MAX_EARLY = 4  # datagrams that are kept while a connection waits for its place

log = get_logger("quic")


class QuicConnection(IMuxedConn):
    """A connection: a muxer already. `handshake` secures it, `start` runs as long as it lives."""

    peer_id: ID

    def __init__(
        self,
        owner: ConnectionOwner,
        addr: Address,
        *,
        is_initiator: bool,
        max_streams: int,
        max_unread: int,
        max_unsent: int,
    ) -> None:
        self.owner = owner
        self.addr = addr
        self.event_started = trio.Event()
        self.event_closed = trio.Event()
        self.lost = False
        self.fault = ""  # how the peer broke the rules, if it did
        self.reason = ""
        self.armed_at = math.inf
        self.on_close: Callable[[], Awaitable[None]] | None = None
        self.streams: dict[int, QuicStream] = {}
        self._is_initiator = is_initiator
        self._max_streams, self._max_unsent = max_streams, max_unsent
        self._native: Native | None = None
        self._expected: ID | None = None
        self._early: list[bytes] = []
        self._server: tuple[bytes, bytes | None] | None = None
        self._accepted: dict[int, QuicStream] = {}  # opened by the peer, and not taken yet
        self._writers: set[QuicStream] = set()
        self._changed = trio.Event()  # established, lost, a stream has arrived, or one more may be opened
        self._established = False
        self._held: int | None = 0  # bytes received before admission
        self._credit = Credit(max_unread)
        self._heard = True
        beat = owner.configurations.limits.idle_timeout / BEATS
        self._beat = beat
        self._next_beat = trio.current_time() + beat

    @classmethod
    def dialled(cls, owner: ConnectionOwner, addr: Address, peer: ID, **limits: int) -> QuicConnection:
        """A connection that we open."""
        conn = cls(owner, addr, is_initiator=True, **limits)
        conn._expected = peer
        return conn

    @classmethod
    def accepted(
        cls, owner: ConnectionOwner, addr: Address, original: bytes, retried: bytes | None, first: bytes, **limits: int
    ) -> QuicConnection:
        """One that a client opens with its `first` datagram, on which no work is spent before `handshake`."""
        conn = cls(owner, addr, is_initiator=False, **limits)
        conn._server = original, retried
        conn._early.append(first)
        return conn

    # what py-libp2p asks of a muxer

    @property
    def is_initiator(self) -> bool:
        return self._is_initiator

    @property
    def is_established(self) -> bool:
        return self._established and not self.lost

    @property
    def is_closed(self) -> bool:
        return self.event_closed.is_set()

    @property
    def round_trip(self) -> float:
        """Seconds, smoothed; 0 if it isn't known."""
        return self._native.round_trip if self._native is not None else 0.0

    @property
    def waits(self) -> bool:
        """Whether nobody has taken it on yet."""
        return self._native is None

    def admitted(self) -> None:
        """The peer is admitted: it may send more than what is held."""
        self._held = None

    async def handshake(self) -> None:
        """Secures the connection. Raises ProtocolError saying why not; the deadline is the caller's."""
        now = trio.current_time()
        try:
            if self._server is None:
                native = self._native = Native.client(self.owner.configurations, self._verify, self._take)
                self.owner.register(native.host_cid, self)
                native.start(self.addr, now)
            else:
                native = self._native = Native.server(
                    self.owner.configurations, self._verify, self._take, *self._server
                )
                self.owner.register(native.host_cid, self)
                for data in self._early:
                    native.receive(data, len(data), self.addr, now)
                self._early.clear()
        except QuicError as error:
            self._fail(error)
        self.flush()
        while not self._established and not self.lost:
            await self._changed.wait()
        if self.lost:
            raise ProtocolError(f"the QUIC handshake failed: {self.reason}")

    def _verify(self, chain: list[bytes]) -> None:
        peer = ID.from_pubkey(peer_key(chain))
        if self._expected is not None and peer != self._expected:
            raise ProtocolError(f"expected peer {self._expected}, got {peer}")
        self.peer_id = peer

    async def start(self) -> None:
        """Returns when the connection has ended, however it did."""
        self.event_started.set()
        while not self.lost:
            await self._changed.wait()
        self.event_closed.set()

    async def open_stream(self) -> IMuxedStream:
        """A new stream. Waits while the peer takes no more.

        Raises MuxedConnUnavailable, and MuxedStreamError at the limit.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if self.lost or self._native is None or not self._established:
                raise MuxedConnUnavailable("the connection takes no new streams")
            if len(self.streams) >= self._max_streams:
                raise MuxedStreamError(f"there are {self._max_streams} streams open, which is the limit")
            if self._native.may_open():
                break
            self.flush_soon()
            await self._changed.wait()
        try:
            return self._new(self._native.open())
        except (ValueError, RuntimeError) as error:
            raise MuxedConnUnavailable(f"the connection takes no new streams: {error}") from error

    async def accept_stream(self) -> IMuxedStream:
        """The next stream that the peer has opened. Raises MuxedConnUnavailable at the connection's end."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._accepted:
            if self.lost:
                raise MuxedConnUnavailable("the connection has ended")
            await self._changed.wait()
        return self._accepted.pop(next(iter(self._accepted)))

    async def close(self) -> None:
        """Sends what was written, if the peer takes it soon, and says that the connection is over. Idempotent."""
        if self.event_closed.is_set():
            return
        native = self._native
        try:
            if native is not None and not self.lost and self._established:
                with trio.move_on_after(FLUSH_TIMEOUT):
                    while not self.lost and native.unsent():
                        self.flush_soon()
                        await trio.sleep(FLUSH_TIMEOUT / 20)
        finally:
            self.close_nowait()

    def close_nowait(self, code: int = NO_ERROR, reason: str = "") -> None:
        """The same without waiting for anything."""
        native = self._native
        if native is None:
            if self._server is not None and not self.lost:
                self.owner.refuse(self._early[0], self.addr, *self._server)
            self._lose("closed")
            self.owner.forget(self)
        elif not self.lost:
            self._lose(reason or "closed")
            try:
                native.shut(code, reason)
            except QuicError as error:
                log.debug("close_failed", error=str(error))
            self.flush()
        self.event_closed.set()

    def get_transport_addresses(self) -> list[Multiaddr]:
        host, port = self.get_remote_address()
        return [Multiaddr(f"/{'ip6' if ':' in host else 'ip4'}/{host}/udp/{port}/quic-v1")]

    def get_connection_type(self) -> ConnectionType:
        return ConnectionType.DIRECT

    def get_remote_address(self) -> tuple[str, int]:
        return self.addr[0].partition("%")[0], self.addr[1]

    # what its endpoint asks

    @property
    def deadline(self) -> float:
        """When `tick` is due."""
        native = self._native.deadline if self._native is not None else None
        if self.lost or not self._established:
            return math.inf if native is None else native
        return min(self._next_beat, self._credit.resume_at, math.inf if native is None else native)

    def receive(self, data: bytes, segment: int, addr: Address, now: float) -> None:
        """Datagrams for this connection, `segment` bytes each; what to answer is for `flush`."""
        self._heard = True
        if self._native is None:
            if len(self._early) < MAX_EARLY:
                self._early.append(data[:segment])
            return
        accused = self.fault
        try:
            self._native.receive(data, segment, addr, now)
            if self.fault != accused:
                self._native.shut(PROTOCOL_ERROR, self.fault)  # not from within qh3, which tells of it
        except QuicError as error:
            self._fail(error)

    def tick(self, now: float) -> None:
        """A deadline has come."""
        native = self._native
        if native is None:
            return
        try:
            if now >= self._credit.resume_at:
                self._credit.give_in()
                native.drain()
            native.tick(now)
            if now >= self._next_beat and not self.lost:
                if not self._heard:
                    native.ping()
                self._heard = False
                self._next_beat = now + self._beat
                for stream in list(self.streams.values()):
                    if now - stream.closed_at > LINGER:
                        stream.reset_nowait()
        except QuicError as error:
            self._fail(error)
        self.flush()

    def flush(self) -> None:
        """Sends what can be sent."""
        native = self._native
        if native is None:
            return
        try:
            if self.owner.transmit(self, native):
                self.owner.flush_soon(self)
        except QuicError as error:
            self._fail(error)
        if self._writers:
            for stream in [stream for stream in self._writers if self.lost or self.room(stream)]:
                self._writers.discard(stream)
                stream.wake_writer()
        self.owner.arm(self)

    # what its streams ask

    def flush_soon(self) -> None:
        self.owner.flush_soon(self)

    def room(self, stream: QuicStream) -> bool:
        native = self._native
        assert native is not None
        if self.lost:
            return True  # no use in waiting
        if native.unsent(stream.stream_id) >= MAX_UNSENT or (
            len(self.streams) * MAX_UNSENT > self._max_unsent and native.unsent() >= self._max_unsent
        ):
            self._writers.add(stream)
            return False
        return True

    def queue(self, stream: QuicStream, data: bytes | memoryview, *, fin: bool = False) -> None:
        native = self._native
        assert native is not None
        try:
            native.send(stream.stream_id, data, fin=fin)
        except (ValueError, RuntimeError) as error:
            stream.stopped = True
            raise MuxedStreamReset(f"the stream is over: {error}") from error

    def has_read(self, count: int) -> None:
        native = self._native
        if self._credit.read(count) and native is not None and native.paused:
            try:
                native.drain()
            except QuicError as error:
                self._fail(error)
            self.flush_soon()

    def say_reset(self, stream: QuicStream) -> None:
        self._tell_over(stream, reset=True)

    def say_stop(self, stream: QuicStream) -> None:
        self._tell_over(stream, reset=False)

    def _tell_over(self, stream: QuicStream, *, reset: bool) -> None:
        native = self._native
        if native is None or self.lost or stream.finished:
            return
        for tell in ([native.reset] if reset else []) + [native.stop]:
            with suppress(ValueError, RuntimeError):  # that side of it may be over already
                tell(stream.stream_id, NO_ERROR)

    def forget_gone(self, stream: QuicStream) -> None:
        if stream.finished:
            self.streams.pop(stream.stream_id, None)  # what has come can still be read
        if stream.was_reset:
            self._accepted.pop(stream.stream_id, None)

    # events

    def _take(self, event: Event) -> None:
        kind = event[0]
        if kind == "stream_data":
            self._take_data(event[1], event[2], event[3])
        elif kind == "stream_reset":
            stream = self.streams.get(event[1])
            if stream is not None:
                stream.reset_by_peer = True
                stream.wake()
                if event[1] in self._accepted:
                    stream.reset_nowait()  # before anybody has taken it
            elif self._native is not None:
                # one of which nothing else has come, and nothing will; or one that is over
                with suppress(ValueError, RuntimeError):
                    self._native.reset(event[1], NO_ERROR)
        elif kind == "stop_sending":
            stream = self.streams.get(event[1])
            if stream is not None:
                stream.stopped = True
                stream.wake_writer()
        elif kind == "stream_finished":
            stream = self.streams.get(event[1])
            if stream is not None:
                stream.finished = True
                self.forget_gone(stream)
        elif kind == "streams_available":
            self._wake()
        elif kind == "connection_id_issued":
            self.owner.register(event[1], self)
        elif kind == "connection_id_retired":
            self.owner.unregister(event[1])
        elif kind == "established":
            self._established = True
            self.owner.proven(self)
            self._wake()
        elif kind == "peer_closed":
            if not event[1]:
                log.debug("peer_complains", peer=str(self.addr), code=event[2], reason=repr(event[4][:200]))
            self._lose(f"the peer closed the connection: {event[4][:200].decode('utf8', 'replace') or event[2]}")
        elif kind == "protocol_error":
            self.fault = str(event[3])
            self._lose(self.fault)
        elif kind == "ended":
            self._lose(event[2] or f"error {event[1]}")
        elif kind == "connection_terminated":
            self._lose("the peer was silent" if not event[1] else f"error {event[1]}")
            self.owner.forget(self)

    def _take_data(self, number: int, data: bytes, fin: bool) -> None:
        stream = self._stream(number)
        if stream is None:
            return
        if self._held is not None:
            self._held += len(data)
            if self._held > MAX_HELD_BYTES and not self.lost:
                self.fault = f"expected at most {MAX_HELD_BYTES} bytes before admission, got more"
                self._lose(self.fault)
                return
        kept = stream.feed(data, fin)
        if kept and self._native is not None:
            self._native.paused = self._credit.came(kept, trio.current_time())

    def _stream(self, number: int) -> QuicStream | None:
        """The stream of that number, made if the peer opens it now; None for one that is over."""
        stream = self.streams.get(number)
        if stream is None and not self.lost and (number & 1) == self._is_initiator and not number & 2:
            stream = self._accepted[number] = self._new(number)
            self._wake()
        return stream

    def _new(self, number: int) -> QuicStream:
        stream = self.streams[number] = QuicStream(self, number)
        return stream

    def _fail(self, error: QuicError) -> None:
        """qh3 itself can't go on: nothing can be told to the peer."""
        log.debug("quic_failed", peer=str(self.addr), error=str(error))
        self._lose(str(error))
        self.owner.forget(self)

    def _lose(self, reason: str) -> None:
        if self.lost:
            return
        self.lost = True
        self.reason = reason
        self._credit.resume_at = math.inf
        if self._native is not None:
            self._native.paused = False
        for stream in list(self.streams.values()):
            stream.wake()
            stream.wake_writer()
        self.streams.clear()
        self._writers.clear()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
