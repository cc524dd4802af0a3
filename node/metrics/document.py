"""docs/metrics.md, made from the catalogue: `make metrics-doc`, or this module run as a program, into that file."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from node.metrics.bounds import BOUNDS, UNCOUNTED
from node.metrics.catalogue import CATALOGUE, MOST, Metric

INTRODUCTION = f"""\
# Metrics

A running node tells its numbers at `http://127.0.0.1:4780/metrics`, in Prometheus' text format; `vouch metrics` prints
the same, `vouch metrics --json` and `/v1/metrics` give it to programs.
[docker/prometheus.yml](../docker/prometheus.yml) scrapes the nodes of `docker-compose.yml`, with alert rules
([docker/prometheus-rules.yml](../docker/prometheus-rules.yml)) and dashboards ([docker/grafana](../docker/grafana)):

<!-- not run: needs a Docker engine; `make docker-test` has one, without images -->
```
docker compose --profile monitoring up --build --detach      # Grafana: http://127.0.0.1:3000
```

A program that embeds a node makes them itself, before the node starts:

```python
from node import Config, Identity, Node
from node.metrics import Metrics

node = Node(Config(), identity=Identity.generate())
metrics = Metrics(node)
print(metrics.text().decode().splitlines()[0])
```

```text
# HELP vouch_bound_used How much of a bound is used
```

The parts of a node count in plain numbers; a scrape reads them, and between two nothing is spent (figures:
[performance.md](performance.md)). What only grows ends in `_total` and begins with 0 at each start. Every metric is
there from the start, those of parts that are off without values. No label holds what a stranger says: there are no peer
IDs, addresses or agents, and of protocols only those that this node speaks. Of what programs name (protocols, topics)
the first {MOST} have labels of their own, all others together are `other`.

This page is made from `node/metrics/catalogue.py` (`make metrics-doc`); a test compares it with a live node.
"""

QUERIES: tuple[tuple[str, str], ...] = (
    ("Bounds that are nearly used up", "vouch_bound_used / vouch_bound_limit > 0.9"),
    ("Bounds that say no", "rate(vouch_bound_refused_total[5m]) > 0"),
    ("Peers", "sum by (instance) (vouch_peers)"),
    ("Bytes a second by protocol", "sum by (protocol, direction) (rate(vouch_stream_bytes_total[1m]))"),
    (
        "99 % of messages are here within",
        "histogram_quantile(0.99, sum by (le) (rate(vouch_gossip_propagation_seconds_bucket[5m])))",
    ),
    (
        "Messages that come again, for each delivered",
        "rate(vouch_gossip_duplicates_total[5m]) / rate(vouch_gossip_delivered_total[5m])",
    ),
    (
        "Part of the dials that connect",
        'sum(rate(vouch_dials_total{outcome="connected"}[5m])) / sum(rate(vouch_dials_total{outcome!="backoff"}[5m]))',
    ),
    (
        "Requests that have no answer",
        'sum by (protocol, outcome) (rate(vouch_requests_total{outcome!="answered"}[5m]))',
    ),
    (
        "How late the event loop is, at most in 99 %",
        "histogram_quantile(0.99, rate(vouch_event_loop_lag_seconds_bucket[5m]))",
    ),
    ("Part of a core that is used", "rate(process_cpu_seconds_total[1m])"),
    ("Connections that end, by reason", "sum by (reason) (rate(vouch_connections_ended_total[5m]))"),
)


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield INTRODUCTION
    yield "## Queries\n"
    for what, query in QUERIES:
        yield f"- {what}: `{query}`"
    for part in CATALOGUE:
        yield f"\n## {part.name}\n"
        yield "| Metric | Type | Labels | What it is | When it moves |"
        yield "|---|---|---|---|---|"
        yield from map(_row, part.metrics)
        if part.name == "Bounds":
            yield from _bounds()


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} | {metric.advice} |"


def _bounds() -> Iterator[str]:
    yield "\nThe bounds, under the names of their settings; `gossip_…` are the gossip router's parameters:\n"
    yield "| Bound | What is used of it |"
    yield "|---|---|"
    for name, use in BOUNDS.items():
        yield f"| `{name}` | {use} |"
    yield "\nNumbers among the settings that aren't bounds, or can't be counted so:\n"
    yield "| Setting | Why |"
    yield "|---|---|"
    for name, why in UNCOUNTED.items():
        yield f"| `{name}` | {why} |"


if __name__ == "__main__":
    sys.stdout.write(page())
