"""`Node`: the composition root. One line for each part that it puts together, and the life of them all.

node = Node(Config(...), protocols=[echo])
async with node:                      # listens, dials its bootstrap, answers; closed at the block's end
    async with node.stream(peer, echo) as stream: ...

made --__aenter__ / run--> serving --__aexit__ / cancelled--> closed (within a second or two)
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType

import trio
from libp2p.abc import ITransport
from multiaddr import Multiaddr

from node import host as hosts
from node import rules
from node.config import Config
from node.connection import Connection
from node.counting import MetricsSource
from node.discovery.bootstrap import Bootstrap
from node.discovery.dht import Dht
from node.discovery.dnsaddr import is_named, resolve
from node.discovery.exchange import NodeExchange
from node.discovery.mdns import Mdns
from node.discovery.rendezvous import Rendezvous
from node.errors import NotConnectedError, OffError, UsageError
from node.eventlog import log_event
from node.events import Events, Listening, MessageRejected
from node.gossip import NodeGossip
from node.identify import IdentifyService
from node.identity import Identity, load_or_make_key
from node.log import get_logger
from node.names import parse_peer_addr, parse_peer_id
from node.peers.addressbook import AddressBook
from node.peers.service import Peers
from node.point import RendezvousPoint
from node.registry import Registry
from node.remember import Remember, book_path
from node.tasks import TaskStatus
from node.topics import Topics
from node.watch import Watch
from protocols import NotConnected, Protocol, Stream
from protocols.gossip import Gossip, GossipParams
from protocols.heartbeat.engine import Rtt
from protocols.heartbeat.service import HEARTBEAT
from protocols.messages import Answer, Message, MessageDropped, MessageError, Messages, SubProtocol
from protocols.perf import PERF
from protocols.ping import PING, ping

log = get_logger("node")

# what a peer that misses heartbeats is worth less, in points of its gossip score
FLAKY = 10.0


class Node:
    """One node of a network. Public calls are safe to cancel at any point."""

    def __init__(
        self,
        config: Config,
        *,
        identity: Identity | None = None,
        protocols: Iterable[Protocol | SubProtocol] = (),
        transports: Sequence[ITransport] | None = None,
        gossip_params: GossipParams | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Puts the parts together; nothing runs yet. Without `identity` the key of the data directory is used (and made
        at first start), without `transports` TCP and QUIC. `gossip_params` are the gossip router's; what a message may
        be old is how long it remembers messages at least. `clock`: Unix time, for what outlives the node (whom it
        knows, bans, records); simulations give their own.
        """
        self.config = config
        self.identity = identity or load_or_make_key(config.key_path)[0]
        self.events = Events()
        self.events.subscribe(log_event)
        message_rules = rules.message_rules(config, self.identity)
        self.messages = Messages(self, message_rules, on_rejected=self._message_rejected, on_failed=_handler_failed)
        measured = [PERF] if config.perf == "on" else []
        self.registry = Registry([PING, HEARTBEAT, *measured, *map(self._as_protocol, protocols)])
        self.host = hosts.build(
            config,
            self.identity.key_pair(),
            message_rules.signer,
            rules.admission_rules(config),
            self.registry,
            self.events,
            transports,
        )
        self.records = self.host.records
        self.swarm = self.host.swarm
        self.dialer = self.host.dialer
        self.identify = IdentifyService(
            self.swarm,
            agent=config.client_version,
            public_key=self.host.get_public_key().serialize(),
            addrs=self.host.get_transport_addrs,
            records=self.host.records,
        )
        self.addressbook = AddressBook(
            book_path(config, self.identity),
            max_peers=config.max_known_peers,
            max_bans=config.max_bans,
            first_wait=config.redial_backoff_min,
            longest_wait=config.redial_backoff_max,
            clock=clock,
        )
        self.remember = Remember(self.addressbook, self.events, self.dialer, self.identify, self.records)
        self._gossip = (
            NodeGossip(self, config, message_rules, self.host, self.identify, gossip_params)
            if config.gossip == "on"
            else None
        )
        for protocol in self._gossip.router.protocols if self._gossip is not None else ():
            self.registry.add(protocol)
        self.exchange = (
            NodeExchange(
                self,
                self.swarm,
                self.identify,
                self.records,
                self.addressbook,
                config,
                own_addrs=self.host.get_transport_addrs,
            )
            if config.exchange == "on"
            else None
        )
        if self.exchange is not None:
            self.registry.add(self.exchange.protocol)
        self.dht = (
            Dht(self, self.host, self.identify, self.identity, config, clock=clock) if config.dht != "off" else None
        )
        self.point = (
            RendezvousPoint(self.registry, self.identify, self.events, config, clock=clock)
            if config.rendezvous_point != "off"
            else None
        )
        self.rendezvous = Rendezvous(self, self.host, self.identity.key_pair(), config) if config.rendezvous else None
        self.bootstrap = Bootstrap(self.swarm, config)
        self.peers = Peers(self.swarm, self.dialer, self.addressbook, config, score=self._score)
        dht = self.dht.source if self.dht is not None else None
        self.mdns = self._mdns(config) if config.mdns == "on" else None
        sources = (self.bootstrap, self.exchange, dht, self.rendezvous, self.mdns)
        self.peers.sources += [source for source in sources if source is not None]
        for peer in self._gossip.direct if self._gossip is not None else ():
            self.peers.protect(peer, "gossip", remember=False)
        self.watch = Watch(self, self.swarm, rules.heartbeat_params(config)) if config.heartbeat == "on" else None
        self.started_at: float | None = None  # on trio's clock, which may begin at 0
        # its HTTP API, as told by whoever serves it: where it is; of its bounds, by setting, used, limit and refused
        self.api_url = ""
        self.api_bounds: dict[str, Callable[[], tuple[int, int, int]]] = {}
        self.metrics: MetricsSource | None = None  # who counts, as told by whoever does: `node.metrics.Metrics`
        self._life: AbstractAsyncContextManager[None] | None = None

    # life

    async def __aenter__(self) -> Node:
        self._life = self._serving()
        await self._life.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._life is not None
        return await self._life.__aexit__(kind, error, trace)

    async def run(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled."""
        async with self:
            task_status.started()
            await trio.sleep_forever()

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        failure: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                try:
                    await self._start(nursery)
                    yield
                except Exception as error:  # the block's own, or a start that failed: raised as it is, not in a group
                    failure = error
                finally:
                    await self.swarm.close()
                    nursery.cancel_scope.cancel()
        finally:
            if self.started_at is not None:
                log.info("stopped", peer=self.peer_id)
            self.events.close()
        if failure is not None:
            raise failure

    async def _start(self, nursery: trio.Nursery) -> None:
        await nursery.start(self.addressbook.run)
        await nursery.start(self.swarm.serve)
        nursery.start_soon(self.remember.run)
        if self.watch is not None:
            await nursery.start(self.watch.run)
        await nursery.start(self.messages.run)
        if self._gossip is not None:
            await nursery.start(self._gossip.run)
        if self.point is not None:
            await nursery.start(self.point.run)
        for text in self.config.listen:
            await self._listen(text)
        self.started_at = trio.current_time()
        await nursery.start(self.peers.run)
        if self.dht is not None:
            nursery.start_soon(self.dht.run)
        if self.rendezvous is not None:
            nursery.start_soon(self.rendezvous.keep)
        config = self.config
        log.info("started", peer=self.peer_id, network_id=config.network_id, client_version=config.client_version)
        if not config.bootstrap:
            log.info("is_bootstrap", detail="no bootstrap is named, so this node is one: give its address to others")

    async def _listen(self, text: str) -> None:
        text, _, named = text.partition("/p2p/")
        if named and named != self.peer_id:
            raise UsageError(f"listen: expected this node's own ID {self.peer_id} or none, got {named}")
        try:
            addrs = await self.host.listen(Multiaddr(text))
        except UsageError as error:
            # without IPv6 on the machine the default still serves IPv4; what somebody asked for must work
            if text in Config.listen and len(self.config.listen) > 1 and "ip6" in text:
                log.warning("not_listening", addr=text, error=str(error))
                return
            raise
        for addr in addrs:
            self.events.emit(Listening(f"{addr}/p2p/{self.peer_id}"))

    # what a user asks of a node

    @property
    def peer_id(self) -> str:
        """Our peer ID."""
        return self.identity.peer_id

    @property
    def addrs(self) -> list[str]:
        """Our dialable addresses, complete with /p2p/PEERID."""
        return [f"{addr}/p2p/{self.peer_id}" for addr in self.host.listen_addrs]

    @property
    def uptime(self) -> float | None:
        """Seconds since the node has started; None before."""
        return None if self.started_at is None else trio.current_time() - self.started_at

    @property
    def gossip(self) -> Gossip:
        """Publish, subscribe, validate. Raises OffError if it is switched off."""
        return self._node_gossip().router

    @property
    def topics(self) -> Topics:
        """Who decides on the topics of gossip; listen to one. Raises OffError if gossip is switched off."""
        return self._node_gossip().topics

    def _node_gossip(self) -> NodeGossip:
        if self._gossip is None:
            raise OffError('gossip: expected "on" in the settings, got "off"')
        return self._gossip

    def connected_peers(self) -> list[str]:
        """The peers that are admitted now."""
        return [connection.peer for connection in self.swarm.admitted_connections()]

    async def connect(self, addr: str) -> Connection:
        """Connects with the peer at `addr` (a multiaddr with /p2p/PEERID, a /dnsaddr/ name among them), or finds it
        connected.

        Raises UsageError for a bad address, ResolveError, RefusedError, BackoffError, LimitError, DialError.
        """
        peer_id, multiaddr = parse_peer_addr(addr)
        peer = str(peer_id)
        self.peers.user_dials(peer, begins=True)
        try:
            addrs = await resolve(addr, self.bootstrap.resolver) if is_named(addr) else [str(multiaddr)]
            connection = await self.dialer.dial(peer_id, list(map(Multiaddr, addrs)))
            self.peers.asked(peer)
        finally:
            self.peers.user_dials(peer, begins=False)
        return connection

    async def disconnect(self, peer: str) -> None:
        """Closes every connection to a peer; the pool leaves it alone for minutes then. Raises NotConnectedError."""
        peer_id = parse_peer_id(peer)
        if peer_id not in self.swarm.connections:
            raise NotConnectedError(f"there is no connection to {peer}")
        self.peers.leave(peer)
        await self.swarm.close_peer(peer_id)

    @asynccontextmanager
    async def stream(self, peer: str, protocol: Protocol | str) -> AsyncIterator[Stream]:
        """A stream to an admitted peer, closed at the block's end, reset if the block raises. Of a protocol that is
        named by its ID alone and that this node doesn't answer, it carries plain bytes.

        Raises NotConnected, NotSupported if the peer doesn't answer that protocol, and other StreamErrors.
        """
        connection = self.swarm.connection(parse_peer_id(peer))
        if connection is None:
            raise NotConnected(f"there is no connection to {peer}")
        if isinstance(protocol, str):
            protocol = self.registry.get(protocol) or Protocol(protocol, max_frame=None)
        async with await connection.open(protocol) as stream:
            yield stream

    async def send(self, peer: str, protocol: str | SubProtocol, payload: bytes, *, type: int = 0) -> None:
        """A signed one-way message to an admitted peer: returns when it is on its way.

        Raises NotConnected, NotSupported if the peer doesn't answer that sub-protocol, other StreamErrors, and
        ValueError for what can't be sent.
        """
        await self.messages.send(_checked(peer), protocol, payload, type=type)

    async def request(
        self, peer: str, protocol: str | SubProtocol, payload: bytes, *, type: int = 0, timeout: float | None = None
    ) -> Message:
        """A signed question to an admitted peer, and its answer, within `timeout` seconds in all (by default the
        sub-protocol's).

        Raises RemoteError if the peer answers with an error, StreamTimeout, StreamReset if the peer is lost before it
        answers, and as `send` does.
        """
        return await self.messages.request(_checked(peer), protocol, payload, type=type, timeout=timeout)

    def request_stream(
        self, peer: str, protocol: str | SubProtocol, payload: bytes, *, type: int = 0, timeout: float | None = None
    ) -> AbstractAsyncContextManager[Answer]:
        """A question whose answer comes in parts, each within `timeout` seconds:

            async with node.request_stream(peer, "sync", b"from 17") as answer:
                async for part in answer: ...           # answer.parts, answer.bytes: how far it is

        A block that is left early tells the peer to stop. Raises as `request` does.
        """
        return self.messages.request_stream(_checked(peer), protocol, payload, type=type, timeout=timeout)

    async def ping(
        self, peer: str, count: int = 1, interval: float = 0.0, into: list[float] | None = None
    ) -> list[float]:
        """Round-trip times to an admitted peer in seconds, appended to `into` as they come.

        Raises as `stream` does, and ProtocolError.
        """
        return await ping(self, peer, count, interval, into)

    def rtt(self, peer: str) -> Rtt | None:
        """The round trip to a peer by its heartbeats, smoothed, and its variance, in seconds.

        None if the peer isn't watched, or hasn't answered yet: the first beat goes out within `heartbeat_interval`.
        """
        monitor = self.watch.monitor(peer) if self.watch else None
        return monitor.rtt if monitor else None

    def is_flaky(self, peer: str) -> bool:
        """Whether a connected peer misses heartbeats."""
        monitor = self.watch.monitor(peer) if self.watch else None
        return monitor is not None and monitor.flaky

    async def serve(self, protocol: Protocol | SubProtocol) -> None:
        """Answers one more protocol from now on, and tells the peers. Raises UsageError."""
        self.registry.add(self._as_protocol(protocol))
        await self.identify.push_all()

    def _mdns(self, config: Config) -> Mdns:
        return Mdns(self.peer_id, lambda: [str(addr) for addr in self.host.bound_addrs], config)

    def _score(self, peer: str) -> float:
        """What heartbeats and gossip say of a peer: its gossip score, less FLAKY if it misses heartbeats."""
        gossip = self._gossip.score(peer) if self._gossip is not None else 0.0
        return gossip - (FLAKY if self.is_flaky(peer) else 0.0)

    def _as_protocol(self, protocol: Protocol | SubProtocol) -> Protocol:
        if isinstance(protocol, Protocol):
            return protocol
        try:
            return self.messages.serve(protocol)
        except ValueError as error:
            raise UsageError(str(error)) from None

    def _message_rejected(self, error: MessageError | MessageDropped, protocol: str) -> None:
        dropped = isinstance(error, MessageDropped)
        self.events.emit(MessageRejected(error.peer, protocol, error.reason, str(error), dropped))


def _handler_failed(error: Exception, protocol: str, peer: str) -> None:
    log.error("handler_failed", peer=peer, protocol=protocol, exc_info=error)


def _checked(peer: str) -> str:
    """`peer`, if it is a peer ID. Raises UsageError."""
    parse_peer_id(peer)
    return peer
