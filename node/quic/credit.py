"""When to take from qh3 what a peer has sent, so that its credit follows the readers. Rules only, no I/O.

qh3 gives credit when bytes are taken from it, in the order in which they came: one stream's can't be held back alone.

    taking --SOME bytes wait for their readers--> paused --half of SOME has been read, or PATIENCE is over--> taking
                                                        (when `most` wait, only reading helps)

So a slow reader slows its sender, and a stream that nobody reads delays the others a little each time that what waits
has grown by SOME, until `most` bytes wait.
"""

from __future__ import annotations

import math

SOME = 2 << 20
PATIENCE = 0.05


class Credit:
    """`unread` bytes wait for readers; `resume_at` is when a pause is over at the latest."""

    def __init__(self, most: int) -> None:
        self.unread = 0
        self.resume_at = math.inf
        self._most = most
        self._pause_at = min(SOME, most)

    def came(self, count: int, now: float) -> bool:
        """So many bytes wait besides. Whether to pause."""
        self.unread += count
        if self.unread <= self._pause_at:
            return False
        self.resume_at = math.inf if self.unread >= self._most else now + PATIENCE
        return True

    def read(self, count: int) -> bool:
        """So many bytes wait no more. Whether a pause is over."""
        self.unread -= count
        if self.unread > self._pause_at - min(SOME, self._most) // 2:
            return False
        self._pause_at = min(max(SOME, self.unread + SOME // 2), self._most)
        self.resume_at = math.inf
        return True

    def give_in(self) -> None:
        """PATIENCE is over."""
        self._pause_at = min(self.unread + SOME, self._most)
        self.resume_at = math.inf
