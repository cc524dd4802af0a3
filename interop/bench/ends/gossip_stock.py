"""py-libp2p's GossipSub on its own host, for the benchmark `gossip`: strict signing, a heartbeat each second.

Two of its defaults can't be measured with: a heartbeat every 120 s, in which no mesh comes to be, and ten messages/s of
one peer, of which the rest is dropped as spam. The degrees are everybody's. It speaks gossipsub 1.1: with 1.2 it sends
IDONTWANT for each message to everybody, and does half as much.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libp2p.abc import IHost, ISubscriptionAPI
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from interop.bench.ends.gossip import TOPIC
from interop.bench.ends.lines import LISTEN
from interop.bench.ends.stock_host import make_host
from node.names import parse_peer_addr


class StockGossip:
    """As `gossip.GossipHost`."""

    def __init__(self, host: IHost, router: GossipSub, pubsub: Pubsub, subscription: ISubscriptionAPI) -> None:
        self.addr = f"{str(host.get_addrs()[0]).partition('/p2p/')[0]}/p2p/{host.get_id()}"
        self._host = host
        self._router = router
        self._pubsub = pubsub
        self._subscription = subscription

    async def connect(self, addr: str) -> None:
        peer_id, multiaddr = parse_peer_addr(addr)
        await self._host.get_network().dial_addr(multiaddr, peer_id)

    async def publish(self, payload: bytes) -> None:
        await self._pubsub.publish(TOPIC, payload)

    def mesh(self) -> int:
        return len(self._router.mesh.get(TOPIC, ()))

    async def payloads(self) -> AsyncIterator[bytes]:
        own = self._host.get_id().to_bytes()
        while True:
            message = await self._subscription.get()
            if message.from_id != own:  # its own too are delivered
                yield message.data


@asynccontextmanager
async def stock_gossip() -> AsyncIterator[StockGossip]:
    """A host that gossips."""
    host = make_host()
    router = GossipSub(
        protocols=[PROTOCOL_ID_V11],
        degree=6,
        degree_low=5,
        degree_high=12,
        heartbeat_interval=1,
        spam_protection_enabled=False,
    )
    pubsub = Pubsub(host, router, strict_signing=True)
    closing = False
    try:
        async with host.run([Multiaddr(LISTEN)]), background_trio_service(pubsub), background_trio_service(router):
            await pubsub.wait_until_ready()
            yield StockGossip(host, router, pubsub, await pubsub.subscribe(TOPIC))
            closing = True
    except Exception:  # a message that comes while it is being closed makes it raise
        if not closing:
            raise
