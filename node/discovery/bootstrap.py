"""Bootstrap: the peers that an operator names, to find the network through. A source like any other.

What it tells the pool is the pool's reserve (`node.peers.pool`): dialled at once by a node that knows few others, and
by one that does only when these don't answer. A node that restarts comes back without its bootstrap. In a network
smaller than the pool's targets, where it is always hungry, they stay connected and are dialled again when they are
lost: after bootstrap_retry_min seconds, doubling to bootstrap_retry_max, with jitter.
"""

from __future__ import annotations

import trio
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

from node.config import Config
from node.discovery.source import Feed
from node.errors import UsageError
from node.log import get_logger
from node.swarm import Swarm

log = get_logger("bootstrap")


class Bootstrap:
    """Tells the pool of `config.bootstrap`."""

    name = "bootstrap"

    def __init__(self, swarm: Swarm, config: Config) -> None:
        """Raises UsageError for an address that this node can't dial."""
        self.swarm = swarm
        self.peers: dict[str, list[str]] = {}
        for text in config.bootstrap:
            addr = Multiaddr(text)
            if not swarm.can_dial(addr):
                raise UsageError(
                    f"bootstrap: expected an address like /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…, got {text!r}"
                )
            self.peers.setdefault(str(info_from_p2p_addr(addr).peer_id), []).append(str(addr))

    async def run(self, feed: Feed) -> None:
        """Runs until cancelled."""
        for peer, addrs in self.peers.items():
            if peer == str(self.swarm.self_id):
                log.info("bootstrap_is_this_node", peer=peer)
                continue
            feed.found(peer, addrs, addrs_trusted=True)
        await trio.sleep_forever()
