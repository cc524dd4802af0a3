"""Which messages have been seen, and what became of them.

An ID is remembered for the whole TTL from its first sight, then forgotten. There is room for `limit` IDs: when it is
full, new ones are refused rather than old ones forgotten, or a flood would bring back what was judged already. Except
that IDs of which the caller said so (`give_way`) make room, the oldest first: what nobody wanted, which at worst is
judged again. Otherwise whoever sends enough of that would keep everything else out.

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

    __slots__ = ("_batches", "_part", "_spare", "limit", "marks", "ttl")

    def __init__(self, ttl: float, limit: int) -> None:
        self.ttl, self.limit = ttl, limit
        self.marks: dict[bytes, Mark] = {}
        self._batches: deque[tuple[float, set[bytes]]] = deque()  # when the last of the batch may be forgotten
        self._spare: dict[bytes, None] = {}  # what may give way, in that order
        self._part = ttl / _PARTS

    def __len__(self) -> int:
        return len(self.marks)

    def get(self, message_id: bytes) -> Mark | None:
        return self.marks.get(message_id)

    def full(self, now: float) -> bool:
        """Whether there is no room for another ID, after what is due, or may give way, was forgotten."""
        if len(self.marks) >= self.limit:
            self.expire(now)
            while len(self.marks) >= self.limit and self._spare:
                self._forget(next(iter(self._spare)))
        return len(self.marks) >= self.limit

    def add(self, now: float, message_id: bytes, mark: Mark) -> None:
        """Remembers a new ID. The caller has asked `full` before."""
        self.marks[message_id] = mark
        if not self._batches or now + self.ttl > self._batches[-1][0]:
            self._batches.append((now + self.ttl + self._part, set()))
        self._batches[-1][1].add(message_id)

    def give_way(self, message_id: bytes) -> None:
        """From now on the ID, which is there, may be forgotten before its time."""
        self._spare[message_id] = None

    def expire(self, now: float) -> None:
        """Forgets what was seen longer ago than the TTL (and a 64th of it)."""
        while self._batches and self._batches[0][0] <= now:
            for message_id in self._batches.popleft()[1]:
                self.marks.pop(message_id, None)
                self._spare.pop(message_id, None)

    def _forget(self, message_id: bytes) -> None:
        del self.marks[message_id], self._spare[message_id]
        for _, ids in self._batches:  # the oldest first, where it is likely to be; there are some 64 at most
            if message_id in ids:
                ids.discard(message_id)
                return
