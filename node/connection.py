"""One connection: its muxer, its admission, its streams. Everything that happens on it happens in `run`.

    secured, muxed --> HELD --admitted--> OPEN --surplus--> DRAINING --+
                        |                   |                          |
                        +---refused, late---+------lost, closed--------+--> ENDED

HELD: inbound streams are negotiated up to the peer's proposal and then wait, the handshake's own excepted; nothing of
ours is answered or opened (docs/wire.md). The rules of the handshake are `protocols.handshake.engine`; here they get
their bytes, their deadline and their consequences.
OPEN: proposals are answered, streams go to the registry.
DRAINING: another connection to the peer was kept; new streams go there, this one closes when its streams have ended.

A stranger's bytes can end the connection, and nothing else: `run` lets no exception out.
"""

from __future__ import annotations

import typing
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from libp2p.abc import IMuxedConn, IMuxedStream
from libp2p.connection_types import ConnectionType
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable
from multiaddr import Multiaddr

from node.config import Config
from node.counting import OTHER, Traffic
from node.log import get_logger
from node.peers.limits import Lease
from node.registry import Registry, Slot, StreamLimitError
from node.streams import BROKEN, ConnStream
from node.transports import CLOSE_TIMEOUT
from node.upgrade.multistream import NegotiationError, NotAvailableError, respond, select
from protocols import NotSupported, Protocol, ProtocolError, Stream, StreamError, StreamReset, StreamTimeout
from protocols.handshake.engine import MAX_HELD_STREAMS, Handshake, Refused, Role, Rules
from protocols.handshake.wire import MAX_FRAME, PROTOCOL_ID, Hello

# a connection to drain is kept this long without a stream before it is closed: one of the peer's may be under way
QUIET = 1.0

CLOSED_BY_US = "closed_by_us"
CLOSED_BY_PEER = "closed_by_peer"
BAD_FRAMES = "bad_frames"
LEFT = "the peer closed the connection before it was admitted"
NOT_ADMITTED = "the peer closed the connection without admitting us: another network, or our version is too old for it"

log = get_logger("connection")


class Owner(typing.Protocol):
    """What a connection needs of the swarm that it is one of."""

    config: Config
    rules: Rules
    registry: Registry
    streams_refused: int
    traffic: Traffic
    ask_protocols: Callable[[Connection], Awaitable[Sequence[str]]]

    def register(self, connection: Connection) -> None:
        """The connection is admitted: show it."""

    def forget(self, connection: Connection) -> None:
        """It has ended: take it out of the books."""

    def tell_refused(self, connection: Connection, refusal: Refused) -> None:
        """It ended without having been admitted."""


