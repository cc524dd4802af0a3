"""Which messages have been seen, and what became of them.

An ID is remembered for the whole TTL from its first sight, then forgotten. There is room for `limit` IDs: when it is
full, new ones are refused rather than old ones forgotten, or a flood would bring back what was judged already.

Each ID has a mark, which is the caller's: here, a message that awaits its verdict or one of `Fate`.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Generic, TypeVar


class Fate(enum.Enum):
    """What became of a message that has been seen."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    IGNORED = "ignored"
    LATE = "late"  # ignored because no verdict came in time: one late verdict is no error


Mark = TypeVar("Mark")

_PARTS = 64  # IDs expire together that were seen within the same 64th of the TTL


class Seen(Generic[Mark]):
    """IDs with a time to live. All operations take amortised constant time."""

    __slots__ = ("_batches", "_part", "limit", "marks", "ttl")

    def __init__(self, ttl: float, limit: int) -> None:
        self.ttl, self.limit = ttl, limit
        self.marks: dict[bytes, Mark] = {}
        self._batches: deque[tuple[float, list[bytes]]] = deque()  # when the last of the batch may be forgotten
        self._part = ttl / _PARTS

    def __len__(self) -> int:
        return len(self.marks)

    def get(self, message_id: bytes) -> Mark | None:
        return self.marks.get(message_id)

    def full(self, now: float) -> bool:
        """Whether there is no room for another ID, after what is due was forgotten."""
        if len(self.marks) >= self.limit:
            self.expire(now)
        return len(self.marks) >= self.limit

    def add(self, now: float, message_id: bytes, mark: Mark) -> None:
        """Remembers a new ID. The caller has asked `full` before."""
        self.marks[message_id] = mark
        if not self._batches or now + self.ttl > self._batches[-1][0]:
            self._batches.append((now + self.ttl + self._part, []))
        self._batches[-1][1].append(message_id)

    def expire(self, now: float) -> None:
        """Forgets what was seen longer ago than the TTL (and a 64th of it)."""
        while self._batches and self._batches[0][0] <= now:
            for message_id in self._batches.popleft()[1]:
                self.marks.pop(message_id, None)
