"""When each connected peer is asked for others. Rules only: `now` and randomness come from the caller.

    met --within FIRST--> due --begin--> under way --ended--> due again after `interval`, a quarter more or less
                           ^                                     |
                           +----- hungry: after `hungry_pause` --+        gone: forgotten, wherever it was

One question for each peer at a time. Hungry means that the caller needs peers now: whoever was asked longest ago comes
first, but nobody more often than `hungry_pause` says, since peers limit how often they answer.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

FIRST = 1.0
JITTER = 0.25


@dataclass(slots=True)
class _Peer:
    due: float
    asked: float = -math.inf
    under_way: bool = False


class Rounds:
    """The peers that can be asked, and when; as many as the caller is connected with."""

    def __init__(self, interval: float, *, hungry_pause: float, rng: random.Random | None = None) -> None:
        self.interval = interval
        self.hungry_pause = min(hungry_pause, interval)
        self._rng = rng or random.Random()
        self._peers: dict[str, _Peer] = {}
        self._next: float | None = None  # `next_at`, unless something has changed

    def met(self, peer: str, now: float) -> None:
        """A peer can be asked. Said again, it changes nothing."""
        if peer not in self._peers:
            self._peers[peer] = _Peer(now + FIRST * self._rng.random())
            self._next = None

    def gone(self, peer: str) -> None:
        """A peer can't be asked any more."""
        self._peers.pop(peer, None)
        self._next = None

    def hungry(self, now: float) -> int:
        """More peers are needed now; how many questions that makes due, sooner or later within `hungry_pause`."""
        sooner = 0
        for known in self._peers.values():
            due = max(now, known.asked + self.hungry_pause)
            if due < known.due and not known.under_way:
                known.due = due
                sooner += 1
                self._next = None
        return sooner

    @property
    def next_at(self) -> float:
        """When the next question is due; never, if nobody can be asked."""
        if self._next is None:
            self._next = min((known.due for known in self._peers.values() if not known.under_way), default=math.inf)
        return self._next

    def begin(self, now: float) -> str | None:
        """Whom to ask now, whoever was asked longest ago first; None if nobody is due."""
        if now < self.next_at:
            return None
        due = [(known.asked, peer) for peer, known in self._peers.items() if known.due <= now and not known.under_way]
        if not due:
            return None
        _, peer = min(due)
        self._next = None
        self._peers[peer].under_way = True
        self._peers[peer].asked = now
        return peer

    def ended(self, peer: str, now: float) -> None:
        """A question has its answer, or won't have one."""
        known = self._peers.get(peer)
        if known is not None:
            self._next = None
            known.under_way = False
            known.due = now + self.interval * (1 + JITTER * (2 * self._rng.random() - 1))

    def __len__(self) -> int:
        return len(self._peers)
