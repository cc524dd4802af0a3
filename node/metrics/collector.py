"""Reads the parts' own counters when somebody asks: for each metric of the catalogue its values now."""

from __future__ import annotations

import gc
import os
import platform
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from node import log
from node.config import node_version
from node.metrics.bounds import bounds, gossip_of
from node.metrics.catalogue import MOST
from node.metrics.events import EventCounts
from node.metrics.lag import Lag
from node.node import Node
from protocols.gossip import Gossip
from protocols.histogram import Histogram

if TYPE_CHECKING:
    from node.api.http.serve import Server

OTHER = "other"
# upper ends of round trips in seconds, and what is called so
_ROUND_TRIPS = ((0.01, "under_10ms"), (0.05, "under_50ms"), (0.1, "under_100ms"), (0.25, "under_250ms"))
_BEYOND, _UNKNOWN = "longer", "unknown"
# of the router's counts, those that have a metric of their own
_TOLD = {"duplicate", "verdict_late"}


class Reading(NamedTuple):
    """One value: a metric's name, its labels' values in the catalogue's order, and the number or histogram."""

    name: str
    labels: tuple[str, ...]
    value: float | Histogram


class Collector:
    """Everything that one node counts."""

    def __init__(self, node: Node, events: EventCounts, lag: Lag) -> None:
        self.node, self.events, self.lag = node, events, lag
        self.api: Server | None = None

    def read(self) -> Iterator[Reading]:
        """All values now, in any order."""
        yield from self._bounds()
        yield from self._node()
        yield from _process()
        yield from self._connections()
        yield from self._streams()
        gossip = gossip_of(self.node)
        if gossip is not None:
            yield from _gossip(gossip)
        yield from self._requests()
        yield from self._dht()
        yield from self._pool()
        yield from self._book()
        yield from self._sources()
        if self.api is not None:
            yield Reading("vouch_api_requests_total", (), self.api.api.requests)
            yield from _each("vouch_api_refused_total", self.api.api.guard.refused)

    def _bounds(self) -> Iterator[Reading]:
        for bound in bounds(self.node, self.api):
            labels = (bound.name,)
            yield Reading("vouch_bound_limit", labels, bound.limit)
            if bound.used is not None:
                yield Reading("vouch_bound_used", labels, bound.used)
            if bound.refused is not None:
                yield Reading("vouch_bound_refused_total", labels, bound.refused)

    def _node(self) -> Iterator[Reading]:
        yield Reading("vouch_build_info", _versions(), 1)
        yield Reading("vouch_event_loop_lag_seconds", (), self.lag.seconds)
        yield from _each("vouch_events_total", self.events.events)
        yield from _each("vouch_misbehaviour_total", self.events.faults)
        lines = log.stats()
        yield from _each(
            "vouch_log_lines_total",
            {
                "printed": lines["lines"],
                "collapsed": lines["collapsed"],
                "dropped": lines["dropped"],
            },
        )
        try:
            now, tasks = trio.current_time(), trio.lowlevel.current_statistics().tasks_living
        except RuntimeError:  # asked from outside the event loop
            return
        started = self.node.started_at
        yield Reading("vouch_uptime_seconds", (), now - started if started else 0.0)
        yield Reading("vouch_tasks", (), tasks)

    def _connections(self) -> Iterator[Reading]:
        swarm, dialer = self.node.swarm, self.node.dialer
        admitted = Counter(connection.way for connection in swarm.admitted_connections())
        for direction in ("inbound", "outbound"):
            yield Reading("vouch_peers", (direction,), admitted[direction])
        yield from _each("vouch_connections", Counter((one.way, one.transport) for one in swarm.running()))
        yield from _each("vouch_connections_opened_total", swarm.counts.opened)
        yield from _each("vouch_connections_ended_total", swarm.counts.ended)
        yield from _each("vouch_handshakes_total", swarm.counts.verdicts)
        yield from _each("vouch_handshake_seconds", swarm.counts.seconds)
        yield Reading("vouch_connections_banned_total", (), swarm.limits.refused["banned"])
        yield from _each("vouch_dials_total", dialer.outcomes)
        yield Reading("vouch_dial_seconds", (), dialer.seconds)
        yield from _each("vouch_dial_addresses_total", swarm.counts.dialled)
        yield Reading("vouch_dial_budget_refused_total", (), dialer.budget.refused)
        yield Reading("vouch_records_verified_total", (), self.node.records.verified)
        if self.node.watch is not None:
            monitors = self.node.watch.monitors()
            trips = Counter(_round_trip(one.rtt.smoothed if one.rtt else None) for one in monitors)
            for name in (*(word for _, word in _ROUND_TRIPS), _BEYOND, _UNKNOWN):
                yield Reading("vouch_peers_by_round_trip", (name,), trips[name])
            yield Reading("vouch_peers_flaky", (), sum(one.flaky for one in monitors))

    def _streams(self) -> Iterator[Reading]:
        swarm, registry = self.node.swarm, self.node.registry
        streams = Counter(stream.flow.name for connection in swarm.running() for stream in connection.streams)
        for name, flow in list(swarm.traffic.flows.items()):
            yield Reading("vouch_streams", (name,), streams[name])
            yield Reading("vouch_streams_opened_total", (name, "inbound"), flow.inbound)
            yield Reading("vouch_streams_opened_total", (name, "outbound"), flow.outbound)
            yield Reading("vouch_stream_bytes_total", (name, "received"), flow.received)
            yield Reading("vouch_stream_bytes_total", (name, "sent"), flow.sent)
        yield from _each("vouch_streams_refused_total", _few(registry.refused))
        yield from _each("vouch_stream_handlers_failed_total", _few(registry.failed))
        yield Reading("vouch_stream_proposals_unknown_total", (), registry.unknown)

    def _requests(self) -> Iterator[Reading]:
        messages = self.node.messages
        names = _first(name for name, _ in messages.stats)
        counted: Counter[tuple[str, str]] = Counter()
        rejected: Counter[tuple[str, str]] = Counter()
        for (name, what), count in messages.stats.items():
            shown = name if name in names else OTHER
            kind, _, reason = what.partition(":")
            if reason:
                rejected[shown, reason] += count
            else:
                counted[shown, kind] += count
        yield from _each("vouch_messages_total", counted)
        yield from _each("vouch_messages_rejected_total", rejected)
        outcomes: Counter[tuple[str, str]] = Counter()
        messages.tally.fold()
        for (name, outcome), count in messages.tally.outcomes().items():
            outcomes[name if name in names else OTHER, outcome] += count
        yield from _each("vouch_requests_total", outcomes)
        yield from _each("vouch_request_seconds", _few_histograms(messages.tally.asked))
        yield from _each("vouch_request_handler_seconds", _few_histograms(messages.tally.served))

    def _dht(self) -> Iterator[Reading]:
        if self.node.dht is None:
            return
        kad = self.node.dht.kad
        values, size, providers = kad.records.sizes()
        yield Reading("vouch_dht_table_peers", (), len(kad.table))
        yield from _each("vouch_dht_lookups_total", kad.lookups)
        yield Reading("vouch_dht_lookup_seconds", (), kad.lookup_seconds)
        yield from _each("vouch_dht_asked_total", kad.asked)
        yield from _each("vouch_dht_questions_total", kad.engine.counts)
        yield from _each("vouch_dht_records", {"values": values, "providers": providers, "own": len(kad.records.own)})
        yield Reading("vouch_dht_value_bytes", (), size)

    def _pool(self) -> Iterator[Reading]:
        pool = self.node.peers.pool
        if pool is None:
            return
        targets = pool.targets
        for name in ("low", "target", "high", "outbound"):
            yield Reading("vouch_pool_target", (name,), getattr(targets, name))
        for (what, word), count in pool.counts.items():
            yield Reading(_POOL[what], (word,), count)
        yield Reading("vouch_pool_shortage", (), pool.shortage)
        yield Reading("vouch_pool_extras", (), len(pool.extras()))

    def _book(self) -> Iterator[Reading]:
        book = self.node.addressbook
        worked = book.book.worked
        yield from _each("vouch_addressbook_peers", {"worked": worked, "heard": len(book) - worked})
        yield Reading("vouch_addressbook_evicted_total", (), book.book.evicted)
        yield Reading("vouch_addressbook_unwritten", (), book.unwritten)
        yield from _each("vouch_addressbook_writes_total", book.writes)
        yield Reading("vouch_addressbook_write_seconds", (), book.write_seconds)

    def _sources(self) -> Iterator[Reading]:
        node = self.node
        if node.exchange is not None:
            share = node.exchange.exchange.share
            yield from _each("vouch_exchange_questions_total", node.exchange.outcomes)
            yield Reading("vouch_exchange_peers_heard_total", (), node.exchange.heard)
            yield Reading("vouch_exchange_peers_told_total", (), share.told)
            yield Reading("vouch_exchange_refused_total", (), share.refused)
        if node.point is not None and node.point.running:
            yield Reading("vouch_rendezvous_registrations", (), len(node.point.registrations))
            yield Reading("vouch_rendezvous_bytes", (), node.point.registrations.bytes)
            yield Reading("vouch_rendezvous_refused_total", (), node.point.refused)
        if node.rendezvous is not None:
            yield from _each("vouch_rendezvous_calls_total", node.rendezvous.outcomes)
        if node.mdns is not None:
            engines = [link.engine for link in node.mdns.links.values()]
            yield Reading("vouch_mdns_links", (), len(engines))
            yield Reading("vouch_mdns_peers", (), sum(engine.peers for engine in engines))
            yield Reading("vouch_mdns_ignored_total", (), sum(engine.ignored for engine in engines))


