"""Metrics: the catalogue, the document, the dashboards and a live node tell the same; what happens is counted."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from pathlib import Path

import pytest
import trio
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from node.config import Config
from node.errors import VouchError
from node.metrics import Metrics
from node.metrics.bounds import BOUNDS, UNCOUNTED, bounds
from node.metrics.catalogue import METRICS, MOST
from node.metrics.collector import OTHER, _few
from node.metrics.document import QUERIES, page
from node.metrics.lag import Lag
from protocols import NotSupported, Protocol
from protocols.gossip import GossipParams
from protocols.histogram import WAITING, Gathered, Histogram
from protocols.messages import SubProtocol
from tests.nodes import echo_protocol, eventually, running

ROOT = Path(__file__).parents[2]
EVERYTHING = {
    "dht": "server",
    "heartbeat": "on",
    "pool": "on",
    "rendezvous_point": "memory",
    "mdns": "on",
    "topic": {"blocks": ""},
    "target_peers": 1,
    "low_peers": 1,
    "outbound_peers": 1,
}


def families(metrics: Metrics) -> dict[str, typing.Any]:
    """By the catalogue's names."""
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        found[f"{family.name}_total" if family.type == "counter" else family.name] = family
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """The sum of what has these labels."""
    rows = metrics.snapshot()[name]["values"]
    chosen = [row["value"] for row in rows if labels.items() <= row["labels"].items()]
    return sum(one["count"] if isinstance(one, dict) else one for one in chosen)


def test_the_document_is_as_the_catalogue_makes_it():
    assert (ROOT / "docs" / "metrics.md").read_text() == page(), (
        "expected docs/metrics.md as `make metrics-doc` makes it"
    )


