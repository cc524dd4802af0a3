"""The swarm: every connection of the node, inbound and outbound, whatever its transport.

    listener --limits--> upgrade --> Connection.run (admission) --> registered --> streams
    dialler  --upgrade-->    "             "

It is py-libp2p's `Swarm` behind its own interface, with the parts replaced that decide who gets in, when a slot is free
again and when a connection is shown (docs/upstream.md): `connections` and all that reads it hold admitted connections
only; streams are opened on those only; a slot lives as long as its connection; nothing here retries or sleeps.
`serve` owns every task; when it is cancelled all is closed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from libp2p.abc import IMuxedConn, INetConn, INetStream, IPeerStore, IRawConnection, ITransport
from libp2p.io.abc import ReadWriteCloser
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm as LibP2PSwarm
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from node.config import Config
from node.connection import CLOSED_BY_PEER, CLOSED_BY_US, Connection
from node.counting import Connections, Traffic, transport_of
from node.errors import BannedError, DialError, LimitError, NotConnectedError, RefusedError, UsageError, VouchError
from node.events import Admitted, Connected, Disconnected, Event, Events, Refused
from node.hostport import as_multiaddr
from node.log import get_logger
from node.peers.limits import ConnectionLimiter, Lease, Limits
from node.peers.single import surplus
from node.registry import Registry
from node.tasks import TaskStatus
from node.transports import CLOSE_TIMEOUT, Unopened, close_quietly, dial, innermost, remote_addr
from node.upgrade.upgrader import Upgrader
from protocols.handshake import engine

UNKNOWN_HOST = "unknown"

log = get_logger("swarm")


class Swarm(LibP2PSwarm):
    """The connections of one node. `ask_protocols` is set by whoever speaks identify."""

    upgrader: Upgrader
    ask_protocols: Callable[[Connection], Awaitable[Sequence[str]]]
    dial_known: Callable[[ID], Awaitable[Connection]]

    def __init__(
        self,
        peer_id: ID,
        peerstore: IPeerStore,
        upgrader: Upgrader,
        transports: list[ITransport],
        *,
        config: Config,
        rules: engine.Rules,
        registry: Registry,
        events: Events,
    ) -> None:
        super().__init__(peer_id, peerstore, upgrader, transports)
        self.config = config
        self.rules = rules
        self.registry = registry
        self.events = events
        self.limits = ConnectionLimiter(
            Limits(
                max_connections=config.max_connections,
                max_inbound=min(config.max_inbound, config.max_connections),
                max_half_open=config.max_half_open,
                max_half_open_per_ip=config.max_half_open_per_ip,
                max_connections_per_ip=config.max_connections_per_ip,
            )
        )
        self.streams_refused = 0
        self.traffic = Traffic()
        self.counts = Connections()
        # why a peer, or an address, is kept out; None if it isn't
        self.banned: Callable[[str | None, str | None], str | None] = lambda _peer, _ip: None
        self._running: set[Connection] = set()

    # life

    async def serve(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Owns all tasks of the swarm; started once, ends only by cancellation, and closes everything then."""
        try:
            async with trio.open_nursery() as nursery:
                self.background_nursery = nursery
                self.transport_manager.set_background_nursery(nursery)
                self.transport_manager.set_swarm(self)
                self.event_background_nursery_created.set()
                task_status.started()
                await trio.sleep_forever()
        finally:
            self.background_nursery = None

    async def listen_on(self, addr: Multiaddr) -> list[Multiaddr]:
        """Listens on `addr`; the addresses bound, with real ports. Raises UsageError saying why it can't."""
        transport = self.transport_manager.transport_for_listening(addr)
        if transport is None or self.background_nursery is None:
            raise UsageError(f"can't listen on {addr}: no transport of this node listens there")

        async def accepted(stream: ReadWriteCloser) -> None:
            await self._handle_inbound_connection(stream, addr)

        listener = self.transport_manager.add_listen_addr(addr, accepted)
        if listener is None:
            raise UsageError(f"can't listen on {addr}: no transport of this node listens there")
        listener.background_nursery = self.background_nursery  # type: ignore[attr-defined]
        self.listeners[str(addr)] = listener  # before the first await, so that whoever cancels us can close it
        try:
            await listener.listen(addr)
        except Exception as error:  # each transport raises errors of its own; the operator needs the address and reason
            del self.listeners[str(addr)]
            raise UsageError(str(error)) from error
        await self.notify_listen(addr)
        return list(listener.get_addrs())

    async def close(self) -> None:
        """Closes listeners and connections, all at once. Idempotent; takes a second at most."""
        self._closing = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT):
            async with trio.open_nursery() as nursery:
                for listener in list(self.listeners.values()):
                    nursery.start_soon(listener.close)
                for connection in list(self._running):
                    nursery.start_soon(connection.close, "stopping")
            self.listeners.clear()
            for connection in list(self._running):
                await connection.ended.wait()

    # connections

    async def _handle_inbound_connection(self, read_write_closer: ReadWriteCloser, maddr: Multiaddr) -> None:
        """One accepted connection, from its first byte to its end. Lets no exception out but cancellation."""
        remote = read_write_closer.get_remote_address()
        host = remote[0] if remote else UNKNOWN_HOST
        try:
            self._check_ban(None, host)
            lease = self.limits.accept(host)
        except (LimitError, BannedError) as error:
            log.debug("connection_refused", addr=as_multiaddr(host), error=str(error))
            await close_quietly(read_write_closer)
            return
        connection: Connection | None = None
        began, outcome = trio.current_time(), "given_up"
        try:
            with trio.move_on_after(self.config.upgrade_timeout) as scope:
                muxed = await self._upgrade_inbound(read_write_closer)
                transport = transport_of(str(maddr))
                connection = await self._start(muxed, "inbound", remote_addr(muxed, maddr), lease, transport)
                await connection.decided.wait()
                if connection.admitted.is_set():
                    self.counts.seconds["inbound"].observe(trio.current_time() - began)
            if scope.cancelled_caught:
                outcome = "upgrade_timeout"
            if connection is not None:
                if not connection.decided.is_set():
                    await connection.close("deadline")
                await connection.ended.wait()
        except Exception as error:  # a stranger's bytes in third-party code; they end this connection and nothing else
            outcome = "banned" if isinstance(error, BannedError) else "upgrade_failed"
            log.debug("upgrade_failed", addr=as_multiaddr(host), error=repr(error))
        finally:
            if connection is None:
                self.counts.verdicts["inbound", outcome] += 1
                lease.release()
                await close_quietly(read_write_closer)

    async def _upgrade_inbound(self, accepted: ReadWriteCloser) -> IMuxedConn:
        if isinstance(accepted, Unopened):
            await accepted.handshake()
        if isinstance(accepted, IMuxedConn):
            return accepted
        raw = RawConnection(accepted, False, addresses=getattr(accepted, "addrs", None))
        secured = await self.upgrader.upgrade_security(raw, False)
        return await self.upgrader.upgrade_connection(secured, secured.get_remote_peer())

    def can_dial(self, addr: Multiaddr) -> bool:
        """Whether a transport of this node dials such an address."""
        try:
            return self.transport_manager.transport_for_dialing(addr) is not None
        except Exception:  # strangers' addresses: each transport, and each codec under it, fails in its own way
            return False

    async def dial_address(self, addr: Multiaddr, peer_id: ID) -> Connection:
        """Dials one address, to the verdict. The deadline is the caller's.

        Raises RefusedError, LimitError, and DialError for everything that goes wrong on the way.
        """
        transport = self.transport_manager.transport_for_dialing(addr)
        if transport is None:
            raise DialError(f"{addr}: no transport of this node dials it")
        raw: Any = None
        lease: Lease | None = None
        connection: Connection | None = None
        kind, began, outcome = transport_of(str(addr)), trio.current_time(), "given_up"
        try:
            self._check_ban(str(peer_id), None)
            raw = await dial(transport, addr, peer_id)
            remote = raw.get_remote_address()
            self._check_ban(None, remote[0] if remote else None)
            lease = self.limits.dialled(remote[0] if remote else UNKNOWN_HOST)
            muxed = raw if isinstance(raw, IMuxedConn) else await self._upgrade_outbound(raw, peer_id)
            connection = await self._start(muxed, "outbound", addr, lease, kind)
            await connection.decided.wait()
            if connection.refusal is not None:
                await connection.ended.wait()
                raise RefusedError(f"{peer_id} at {addr}: {connection.refusal}", connection.refusal.reason)
        except VouchError as error:
            outcome = _outcome(error)
            raise
        except Exception as error:  # transports, security and muxers raise errors of their own
            outcome = "failed"
            raise DialError(f"{addr}: {innermost(error)}") from error
        else:
            outcome = "connected"
            self.counts.seconds["outbound"].observe(trio.current_time() - began)
            return connection
        finally:
            self.counts.dialled[kind, outcome] += 1
            if connection is None:
                if lease is not None:
                    lease.release()
                if raw is not None:
                    await close_quietly(raw)
            elif not connection.admitted.is_set():
                await connection.close("dial_cancelled")

    async def probe(self, addr: Multiaddr, peer_id: ID) -> None:
        """Sees whether that peer answers at an address: connects, lets it prove its ID, and leaves.

        Takes `dial_timeout` at most. Raises DialError.
        """
        transport = self.transport_manager.transport_for_dialing(addr)
        if transport is None:
            raise DialError(f"{addr}: no transport of this node dials it")
        raw: Any = None
        secured: Any = None
        try:
            with trio.fail_after(self.config.dial_timeout):
                raw = await dial(transport, addr, peer_id)
                if not isinstance(raw, IMuxedConn):
                    secured = await self.upgrader.upgrade_security(raw, True, peer_id)
                elif raw.peer_id != peer_id:
                    raise DialError(f"{addr}: expected {peer_id}, got {raw.peer_id}")
        except trio.TooSlowError:
            raise DialError(f"{addr}: no answer within {self.config.dial_timeout:g} s") from None
        except Exception as error:  # transports and security raise errors of their own
            raise DialError(f"{addr}: {innermost(error)}") from error
        finally:
            if secured is not None or raw is not None:
                await close_quietly(secured or raw)

    async def _upgrade_outbound(self, raw: IRawConnection, peer_id: ID) -> IMuxedConn:
        secured = await self.upgrader.upgrade_security(raw, True, peer_id)
        return await self.upgrader.upgrade_connection(secured, peer_id)

    async def _start(
        self, muxed: IMuxedConn, direction: str, addr: Multiaddr, lease: Lease, transport: str
    ) -> Connection:
        if muxed.peer_id == self.self_id:
            await close_quietly(muxed)
            raise DialError(f"{addr}: that is this node itself")
        if self.background_nursery is None or self._closing:
            await close_quietly(muxed)
            raise DialError(f"{addr}: this node isn't running")
        try:
            self._check_ban(str(muxed.peer_id), None)
        except BannedError:
            await close_quietly(muxed)
            raise
        connection = Connection(muxed, self, direction, addr, lease)
        connection.transport = transport
        self.counts.opened[connection.way, transport] += 1
        self._running.add(connection)
        self.background_nursery.start_soon(connection.run)
        self._emit(Connected(connection.peer, str(addr), direction))
        return connection

    def _check_ban(self, peer: str | None, ip: str | None) -> None:
        """Raises BannedError."""
        reason = self.banned(peer, ip)
        if reason is not None:
            self.limits.refused["banned"] += 1
            raise BannedError(reason)

    def running(self) -> list[Connection]:
        """Every connection, admitted or not."""
        return list(self._running)

    def register(self, connection: Connection) -> None:
        """Shows an admitted connection, and lets go of one that it makes superfluous."""
        peer_id = connection.peer_id
        known = self.connections.setdefault(peer_id, [])
        known.append(connection)
        self.counts.verdicts[connection.way, "admitted"] += 1
        if len(known) == 1:
            version = connection.hello.client_version if connection.hello else ""
            self._emit(Admitted(connection.peer, str(connection.addr), connection.way, version))
        going = surplus(self._open(peer_id), self.self_id.to_bytes(), peer_id.to_bytes())
        nursery = self.background_nursery
        assert nursery is not None
        for other in going:
            other.draining = True  # at once: the task starts later
            nursery.start_soon(other.drain)
        nursery.start_soon(self.notify_connected, connection)

    def forget(self, connection: Connection) -> None:
        """Takes an ended connection out of the books."""
        self._running.discard(connection)
        self.counts.ended[connection.way, connection.transport, connection.reason] += 1
        if connection.refusal is not None:  # each connection has one verdict, whoever is told of it
            self.counts.verdicts[connection.way, connection.refusal.reason] += 1
        self.remove_conn(connection)
        if not connection.admitted.is_set():
            return
        left: list[Connection] = self.connections.get(connection.peer_id, [])  # type: ignore[assignment]
        if left and not self._open(connection.peer_id):
            left[-1].draining = False  # the one that was kept is gone: this one serves again
        if not left:
            self.registry.forget(connection.peer)
            self._emit(Disconnected(connection.peer, str(connection.addr), connection.way, connection.reason))
        if self.background_nursery is not None and not self._closing:
            self.background_nursery.start_soon(self.notify_disconnected, connection)

    def tell_refused(self, connection: Connection, refusal: engine.Refused) -> None:
        """Reports a connection that wasn't admitted."""
        if refusal.reason == CLOSED_BY_PEER and connection.peer_id in self.connections:
            return  # the peer gave up one of two dials, and the other one won
        self._emit(Refused(connection.peer, str(connection.addr), connection.way, refusal.reason, str(refusal)))

    def _emit(self, event: Event) -> None:
        self.events.emit(event)

    def _open(self, peer_id: ID) -> list[Connection]:
        """A peer's connections that aren't on their way out, in the order of admission."""
        connections: list[Connection] = self.connections.get(peer_id, [])  # type: ignore[assignment]
        return [connection for connection in connections if not connection.leaving and not connection.is_closed]

    def connection(self, peer_id: ID) -> Connection | None:
        """The connection on which to open streams to a peer, if there is one."""
        connections = self._open(peer_id)
        return connections[-1] if connections else None

    def ip_of(self, peer_id: ID) -> str:
        """Where a peer is, by whatever connection there is, on its way out or not; "" if there is none."""
        connections = self.connections.get(peer_id)
        return connections[-1].ip if connections else ""  # type: ignore[attr-defined]

    def admitted_connections(self) -> list[Connection]:
        """One connection for each peer that is admitted now."""
        found = (self.connection(peer_id) for peer_id in list(self.connections))
        return [connection for connection in found if connection is not None]

    # py-libp2p's interface, for those of its parts that we use

    async def new_stream(self, peer_id: ID) -> INetStream:
        """A stream to a peer, dialling it by its known addresses if need be. Raises NotConnectedError, DialError."""
        connection = self.connection(peer_id) or await self.dial_known(peer_id)
        try:
            return await connection.new_stream()
        except VouchError:
            raise
        except Exception as error:  # muxers raise errors of their own
            raise NotConnectedError(f"{peer_id}: the connection doesn't take a stream: {error!r}") from error

    async def dial_peer(self, peer_id: ID) -> list[INetConn]:
        return [self.connection(peer_id) or await self.dial_known(peer_id)]

    async def dial_addr(self, addr: Multiaddr, peer_id: ID, source: tuple[str, int] | None = None) -> INetConn:
        return await self.dial_address(addr, peer_id)

    async def close_peer(self, peer_id: ID, reason: str = CLOSED_BY_US) -> None:
        for connection in list(self.connections.get(peer_id, [])):
            await connection.close(reason)  # type: ignore[call-arg]

    async def run(self) -> None:
        raise RuntimeError("this swarm is run by serve()")

    async def add_conn(self, muxed_conn: IMuxedConn, direction: str = "unknown") -> Any:
        raise SwarmException("connections enter this swarm through its listeners and its dialler")

    async def notify_disconnected(self, conn: INetConn) -> None:
        await self._notify("disconnected", conn)


def _outcome(error: VouchError) -> str:
    """What became of a dial, as a fixed word."""
    for kind, word in ((RefusedError, "refused"), (BannedError, "banned"), (LimitError, "limit")):
        if isinstance(error, kind):
            return word
    return "failed"