_POOL = {
    "dial": "vouch_pool_dials_total",
    "failed": "vouch_pool_dial_failures_total",
    "drop": "vouch_pool_drops_total",
    "test": "vouch_pool_tests_total",
}


def _gossip(gossip: Gossip) -> Iterator[Reading]:
    engine, stats, links = gossip.engine, gossip.stats, gossip.peers.links()
    peers = engine.connected()
    stats.fold()
    yield Reading("vouch_gossip_peers", (), len(peers))
    yield from _each("vouch_gossip_mesh_peers", _few({name: len(engine.mesh(name)) for name in engine.topics}))
    yield from _each("vouch_gossip_subscribers", _few({name: len(engine.peers(name)) for name in engine.topics}))
    yield Reading("vouch_gossip_published_total", (), stats.published)
    yield Reading("vouch_gossip_delivered_total", (), stats.delivered_messages)
    yield from _each("vouch_gossip_verdicts_total", {verdict.value: n for verdict, n in stats.verdicts.items()})
    yield from _each("vouch_gossip_refused_total", stats.refused)
    unjudged = Counter(stats.dropped)
    unjudged.update(queue=stats.no_room, late=stats.late)
    yield from _each("vouch_gossip_unjudged_total", unjudged)
    yield Reading("vouch_gossip_validators_failed_total", (), stats.failed)
    yield Reading("vouch_gossip_validation_seconds", (), stats.verdict_seconds)
    yield Reading("vouch_gossip_propagation_seconds", (), stats.delay_seconds)
    yield Reading("vouch_gossip_heartbeat_seconds", (), stats.heartbeat_seconds)
    counts = engine.counts
    yield Reading("vouch_gossip_duplicates_total", (), counts["duplicate"])
    yield from _each(
        "vouch_gossip_router_total",
        {name: n for name, n in counts.items() if name not in _TOLD and not name.startswith("dropped_")},
    )
    limits = engine.thresholds
    ranges = (
        (limits.graylist_threshold, "graylisted"),
        (limits.publish_threshold, "no_publish"),
        (limits.gossip_threshold, "no_gossip"),
        (0.0, "negative"),
    )
    scores = Counter(_range(engine.scores.score(peer), ranges) for peer in peers)
    for name in (*(word for _, word in ranges), "zero", "positive"):
        yield Reading("vouch_gossip_peers_by_score", (name,), scores[name])
    lost = Counter(stats.lost)
    for link in links:
        lost.update(link.queue.dropped)
    for kind in ("message", "control"):
        yield Reading("vouch_gossip_queue_dropped_total", (kind,), lost[kind])
    yield Reading("vouch_gossip_queue_bytes", (), sum(link.queue.bytes for link in links))
    yield Reading("vouch_gossip_bytes_total", ("received",), stats.bytes_received)
    yield Reading("vouch_gossip_bytes_total", ("sent",), gossip.peers.bytes_sent)
    yield Reading("vouch_gossip_rpcs_sent_total", (), stats.rpcs_sent + sum(link.rpcs_sent for link in links))
    yield Reading("vouch_gossip_grafts_total", (), stats.grafted)
    yield from _each("vouch_gossip_prunes_total", stats.pruned)