def test_names_follow_the_conventions():
    for metric in METRICS.values():
        assert re.fullmatch(r"(vouch|process|python)_[a-z0-9_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.kind != "histogram" or metric.name.endswith("_seconds")
        assert not {"peer", "addr", "agent", "le"} & set(metric.labels)
        assert metric.advice.endswith((".", "?")), metric.name
        assert "|" not in metric.help + metric.advice, "it would end the document's table cell"


async def test_a_live_node_tells_what_the_catalogue_has():
    async with running() as node:
        told = families(Metrics(node))
        assert told.keys() == METRICS.keys()
        for name, family in told.items():
            metric = METRICS[name]
            assert (family.type, family.documentation) == (metric.kind, metric.help)
            for sample in family.samples:
                assert set(sample.labels) - {"le"} == set(metric.labels), name


def numbers() -> list[str]:
    """Every setting that is a number, and the gossip router's bounds."""
    hints = typing.get_type_hints(Config)
    settings = [field.name for field in dataclasses.fields(Config) if hints[field.name] in (int, float)]
    gossip = [f"gossip_{field.name}" for field in dataclasses.fields(GossipParams) if field.name.startswith("max_")]
    return settings + gossip


def test_every_bound_in_the_configuration_is_told_or_has_a_reason():
    assert not BOUNDS.keys() & UNCOUNTED.keys()
    assert BOUNDS.keys() | UNCOUNTED.keys() == set(numbers())


def test_reasons_name_metrics_that_there_are():
    for text in UNCOUNTED.values():
        assert set(re.findall(r"vouch_\w+", text)) <= METRICS.keys()


async def test_a_node_with_everything_tells_every_bound():
    async with running(**EVERYTHING) as node:
        told = {bound.name for bound in bounds(node, None)}
        served_by_others = {name for name in BOUNDS if name.startswith(("max_api", "max_control"))}
        assert told == BOUNDS.keys() - served_by_others
        for bound in bounds(node, None):
            assert bound.used is None or bound.used <= bound.limit


async def test_what_happens_is_counted():
    ask = SubProtocol("ask")

    @ask.on_request()
    async def answer(message):
        return message.payload

    echo = echo_protocol()
    async with (
        running(protocols=[echo, ask], topic={"blocks": ""}) as a,
        running(protocols=[echo_protocol()], topic={"blocks": ""}) as b,
    ):
        seen_a, seen_b = Metrics(a), Metrics(b)
        await b.connect(a.addrs[0])
        assert value(seen_b, "vouch_dials_total", outcome="connected") == 1
        assert value(seen_b, "vouch_dial_addresses_total", transport="tcp", outcome="connected") == 1
        assert value(seen_b, "vouch_peers", direction="outbound") == 1
        await eventually(lambda: value(seen_a, "vouch_handshakes_total", direction="inbound", outcome="admitted") == 1)
        assert value(seen_a, "vouch_handshake_seconds", direction="inbound") == 1

        before = value(seen_b, "vouch_stream_bytes_total", protocol=echo.id, direction="sent")
        async with b.stream(a.peer_id, echo) as stream:
            await stream.send(b"x" * 1000)
            assert value(seen_b, "vouch_streams", protocol=echo.id) == 1
            await stream.receive()
        assert before == 0
        for metrics in (seen_a, seen_b):
            for direction in ("sent", "received"):
                size = value(metrics, "vouch_stream_bytes_total", protocol=echo.id, direction=direction)
                assert 1000 < size < 1010
        assert value(seen_a, "vouch_streams_opened_total", protocol=echo.id, direction="inbound") == 1
        assert value(seen_b, "vouch_streams_opened_total", protocol=echo.id, direction="outbound") == 1

        await b.request(a.peer_id, "ask", b"?")
        assert value(seen_b, "vouch_requests_total", protocol="ask", outcome="answered") == 1
        assert value(seen_b, "vouch_request_seconds", protocol="ask") == 1
        assert value(seen_a, "vouch_request_handler_seconds", protocol="ask") == 1
        with pytest.raises(NotSupported):
            await a.request(b.peer_id, "ask", b"?")
        assert value(seen_a, "vouch_requests_total", protocol="ask", outcome="not_supported") == 1

        await eventually(lambda: value(seen_a, "vouch_gossip_mesh_peers", topic="blocks") == 1)
        await b.gossip.publish("blocks", b"block 17")
        await eventually(lambda: value(seen_a, "vouch_gossip_verdicts_total", verdict="accept") == 1)
        assert value(seen_a, "vouch_gossip_propagation_seconds") == 1
        assert value(seen_a, "vouch_gossip_validation_seconds") == 1
        assert value(seen_b, "vouch_gossip_published_total") == 1

        await b.disconnect(a.peer_id)
        ended = {"transport": "tcp", "reason": "closed_by_us"}
        await eventually(lambda: value(seen_b, "vouch_connections_ended_total", **ended) == 1)
        await eventually(lambda: value(seen_a, "vouch_connections_ended_total", reason="closed_by_peer") == 1)
        assert value(seen_a, "vouch_events_total", event="disconnected") == 1
        assert value(seen_a, "vouch_connections") == 0


async def test_dials_that_fail_are_counted_by_outcome():
    async with running() as gone:
        addr = gone.addrs[0]
    async with running() as node, running(network_id="elsewhere") as stranger:
        metrics = Metrics(node)
        for target in (addr, stranger.addrs[0], stranger.addrs[0]):
            with pytest.raises(VouchError):
                await node.connect(target)
        assert value(metrics, "vouch_dials_total", outcome="failed") == 1
        assert value(metrics, "vouch_dials_total", outcome="refused") == 1
        assert value(metrics, "vouch_dials_total", outcome="backoff") == 1


async def test_protocols_that_strangers_name_make_no_labels():
    async with running(protocols=[echo_protocol()]) as a, running() as b:
        metrics = Metrics(a)
        await b.connect(a.addrs[0])
        for number in range(20):
            with pytest.raises(NotSupported):
                async with b.stream(a.peer_id, Protocol(f"/unheard-of/{number}")):
                    pass
        await eventually(lambda: value(metrics, "vouch_stream_proposals_unknown_total") >= 20)
        assert b"unheard-of" not in metrics.text()
        assert b.peer_id.encode() not in metrics.text()


async def test_what_programs_name_is_bounded():
    assert len(_few({str(number): 1 for number in range(1000)})) == MOST + 1
    assert _few({str(number): 1 for number in range(1000)})[OTHER] == 1000 - MOST
    async with running(topic={f"topic-{number}": "" for number in range(MOST + 20)}) as node:
        assert len(Metrics(node).snapshot()["vouch_gossip_mesh_peers"]["values"]) == MOST + 1
        for number in range(2 * MOST):
            node.swarm.traffic.opened(f"/p/{number}", inbound=False)
        assert len(node.swarm.traffic.flows) <= MOST + 1


@given(st.lists(st.floats(-10, 100)))
def test_a_histogram_counts_each_value_once_and_where_it_belongs(values):
    histogram = Histogram((0.1, 1.0, 10.0))
    for one in values:
        histogram.observe(one)
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(sum(values))
    assert histogram.counts[0] == sum(one <= 0.1 for one in values)
    assert histogram.counts[3] == sum(one > 10.0 for one in values)


@given(st.lists(st.lists(st.one_of(st.floats(-10, 100), st.sampled_from([0.1, 1.0, 10.0])))))
def test_what_is_gathered_is_counted_as_if_it_were_observed(batches):
    plain, gathered = Histogram((0.1, 1.0, 10.0)), Gathered((0.1, 1.0, 10.0))
    for batch in batches:
        for one in batch:
            plain.observe(one)
            gathered.add(one)
        gathered.fold()
    assert gathered.counts == plain.counts
    assert gathered.sum == pytest.approx(plain.sum)


def test_what_is_gathered_does_not_pile_up():
    gathered = Gathered()
    for _ in range(3 * WAITING + 1):
        gathered.add(0.5)
        assert len(gathered.waiting) < WAITING
    assert gathered.count == 3 * WAITING


async def test_labels_are_escaped():
    topic = 'a "topic"\\ of\ntwo lines'
    async with running(gossip_signing="strict") as node:
        node.gossip.relay(topic)
        (sample,) = families(Metrics(node))["vouch_gossip_mesh_peers"].samples
        assert sample.labels == {"topic": topic}


def test_a_histogram_wants_bounds_that_ascend():
    for bad in ((), (2.0, 1.0), (1.0, 1.0)):
        with pytest.raises(ValueError, match="ascend"):
            Histogram(bad)


async def test_the_event_loop_that_is_kept_is_seen():
    import time

    lag = Lag()
    with trio.move_on_after(0.6):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lag.run)
            await trio.sleep(0.2)
            time.sleep(0.15)  # noqa: ASYNC251  somebody keeps it
            await trio.sleep_forever()
    assert lag.seconds.sum >= 0.09