class Connection(SwarmConn):
    """A connection to one peer. `addr` is the remote address; `hello` what the peer showed, if it showed any."""

    def __init__(self, muxed_conn: IMuxedConn, owner: Owner, direction: str, addr: Multiaddr, lease: Lease) -> None:
        super().__init__(muxed_conn, typing.cast("Any", owner), direction)
        self.peer_id = muxed_conn.peer_id
        self.peer = str(muxed_conn.peer_id)
        self.net = owner
        self.addr = addr
        self.lease = lease
        self.initiated = muxed_conn.is_initiator
        self.hello: Hello | None = None
        self.admitted = trio.Event()
        self.decided = trio.Event()
        self.ended = trio.Event()
        self.refusal: Refused | None = None
        self.reason = ""
        self.draining = False
        self.transport = OTHER
        self.streams: set[ConnStream] = set()  # type: ignore[assignment]
        self.opened_at = trio.current_time()
        self._handshake_seen = False
        self._held = 0
        self._negotiations: set[trio.CancelScope] = set()
        self._scope = trio.CancelScope()
        self.set_transport_info([addr], ConnectionType.DIRECT)

    @property
    def ip(self) -> str:
        """Where the peer is, as the socket has it: `addr` may be a name."""
        return self.lease.host

    @property
    def shaken(self) -> bool:
        """Whether the peer was admitted by a handshake."""
        return self.hello is not None

    @property
    def leaving(self) -> bool:
        """Whether no new streams go on it: another connection was kept, or the peer goes away."""
        return self.draining or getattr(self.muxed_conn, "leaving", False)

    @property
    def way(self) -> str:
        """ "inbound" or "outbound"."""
        return "outbound" if self.initiated else "inbound"

    async def run(self) -> None:
        """The connection's whole life. Returns when it has ended and everything of it is released."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._run_muxer, nursery.cancel_scope)
                    await self.muxed_conn.event_started.wait()
                    self.event_started.set()
                    nursery.start_soon(self._accept_streams, nursery)
                    await self._decide(nursery)
        except Exception as error:  # third-party code on a stranger's bytes: it may raise anything, and ends here
            log.warning("connection_failed", peer=self.peer, addr=str(self.addr), error=repr(error))
            self.reason = self.reason or "error"
        finally:
            with trio.CancelScope(shield=True):
                await self.close(CLOSED_BY_PEER)
                self.lease.release()
                self.net.forget(self)
                if self.refusal is not None and self.refusal.reason != CLOSED_BY_US:
                    self.net.tell_refused(self, self.refusal)
                self.ended.set()

    async def close(self, reason: str = CLOSED_BY_US) -> None:
        """Closes it at once, both ways. Idempotent; safe to cancel."""
        if self.event_closed.is_set():
            return
        self.event_closed.set()
        self.reason = self.reason or reason
        if not self.decided.is_set():
            # an end before the verdict can't be told from a refusal, unless it was our doing
            by_peer = self.reason == CLOSED_BY_PEER
            text = (NOT_ADMITTED if self.initiated else LEFT) if by_peer else self.reason
            self._refuse(Refused(CLOSED_BY_PEER if by_peer else CLOSED_BY_US, text))
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT):
            await self.muxed_conn.close()
        self._scope.cancel()

    async def drain(self) -> None:
        """Closes it once its streams have ended, or after the configured time."""
        self.draining = True
        with trio.move_on_after(self.net.config.drain_timeout):
            quiet_since = trio.current_time()
            while self.draining and trio.current_time() - quiet_since < QUIET:
                if self.streams:
                    quiet_since = trio.current_time()
                with trio.move_on_after(QUIET / 10):
                    await self.ended.wait()
                    return
        if self.draining:  # else the connection that was kept is gone, and this one serves again
            await self.close("duplicate")

    async def open(self, protocol: Protocol) -> Stream:
        """A stream of `protocol` that we open. Safe to cancel.

        Raises NotSupported if the peer doesn't answer it, StreamError if the connection doesn't take it.
        """
        timeout = self.net.config.negotiation_timeout
        stream: ConnStream | None = None
        try:
            with trio.move_on_after(timeout):
                stream = await self.new_stream()
                await select(stream, [protocol.id])
                stream.flow = self.net.traffic.opened(protocol.id, inbound=False)
                opened, stream = Stream(stream, protocol, self.peer), None
                return opened
        except NotAvailableError:
            raise NotSupported(f"{self.peer} doesn't answer {protocol.id}") from None
        except ProtocolError as error:
            raise StreamError(f"{self.peer} didn't agree on {protocol.id}: {error}") from error
        except BROKEN as error:
            raise StreamReset(f"{self.peer} didn't take a stream of {protocol.id}: {error}") from error
        finally:
            if stream is not None:
                await stream.reset()
        raise StreamTimeout(f"{self.peer} didn't agree on {protocol.id} within {timeout:g} s")

    async def new_stream(self) -> ConnStream:  # type: ignore[override]
        """A stream without a protocol yet. Safe to cancel."""
        return ConnStream(await self.muxed_conn.open_stream(), self.streams, self, self.net.traffic.negotiation)

    # admission

    async def _decide(self, nursery: trio.Nursery) -> None:
        """Waits for the verdict until the deadline, and carries it out."""
        timeout = self.net.config.handshake_timeout
        with trio.move_on_after(timeout):
            if self.initiated:
                await self._initiate()
            elif self.net.config.admission == "open":
                nursery.start_soon(self._ask_whether_to_wait)
            await self.decided.wait()
        if not self.decided.is_set():
            self._refuse(Refused("deadline", f"the peer wasn't admitted within {timeout:g} s"))
        if self.refusal is not None and not self.admitted.is_set():
            await self._end_refused()

    async def _initiate(self) -> None:
        """The initiator's side of the handshake, on a stream of its own."""
        handshake = Handshake(Role.INITIATOR, self.net.rules)
        try:
            stream = await self.muxed_conn.open_stream()
            await select(stream, [PROTOCOL_ID])
            await stream.write(handshake.hello())
            hello = None
            while hello is None:
                hello = handshake.receive(await _read(stream, MAX_FRAME))
            self.admit(hello)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT):
                await stream.close()
        except Refused as refusal:
            # a recipient that refuses us says nothing: it can only be guessed why
            self._refuse(Refused(refusal.reason, NOT_ADMITTED) if refusal.reason == "no_hello" else refusal)
        except NotAvailableError:
            if self.net.config.admission == "open":
                self.admit(None)
            else:
                self._refuse(Refused("no_handshake", f"the peer doesn't speak {PROTOCOL_ID}"))
        except Exception as error:  # however the stream breaks: it can't be told from a refusal
            log.debug("handshake_failed", peer=self.peer, error=repr(error))
            self._refuse(Refused(CLOSED_BY_PEER, NOT_ADMITTED))

    async def _answer_handshake(self, stream: ConnStream) -> None:
        """The recipient's side, on the stream that the initiator has opened."""
        handshake = Handshake(Role.RECIPIENT, self.net.rules)
        try:
            hello = None
            while hello is None:
                hello = handshake.receive(await _read(stream, MAX_FRAME))
            await stream.write(handshake.hello())
            self.admit(hello)
            await stream.send_eof()
            if await _read(stream, 1):
                await self.close("bad_hello")  # nothing more is sent on this stream
        except Refused as refusal:
            self._refuse(refusal)

    async def _ask_whether_to_wait(self) -> None:
        """Open admission, as recipient: a peer that doesn't list the handshake is admitted, another one must shake."""
        try:
            protocols = await self.net.ask_protocols(self)
        except NotSupported:
            protocols = ()  # one of us would hold the question until it is admitted, and not say no
        except (ProtocolError, StreamError) as error:
            log.debug("identify_failed", peer=self.peer, error=str(error))
            return  # the deadline decides
        if PROTOCOL_ID not in protocols and not self._handshake_seen:
            self.admit(None)

    def admit(self, hello: Hello | None) -> None:
        """The verdict is yes. What was held goes on."""
        if self.decided.is_set():
            return
        self.hello = hello
        self.lease.established()
        admitted = getattr(self.muxed_conn, "admitted", None)
        if admitted is not None:
            admitted()  # what a peer may send before is the muxer's to count
        for negotiation in self._negotiations:
            negotiation.deadline = trio.current_time() + self.net.config.negotiation_timeout
        self.net.register(self)
        self.admitted.set()
        self.decided.set()

    def _refuse(self, refusal: Refused) -> None:
        if not self.decided.is_set():
            self.refusal = refusal
            self.decided.set()

    async def _end_refused(self) -> None:
        self.reason = "refused"
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT):
            for stream in self.get_streams():
                await stream.reset()
        await self.close("refused")

    # streams

    async def _run_muxer(self, scope: trio.CancelScope) -> None:
        try:
            await self.muxed_conn.start()
        finally:
            fault = getattr(self.muxed_conn, "fault", "")
            if fault:
                self._refuse(Refused(BAD_FRAMES, fault))
            self.reason = self.reason or (BAD_FRAMES if fault else CLOSED_BY_PEER)
            scope.cancel()

    async def _accept_streams(self, nursery: trio.Nursery) -> None:
        while True:
            try:
                muxed = await self.muxed_conn.accept_stream()
            except MuxedConnUnavailable:
                return
            if self._too_many():
                self.net.streams_refused += 1
                # at once where that can be: a peer may open them faster than the event loop turns
                reset = getattr(muxed, "reset_nowait", None)
                await muxed.reset() if reset is None else reset()
                continue
            # counted here and not in the task: a burst of streams arrives before any of their tasks runs
            held = not self.admitted.is_set()
            self._held += held
            nursery.start_soon(self._serve, muxed, held)

    def _too_many(self) -> bool:
        if not self.admitted.is_set():
            return self._held >= MAX_HELD_STREAMS
        # the muxer's own count includes streams that we have closed and the peer hasn't
        return len(getattr(self.muxed_conn, "streams", self.streams)) > self.net.config.max_streams

    async def _serve(self, muxed: IMuxedStream, counted: bool) -> None:
        """One inbound stream, from its negotiation to its end; `counted` among those that are held."""
        stream = ConnStream(muxed, self.streams, self, self.net.traffic.negotiation)
        slot: Slot | None = None

        async def accept(proposal: str) -> bool:
            nonlocal slot, counted
            if proposal == PROTOCOL_ID:
                self._expect_handshake()
                self._held -= counted
                counted = False
                return True
            await self.admitted.wait()
            slot = await self.net.registry.open_soon(self.peer, proposal)
            return slot is not None

        try:
            agreed = await self._in_time(respond(stream, accept, self._may_greet))
            stream.flow = self.net.traffic.opened(agreed, inbound=True)
            if slot is not None:
                await self.net.registry.run(slot, stream)
            else:
                await self._answer_handshake(stream)
        except StreamLimitError as error:
            log.debug("stream_refused", peer=self.peer, error=str(error))
            await stream.reset()
        except _SecondHandshakeError as error:
            log.debug("connection_ended", peer=self.peer, addr=str(self.addr), error=str(error))
            self._refuse(Refused("bad_hello", str(error)))
            await self.close("bad_hello")
        except Exception as error:  # a stream's failure, whatever code it comes from, is the stream's
            log.debug("stream_failed", peer=self.peer, error=repr(error))
            await stream.reset()
        finally:
            self._held -= counted
            if slot is not None:
                slot.release()
            self.streams.discard(stream)

    async def _may_greet(self) -> None:
        # once a Hello may come, nothing more is said on other streams until there is a verdict
        if self._handshake_seen:
            await self.admitted.wait()

    def _expect_handshake(self) -> None:
        if self.initiated:
            raise _SecondHandshakeError("the recipient opened a handshake, which is the initiator's to do")
        if self._handshake_seen or self.decided.is_set():
            raise _SecondHandshakeError("the peer opened a second handshake")
        self._handshake_seen = True

    async def _in_time(self, negotiation: Awaitable[str]) -> str:
        """A negotiation within its time, which starts at admission: before, the connection's deadline holds."""
        timeout = self.net.config.negotiation_timeout
        with trio.CancelScope() as scope:
            if self.admitted.is_set():
                scope.deadline = trio.current_time() + timeout
            self._negotiations.add(scope)
            try:
                return await negotiation
            finally:
                self._negotiations.discard(scope)
        raise NegotiationError(f"expected a protocol to be agreed on within {timeout:g} s")

    # what py-libp2p's own parts call

    async def start(self) -> None:
        await self.run()

    async def _on_muxed_conn_closed(self) -> None:
        self._scope.cancel()


class _SecondHandshakeError(Exception):
    """A handshake that the rules don't allow; it ends the connection."""


async def _read(stream: Any, count: int) -> bytes:
    """Some bytes, b"" at the end: py-libp2p's streams raise there."""
    try:
        data: bytes = await stream.read(count)
    except EOFError:
        return b""
    return data