def _process() -> Iterator[Reading]:
    """Under the names that all Prometheus clients use."""
    yield Reading("process_cpu_seconds_total", (), time.process_time())
    yield Reading("process_resident_memory_bytes", (), _resident())
    yield Reading("process_start_time_seconds", (), _STARTED)
    with suppress(OSError):  # full: the directory can't be opened either
        yield Reading("process_open_fds", (), len(os.listdir("/dev/fd")) - 1)
    yield Reading("process_max_fds", (), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for generation, stats in enumerate(gc.get_stats()):
        yield Reading("python_gc_collections_total", (str(generation),), stats["collections"])


def _started() -> float:
    """Unix time at which the process was started; where the system doesn't tell, at which this was loaded."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.time()


_STARTED = _started()


def _resident() -> float:
    """Memory now where the system tells (Linux), else the most that it was."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


@cache
def _versions() -> tuple[str, str, str]:
    try:
        libp2p = version("libp2p")
    except PackageNotFoundError:
        libp2p = ""
    return node_version(), platform.python_version(), libp2p


def _each(name: str, values: Mapping[Any, Any]) -> Iterator[Reading]:
    """A reading for each of the values; keys are a label's value, or a tuple of several."""
    for labels, value in list(values.items()):
        yield Reading(name, (labels,) if isinstance(labels, str) else labels, value)


def _first(names: Iterable[str]) -> set[str]:
    """The first MOST of them: those that were counted first, so that nothing changes its label."""
    return set(list(dict.fromkeys(names))[:MOST])


def _few(values: Mapping[str, int]) -> dict[str, int]:
    """At most MOST of them by name, the others together."""
    names, few = _first(values), Counter[str]()
    for name, value in values.items():
        few[name if name in names else OTHER] += value
    return few


def _few_histograms(values: Mapping[str, Histogram]) -> dict[str, Histogram]:
    names, few = _first(values), dict[str, Histogram]()
    rest: Histogram | None = None
    for name, value in values.items():
        if name in names:
            few[name] = value
            continue
        rest = rest or Histogram(value.bounds)
        rest.counts = [one + other for one, other in zip(rest.counts, value.counts, strict=True)]
        rest.sum += value.sum
    if rest is not None:
        few[OTHER] = rest
    return few


def _round_trip(seconds: float | None) -> str:
    if seconds is None:
        return _UNKNOWN
    return next((word for most, word in _ROUND_TRIPS if seconds < most), _BEYOND)


def _range(score: float, ranges: Iterable[tuple[float, str]]) -> str:
    return next((word for least, word in ranges if score < least), "positive" if score > 0 else "zero")
