"""Our node as a host of the benchmark `gossip`: its own signing; own messages go to the mesh, as the others' do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from interop.bench.ends.gossip import TOPIC
from interop.bench.ends.lines import LISTEN
from node.config import Config
from node.identity import Identity
from node.node import Node
from protocols.gossip import GossipParams


class VouchGossip:
    """As `gossip.GossipHost`."""

    def __init__(self, node: Node) -> None:
        self.addr = node.addrs[0]
        self._node = node
        # from now on, so that peers learn of it when they connect
        self._subscription = node.gossip.subscribe(TOPIC)

    async def connect(self, addr: str) -> None:
        await self._node.connect(addr)

    async def publish(self, payload: bytes) -> None:
        await self._node.gossip.publish(TOPIC, payload)

    def mesh(self) -> int:
        return len(self._node.gossip.engine.mesh(TOPIC))

    async def payloads(self) -> AsyncIterator[bytes]:
        async for message in self._subscription:
            message.accept()
            yield message.payload


# a round may have more messages than a node remembers by default, and then takes no more for ten minutes
PARAMS = GossipParams(flood_publish=False, max_seen=2_000_000)


@asynccontextmanager
async def vouch_gossip() -> AsyncIterator[VouchGossip]:
    """A node that gossips."""
    config = Config(listen=(LISTEN,), dht="off", pool="off")
    async with Node(config, identity=Identity.generate(), gossip_params=PARAMS) as node:
        yield VouchGossip(node)
