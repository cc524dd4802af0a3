"""`Metrics`: what a collector reads, as Prometheus wants it and as programs do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import trio
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector as PrometheusCollector

from node.metrics.catalogue import METRICS, Metric
from node.metrics.collector import Collector, Reading
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
        self._registry = CollectorRegistry()
        self._registry.register(_Families(self._collector))
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
        return generate_latest(self._registry)

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


class _Families(PrometheusCollector):
    """The collector in `prometheus_client`'s shape: a family for each metric, with or without values."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def describe(self) -> Iterable[Family]:
        return [_family(metric) for metric in METRICS.values()]

    def collect(self) -> Iterator[Family]:
        families = {name: _family(metric) for name, metric in METRICS.items()}
        for name, labels, value in self._collector.read():
            _add(families[name], Reading(name, labels, value))
        yield from families.values()


def _family(metric: Metric) -> Family:
    kinds: dict[str, Callable[..., Family]] = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    return kinds[metric.kind](metric.name, metric.help, labels=metric.labels)


def _add(family: Family, reading: Reading) -> None:
    value = reading.value
    if isinstance(value, Histogram):
        assert isinstance(family, HistogramMetricFamily)
        buckets = [(_bound(least), count) for least, count in _cumulated(value)]
        family.add_metric(reading.labels, buckets, value.sum)
    else:
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
        family.add_metric(reading.labels, value)


def _bound(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(float(value))


def _cumulated(histogram: Histogram) -> Iterator[tuple[float, int]]:
    total = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        yield bound, total


def _shown(histogram: Histogram) -> dict[str, Any]:
    *buckets, (_, count) = _cumulated(histogram)
    return {"count": count, "sum": histogram.sum, "buckets": buckets}
