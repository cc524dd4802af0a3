"""Bootstrap: the peers that an operator names, dialled until they are connected, and again when they are lost.

    for each peer:  dial --admitted--> wait until it is gone --> dial ...
                     |
                     +--failed--> wait: bootstrap_retry_min, doubling to bootstrap_retry_max, with jitter --> dial

The node serves meanwhile. A peer that refused us is left alone for the dialler's own backoff, where that is longer.
"""

from __future__ import annotations

import random

import trio
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

from node.config import Config
from node.dialer import Dialer
from node.errors import UsageError, VouchError
from node.log import get_logger
from node.peers.backoff import Backoff
from node.swarm import Swarm

# bootstrap addresses stay true for as long as the operator says so: they are kept for a day and renewed at each dial
ADDRESS_TTL = 24 * 60 * 60
# seconds that a connection must last for its end to be no failure of the peer's
STEADY = 30.0

log = get_logger("bootstrap")


class Bootstrap:
    """Keeps the node connected with the peers of `config.bootstrap`."""

    def __init__(self, swarm: Swarm, dialer: Dialer, config: Config, *, rng: random.Random | None = None) -> None:
        self.swarm = swarm
        self.dialer = dialer
        self.peers: dict[ID, list[Multiaddr]] = {}
        for text in config.bootstrap:
            addr = Multiaddr(text)
            if swarm.transport_manager.transport_for_dialing(addr) is None:
                raise UsageError(
                    f"bootstrap: expected an address like /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…, got {text!r}"
                )
            self.peers.setdefault(info_from_p2p_addr(addr).peer_id, []).append(addr)
        self._backoff = Backoff(
            config.bootstrap_retry_min, config.bootstrap_retry_max, capacity=max(1, len(self.peers)), rng=rng
        )

    async def run(self) -> None:
        """Runs until cancelled."""
        async with trio.open_nursery() as nursery:
            for peer_id, addrs in self.peers.items():
                if peer_id == self.swarm.self_id:
                    log.info("bootstrap_is_this_node", peer=str(peer_id))
                    continue
                nursery.start_soon(self._keep, peer_id, addrs)

    async def _keep(self, peer_id: ID, addrs: list[Multiaddr]) -> None:
        peer = str(peer_id)
        while True:
            self.swarm.peerstore.add_addrs(peer_id, addrs, ADDRESS_TTL)
            try:
                connection = await self.dialer.dial(peer_id, addrs)
            except VouchError as error:
                now = trio.current_time()
                wait = max(self._backoff.failed(peer, now), self.dialer.refused.remaining(peer, now))
                log.warning("bootstrap_unreachable", peer=peer, error=str(error), retry_in=round(wait, 1))
                await trio.sleep(wait)
            else:
                connected_at = trio.current_time()
                await connection.ended.wait()
                while (other := self.swarm.connection(peer_id)) is not None:
                    await other.ended.wait()
                now = trio.current_time()
                if now - connected_at >= STEADY:
                    self._backoff.succeeded(peer)
                await trio.sleep(self._backoff.failed(peer, now))
