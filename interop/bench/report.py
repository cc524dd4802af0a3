"""What the benchmarks print: aligned tables for people, one line of JSON a benchmark for programs.

{"benchmark": "dial", "unit": "ms", "medians": {"vouch": 7.1, "vouch-go": 6.2}}
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """A series of measurements, in the unit of its values. Nine in ten don't exceed `p90`."""

    median: float
    low: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """The summary of at least one value."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[math.ceil(0.9 * len(ordered)) - 1])


def json_line(benchmark: str, unit: str, medians: Mapping[str, float]) -> str:
    """One benchmark's medians by pairing or contender."""
    rounded = {name: round(value, 3) for name, value in medians.items()}
    return json.dumps({"benchmark": benchmark, "unit": unit, "medians": rounded})


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines with aligned columns: the first to the left, the others, being numbers, to the right."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) if number else cell.ljust(width) for number, (cell, width) in enumerate(cells))
        for cells in (tuple(zip(line, widths, strict=True)) for line in lines)
    )


def verdict(what: str, bar: float, unit: str, medians: Mapping[str, float]) -> str:
    """Whether every median is below the bar, in words."""
    missed = [name for name, median in medians.items() if median >= bar]
    outcome = f"missed by {', '.join(missed)}" if missed else f"met by {', '.join(medians)}"
    return f"{what} under {bar:g} {unit}: {outcome}"
