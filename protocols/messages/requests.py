"""Which answer is whose. Rules only: no I/O, no clock.

    open() --> WAITING --answer with its ID--> taken out, given to the caller
                       --forget(): the caller was cancelled, or its time is over--> an answer to it is late
                       --fail_all(): the stream is lost--> each caller is told

IDs count up from 1 and are never used twice on a stream, so an answer can't reach a caller who didn't ask for it. Late
answers and those that nobody asked for are counted. A stream has a table of its own: an ID means nothing on another.
"""

from __future__ import annotations

import typing

T = typing.TypeVar("T")


class Requests(typing.Generic[T]):
    """What waits on one stream. `T` is whatever the caller waits with."""

    __slots__ = ("_next", "_waiting", "late", "unknown")

    def __init__(self) -> None:
        self._next = 1
        self._waiting: dict[int, T] = {}
        self.late = 0
        self.unknown = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def open(self, waiter: T) -> int:
        """A new request's ID."""
        number = self._next
        self._next += 1
        self._waiting[number] = waiter
        return number

    def answer(self, request_id: int) -> T | None:
        """Whoever waits for this answer, and doesn't any more; None if nobody does."""
        waiter = self._waiting.pop(request_id, None)
        if waiter is None:
            if 0 < request_id < self._next:
                self.late += 1
            else:
                self.unknown += 1
        return waiter

    def forget(self, request_id: int) -> None:
        """The caller waits no longer. Idempotent."""
        self._waiting.pop(request_id, None)

    def fail_all(self) -> list[T]:
        """Everybody who waited, in the order of their requests."""
        waiting, self._waiting = list(self._waiting.values()), {}
        return waiting
