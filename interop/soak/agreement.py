"""What a node's metrics and the answers of its API must agree on: rules, without I/O.

    numbers(text), numbers_of(snapshot)    every sample under its name and labels, whichever form it was told in
    within(numbers)                        what must hold in one scrape: opened - ended = there, used <= limit, ...
    between(before, after)                 what only grows has grown
    answers(before, told, after)           what the API told between two scrapes lies between them

Of two requests the second may tell of more. A counter that the API tells lies between the scrapes before and after. A
gauge is held to them only if nothing that changes it was counted meanwhile; `answers` says how many it compared, so
that whoever compares too little notices.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from node.metrics.catalogue import METRICS

Labels = tuple[tuple[str, str], ...]
# by the name of the sample, and its labels
Numbers = dict[str, dict[Labels, float]]

# counts by which a scrape tells that peers, or meshes, have changed
PEERS_CHANGE = ("vouch_connections_opened_total", "vouch_connections_ended_total", "vouch_handshakes_total")
MESH_CHANGES = (*PEERS_CHANGE, "vouch_gossip_grafts_total", "vouch_gossip_prunes_total")
TOPICS_CHANGE = (*MESH_CHANGES, "vouch_gossip_bytes_total")  # subscriptions come in RPCs
BANS_CHANGE = ("vouch_events_total",)
# of a second, by which sums of floats may differ
EPSILON = 1e-6
# admissions that ended before there was a connection to count
NEVER_OPENED = {"upgrade_failed", "upgrade_timeout", "banned", "given_up"}
# bounds above which something goes, rather than that nothing comes
SOFT = {"high_peers"}
# of the process, and other in each scrape
RESTLESS = ("process_", "python_", "vouch_tasks", "vouch_uptime_seconds", "vouch_event_loop_lag_seconds")


def numbers(text: str) -> Numbers:
    """The samples of Prometheus' text format."""
    found: Numbers = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name][_sorted(sample.labels)] = float(sample.value)
    return found


def numbers_of(snapshot: Mapping[str, Any]) -> Numbers:
    """The same of `/v1/metrics`."""
    found: Numbers = defaultdict(dict)
    for name, metric in snapshot.items():
        for row in metric["values"]:
            labels, value = row["labels"], row["value"]
            if metric["kind"] != "histogram":
                found[name][_sorted(labels)] = float(value)
                continue
            for bound, count in [*value["buckets"], (math.inf, value["count"])]:
                shown = "+Inf" if bound == math.inf else str(float(bound))
                found[f"{name}_bucket"][_sorted({**labels, "le": shown})] = float(count)
            found[f"{name}_sum"][_sorted(labels)] = value["sum"]
            found[f"{name}_count"][_sorted(labels)] = float(value["count"])
    return found


def total(numbers: Numbers, name: str, **labels: str) -> float:
    """The sum of what has these labels."""
    wanted = labels.items()
    return sum(value for of, value in numbers.get(name, {}).items() if not labels or wanted <= dict(of).items())


