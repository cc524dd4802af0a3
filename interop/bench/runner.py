"""Runs benchmarks: all on one stage, each in rounds.

Each round measures once in every pairing, so that whatever the machine does meanwhile hits them all alike. Round 0
warms up and isn't counted. A pairing that fails is left out of that benchmark from then on; that is told, and the run
has failed; the others go on.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from interop.bench import stage
from interop.bench.benchmarks import BENCHMARKS, Benchmark, Line
from interop.bench.measures import Sample
from interop.bench.stage import Stage
from interop.peer import PeerError

Say = Callable[[str], None]
SHOWN = 600


@dataclass
class Measured:
    """What one benchmark has measured: samples by pairing, in the order of the rounds."""

    benchmark: Benchmark[Any]
    amount: str
    repeats: int
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def lines(self) -> Iterator[tuple[Line, dict[str, list[float]]]]:
        """The lines that something was measured for, with the values by pairing."""
        for line in self.benchmark.lines:
            values = {
                pairing: [sample.values[line.name] for sample in samples if line.name in sample.values]
                for pairing, samples in self.samples.items()
            }
            if values := {pairing: some for pairing, some in values.items() if some}:
                yield line, values


@dataclass
class Results:
    """A whole run. `failures` are sentences."""

    quick: bool
    measured: list[Measured] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def medians(self) -> dict[str, dict[str, float]]:
        """By line and pairing."""
        return {
            line.name: {pairing: statistics.median(some) for pairing, some in values.items()}
            for measured in self.measured
            for line, values in measured.lines()
        }


def run(
    names: Sequence[str], contenders: Sequence[str], say: Say, *, quick: bool = False, repeats: int | None = None
) -> Results:
    """Runs the benchmarks of those names between those contenders; what it does is said."""
    plan: list[tuple[Benchmark[Any], list[str]]] = []
    there = stage.pairings_of(stage.available(contenders, say))
    for benchmark in BENCHMARKS:
        if benchmark.name not in names:
            continue
        if benchmark.crowded and not stage.crowd_is_there():
            say(f"{benchmark.name}: left out (there is no {stage.CROWD} yet)")
        elif pairings := [name for name in benchmark.pairings if name in there]:
            plan.append((benchmark, pairings))
        else:
            say(f"{benchmark.name}: nothing is left to measure")
    results = Results(quick)
    if plan:
        trio.run(perform, plan, results, say, repeats)
    return results


async def perform(
    plan: Sequence[tuple[Benchmark[Any], Sequence[str]]], results: Results, say: Say, repeats: int | None
) -> None:
    """Measures what is planned, each benchmark in its pairings, into `results`."""
    pairings = dict.fromkeys(name for _, names in plan for name in names)
    crowded = {
        name: benchmark.crowded(benchmark.amount(results.quick))
        for benchmark, names in plan
        if benchmark.crowded
        for name in names
    }
    started = time.monotonic()
    async with stage.opened(pairings, crowded, spare=results.quick) as opened:
        say(f"the ends have started ({time.monotonic() - started:.1f} s)")
        results.versions = opened.versions
        for benchmark, names in sorted(plan, key=lambda row: row[0].crowded is None):
            amount = benchmark.amount(results.quick)
            times = repeats or benchmark.times(results.quick)
            measured = Measured(benchmark, benchmark.show(amount), times)
            results.measured.append(measured)
            say(f"{benchmark.name}: {measured.amount}, {times} times: {', '.join(names)}")
            started = time.monotonic()
            await _rounds(opened, measured, amount, list(names), results.failures, say)
            say(f"{benchmark.name}: done ({time.monotonic() - started:.1f} s)")
    order = [benchmark for benchmark, _ in plan]
    results.measured.sort(key=lambda measured: order.index(measured.benchmark))


async def _rounds(
    opened: Stage, measured: Measured, amount: object, pairings: list[str], failures: list[str], say: Say
) -> None:
    benchmark = measured.benchmark
    for number in range(0 if benchmark.warms_up else 1, measured.repeats + 1):
        for pairing in list(pairings):
            try:
                sample = await benchmark.measure(opened, pairing, amount)
            except PeerError as error:
                pairings.remove(pairing)
                failures.append(f"{benchmark.name}, {pairing}: {_in_short(str(error))}")
                say(failures[-1])
                continue
            if number > 0:
                measured.samples.setdefault(pairing, []).append(sample)


def _in_short(text: str) -> str:
    """What a peer wrote to standard error may be pages: its beginning and its end."""
    return text if len(text) <= 2 * SHOWN else f"{text[:SHOWN]} [...] {text[-SHOWN:]}"
