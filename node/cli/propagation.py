"""What `vouch measure propagation` finds out, without I/O: which nodes are linked, and how messages came to them.

    links(...)  -> pairs of nodes (from, to), numbered from 0: `from` dials
    Spread      <- sent(...) for each message, came(...) for each delivery; summary() -> Propagation

A delivery's delay is from its publish to its first arrival, in nanoseconds of one clock; its hops are counted along who
brought it first.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from node.cli.shown import rank

DEGREE = 8


def links(nodes: int, seed: int, *, full_mesh: bool = False, degree: int = DEGREE) -> list[tuple[int, int]]:
    """The pairs of a connected network: all of them, or `degree` at each node, by lot (one fewer at the first if the
    number of ends would be odd).

    The lot is Steger and Wormald's: free ends are paired as long as pairs are left that aren't linked yet, and if ends
    are left over, all begins anew (Generating random regular graphs quickly, 1999).
    """
    everybody = [(one, other) for one in range(nodes) for other in range(one + 1, nodes)]
    rng = random.Random(seed)
    if full_mesh or degree >= nodes - 1:
        return [_either_way(pair, rng) for pair in everybody]
    while True:
        free = [degree] * nodes
        free[0] -= nodes * degree % 2
        left, found = set(everybody), []
        while left:
            pairs = sorted(left)
            pair = rng.choices(pairs, [free[one] * free[other] for one, other in pairs])[0]
            found.append(pair)
            left.discard(pair)
            for node in pair:
                free[node] -= 1
                if not free[node]:
                    left = {pair for pair in left if node not in pair}
        if not any(free) and _connected(nodes, found):
            return [_either_way(pair, rng) for pair in found]


def _either_way(pair: tuple[int, int], rng: random.Random) -> tuple[int, int]:
    return pair if rng.random() < 0.5 else (pair[1], pair[0])


def _connected(nodes: int, pairs: Sequence[tuple[int, int]]) -> bool:
    near: dict[int, list[int]] = {node: [] for node in range(nodes)}
    for one, other in pairs:
        near[one].append(other)
        near[other].append(one)
    seen, waiting = {0}, [0]
    while waiting:
        for other in near[waiting.pop()]:
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return len(seen) == nodes


@dataclass(frozen=True)
class Propagation:
    """The result. coverage: the part of the deliveries that there should have been. duplicates: copies that a node had
    already, for each delivery. bytes_per_byte: bytes of pubsub received, of all kinds, for each byte of payload
    delivered. hop_ms: the median time from one node's arrival to that of the next. cpu_us: of all nodes, beyond
    what they take when nothing is published, for each delivery.
    """

    nodes: int
    links: int
    messages: int
    size: int
    rate: float
    seed: int
    coverage: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    duplicates: float
    bytes_per_byte: float
    hops_mean: float
    hops_max: int
    hop_ms: float
    cpu_us: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Spread:
    """How messages spread. Nodes are known by any name."""

    def __init__(self) -> None:
        self._sent: dict[str, tuple[str, int]] = {}
        self._came: dict[str, dict[str, tuple[str, int]]] = {}

    def sent(self, message: str, node: str, at_ns: int) -> None:
        """`node` has published a message."""
        self._sent[message] = node, at_ns

    def came(self, message: str, node: str, forwarder: str, at_ns: int) -> None:
        """A message is delivered to `node`, brought by `forwarder`. May be told before `sent`."""
        self._came.setdefault(message, {}).setdefault(node, (forwarder, at_ns))

    @property
    def deliveries(self) -> int:
        return sum(len(self._came.get(message, ())) for message in self._sent)

    def delays(self) -> list[float]:
        """Seconds from publish to delivery, sorted."""
        return sorted(
            (at_ns - sent_ns) / 1e9
            for message, (_, sent_ns) in self._sent.items()
            for _, at_ns in self._came.get(message, {}).values()
        )

    def hop_times(self) -> list[float]:
        """Seconds from one node's arrival (or publish) to that of the node that it brought the message to, sorted."""
        times = []
        for message, (publisher, sent_ns) in self._sent.items():
            came = self._came.get(message, {})
            for forwarder, at_ns in came.values():
                if forwarder == publisher:
                    times.append(at_ns - sent_ns)
                elif forwarder in came:
                    times.append(at_ns - came[forwarder][1])
        return sorted(time / 1e9 for time in times)

    def hops(self) -> list[int]:
        """How many links each delivery took."""
        found = []
        for message, (publisher, _) in self._sent.items():
            came = self._came.get(message, {})
            known = {publisher: 0}
            for node in sorted(came, key=lambda node: came[node][1]):  # a forwarder had it before
                known[node] = known.get(came[node][0], 0) + 1
                found.append(known[node])
        return found

    def summary(
        self,
        *,
        nodes: int,
        links: int,
        messages: int,
        size: int,
        rate: float,
        seed: int,
        duplicates: int,
        received: int,
        cpu_ns: int = 0,
    ) -> Propagation:
        """The result. `duplicates`, `received` (bytes) and `cpu_ns` are those of all nodes."""
        delays, hops = self.delays(), self.hops()
        count = max(len(delays), 1)
        p50, p90, p99, most = (_ms(delays, part) for part in (0.5, 0.9, 0.99, 1.0))
        return Propagation(
            nodes=nodes,
            links=links,
            messages=messages,
            size=size,
            rate=rate,
            seed=seed,
            coverage=round(len(delays) / (messages * (nodes - 1)), 6),
            p50_ms=p50,
            p90_ms=p90,
            p99_ms=p99,
            max_ms=most,
            duplicates=round(duplicates / count, 3),
            bytes_per_byte=round(received / (count * size), 3),
            hops_mean=round(sum(hops) / max(len(hops), 1), 2),
            hops_max=max(hops, default=0),
            hop_ms=_ms(self.hop_times(), 0.5),
            cpu_us=round(cpu_ns / 1000 / count, 1),
        )


def _ms(sorted_seconds: Sequence[float], part: float) -> float:
    """A percentile in milliseconds; 0 of nothing."""
    if not sorted_seconds:
        return 0.0
    return round(rank(sorted_seconds, part) * 1000, 3)


def markdown(result: Propagation) -> str:
    """The result for people."""
    rows = [
        ("coverage", f"{result.coverage:.2%}"),
        ("delay, median", f"{result.p50_ms:.2f} ms"),
        ("delay, p90", f"{result.p90_ms:.2f} ms"),
        ("delay, p99", f"{result.p99_ms:.2f} ms"),
        ("delay, longest", f"{result.max_ms:.2f} ms"),
        ("duplicates for each delivery", f"{result.duplicates:.2f}"),
        ("bytes received for each byte delivered", f"{result.bytes_per_byte:.2f}"),
        ("hops, mean and most", f"{result.hops_mean:.2f}, {result.hops_max}"),
        ("one hop, median", f"{result.hop_ms:.2f} ms"),
        ("CPU for each delivery", f"{result.cpu_us:.0f} µs"),
    ]
    head = (
        f"{result.nodes} nodes, {result.links} links; {result.messages} messages of {result.size} bytes, "
        f"{result.rate:g}/s; seed {result.seed}"
    )
    return "\n".join([head, "", "| | |", "|---|---:|", *(f"| {name} | {value} |" for name, value in rows)])