def by(numbers: Numbers, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The sums by the values of these labels."""
    found: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for of, value in numbers.get(name, {}).items():
        known = dict(of)
        found[tuple(known[label] for label in labels)] += value
    return dict(found)


# one scrape


def within(numbers: Numbers) -> Iterator[str]:
    """What one scrape says against itself."""
    yield from _connections(numbers)
    yield from _bounds(numbers)
    yield from _histograms(numbers)
    yield from _gossip(numbers)
    yield from _requests(numbers)


def _connections(numbers: Numbers) -> Iterator[str]:
    way = ("direction", "transport")
    opened, ended, now = (
        by(numbers, f"vouch_connections{name}", *way) for name in ("_opened_total", "_ended_total", "")
    )
    for key in opened.keys() | ended.keys() | now.keys():
        there = opened.get(key, 0) - ended.get(key, 0)
        if there != now.get(key, 0):
            yield f"connections {' '.join(key)}: opened - ended is {there:g}, and there are {now.get(key, 0):g}"
    decided: defaultdict[str, float] = defaultdict(float)
    for (direction, outcome), count in by(numbers, "vouch_handshakes_total", "direction", "outcome").items():
        decided[direction] += count if outcome not in NEVER_OPENED else 0
    for (direction,), peers in by(numbers, "vouch_peers", "direction").items():
        came = total(numbers, "vouch_connections_opened_total", direction=direction)
        there = total(numbers, "vouch_connections", direction=direction)
        if not came - there <= decided[direction] <= came:
            yield (
                f"admissions {direction}: {decided[direction]:g} were decided, of {came:g} connections of which "
                f"{there:g} are still there"
            )
        if peers > there:
            yield f"peers {direction}: {peers:g}, on {there:g} connections"
        admitted = total(numbers, "vouch_handshakes_total", direction=direction, outcome="admitted")
        if peers > admitted:
            yield f"peers {direction}: {peers:g}, of whom {admitted:g} were admitted"
    connected = total(numbers, "vouch_events_total", event="connected")
    came = total(numbers, "vouch_connections_opened_total")
    if connected != came:
        yield f"connections: {came:g} were opened, and {connected:g} events say so"


def _bounds(numbers: Numbers) -> Iterator[str]:
    limits = by(numbers, "vouch_bound_limit", "bound")
    for key, used in by(numbers, "vouch_bound_used", "bound").items():
        if key not in limits:
            yield f"bound {key[0]}: its use is told without a limit"
        elif used < 0 or (used > limits[key] and key[0] not in SOFT):
            yield f"bound {key[0]}: {used:g} are used of {limits[key]:g}"
    for name, bound in (("vouch_connections", "max_connections"), ("vouch_connections", "max_inbound")):
        labels = {"direction": "inbound"} if bound == "max_inbound" else {}
        there, used = total(numbers, name, **labels), total(numbers, "vouch_bound_used", bound=bound)
        if there > used:  # the place is taken before there is a connection, and given back after it
            yield f"{there:g} connections have {used:g} places of {bound}"
    known, used = total(numbers, "vouch_addressbook_peers"), total(numbers, "vouch_bound_used", bound="max_known_peers")
    if known != used:
        yield f"address book: {known:g} peers by their state, {used:g} by the bound"


def _histograms(numbers: Numbers) -> Iterator[str]:
    buckets: defaultdict[tuple[str, Labels], dict[float, float]] = defaultdict(dict)
    for name, values in numbers.items():
        for labels, value in values.items() if name.endswith("_bucket") else ():
            rest = tuple(label for label in labels if label[0] != "le")
            buckets[name.removesuffix("_bucket"), rest][float(dict(labels)["le"])] = value
    for (name, labels), counts in buckets.items():
        ordered = [counts[bound] for bound in sorted(counts)]
        if ordered != sorted(ordered):
            yield f"{name} {dict(labels)}: expected counts that ascend, got {ordered}"
        if counts.get(math.inf) != numbers.get(f"{name}_count", {}).get(labels):
            yield f"{name} {dict(labels)}: its last bucket isn't its count"


def _gossip(numbers: Numbers) -> Iterator[str]:
    if "vouch_gossip_delivered_total" not in numbers:
        return
    delivered, judged = total(numbers, "vouch_gossip_delivered_total"), total(numbers, "vouch_gossip_verdicts_total")
    unjudged = by(numbers, "vouch_gossip_unjudged_total", "reason")
    missed = sum(count for (reason,), count in unjudged.items() if reason != "late")  # those had their time before
    pending = total(numbers, "vouch_bound_used", bound="gossip_max_pending_messages")
    if delivered != judged + missed + pending:
        yield (
            f"gossip: {delivered:g} messages were delivered, and {judged:g} have a verdict, {missed:g} none, "
            f"{pending:g} wait for one"
        )
    timed = total(numbers, "vouch_gossip_validation_seconds_count")
    if timed != judged:
        yield f"gossip: {judged:g} verdicts, of which {timed:g} were timed"
    if total(numbers, "vouch_gossip_propagation_seconds_count") > delivered:
        yield "gossip: more delays than deliveries"
    peers, scored = total(numbers, "vouch_gossip_peers"), total(numbers, "vouch_gossip_peers_by_score")
    if peers != scored:
        yield f"gossip: {peers:g} peers, of whom {scored:g} have a score"
    if peers > (admitted := total(numbers, "vouch_peers") + total(numbers, "vouch_connections")):
        yield f"gossip: {peers:g} peers, of {admitted:g}"
    subscribers = by(numbers, "vouch_gossip_subscribers", "topic")
    for key, mesh in by(numbers, "vouch_gossip_mesh_peers", "topic").items():
        if not mesh <= subscribers[key] <= peers:
            yield f"gossip {key[0]}: {mesh:g} in the mesh, {subscribers[key]:g} subscribe, {peers:g} are there"


def _requests(numbers: Numbers) -> Iterator[str]:
    outcomes = by(numbers, "vouch_requests_total", "protocol")
    timed = by(numbers, "vouch_request_seconds_count", "protocol")
    for key in outcomes.keys() | timed.keys():
        if outcomes.get(key, 0) != timed.get(key, 0):
            yield f"requests {key[0]}: {outcomes.get(key, 0):g} ended, {timed.get(key, 0):g} were timed"
    sent = by(numbers, "vouch_messages_total", "protocol", "event")
    for (name,), ended in outcomes.items():
        if ended > (asked := sent.get((name, "requests"), 0)):
            yield f"requests {name}: {ended:g} ended, of {asked:g}"


# two scrapes


def between(before: Numbers, after: Numbers) -> Iterator[str]:
    """What fell, or is no longer there, though it only grows."""
    if total(after, "vouch_uptime_seconds") < total(before, "vouch_uptime_seconds"):
        yield f"uptime fell from {total(before, 'vouch_uptime_seconds'):g} s"
        return
    for name, values in before.items():
        for labels, value in values.items() if _grows(name) else ():
            now = after.get(name, {}).get(labels)
            if now is None or now < value - EPSILON:
                yield f"{name} {dict(labels)} fell from {value:g} to {now}"


def same(one: Numbers, other: Numbers) -> Iterator[str]:
    """What two scrapes of the same moment tell differently."""
    for name in one.keys() | other.keys():
        these, those = one.get(name, {}), other.get(name, {})
        for labels in these.keys() | those.keys() if not name.startswith(RESTLESS) else ():
            if not _near(these.get(labels), those.get(labels)):
                yield f"{name} {dict(labels)} is told as {these.get(labels)} and as {those.get(labels)}"


def _grows(name: str) -> bool:
    kind = METRICS[name].kind if name in METRICS else "histogram" if name.endswith(("_bucket", "_count")) else ""
    return kind in ("counter", "histogram")


def _near(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and abs(one - other) < EPSILON)


# answers


class Figure(NamedTuple):
    """A number that the API tells, and the metric that tells it too; the counts without which it hasn't changed."""

    what: str
    told: float
    metric: str
    labels: dict[str, str]
    changes: tuple[str, ...] = ()


class Compared(NamedTuple):
    """What disagrees, and how many figures were held to the metrics."""

    faults: list[str]
    figures: int


def answers(before: Numbers, told: Mapping[str, Any], after: Numbers) -> Compared:
    """Holds answers to the scrapes around them. `told`: the answers by the calls' names, those that there are of
    status, peers, topics, gossip, bans, addressbook.
    """
    faults, compared = list(_of_one_answer(told)), 0
    for figure in _figures(told):
        low, high = (total(numbers, figure.metric, **figure.labels) for numbers in (before, after))
        moved = low != high or any(total(before, name) != total(after, name) for name in figure.changes)
        if moved and METRICS[figure.metric].kind != "counter":
            continue
        compared += 1
        if not low - EPSILON <= figure.told <= high + EPSILON:
            found = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            faults.append(f"{figure.what}: the API tells {figure.told:g}, {figure.metric} {figure.labels} {found}")
    return Compared(faults, compared)


def _of_one_answer(told: Mapping[str, Any]) -> Iterator[str]:
    status = told.get("status")
    if status is not None and status["peers"] != status["inbound"] + status["outbound"]:
        yield f"status: {status['peers']} peers, {status['inbound']} inbound and {status['outbound']} outbound"
    rows = [row["peer"] for row in told.get("peers", {"peers": []})["peers"]]
    if len(rows) != len(set(rows)):
        yield "peers: somebody is there twice"


def _figures(told: Mapping[str, Any]) -> Iterator[Figure]:
    if (status := told.get("status")) is not None:
        for direction in ("inbound", "outbound"):
            labels = {"direction": direction}
            yield Figure(f"status {direction}", status[direction], "vouch_peers", labels, PEERS_CHANGE)
        for name, use in status["limits"].items():
            yield Figure(f"limit {name}", use["limit"], "vouch_bound_limit", {"bound": name})
            if not name.startswith(("max_api", "max_control")):  # whose clients we are ourselves
                yield Figure(f"use of {name}", use["used"], "vouch_bound_used", {"bound": name}, PEERS_CHANGE)
        table = len(status["routing_table"])
        yield Figure("routing table", table, "vouch_dht_table_peers", {}, (*PEERS_CHANGE, "vouch_dht_asked_total"))
    if (peers := told.get("peers")) is not None:
        for direction in ("inbound", "outbound"):
            count = sum(row["direction"] == direction for row in peers["peers"])
            yield Figure(f"peers {direction}", count, "vouch_peers", {"direction": direction}, PEERS_CHANGE)
        flaky = sum(row["flaky"] for row in peers["peers"])
        yield Figure("flaky peers", flaky, "vouch_peers_flaky", {}, (*PEERS_CHANGE, "vouch_events_total"))
    if (topics := told.get("topics")) is not None:
        yield from _of_topics(topics["topics"])
    if (gossip := told.get("gossip")) is not None:
        yield from _of_topics([{**row, "mesh": len(row["mesh"])} for row in gossip["topics"]])
        for name in ("published", "delivered", "duplicates"):
            yield Figure(f"gossip {name}", gossip[name], f"vouch_gossip_{name}_total", {})
        for name in ("received", "sent"):
            yield Figure(f"gossip {name}", gossip[f"bytes_{name}"], "vouch_gossip_bytes_total", {"direction": name})
        for verdict, count in gossip["verdicts"].items():
            yield Figure(f"verdicts {verdict}", count, "vouch_gossip_verdicts_total", {"verdict": verdict})
    if (bans := told.get("bans")) is not None:
        yield Figure("bans", len(bans["bans"]), "vouch_bound_used", {"bound": "max_bans"}, BANS_CHANGE)
    if (book := told.get("addressbook")) is not None:
        changes = (*PEERS_CHANGE, "vouch_events_total", "vouch_addressbook_evicted_total")
        yield Figure("address book", len(book["peers"]), "vouch_bound_used", {"bound": "max_known_peers"}, changes)


def _of_topics(rows: Iterable[Mapping[str, Any]]) -> Iterator[Figure]:
    for row in rows:
        labels = {"topic": row["topic"]}
        yield Figure(f"mesh of {row['topic']}", row["mesh"], "vouch_gossip_mesh_peers", labels, MESH_CHANGES)
        what = f"subscribers of {row['topic']}"
        yield Figure(what, row["subscribers"], "vouch_gossip_subscribers", labels, TOPICS_CHANGE)


def _sorted(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))
