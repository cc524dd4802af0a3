"""The node's gossip: `protocols.gossip` on this node's peers, settings and key.

    Admitted -----> the router opens its stream        Disconnected --> the router forgets the peer
    Identified ---> once more, if the peer has come to speak pubsub; and its signed record, for peer exchange
    a PRUNE names a peer --> its record is checked, and it is dialled: few at a time, the rest is dropped

What is dialled because a stranger named it is bounded by `connectors` and `max_pending_connections` of the router's
parameters, and by the dialler's budget for each IP address.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import trio
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

from node.config import Config
from node.errors import VouchError
from node.events import Admitted, Disconnected, Event, GossipRejected, Identified
from node.host import Host
from node.identify import IdentifyService
from node.log import get_logger
from node.peers.reach import of_use, seen_at
from node.records import RecordError, Records
from node.tasks import TaskStatus
from node.topics import Topics
from protocols import Network
from protocols.gossip import ForeignNetwork, Gossip, GossipParams, OwnNetwork, PeerScoreParams, PeerScoreThresholds
from protocols.gossip.policy import Policy
from protocols.gossip.rpc import PeerInfo
from protocols.gossip.state import PROTOCOLS
from protocols.messages import MessageDropped, MessageError, Rules

log = get_logger("gossip")


class NodeGossip:
    """Owns the router and its topics, and tells it of the node's peers."""

    def __init__(
        self,
        network: Network,
        config: Config,
        rules: Rules,
        host: Host,
        identify: IdentifyService,
        params: GossipParams | None = None,
    ) -> None:
        self._swarm, self._dialer, self._identify = host.swarm, host.dialer, identify
        self.direct: dict[str, list[Multiaddr]] = {}
        for text in config.gossip_direct:
            addr = Multiaddr(text)
            self.direct.setdefault(str(info_from_p2p_addr(addr).peer_id), []).append(addr)
        self._records = host.records
        window = config.message_max_age + config.message_max_ahead
        foreign = config.gossip_signing == "strict"
        params = params or GossipParams()
        if not foreign:  # what is still young enough must be remembered
            params = replace(params, seen_ttl=max(window, params.seen_ttl))
        policy: Policy = (
            ForeignNetwork(rules.signer) if foreign else OwnNetwork(rules, params.seen_ttl, params.max_seen)
        )
        self.router = self._make(network, config, policy, params, rules, host)
        self.topics = Topics(self.router, config.topic)
        self._named: trio.MemorySendChannel[tuple[PeerInfo, str]] | None = None
        self._redial: trio.MemorySendChannel[str] | None = None

    def _make(
        self, network: Network, config: Config, policy: Policy, params: GossipParams, rules: Rules, host: Host
    ) -> Gossip:
        if config.gossip_router == "stock":
            from node.stock_gossip import StockGossip  # py-libp2p's pubsub, which nobody else needs

            return StockGossip(network, policy, params, host=host, on_failed=_failed, on_rejected=self._rejected)
        return Gossip(
            network,
            policy,
            params,
            score=PeerScoreParams(),
            thresholds=PeerScoreThresholds(),
            max_queue=config.max_gossip_queue,
            direct=self.direct,
            own_peer=rules.peer_id,
            on_connect=self._connect,
            on_redial=self._missing,
            on_failed=_failed,
            on_rejected=self._rejected,
            on_fault=_fault,
            on_slow=_slow,
        )

    def score(self, peer: str) -> float:
        """A peer's gossip score; 0 where the router keeps none."""
        engine = getattr(self.router, "engine", None)
        return engine.scores.score(peer) if engine is not None else 0.0

    async def run(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until cancelled. Started before the node takes connections."""
        params = self.router.params
        unsubscribe = self._swarm.events.subscribe(self._on_event)
        try:
            async with trio.open_nursery() as nursery:
                self._named, named = trio.open_memory_channel[tuple[PeerInfo, str]](params.max_pending_connections)
                for _ in range(params.connectors):
                    nursery.start_soon(self._dial_named, named)
                self._redial, missing = trio.open_memory_channel[str](len(self.direct))
                for _ in range(min(len(self.direct), params.connectors)):
                    nursery.start_soon(self._dial_direct, missing)
                nursery.start_soon(self._first_direct)
                await nursery.start(self.router.run)
                task_status.started()
        finally:
            unsubscribe()

    def _on_event(self, event: Event) -> None:
        match event:
            case Admitted(peer, addr, direction):
                peer_id = ID.from_base58(peer).to_bytes()
                self.router.peer_admitted(peer, outbound=direction == "outbound", ip=ip_of(addr), peer_id=peer_id)
            case Identified(peer, _, protocols):
                known = self._identify.known.get(peer)
                if known is not None and known.record:
                    self.router.set_record(peer, known.record)
                connection = self._swarm.connection(ID.from_base58(peer))
                if connection is not None and not set(PROTOCOLS).isdisjoint(protocols):
                    self.router.peer_admitted(
                        peer,
                        outbound=connection.initiated,
                        ip=ip_of(str(connection.addr)),
                        peer_id=connection.peer_id.to_bytes(),
                    )
            case Disconnected(peer):
                self.router.peer_gone(peer)

    def _rejected(self, error: MessageError | MessageDropped, topic: str) -> None:
        self._swarm.events.emit(
            GossipRejected(error.peer, topic, error.reason, str(error), isinstance(error, MessageDropped))
        )

    def _connect(self, info: PeerInfo, via: str) -> None:
        if self._named is not None and info.record:
            try:
                self._named.send_nowait((info, via))
            except trio.WouldBlock:
                log.debug("peer_exchange_full", peer=via)

    async def _first_direct(self) -> None:
        await trio.sleep(self.router.params.direct_connect_initial_delay)
        for peer in self.direct:
            self._missing(peer)

    def _missing(self, peer: str) -> None:
        """A direct peer isn't connected. One that waits already, or is dialled, is asked for again later."""
        if self._redial is not None:
            with suppress(trio.WouldBlock):
                self._redial.send_nowait(peer)

    async def _dial_direct(self, missing: trio.MemoryReceiveChannel[str]) -> None:
        async for peer in missing:
            try:
                await self._dialer.dial(ID.from_base58(peer), self.direct[peer])
            except VouchError as error:
                log.debug("direct_peer_not_dialled", peer=peer, error=str(error))

    async def _dial_named(self, named: trio.MemoryReceiveChannel[tuple[PeerInfo, str]]) -> None:
        async for info, via in named:
            reach = seen_at(self._swarm.ip_of(ID.from_base58(via)))
            try:
                peer_id, addrs = named_peer(self._records, info, reach)
            except RecordError as error:
                log.debug("bad_peer_record", error=str(error))
                continue
            if self._swarm.connection(peer_id) is not None:
                continue
            try:
                timeout = self.router.params.connection_timeout
                await self._dialer.dial(peer_id, addrs, timeout=timeout, budget=self._dialer.budget)
            except VouchError as error:
                log.debug("named_peer_not_dialled", peer=str(peer_id), error=str(error))


def named_peer(records: Records, info: PeerInfo, reach: int) -> tuple[ID, list[Multiaddr]]:
    """Who a PRUNE has named, and where it is, as far as one who is seen at `reach` may say. Raises RecordError for a
    record that isn't its own, or an old one."""
    signer = ID.from_base58(records.verify(info.record).peer)
    if signer.to_bytes() != info.peer_id:
        raise RecordError("peer", f"expected the record of {info.peer_id[:64].hex()}, got that of {signer}")
    return signer, [Multiaddr(addr) for addr in of_use(records.accept(info.record).addrs, reach)]


def ip_of(addr: str) -> str | None:
    """The IP address in a multiaddr, if it begins with one."""
    parts = addr.split("/")
    return parts[2] if len(parts) > 2 and parts[1] in ("ip4", "ip6") else None


def _fault(error: Exception, where: str) -> None:
    log.error("gossip_fault", where=where, exc_info=error)


def _slow(seconds: float) -> None:
    log.warning("slow_heartbeat", seconds=round(seconds, 3))


def _failed(error: Exception, topic: str) -> None:
    log.error("validator_failed", topic=topic, exc_info=error)
