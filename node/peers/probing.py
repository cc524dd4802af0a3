"""Tests of the addresses that those who dialled us name: only tested ones are passed on to others, and a bootstrap node
dials nobody else. Rules only: `now` from the caller.

Each inbound peer is tested at one address after the other, first where it comes from, until one has worked or
`Peer.tests_left` are over. Tests go by a rate, and by the budget of each IP, as any dial on a stranger's word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from node.peers.actions import Probe
from node.peers.budget import DialBudget
from node.peers.choice import Candidates, Targets, host
from node.peers.standing import Peer
from protocols.rate import TokenBucket

# seconds after which it is looked whether those that dialled us have named an address by now
PAUSE = 2.0


class Probing:
    """What is under way, and when the next may begin."""

    def __init__(
        self, targets: Targets, book: Candidates, budget: DialBudget, banned: Callable[[str], bool], now: float
    ) -> None:
        self._at_once = targets.max_dials
        self._book, self._budget, self._banned = book, budget, banned
        self._rate = TokenBucket(targets.dial_rate, max(1, targets.max_dials), now)
        self._at = now
        self._under_way: set[str] = set()

    def due(self, peers: Iterable[Peer], now: float) -> list[Probe]:
        """Whom to test now, and where."""
        found: list[Probe] = []
        for known in peers:
            if now < self._at:
                break
            if known.outbound or known.tests_left <= 0 or known.peer in self._under_way:
                continue
            entry = self._book.get(known.peer)
            if entry is not None and any(addr.worked for addr in entry.addrs):
                known.tests_left = 0
            elif entry is not None and len(self._under_way) < self._at_once:
                addrs = [addr for addr in self._book.dialable(entry) if not self._banned(addr)]
                # where it comes from first: that it can be dialled there is most likely
                addrs.sort(key=lambda addr: host(addr) != host(known.addr))
                if addrs and self._budget.take(host(addrs[0]), now):
                    self._under_way.add(known.peer)
                    self._at = now + self._rate.take(now)
                    found.append(Probe(known.peer, addrs[0]))
        return found

    def next_at(self, peers: Iterable[Peer], now: float) -> float:
        """When to look again."""
        waiting = any(not peer.outbound and peer.tests_left for peer in peers)
        return max(self._at, now + PAUSE) if waiting else float("inf")

    def tested(self, now: float, peer: str, known: Peer | None, addr: str, *, ok: bool) -> None:
        """A test has its outcome; `known` if the peer is connected still."""
        self._under_way.discard(peer)
        (self._budget.succeeded if ok else self._budget.failed)(host(addr), now)
        if known is not None:
            known.tests_left = 0 if ok else known.tests_left - 1
