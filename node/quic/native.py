"""qh3 as libp2p needs it: with `node.quic.mutual` the one place that knows its insides, so its version is pinned.

qh3's packets, streams, recovery and keys are Rust and are used as they are. Its TLS is Python, and what it lacks for
libp2p is added there, all of it outside qh3's documented surface (`tests/node/test_quic_native.py` fails when a new
version has changed what is relied on):

- a server asks for the client's certificate, and each side looks at the other's before it answers to it
  (`node.quic.mutual`);
- limits and transport parameters are ours: qh3 has fixed numbers of streams, and parameters that make it look like a
  browser;
- events are taken one by one, so that no credit is given for what isn't taken (`paused`), and datagrams go out in runs;
- a path that has become narrow is noticed: qh3 finds out how much one carries, and stays with that;
- a stream's end that goes by itself waits for its data's acknowledgement: qh3 would lose it (`node.quic.ends`);
- events wait while a stream may be finished of which a frame hasn't gone out: qh3 would fail (`node.quic.frames`).

Whatever qh3 raises comes out as a QuicError (`node.quic.guard`): a stranger's bytes go through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qh3 import tls
from qh3._hazmat import QuicConnectionCore
from qh3.quic.connection import QuicConnection, QuicConnectionState
from qh3.quic.packet import QuicErrorCode, QuicProtocolVersion, QuicTransportParameters
from qh3.quic.tls_bridge import QuicTlsBridge, QuicTlsBridgeError

from node.quic import parameters
from node.quic.configurations import Configurations
from node.quic.ends import Ends
from node.quic.frames import Frames
from node.quic.guard import guarded, no_panic
from node.quic.mutual import SIGNATURES, Client, Server, Verify
from node.quic.packets import destination

MAX_REASON = 200
CRYPTO_FRAME = 0x06
# so many probes in a row unanswered, each twice as long after the one before, and a path is taken for a narrow one
NARROW_AFTER = 3
# or that part of the idle timeout without a word, if frames may be waiting that are too large for a narrow one
SURELY_NARROW_AFTER = 0.5
# events that wait while none are taken: one costs 180 bytes, be it for a byte of a stream or for credit, which a peer
# may give without end
MAX_EVENTS = 128 * 1024
EVENTS_ADDED = 5  # where qh3 says how many there are

Address = tuple[Any, ...]
Event = tuple[Any, ...]


class Native(QuicConnection):
    """One connection, sans I/O: datagrams and times in, datagrams and events out.

    `take` is called with each event, a tuple that begins with its kind; with `paused` set none are taken, and the peer
    gets no more credit. Events are qh3's own, and besides ("established",) and ("ended", code, reason): only
    ("connection_terminated", …) comes after that one.
    """

    def __init__(
        self,
        configurations: Configurations,
        verify: Verify,
        take: Callable[[Event], None],
        server_token: Callable[[bytes], bytes] | None = None,
        **server: Any,
    ) -> None:
        configuration = configurations.server if server else configurations.client
        super().__init__(configuration=configuration, **server)
        self.paused = False
        self._limits = configurations.limits
        self._verify = verify
        self._take = take
        self._told_established = False
        self._filling = self._taken = 0  # zeros that fill a datagram up, and what qh3's core was given of it
        self._terminated = False
        self._is_narrow = False
        self._reset_token = server_token
        self._ends = Ends()
        self._frames = Frames()
        self._waiting = 0
        self._fresh: set[int] = set()  # streams of which qh3 has data that it hasn't looked at

    @classmethod
    def client(cls, configurations: Configurations, verify: Verify, take: Callable[[Event], None]) -> Native:
        return cls(configurations, verify, take)

    @classmethod
    def server(
        cls,
        configurations: Configurations,
        verify: Verify,
        take: Callable[[Event], None],
        original: bytes,
        retried: bytes | None,
        token: Callable[[bytes], bytes] | None = None,
    ) -> Native:
        """`original` is the destination of the client's very first Initial, `retried` of the one after a Retry; `token`
        makes a connection ID's stateless reset token.
        """
        return cls(
            configurations,
            verify,
            take,
            token,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
        )

    # what comes

    def start(self, addr: Address, now: float) -> None:
        with guarded():
            self.connect(addr, now)

    def receive(self, data: bytes, segment: int, addr: Address, now: float) -> None:
        """Takes datagrams of `segment` bytes each, the last may be shorter."""
        self._frames.heard(now)
        with guarded():
            if self._told_established:
                self._waiting += self._require_core().receive_gro_buffer(data, segment, addr, now)[EVENTS_ADDED]
                self._drain_core()
                if self._waiting > MAX_EVENTS:
                    self._take(("protocol_error", 0, None, f"expected at most {MAX_EVENTS} frames that wait, got more"))
            else:
                for at in range(0, len(data), segment):
                    self._receive_one(data[at : at + segment], addr, now)
                if self._state == QuicConnectionState.TERMINATED and not self._terminated:
                    # before it began: the server speaks other versions
                    self._terminated = True
                    self._take(("ended", 0, "no version of QUIC that both sides speak"))
                    self._take(("connection_terminated", 0, None, b""))

    def _receive_one(self, datagram: bytes, addr: Address, now: float) -> None:
        self._filling = len(datagram) - len(datagram.rstrip(b"\0"))
        self._taken = 0
        self.receive_datagram(datagram, addr, now)
        self._filling = 0

    def tick(self, now: float) -> None:
        """A deadline has passed."""
        with guarded():
            core = self._core
            if core is not None:
                may_narrow = self._may_narrow(core, now)
                core.handle_timer(now)
                self._drain_core()
                if may_narrow and core.pto_count >= NARROW_AFTER:
                    self._is_narrow = True
                    parameters.narrow(core, self._theirs)

    def _may_narrow(self, core: QuicConnectionCore, now: float) -> bool:
        if self._is_narrow or not self._told_established:
            return False
        silence = self._frames.silence(now)
        return self._frames.none_wait(core) or silence > SURELY_NARROW_AFTER * self.idle_timeout

    def drain(self) -> None:
        """Ends a pause: takes the events that are left from it."""
        self.paused = False
        with guarded():
            if self._core is not None:
                self._drain_core()

    # what goes

    def next_datagram(self, now: float) -> tuple[bytes, Address] | None:
        with guarded():
            core = self._core
            if core is None:
                return None
            self._fresh.clear()
            transmit = core.poll_transmit(now)
            if transmit is None and self._ends.follow(core, now):
                transmit = core.poll_transmit(now)
            self._frames.asked(core, 0 if transmit is None else len(transmit[0]))
            return None if transmit is None else transmit[:2]

    @property
    def overdue(self) -> bool:
        """Whether events had to wait for what has gone now: `catch_up` takes them."""
        core = self._core
        return core is not None and self._frames.behind and not self.paused and not self._frames.hold(core)

    def catch_up(self) -> None:
        with guarded():
            self._drain_core()

    @property
    def deadline(self) -> float | None:
        """When `tick` is due."""
        if self._core is None or self._terminated:
            return None
        with guarded():
            timer = self._core.get_timer()
        return None if timer is None else min(timer[1], self._ends.deadline)

    @property
    def idle_timeout(self) -> float:
        """Seconds after which one of the two sides takes the other for lost. Known once it is established."""
        theirs, ours = self._theirs, self._limits.idle_timeout
        return min(ours, theirs.max_idle_timeout / 1000) if theirs is not None and theirs.max_idle_timeout else ours

    @property
    def _theirs(self) -> QuicTransportParameters | None:
        return self._tls.remote_transport_parameters if self._tls is not None else None

    @property
    def round_trip(self) -> float:
        return (self._core.smoothed_rtt or 0.0) if self._core is not None else 0.0

    @property
    def chain(self) -> list[bytes]:
        """What the peer has shown, DER."""
        assert self._tls is not None
        return _chain(self._tls.tls)

    def ping(self) -> None:
        with guarded():
            self._require_core().send_ping(0)

    def shut(self, code: int, reason: str = "") -> None:
        """Says that the connection is over."""
        with guarded():
            if self._core is not None:
                self._core.close(code, None, reason.encode()[:MAX_REASON])

    # streams; ValueError and RuntimeError of these mean that the stream is over

    def may_open(self) -> bool:
        """Whether the peer takes one more stream now."""
        limits = self._require_core().stream_limits
        return bool(limits[2] < limits[0])

    def open(self) -> int:
        with no_panic():
            return int(self._require_core().open_stream(False))

    def send(self, stream: int, data: bytes | memoryview, *, fin: bool = False) -> None:
        with no_panic():
            core = self._require_core()
            if data:
                self._fresh.add(stream)
            elif fin and stream not in self._fresh and self._ends.takes(core, stream):
                self._frames.ended(stream)
                return
            core.send_stream(stream, data, fin)
            self._frames.said(stream)
            if fin:
                self._frames.ended(stream)

    @property
    def ends_wait(self) -> bool:
        """Whether there are ends that qh3 hasn't been given."""
        return bool(self._ends)

    def unsent(self, stream: int | None = None) -> int:
        """Bytes that haven't been sent once; of all streams by default."""
        return int(self._require_core().get_send_buffer_size(stream))

    def reset(self, stream: int, code: int) -> None:
        self._ends.forget(stream)
        with no_panic():
            self._require_core().reset_stream(stream, code)
        self._frames.ended(stream)
        self._frames.risk(stream)

    def stop(self, stream: int, code: int) -> None:
        with no_panic():
            self._require_core().stop_sending(stream, code)
        self._frames.risk(stream)

    # in place of qh3's own

    def _drain_core(self) -> None:
        core = self._require_core()
        if self.paused and core.state in ("draining", "terminated"):
            # what ends the connection isn't left waiting behind data that nobody reads
            self.paused = False
            self._take(("ended", 0, "the connection was closed"))
        frames, late = self._frames, self._frames.behind
        frames.look(core)
        taken = 0
        while not (self.paused or frames.hold(core)):
            event = core.next_event()
            if event is None:
                frames.behind, self._waiting = False, 0
                return
            taken += 1
            kind = event[0]
            if kind == "crypto_data":
                self._receive_crypto(core, event)
            elif kind == "handshake_done":
                self._handshake_confirmed = True
                core.handshake_confirmed()
            else:
                if (kind == "stream_data" and event[3]) or kind == "stream_reset":
                    frames.ended(event[1], by_peer=True)
                elif kind == "stop_sending":
                    frames.ended(event[1])  # qh3 resets our side of the stream by itself
                    frames.risk(event[1], late=late)
                elif kind == "stream_finished":
                    frames.finished(event[1])
                self._take(event)
                if kind == "connection_terminated":
                    self._state = QuicConnectionState.TERMINATED
                    self._terminated = True
        frames.behind, self._waiting = True, self._waiting - taken

    def _receive_crypto(self, core: QuicConnectionCore, event: Event) -> None:
        assert self._tls is not None
        try:
            self._tls.receive_crypto(tls.Epoch(event[1]), event[3], event[2], version=core.version)
            self._drain_tls()
        except QuicTlsBridgeError as error:
            self._fail(core, int(error.error_code), error.reason_phrase)
        except Exception as error:  # qh3's parsers raise all kinds on a stranger's bytes
            self._fail(core, QuicErrorCode.CRYPTO_ERROR + int(tls.AlertDescription.decode_error), repr(error))
        self._events.clear()
        if self._handshake_complete and not self._told_established:
            self._told_established = True
            if not self._is_client:
                core.handshake_confirmed()
            self._take(("established",))

    def _fail(self, core: QuicConnectionCore, code: int, reason: str) -> None:
        core.close(code, CRYPTO_FRAME, reason.encode()[:MAX_REASON])
        self._take(("ended", code, reason))

    def _call_core(self, operation: Callable[..., Any], *args: Any) -> Any:
        """The core is given a datagram packet by packet, and counts their bytes alone: three times as many may be sent
        before the peer's address is proven. Zeros behind the last packet (aioquic's datagrams) count too, so they are
        given with it.
        """
        if self._filling and operation == self._require_core().receive_datagram:
            packet, addr, now, size = args
            self._taken += len(packet)
            if self._taken < size <= self._taken + self._filling:
                args = packet + bytes(size - self._taken), addr, now, size
                self._filling = 0
        return super()._call_core(operation, *args)

    def _create_tls(self, remote_source_cid: bytes | None) -> QuicTlsBridge:
        bridge = super()._create_tls(remote_source_cid)
        context: Any = bridge.tls
        context.__class__ = Client if self._is_client else Server
        context.verify = self._verify
        # one key share that everybody has: with more of them a client's first flight is two datagrams
        context._supported_groups = [tls.Group.X25519]
        context._signature_algorithms = list(SIGNATURES)
        if self._reset_token is not None:
            bridge.stateless_reset_token = self._reset_token(self.host_cid)
        context.handshake_extensions = [
            (tls.ExtensionType.QUIC_TRANSPORT_PARAMETERS, parameters.ours(bridge, self._limits))
        ]
        if not self._is_client:
            context.prepare()
        return bridge

    def _create_core(self, remote_addr: Address, initial_dcid: bytes, now: float) -> None:
        self._core = parameters.core(
            self._configuration,
            self._limits,
            remote_addr=remote_addr,
            version=self._version or int(QuicProtocolVersion.VERSION_1),
            source=self.host_cid,
            destination=initial_dcid,
            is_proven=self._is_client or self._retry_source_connection_id is not None,
            now=now,
        )
        self._applied_transport_parameters = None
        self._pre_handshake_state_replayed = False


def refusal(
    configurations: Configurations, first: bytes, addr: Address, original: bytes, retried: bytes | None, now: float
) -> bytes | None:
    """The datagram that tells a client, from its `first`, that there is no place for it. No TLS is spent on it."""
    native = Native.server(configurations, _unasked, _unasked, original, retried)
    with guarded():
        native._version = int(QuicProtocolVersion.VERSION_1)
        native._create_core(addr, destination(first), now)
        core = native._require_core()
        core.receive_datagram(first, addr, now, len(first))
        core.close(QuicErrorCode.CONNECTION_REFUSED, 0, b"")
        transmit = core.poll_transmit(now)
    return None if transmit is None else transmit[0]


def _unasked(_: object) -> None:
    raise AssertionError("a connection that is refused has no TLS and no events")


def _chain(context: tls.Context) -> list[bytes]:
    first = context.peer_certificate
    return [] if first is None else [c.public_bytes() for c in (first, *context.peer_certificate_chain)]
