"""What the benchmarks tell: aligned tables for people, JSON for programs, and the files of `--out`.

Each line of the report has the median of each pairing with its spread (min and max) and its ratio to go's, rust's and
stock's median, and the wall and CPU seconds that a measurement has cost (medians too).

    {"benchmark": "bulk-up", "unit": "MB/s", "medians": {"vouch": 730.1, "vouch-go": 584.0}}     json_lines
    results.json   the machine, versions, every repeat of every pairing with its CPU time
    results.md     the tables, and the floors
    results.png    the medians, where matplotlib is installed
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from interop.bench import chart
from interop.bench.benchmarks import Line
from interop.bench.floors import FLOORS, verdicts
from interop.bench.machine import machine, versions
from interop.bench.measures import Sample
from interop.bench.runner import Measured, Results

YARDSTICKS = ("go", "rust", "stock")
INTEGRITY = (
    "Who measures has counted every byte that came, and compared every echoed frame and ping. Of uploads the listener "
    "told how much it received, and that was compared too, where it is vouch, stock or go; rust and js are taken at "
    "their word. What doesn't fit is a failure, not a figure."
)

Row = Sequence[str]


def json_lines(results: Results, names: Iterable[str]) -> Iterator[str]:
    """One line for each of those lines that something was measured for."""
    wanted = set(names)
    for measured in results.measured:
        for line, values in measured.lines():
            if line.name not in wanted:
                continue
            medians = {pairing: round(statistics.median(some), 3) for pairing, some in values.items()}
            yield json.dumps({"benchmark": line.name, "unit": line.unit, "medians": medians})


def text(results: Results, names: Iterable[str]) -> str:
    """The tables of those lines."""
    wanted = set(names)
    tables = (
        table((f"{line.name}, {line.unit}, {measured.amount} {measured.repeats} times", *head), rows)
        for measured in results.measured
        for line, head, rows in _tables(measured)
        if line.name in wanted
    )
    return "\n\n".join(tables)


def floors_text(results: Results) -> str:
    """The floors and what was measured of them."""
    return table(("floor", *_FLOORS_HEAD), _floor_rows(results)) if any(verdicts(results.medians())) else ""


def write(results: Results, folder: Path) -> Iterator[str]:
    """Writes the files of `--out`; what was written, or why one wasn't. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(as_json(results), indent=1) + "\n")
    (folder / "results.md").write_text(markdown(results))
    yield f"written: {folder / 'results.json'}, {folder / 'results.md'}"
    try:
        chart.draw(results, folder / "results.png")
    except chart.NoMatplotlibError as error:
        yield f"left out: {folder / 'results.png'} ({error})"
    else:
        yield f"written: {folder / 'results.png'}"


def as_json(results: Results) -> dict[str, Any]:
    """The whole run."""
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": results.quick,
        "machine": machine(),
        "versions": versions() | results.versions,
        "integrity": INTEGRITY,
        "failures": results.failures,
        "benchmarks": [
            {
                "name": measured.benchmark.name,
                "about": measured.benchmark.about,
                "amount": measured.amount,
                "repeats": measured.repeats,
                "lines": [
                    {"name": line.name, "unit": line.unit, "better": line.better} for line, _ in measured.lines()
                ],
                "samples": {
                    pairing: [_sample(sample) for sample in samples] for pairing, samples in measured.samples.items()
                },
            }
            for measured in results.measured
        ],
        "floors": [
            {
                "line": verdict.floor.line,
                "pairing": verdict.floor.pairing,
                "floor": str(verdict.floor),
                "measured": round(verdict.measured, 3),
                "met": verdict.met,
            }
            for verdict in verdicts(results.medians())
        ],
    }


def _sample(sample: Sample) -> dict[str, Any]:
    spent = sample.spent
    return {
        "values": {name: round(value, 4) for name, value in sample.values.items()},
        "wall_s": round(spent.wall, 6),
        "cpu_dialler_s": round(spent.dialler, 6),
        "cpu_listener_s": round(spent.listener, 6),
    }


def markdown(results: Results) -> str:
    """The tables as a page."""
    parts = ["# Benchmarks", _about_the_run(results)]
    for measured in results.measured:
        parts.append(f"## {measured.benchmark.name}")
        parts.append(f"{_sentence(measured.benchmark.about)} {measured.amount}, {measured.repeats} times.")
        parts += [
            _markdown_table((f"{line.name}, {line.unit}, {line.better}", *head), rows)
            for line, head, rows in _tables(measured)
        ]
    rows = _floor_rows(results)
    if rows:
        parts += ["## Floors", _markdown_table(("floor", *_FLOORS_HEAD), rows)]
    if results.failures:
        parts += ["## Failures", "\n".join(f"- {failure.splitlines()[0]}" for failure in results.failures)]
    return "\n\n".join(parts) + "\n"


def _about_the_run(results: Results) -> str:
    on = machine()
    with_versions = ", ".join(f"{name} {number}" for name, number in (versions() | results.versions).items())
    return (
        f"{'A quick run' if results.quick else 'A run'} on {on['cores']} cores ({on['cpu']}, {on['kernel']}), each end "
        f"in a process of its own over loopback, the pairings taken in turn. {with_versions}. {INTEGRITY}"
    )


def _sentence(about: str) -> str:
    return about[0].upper() + about[1:] + "."


_COST_HEAD = ("wall s", "dialler CPU s", "listener CPU s")
_FLOORS_HEAD = ("who", "at least or at most", "measured", "")


def _tables(measured: Measured) -> Iterator[tuple[Line, Row, list[Row]]]:
    """For each line: the heads of its columns but the first, and its rows."""
    for line, values in measured.lines():
        medians = {pairing: statistics.median(some) for pairing, some in values.items()}
        against = [name for name in YARDSTICKS if medians.get(name)]
        rows: list[Row] = []
        for pairing, some in values.items():
            spread = (medians[pairing], min(some), max(some))
            ratios = (f"{medians[pairing] / medians[name]:.2f}" for name in against)
            rows.append((pairing, *map(number, spread), *ratios, *_cost(measured.samples[pairing])))
        yield line, ("median", "min", "max", *(f"/ {name}" for name in against), *_COST_HEAD), rows


def _cost(samples: Sequence[Sample]) -> Row:
    spents = [sample.spent for sample in samples]
    wall = statistics.median(spent.wall for spent in spents)
    dialler = statistics.median(spent.dialler for spent in spents)
    listener = statistics.median(spent.listener for spent in spents)
    return tuple(f"{seconds:.3f}" for seconds in (wall, dialler, listener))


def _floor_rows(results: Results) -> list[Row]:
    units = {line.name: line.unit for measured in results.measured for line in measured.benchmark.lines}
    rows: list[Row] = []
    judged = {verdict.floor: verdict for verdict in verdicts(results.medians())}
    for floor in FLOORS:
        if floor not in judged:
            continue
        verdict = judged[floor]
        unit = "" if floor.yardstick else f" {units[floor.line]}"
        rows.append(
            (floor.line, floor.pairing, f"{floor}{unit}", f"{verdict.measured:.2f}", "met" if verdict.met else "missed")
        )
    return rows


def number(value: float) -> str:
    """With about three digits that mean something."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(head: Row, rows: Iterable[Row]) -> str:
    """Lines with aligned columns: the first to the left, the others, being numbers, to the right."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(cells)).rstrip()
        for cells in (tuple(zip(line, widths, strict=True)) for line in lines)
    )


def _markdown_table(head: Row, rows: Iterable[Row]) -> str:
    marks = ("---", *["---:"] * (len(head) - 1))
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, marks, *rows))
