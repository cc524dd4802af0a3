"""Bootstrap: the peers that an operator names, to find the network through. A source like any other.

What it tells the pool is the pool's reserve (`node.peers.pool`): dialled at once by a node that knows few others, and
by one that does only when these don't answer. A node that restarts comes back without its bootstrap. In a network
smaller than the pool's targets, where it is always hungry, they stay connected and are dialled again when they are
lost: after bootstrap_retry_min seconds, doubling to bootstrap_retry_max, with jitter.

Names (/dnsaddr/example.org, with or without a peer ID behind them) are asked for at the start and every RENEW seconds
from then on, since what they stand for changes; one that can't be resolved is asked for again after the same pauses.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import trio
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

from node.config import Config
from node.discovery.dnsaddr import DnsResolver, ResolveError, Resolver, is_named, resolve
from node.discovery.source import Feed
from node.errors import UsageError
from node.log import get_logger
from node.names import is_peer_id
from node.peers.backoff import Backoff
from node.repeats import worth_a_warning
from node.swarm import Swarm

RENEW = 3600.0

log = get_logger("bootstrap")


class Bootstrap:
    """Tells the pool of `config.bootstrap`."""

    name = "bootstrap"

    def __init__(
        self, swarm: Swarm, config: Config, *, resolver: Resolver | None = None, rng: random.Random | None = None
    ) -> None:
        """Raises UsageError for an address that this node can't dial."""
        self.swarm = swarm
        self.names = [text for text in config.bootstrap if is_named(text)]
        self.resolver = resolver or DnsResolver(config.dns_servers)
        self._backoff = Backoff(
            config.bootstrap_retry_min, config.bootstrap_retry_max, capacity=max(1, len(self.names)), rng=rng
        )
        plain = [text for text in config.bootstrap if not is_named(text)]
        for text in plain:
            if not swarm.can_dial(Multiaddr(text)):
                raise UsageError(
                    f"bootstrap: expected an address like /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…, got {text!r}"
                )
        self.peers = _by_peer(plain)

    async def run(self, feed: Feed) -> None:
        """Runs until cancelled."""
        self._tell(feed, self.peers)
        async with trio.open_nursery() as nursery:
            for name in self.names:
                nursery.start_soon(self._follow, name, feed)
            await trio.sleep_forever()

    async def _follow(self, name: str, feed: Feed) -> None:
        failures = 0  # in a row
        while True:
            try:
                addrs = await resolve(name, self.resolver)
            except ResolveError as error:
                wait = self._backoff.failed(name, trio.current_time())
                failures += 1
                tell = log.warning if worth_a_warning(failures) else log.debug
                tell("bootstrap_unresolved", name=name, error=str(error), retry_in=round(wait, 1))
            else:
                wait = RENEW
                self._backoff.succeeded(name)
                failures = 0
                # whose address doesn't end with a peer's ID, or goes through a peer, is nobody that can be dialled
                named = [addr for addr in addrs if addr.count("/p2p/") == 1 and is_peer_id(addr.rpartition("/p2p/")[2])]
                peers = _by_peer(addr for addr in named if self.swarm.can_dial(Multiaddr(addr)))
                if not peers:
                    log.warning("bootstrap_unusable", name=name, addrs=addrs, detail="none can be dialled by this node")
                self._tell(feed, peers)
            await trio.sleep(wait)

    def _tell(self, feed: Feed, peers: dict[str, list[str]]) -> None:
        for peer, addrs in peers.items():
            if peer == str(self.swarm.self_id):
                log.info("bootstrap_is_this_node", peer=peer)
                continue
            feed.found(peer, addrs)


def _by_peer(addrs: Iterable[str]) -> dict[str, list[str]]:
    peers: dict[str, list[str]] = {}
    for text in addrs:
        addr = Multiaddr(text)
        peers.setdefault(str(info_from_p2p_addr(addr).peer_id), []).append(str(addr))
    return peers