# what others read


def named(query: str) -> set[str]:
    """The metrics in a query, by the catalogue's names."""
    words = set(re.findall(r"\b(?:vouch|process|python)_[a-z0-9_]+", query))
    return {re.sub(r"_(bucket|sum|count)$", "", word) for word in words}


def queries() -> list[tuple[str, str]]:
    found = [("docs/metrics.md", query) for _, query in QUERIES]
    for file in sorted((ROOT / "docker" / "grafana").rglob("*.json")):
        board = json.loads(file.read_text())
        found += [(file.name, target["expr"]) for panel in board["panels"] for target in panel.get("targets", [])]
    rules = yaml.safe_load((ROOT / "docker" / "prometheus-rules.yml").read_text())
    found += [(rule["alert"], rule["expr"]) for group in rules["groups"] for rule in group["rules"]]
    return found


def test_every_metric_is_in_a_panel_or_a_rule():
    shown = {name for where, query in queries() if where != "docs/metrics.md" for name in named(query)}
    needless = {"process_start_time_seconds"}  # vouch_uptime_seconds is shown; that one is for others' rules
    assert METRICS.keys() - shown == needless


def test_every_metric_that_is_queried_exists_with_its_labels():
    assert len(queries()) > 40
    for where, query in queries():
        assert named(query) or query.startswith("up"), (where, query)
        assert named(query) <= METRICS.keys(), (where, query)
        known = {label for name in named(query) for label in METRICS[name].labels} | {"le", "instance", "job"}
        selectors = re.findall(r"\{([^}]*)\}", query)
        used = {label for text in selectors for label in re.findall(r"(\w+)\s*(?:=|!)", text)}
        for text in re.findall(r"\bby\s*\(([^)]*)\)", query):
            used |= {label.strip() for label in text.split(",")}
        assert used <= known, (where, query, used - known)
        histograms = {name for name in named(query) if METRICS[name].kind == "histogram"}
        assert not histograms or re.search(r"_(bucket|sum|count)\b", query), (where, query)
