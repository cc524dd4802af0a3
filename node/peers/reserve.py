"""The reserve: peers (bootstraps) that are dialled when nobody else is left to dial, and when that is. Rules only.

With few peers known: at once. With as many as `low` that have worked, only when these don't answer for a while; longer
when there is no answer from anybody at all, for then it is us who are cut off, and the others will be there when we are
back.
"""

from __future__ import annotations

from collections.abc import Sequence

from node.peers.choice import Candidates, Targets

MAX_RESERVE = 256
MAX_ADDRS = 8
# seconds that others have to answer: when alone, and when somebody is connected
ALONE_PATIENCE = 600.0
PATIENCE = 60.0
# seconds for which it holds that the book knows enough others
FILLED_FOR = 60.0
# so many who say no show that the network is there
NOES = 3


class Reserve:
    """`peers`: the addresses of each. `alone_since`: since when nobody is connected, None if somebody is."""

    def __init__(self, targets: Targets, book: Candidates, now: float) -> None:
        self.peers: dict[str, tuple[str, ...]] = {}
        self.alone_since: float | None = now
        self._targets, self._book = targets, book
        self._progress = now
        self._noes = 0
        self._filled, self._filled_at = False, float("-inf")

    def add(self, peer: str, addrs: Sequence[str]) -> bool:
        """Names a peer; past MAX_RESERVE it is left out."""
        if peer not in self.peers and len(self.peers) >= MAX_RESERVE:
            return False
        self.peers[peer] = tuple(dict.fromkeys(addrs))[:MAX_ADDRS]
        return True

    def came(self, now: float) -> None:
        """Somebody is connected."""
        self.alone_since, self._progress = None, now

    def went(self, now: float, left: int) -> None:
        """Somebody is connected no longer; so many are."""
        if not left:
            self.alone_since, self._noes = now, 0
        if left + 1 == self._targets.low:
            self._progress = now

    def said_no(self) -> None:
        """Somebody has refused us, or a machine has."""
        self._noes += 1

    def due(self, now: float, *, low: bool) -> bool:
        """Whether the reserve may be dialled, nobody else being left. `low`: there are fewer peers than that."""
        if not self.peers:
            return False
        if now - self._filled_at >= FILLED_FOR or not self._filled:
            worked = sum(entry.worked and entry.peer not in self.peers for entry in self._book.entries())
            self._filled, self._filled_at = worked >= self._targets.low, now
        if not self._filled:
            return True
        if not low:
            return False
        cut_off = self.alone_since is not None and self._noes < min(NOES, self._targets.low)
        return now - self._progress >= (ALONE_PATIENCE if cut_off else PATIENCE)
