"""`Metrics`: what a collector reads, as Prometheus wants it and as programs do.

The text is written here: `prometheus_client` takes four times as long for the same, and all else of it would lie idle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import trio

from node.metrics.catalogue import METRICS
from node.metrics.collector import Collector
from node.metrics.events import EventCounts
from node.metrics.lag import Lag
from node.node import Node
from node.tasks import TaskStatus
from protocols.histogram import Histogram

if TYPE_CHECKING:
    from node.api.http.serve import Server


class Metrics:
    """All numbers of one node. Made before the node starts; `node.metrics` from then on."""

    def __init__(self, node: Node) -> None:
        self._events, self._lag = EventCounts(), Lag()
        self._collector = Collector(node, self._events, self._lag)
        node.events.subscribe(self._events.on_event)
        node.metrics = self

    def watch_api(self, api: Server) -> None:
        """Tells of the node's HTTP API too."""
        self._collector.api = api

    async def run(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Measures how late the event loop is, until cancelled. All else works without it."""
        task_status.started()
        await self._lag.run()

    def text(self) -> bytes:
        """Every metric of the catalogue in Prometheus' text format, 0.0.4."""
        lines: dict[str, list[str]] = {name: [head] for name, head in _HEADS.items()}
        for name, labels, value in self._collector.read():
            told = lines[name]
            if isinstance(value, Histogram):
                told += _histogram_lines(name, labels, value)
            else:
                told.append(f"{name}{_labels(METRICS[name].labels, labels)} {value}")
        return "\n".join([line for told in lines.values() for line in told]).encode() + b"\n"

    def snapshot(self) -> Mapping[str, Any]:
        """Every metric by name: its kind, and its values, each with its labels. A histogram's value is its count, its
        sum, and for each bound how many were at most that.
        """
        found: dict[str, dict[str, Any]] = {
            name: {"kind": metric.kind, "values": []} for name, metric in METRICS.items()
        }
        for name, labels, value in self._collector.read():
            shown = _shown(value) if isinstance(value, Histogram) else value
            found[name]["values"].append(
                {"labels": dict(zip(METRICS[name].labels, labels, strict=True)), "value": shown}
            )
        return found


_HEADS = {name: f"# HELP {name} {one.help}\n# TYPE {name} {one.kind}" for name, one in METRICS.items()}


@lru_cache(4096)
def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    """As they are written: `{name="value",…}`, nothing where there are none."""
    if not names:
        return ""
    pairs = [f'{name}="{value.translate(_ESCAPED)}"' for name, value in zip(names, values, strict=True)]
    return f"{{{','.join(pairs)}}}"


_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def _histogram_lines(name: str, values: tuple[str, ...], histogram: Histogram) -> Iterator[str]:
    names, shown, count = (*METRICS[name].labels, "le"), _labels(METRICS[name].labels, values), 0
    for bound, count in _cumulated(histogram):
        least = "+Inf" if bound == math.inf else str(float(bound))
        yield f"{name}_bucket{_labels(names, (*values, least))} {count}"
    yield f"{name}_sum{shown} {histogram.sum}"
    yield f"{name}_count{shown} {count}"


def _cumulated(histogram: Histogram) -> Iterator[tuple[float, int]]:
    total = 0
    for bound, count in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
        total += count
        yield bound, total


def _shown(histogram: Histogram) -> dict[str, Any]:
    *buckets, (_, count) = _cumulated(histogram)
    return {"count": count, "sum": histogram.sum, "buckets": buckets}
