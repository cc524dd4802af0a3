"""What the perf suite reports of its samples, and how it is printed. Rules only, no I/O.

upload:
  iterations: 10
  min: 2.04                 of those that are no outliers
  q1: 2.05                  quartiles of all, between two samples in proportion
  median: 2.06
  q3: 2.06
  max: 2.07
  outliers: [2.02]          more than 1.5 times (q3 - q1) below q1 or above q3
  samples: [2.02, 2.04, …]  all, in order of size
  unit: Gbps
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FENCE = 1.5


@dataclass(frozen=True)
class Summary:
    """Of no samples everything is 0: nothing was measured."""

    minimum: float
    q1: float
    median: float
    q3: float
    maximum: float
    outliers: tuple[float, ...]
    samples: tuple[float, ...]

    @classmethod
    def of(cls, samples: Sequence[float]) -> Summary:
        ordered = tuple(sorted(samples))
        if not ordered:
            return cls(0.0, 0.0, 0.0, 0.0, 0.0, (), ())
        q1, median, q3 = (_quantile(ordered, part) for part in (0.25, 0.5, 0.75))
        low, high = q1 - FENCE * (q3 - q1), q3 + FENCE * (q3 - q1)
        # the quartiles themselves are never beyond the fences, so some sample isn't either
        usual = [sample for sample in ordered if low <= sample <= high]
        outliers = tuple(sample for sample in ordered if not low <= sample <= high)
        return cls(usual[0], q1, median, q3, usual[-1], outliers, ordered)

    def text(self, name: str, unit: str, digits: int) -> str:
        """One section of the results, without an end of line."""

        def several(values: Sequence[float]) -> str:
            return "[" + ", ".join(f"{value:.{digits}f}" for value in values) + "]"

        rows = [("iterations", str(len(self.samples)))]
        figures = (self.minimum, self.q1, self.median, self.q3, self.maximum)
        rows += zip(("min", "q1", "median", "q3", "max"), (f"{figure:.{digits}f}" for figure in figures), strict=True)
        rows += [("outliers", several(self.outliers)), ("samples", several(self.samples)), ("unit", unit)]
        return "\n".join([f"{name}:", *(f"  {key}: {value}" for key, value in rows)])


def _quantile(ordered: Sequence[float], part: float) -> float:
    index = part * (len(ordered) - 1)
    below, above = ordered[math.floor(index)], ordered[math.ceil(index)]
    return below + (above - below) * (index - math.floor(index))
