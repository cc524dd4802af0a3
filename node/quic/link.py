"""One QUIC connection without its streams: how it is secured, what comes and goes, how it ends.

    NEW --handshake()--> SECURED --start()--> ... --closed, lost, timed out--> ended

The endpoint brings datagrams and time (`receive`, `tick`) and takes datagrams (`flush`); nothing here waits for a
socket. Streams are those of `QuicConnection`, which is a `Link`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Awaitable, Callable

import trio
from libp2p.abc import IMuxedConn
from libp2p.connection_types import ConnectionType
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from node.hostport import as_multiaddr
from node.log import get_logger
from node.quic.datagrams import Local
from node.quic.guard import QuicError
from node.quic.native import Address, Event, Native
from node.quic.owners import ConnectionOwner
from node.upgrade.certificate import peer_key
from protocols import ProtocolError

NO_ERROR = 0
PROTOCOL_ERROR = 1
FLUSH_TIMEOUT = 0.2
# of so many parts of the idle timeout each begins with a ping, if the peer has been silent
BEATS = 3
MAX_EARLY = 4  # datagrams that are kept while a connection waits for its place
MAX_REASON = 200
IDLE = b"Idle timeout"  # as qh3 says it

log = get_logger("quic")


class Link(IMuxedConn):
    """The life of a connection."""

    peer_id: ID

    def __init__(self, owner: ConnectionOwner, addr: Address, *, is_initiator: bool) -> None:
        self.owner = owner
        self.addr = addr
        self.event_started = trio.Event()
        self.event_closed = trio.Event()
        self.lost = False
        self.fault = ""  # how the peer broke the rules, if it did
        self.reason = ""
        self.armed_at = math.inf
        self.on_close: Callable[[], Awaitable[None]] | None = None
        self._is_initiator = is_initiator
        self._native: Native | None = None
        self._expected: ID | None = None
        self._early: list[bytes] = []
        self._server: tuple[bytes, bytes | None] | None = None
        self._changed = trio.Event()  # established, lost, a stream has arrived, or one more may be opened
        self._established = False
        self._heard = True
        self.local: Local | None = None  # where it is answered from, if the socket has several addresses
        self._beat = math.inf
        self._next_beat = math.inf

    # what its streams are told

    @property
    @abstractmethod
    def stream_deadline(self) -> float:
        """When `stream_tick` is due."""

    @abstractmethod
    def stream_tick(self, native: Native, now: float) -> None:
        """`stream_deadline` may have come."""

    @abstractmethod
    def stream_beat(self, now: float) -> None:
        """The time for what is done now and then."""

    @abstractmethod
    def stream_event(self, event: Event) -> None:
        """An event of qh3's that isn't the connection's own."""

    @abstractmethod
    def streams_may_write(self) -> None:
        """Something has been sent, or the connection is lost."""

    @abstractmethod
    def streams_lost(self) -> None:
        """The connection is lost."""

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
                    self.owner.configurations, self._verify, self._take, *self._server, self.owner.reset_token
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

    async def close(self) -> None:
        """Sends what was written, if the peer takes it soon, and says that the connection is over. Idempotent."""
        if self.event_closed.is_set():
            return
        native = self._native
        try:
            if native is not None and not self.lost and self._established:
                with trio.move_on_after(FLUSH_TIMEOUT):
                    while not self.lost and (native.unsent() or native.ends_wait):
                        self.flush_soon()
                        await trio.sleep(FLUSH_TIMEOUT / 20)
        finally:
            self.close_nowait()

    def close_nowait(self, code: int = NO_ERROR, reason: str = "") -> None:
        """The same without waiting for anything."""
        native = self._native
        if native is None:
            if self._server is not None and not self.lost:
                self.owner.refuse(self._early[0], self.addr, self.local, *self._server)
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
        if native is None:
            native = math.inf
        if self.lost or not self._established:
            return native
        return min(self._next_beat, self.stream_deadline, native)

    def receive(self, data: bytes, segment: int, addr: Address, now: float) -> None:
        """Datagrams for this connection, `segment` bytes each; what to answer is for `flush`."""
        self._heard = True
        native = self._native
        if native is not None:
            self._with_native(lambda: native.receive(data, segment, addr, now))
        else:
            for at in range(0, min(len(data), MAX_EARLY * segment), segment):
                if len(self._early) < MAX_EARLY:
                    self._early.append(data[at : at + segment])

    def receive_reset(self, data: bytes, addr: Address, now: float) -> None:
        """A datagram from the peer's address that isn't for any connection: the peer's stateless reset, or nothing."""
        native = self._native
        if native is not None and self._established:
            self._with_native(lambda: native.receive(data, len(data), addr, now))

    def tick(self, now: float) -> None:
        """A deadline has come."""
        native = self._native
        if native is None:
            return

        def step() -> None:
            self.stream_tick(native, now)
            native.tick(now)
            if now >= self._next_beat and not self.lost:
                if not self._heard:
                    native.ping()
                self._heard = False
                self._next_beat = now + self._beat
                self.stream_beat(now)

        self._with_native(step)
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
        if native.overdue:
            self._with_native(native.catch_up)
            self.owner.flush_soon(self)
        self.streams_may_write()
        self.owner.arm(self)

    def flush_soon(self) -> None:
        """The same, after whatever else happens in this turn of the event loop."""
        self.owner.flush_soon(self)

    def _with_native(self, step: Callable[[], None]) -> None:
        """Has qh3 do something; what it finds wrong with the peer is told afterwards, and not from within."""
        accused = self.fault
        try:
            step()
            if self.fault != accused and self._native is not None:
                self._native.shut(PROTOCOL_ERROR, self.fault)
        except QuicError as error:
            self._fail(error)

    # events

    def _take(self, event: Event) -> None:
        kind = event[0]
        if kind == "connection_id_issued":
            self.owner.register(event[1], self)
        elif kind == "connection_id_retired":
            self.owner.unregister(event[1])
        elif kind == "established":
            self._established = True
            assert self._native is not None
            self._beat = self._native.idle_timeout / BEATS
            self._next_beat = trio.current_time() + self._beat
            self.owner.proven(self)
            self._wake()
        elif kind == "peer_closed":
            reason = event[4][:MAX_REASON].decode("utf8", "replace")
            if not event[1]:
                log.debug("peer_complains", addr=as_multiaddr(*self.addr[:2]), code=event[2], reason=reason)
            self._lose(f"the peer closed the connection: {reason or event[2]}")
        elif kind == "protocol_error":
            self.fault = str(event[3])
            self._lose(self.fault)
        elif kind == "ended":
            self._lose(event[2] or f"error {event[1]}")
        elif kind == "connection_terminated":
            self._lose(_why_ended(event[1], event[3]))
            self.owner.forget(self)
        else:
            self.stream_event(event)

    def fail(self, error: BaseException) -> None:
        """What it did went wrong in a way that nobody thought of."""
        self._lose(f"{type(error).__name__}: {error}")
        self.owner.forget(self)

    def _fail(self, error: QuicError) -> None:
        """qh3 itself can't go on: nothing can be told to the peer."""
        log.debug("quic_failed", addr=as_multiaddr(*self.addr[:2]), error=str(error))
        self._lose(str(error))
        self.owner.forget(self)

    def _lose(self, reason: str) -> None:
        if self.lost:
            return
        self.lost = True
        self.reason = reason
        if self._native is not None:
            self._native.paused = False
        self.streams_lost()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _why_ended(code: int, reason: bytes) -> str:
    """What qh3 means, when neither side has said that the connection ends."""
    if reason == IDLE:
        return "the peer was silent"
    if not code and not reason:
        return "the peer knows nothing of the connection any more"  # a stateless reset
    return reason.decode("utf8", "replace") or f"error {code}"
