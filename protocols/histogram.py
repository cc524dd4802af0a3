"""A histogram of what is measured often: fixed bounds, plain numbers, no locks. Whoever shows it reads it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

# seconds, from what one machine takes to what somebody gives up on
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# values that wait to be counted, at most, of each histogram
WAITING = 4096


class Histogram:
    """`counts[i]` values were at most `bounds[i]` and more than the bound before; the last of `counts` were more than
    any. `sum` is all of them together."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        """`bounds`: ascending, at least one."""
        self.bounds = tuple(bounds)
        if not self.bounds or list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(f"expected bounds that ascend, got {self.bounds}")
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)


class Gathered(Histogram):
    """A histogram of what is measured so often that `observe` would be felt: `add` only keeps the value. What was added
    is counted by `fold`: by whoever is about to read, and whenever WAITING values wait.
    """

    __slots__ = ("waiting",)

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        super().__init__(bounds)
        self.waiting: list[float] = []

    def add(self, value: float) -> None:
        """One more value."""
        self.waiting.append(value)
        if len(self.waiting) >= WAITING:
            self.fold()

    def fold(self) -> None:
        """Counts what was added."""
        values = sorted(self.waiting)
        self.waiting.clear()
        before = 0
        for index, bound in enumerate(self.bounds):
            upto = bisect_right(values, bound)
            self.counts[index] += upto - before
            before = upto
        self.counts[-1] += len(values) - before
        self.sum += sum(values)
