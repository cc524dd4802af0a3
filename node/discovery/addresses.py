"""What Kademlia needs of the node: where peers are, what of it may be told to whom, and connections to them.

Addresses are bytes, as on the wire. They are told to, and believed of, only who is as near as they are
(`node.peers.reach`): a stranger on the Internet neither learns how we are wired nor sends us looking around our own
networks.

Whoever is named in an answer is dialled at once, and naming costs nothing: so each host has a budget, wide enough for
many nodes behind one address. A peer of which it allows no address counts as not tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import trio
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from multiaddr import Multiaddr

from node.errors import BackoffError, DialError, LimitError
from node.host import Host
from node.peers.budget import DialBudget
from node.peers.reach import CACHED, Reach, reach_of, seen_at, subnet_of
from protocols import NotConnected, StreamError
from protocols.kad.keyspace import to_text

Found = Callable[[bytes, Sequence[bytes], bytes], None]

MAX_TOLD = 16
# dials to one host at once, and then one in so many seconds, twice as long after each that fails, up to LONGEST
BUDGET_BURST, BUDGET_PERIOD, BUDGET_LONGEST = 16, 1.0, 60.0
# of a question's time: a dial that nobody answers is to fail by itself, since one that is given up counts for nothing
DIAL_SHARE = 0.8


def to_multiaddr(addr: bytes) -> Multiaddr | None:
    """The address without /p2p/PEERID; None if it is none."""
    try:
        text = str(Multiaddr(addr)).partition("/p2p/")[0]
        return Multiaddr(text) if text else None
    except Exception:  # each of the library's codecs fails in its own way
        return None


@lru_cache(maxsize=CACHED)
def reach_in(addr: bytes) -> Reach | None:
    """How far away it is; None for what nobody can dial."""
    known = to_multiaddr(addr)
    return None if known is None else reach_of(str(known))


def to_texts(addrs: Sequence[bytes]) -> list[str]:
    """Addresses as text, without /p2p/PEERID; those that are none are left out."""
    return list(dict.fromkeys(str(addr) for data in addrs if (addr := to_multiaddr(data)) is not None))


class NodeLinks:
    """The node's connections and addresses, for `protocols.kad`."""

    def __init__(self, node: Host, found: Found, *, timeout: float) -> None:
        """`timeout`: seconds that a question may take, with the dial."""
        self._swarm = node.swarm
        self._dialer = node.dialer
        self._host = node
        self._budget = DialBudget(burst=BUDGET_BURST, period=BUDGET_PERIOD, longest=BUDGET_LONGEST)
        self._timeout = DIAL_SHARE * timeout
        self.found = found

    def is_connected(self, peer: bytes) -> bool:
        return self._swarm.connection(ID(peer)) is not None

    def told(self, peer: bytes, asker: bytes) -> tuple[bytes, ...]:
        peer_id = ID(peer)
        try:
            known = self._swarm.peerstore.addrs(peer_id)
        except PeerStoreError:
            known = []
        connection = self._swarm.connection(peer_id)
        if not known and connection is not None and connection.initiated:  # it hasn't said where it is yet
            addr = to_multiaddr(connection.addr.to_bytes())
            known = [addr] if addr is not None else []
        return self.shown([addr.to_bytes() for addr in known[:MAX_TOLD]], asker)

    def shown(self, addrs: Sequence[bytes], asker: bytes) -> tuple[bytes, ...]:
        return self.believed(addrs, asker)  # the same rule both ways

    def believed(self, addrs: Sequence[bytes], sender: bytes) -> tuple[bytes, ...]:
        ours = sender == self._swarm.self_id.to_bytes()
        reach = Reach.LOOPBACK if ours else seen_at(self._swarm.ip_of(ID(sender)))
        return tuple(addr for addr in addrs if (known := reach_in(addr)) is not None and known >= reach)

    def subnet(self, peer: bytes) -> str | None:
        ip = self._swarm.ip_of(ID(peer))
        return subnet_of(ip) if ip and seen_at(ip) is Reach.PUBLIC else None

    def own_addrs(self) -> tuple[bytes, ...]:
        return tuple(addr.to_bytes() for addr in self._host.listen_addrs[:MAX_TOLD])

    async def connect(self, peer: bytes, addrs: Sequence[bytes]) -> None:
        peer_id = ID(peer)
        wait = self._dialer.unreachable.remaining(to_text(peer), trio.current_time())
        if wait:
            raise NotConnected(f"{peer_id} couldn't be reached lately and isn't dialled for another {wait:.0f} s")
        known = (*self.told(peer, self._swarm.self_id.to_bytes()), *addrs)
        usable = [addr for data in known if (addr := to_multiaddr(data)) is not None]
        try:
            await self._dialer.dial(peer_id, usable, timeout=self._timeout, budget=self._budget)
        except (BackoffError, LimitError) as error:
            raise NotConnected(str(error)) from error
        except DialError as error:
            raise StreamError(str(error)) from error
