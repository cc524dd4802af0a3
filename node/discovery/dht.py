"""Kademlia: py-libp2p's, on this network's protocol ID, with a routing table of peers that we have admitted.

    identified peer that serves Kademlia --> routing table <-- refresh: look ourselves up, then a key in each bucket
                                                  |
                                        answers to others' FIND_NODE

py-libp2p writes `/ipfs/kad/1.0.0` into its modules; `_KademliaHost` stands between, so that on the wire it is the
network's own (docs/wire.md) and no global of the library is touched. Its table takes any peer that was ever heard of;
`_Table` takes those that are admitted and say that they serve. Refreshes are frequent while the table is small and
changes, and slow down to `dht_refresh_interval`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.kad_dht.common import PROTOCOL_ID as LIBRARY_ID
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.kad_dht.peer_routing import PeerRouting
from libp2p.kad_dht.routing_table import RoutingTable
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo

from node.config import Config
from node.errors import VouchError
from node.events import Event, Identified
from node.host import Host
from node.identify import IdentifyService
from node.log import get_logger
from protocols import ProtocolError

FIRST_REFRESH = 0.5
# a table with so many peers doesn't hurry when it changes: in a large network it always does
FULL = 20
REFRESH_TIMEOUT = 60.0
JITTER = 0.25
# py-libp2p serves twelve streams at most, and a Go peer keeps one open for as long as it is connected
INBOUND_STREAMS = 1024
# twenty peers, each with sixteen addresses and a signed record, and as much again
MAX_ANSWER = 128 * 1024

log = get_logger("dht")


class _KademliaHost:
    """The host, with py-libp2p's Kademlia protocol ID exchanged for the network's."""

    def __init__(self, host: Host, protocol: str) -> None:
        self._host = host
        self._protocol = TProtocol(protocol)

    def _ours(self, protocol_id: TProtocol) -> TProtocol:
        return self._protocol if protocol_id == LIBRARY_ID else protocol_id

    def set_stream_handler(self, protocol_id: TProtocol, stream_handler: StreamHandlerFn) -> None:
        self._host.set_stream_handler(self._ours(protocol_id), stream_handler)

    def remove_stream_handler(self, protocol_id: TProtocol) -> None:
        self._host.remove_stream_handler(self._ours(protocol_id))

    async def new_stream(self, peer_id: ID, protocol_ids: Sequence[TProtocol]) -> INetStream:
        ids = [self._ours(protocol_id) for protocol_id in protocol_ids]
        return _Answer(await self._host.new_stream(peer_id, ids))  # type: ignore[return-value]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)


class _Answer:
    """A stream for one answer: py-libp2p takes any number of records in it, and verifies them all at once."""

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream
        self._left = MAX_ANSWER

    async def read(self, n: int | None = None) -> bytes:
        data = await self._stream.read(n)
        self._left -= len(data)
        if self._left < 0:
            raise ProtocolError(f"expected a Kademlia answer of at most {MAX_ANSWER} bytes, got more")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Table(RoutingTable):
    """A routing table of peers that are admitted and serve this network's Kademlia."""

    def __init__(self, local_id: ID, host: Any, serves: Callable[[ID], bool]) -> None:
        # subnet limits are the table's to come, together with our own lookups
        super().__init__(local_id, host)
        self._serves = serves

    async def add_peer(self, peer_obj: PeerInfo | ID, skip_server_mode_check: bool = False) -> bool:
        peer_id = peer_obj.peer_id if isinstance(peer_obj, PeerInfo) else peer_obj
        if not self._serves(peer_id):
            return False
        added: bool = await super().add_peer(peer_obj, skip_server_mode_check=True)
        return added


class Dht:
    """The node's view of the network's Kademlia. `run` keeps the table fresh."""

    def __init__(
        self, host: Host, identify: IdentifyService, config: Config, *, rng: random.Random | None = None
    ) -> None:
        self.protocol = config.kademlia_protocol
        self._host = host
        self._identify = identify
        self._interval = config.dht_refresh_interval
        self._rng = rng or random.Random()
        self._changed = trio.Event()
        facade = _KademliaHost(host, self.protocol)
        mode = DHTMode.SERVER if config.dht == "server" else DHTMode.CLIENT
        # only records whose namespace has a validator are kept: nobody stores what nothing checks
        self._kad = KadDHT(facade, mode, strict_validation=True)  # type: ignore[arg-type]
        self._kad._inbound_limiter.total_tokens = INBOUND_STREAMS
        table = _Table(host.get_id(), facade, self._serves)
        self._kad.routing_table = table
        self._kad.peer_routing = PeerRouting(facade, table)  # type: ignore[arg-type]
        self._kad.provider_store.peer_routing = self._kad.peer_routing
        host.swarm.events.subscribe(self._on_event)

    def table(self) -> list[str]:
        """The peers in the routing table."""
        return sorted(str(peer_id) for peer_id in self._kad.routing_table.get_peer_ids())

    async def find_peer(self, peer_id: ID) -> list[str]:
        """The addresses of a peer, from what is known or by asking the network; empty if it isn't found."""
        info = await self._kad.peer_routing.find_peer(peer_id)
        return [str(addr) for addr in info.addrs] if info else []

    async def run(self) -> None:
        """Refreshes the table until cancelled."""
        wait = FIRST_REFRESH
        while True:
            await trio.sleep(wait * (1 - JITTER * self._rng.random()))
            await self._refresh()
            with trio.move_on_after(wait) as unchanged:
                await self._changed.wait()
            self._changed = trio.Event()
            young = len(self.table()) < FULL
            wait = FIRST_REFRESH if young and not unchanged.cancelled_caught else min(2 * wait, self._interval)

    async def _refresh(self) -> None:
        before = set(self.table())
        with trio.move_on_after(REFRESH_TIMEOUT) as scope:
            try:
                await self._kad.peer_routing.refresh_routing_table()
            except VouchError as error:
                log.debug("refresh_failed", error=str(error))
        self._kad.value_store.cleanup_expired()
        self._kad.provider_store.cleanup_expired()
        if before != set(self.table()):
            self._changed.set()
        log.debug("refreshed", peers=len(self.table()), complete=not scope.cancelled_caught)

    def _serves(self, peer_id: ID) -> bool:
        known = self._identify.known.get(str(peer_id))
        return known is not None and self.protocol in known.protocols

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Identified) and self.protocol in event.protocols:
            nursery = self._host.swarm.background_nursery
            if nursery is not None:
                nursery.start_soon(self._seed, ID.from_base58(event.peer))

    async def _seed(self, peer_id: ID) -> None:
        try:
            if str(peer_id) not in self.table() and await self._kad.routing_table.add_peer(peer_id):
                self._changed.set()
        except Exception as error:  # the library's table on a stranger's data: it must not end the swarm's nursery
            log.warning("seed_failed", peer=str(peer_id), error=repr(error))
