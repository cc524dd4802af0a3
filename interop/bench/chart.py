"""The medians as a picture: one small chart for each line, one bar for each pairing. Needs matplotlib, an extra."""

from __future__ import annotations

import importlib
import math
import statistics
from pathlib import Path
from typing import Any

from interop.bench.runner import Results

COLUMNS = 4
WIDTH, HEIGHT = 4.0, 2.6  # inches, of one chart
OURS, OTHERS = "#2a6f97", "#a9b4bd"


class NoMatplotlibError(Exception):
    """The picture can't be drawn; the text says how to get what it needs."""


def draw(results: Results, file: Path) -> None:
    """Writes the picture as PNG. Raises NoMatplotlibError, OSError."""
    figure = _figure()
    lines = [(line, values) for measured in results.measured for line, values in measured.lines()]
    rows = max(1, math.ceil(len(lines) / COLUMNS))
    made = figure(figsize=(WIDTH * COLUMNS, HEIGHT * rows), layout="constrained")
    for at, (line, values) in enumerate(lines):
        axes = made.add_subplot(rows, COLUMNS, at + 1)
        names = list(values)[::-1]  # the first is drawn at the bottom
        medians = [statistics.median(values[name]) for name in names]
        spread = [
            [median - min(values[name]) for name, median in zip(names, medians, strict=True)],
            [max(values[name]) - median for name, median in zip(names, medians, strict=True)],
        ]
        colours = [OURS if "vouch" in name else OTHERS for name in names]
        axes.barh(names, medians, xerr=spread, color=colours, error_kw={"linewidth": 0.8})
        axes.set_title(f"{line.name}, {line.unit} ({line.better})", fontsize=9)
        axes.tick_params(labelsize=7)
        axes.set_xlim(left=0)
    made.savefig(file, format="png", dpi=110)


def _figure() -> Any:
    """matplotlib's Figure, which draws without a screen. It is imported only here: it takes a second."""
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise NoMatplotlibError("matplotlib isn't installed: it is in the extra `bench`, as in `make bench`") from error
