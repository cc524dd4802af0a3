"""When a peer that refused or failed may be dialled again. Rules only: `now` and randomness come from the caller.

    n-th failure in a row: wait min(first * 2^(n-1), longest), and up to a quarter more by chance
    a success forgets everything

The table is bounded: past `capacity` the peer that failed longest ago is forgotten.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

JITTER = 0.25


@dataclass(slots=True)
class _Entry:
    failures: int
    until: float


class Backoff:
    """Growing waits for each peer."""

    def __init__(
        self, first: float, longest: float, *, capacity: int, rng: random.Random | None = None, jitter: float = JITTER
    ) -> None:
        self.first = first
        self.longest = longest
        self.capacity = capacity
        self.jitter = jitter
        self._rng = rng or random.Random()
        self._entries: dict[str, _Entry] = {}

    def failed(self, peer: str, now: float) -> float:
        """Records a failure; the seconds to wait from now."""
        entry = self._entries.pop(peer, None) or _Entry(0, now)
        entry.failures += 1
        wait = min(self.first * 2.0 ** min(entry.failures - 1, 62), self.longest)
        wait *= 1 + self.jitter * self._rng.random()
        entry.until = now + wait
        if len(self._entries) >= self.capacity:
            del self._entries[next(iter(self._entries))]
        self._entries[peer] = entry
        return wait

    def succeeded(self, peer: str) -> None:
        """Forgets the peer's failures."""
        self._entries.pop(peer, None)

    def remaining(self, peer: str, now: float) -> float:
        """Seconds until the peer may be dialled; 0 if it may now."""
        entry = self._entries.get(peer)
        return max(0.0, entry.until - now) if entry else 0.0

    def __len__(self) -> int:
        return len(self._entries)
