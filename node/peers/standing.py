"""Who of the connected peers counts, and who goes when there are too many. Rules only, no I/O.

Outbound connections are what protects a node from being surrounded: it chose them. Those that count towards the pool's
targets are at most `share` of one subnet (IPv4 /16, IPv6 /32), the eldest of each; the others, and what lookups have
dialled beside the pool, are extras: kept while they are needed, and no reason not to look for better ones. Addresses of
private networks and of this machine have no subnet: what is limited here is what an attacker can buy.

Who goes, of those that came from outside (`inbound_victim`):
    who misbehaves: a score below 0, the lowest first, once its grace is over
    else of the subnet with most inbound peers, more than `crowd`: the lowest score, then the youngest, grace or not
    else the lowest score, then the youngest, of those whose grace is over
    else, when even newcomers alone are too many, the youngest
So who floods inbound slots from few networks pushes out its own; who has stayed stays. Static and protected peers never
go. Of outbound peers (`outbound_victim`) the extras go first, then as above.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from node.peers.reach import Reach, reach_of, reach_of_ip, subnet_of

Score = Callable[[str], float]


@dataclass(slots=True)
class Peer:
    """A connected peer. `asked`: a user wanted this connection; `chosen`: the pool did (else others did, or a lookup in
    passing); `kept`: static or protected; `source`: whose word the pool took, "" if the peer had worked before;
    `since`: seconds of the pool's clock; `tests_left`: addresses that may still be tested, of one that dialled us;
    `ip`: where it is, as the socket has it: `addr` may be a name.
    """

    peer: str
    addr: str
    outbound: bool
    since: float
    asked: bool = False
    chosen: bool = False
    kept: bool = False
    source: str = ""
    tests_left: int = 3
    ip: str = ""

    @property
    def subnet(self) -> str | None:
        """Its subnet, None if that is no matter."""
        return subnet_of(self.ip) if reach_of_ip(self.ip) is Reach.PUBLIC else subnet(self.addr)


@lru_cache(maxsize=32_768)  # three addresses of each peer of a full book: a look asks of all of them
def subnet(addr: str) -> str | None:
    """What an address counts with, None where nothing is counted: private networks, loopback, names."""
    parts = addr.split("/", 3)
    if len(parts) < 3 or parts[1] not in ("ip4", "ip6") or reach_of(addr) is not Reach.PUBLIC:
        return None
    return subnet_of(parts[2])


def extras(peers: Iterable[Peer], share: int, most: int) -> set[str]:
    """The outbound peers that don't count: more than `share` of a subnet, or more than `most` in all."""
    found: set[str] = set()
    places: Counter[str] = Counter()
    outbound = sorted((p for p in peers if p.outbound), key=lambda p: (not p.kept, not p.asked, not p.chosen, p.since))
    for number, peer in enumerate(outbound):
        group = peer.subnet
        if peer.kept or peer.asked:
            pass
        elif number >= most or (group is not None and places[group] >= share):
            found.add(peer.peer)
            continue
        if group is not None:
            places[group] += 1
    return found


def inbound_victim(
    peers: Iterable[Peer], score: Score, now: float, grace: float, crowd: int, *, hard: bool = False
) -> Peer | None:
    """Who of the inbound peers goes, None if nobody may. `hard`: newcomers may, if nobody else."""
    return _victim([p for p in peers if not p.outbound and not p.kept], score, now, grace, crowd, hard=hard)


def outbound_victim(
    peers: Iterable[Peer], surplus: set[str], score: Score, now: float, grace: float, crowd: int
) -> Peer | None:
    """Who of the outbound peers goes: of `surplus` (see `extras`) first."""
    outbound = [p for p in peers if p.outbound and not p.kept]
    first = _victim([p for p in outbound if p.peer in surplus], score, now, grace, crowd)
    return first or _victim(outbound, score, now, grace, crowd)


def _victim(
    peers: list[Peer], score: Score, now: float, grace: float, crowd: int, *, hard: bool = False
) -> Peer | None:
    settled = [p for p in peers if now - p.since >= grace]
    bad = [p for p in settled if score(p.peer) < 0]
    if bad:
        return min(bad, key=lambda p: score(p.peer))
    sizes = Counter(group for p in peers if (group := p.subnet) is not None)
    if sizes and (largest := max(sizes.values())) > crowd:
        crowded = {group for group, size in sizes.items() if size == largest}
        return min((p for p in peers if p.subnet in crowded), key=lambda p: (score(p.peer), -p.since))
    if settled or hard:
        return min(settled or peers, key=lambda p: (score(p.peer), -p.since), default=None)
    return None
