"""The benchmark `gossip`: the highest rate at which everything arrives, between two processes and among ten nodes.

A run publishes messages by timetable. The rate is held if every message reaches every subscriber, and 99 % of the
deliveries are made within 1.1 times the timetable and 0.1 s. A rate that is only outrun by what waits in queues isn't.
What a run has reached is its messages by the longer of its timetable and that time.

    a burst of a few --> what it reached --held--> twice that, ... --not held--> what that run reached, or half way
                                                                   to the last rate held; until the two are close

Raises PeerError, also when no rate is held.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from interop.bench.cost import Spent
from interop.bench.measures import Sample
from interop.bench.stage import CALL_TIMEOUT, Pair, Stage
from interop.peer import Message, PeerError

BURST_RATE = 100_000
STRETCH, SLACK = 1.1, 0.1
# what a router does when it is overrun may be less than it can do
OVERRUN = 1.25
MOST_TRIALS = 16
LEAST_RATE = 0.5
LEAST_COUNT = 20

Publish = Callable[[float, int], Awaitable[Message]]


@dataclass(frozen=True)
class Gossiping:
    """How long the runs are, and how close the rates held and not held come."""

    seconds: float
    tolerance: float
    nodes: int = 10
    size: int = 1024

    def __str__(self) -> str:
        return f"messages of {self.size} bytes, runs of {self.seconds:g} s"


class Search:
    """Which rate is tried next. `held` is the highest that was, None before there is one."""

    def __init__(self, rate: float, tolerance: float) -> None:
        self.rate = rate
        self.held: float | None = None
        self._missed: float | None = None
        self._tolerance = tolerance

    @property
    def done(self) -> bool:
        """Whether the highest rate is known well enough, or there is none."""
        if self.held is None or self._missed is None:
            return self.rate < LEAST_RATE
        return self._missed <= self.held * self._tolerance

    def tell(self, held: bool, reached: float) -> None:
        """How the rate has done; `reached` is 0 if messages were lost."""
        if held:
            self.held = max(self.rate, self.held or 0)
        else:
            bound = self.rate if not reached else min(self.rate, reached * OVERRUN)
            self._missed = min(bound, self._missed or bound)
        if self.held is not None and self._missed is not None and self._missed < self.held:
            self._missed = self.held  # a noisy machine: what was held counts
        if self._missed is None:
            self.rate *= 2
        elif self.held is None:
            self.rate = min(reached or math.inf, self.rate / self._tolerance) if reached else self.rate / 2
        else:
            between = math.sqrt(self.held * self._missed)
            self.rate = reached if not held and self.held * 1.05 < reached < self._missed else between


@dataclass(frozen=True)
class Run:
    """The best run: `reached` in messages/s, and the reply."""

    reached: float
    reply: Message


async def gossip(stage: Stage, pairing: str, gossiping: Gossiping) -> Sample:
    """Two processes, then ten nodes in one."""
    pair = stage.pair(pairing)
    pair.spent = Spent()
    try:
        two = await _two(pair, gossiping)
        many = await _many(pair, gossiping)
    finally:
        with trio.CancelScope(shield=True):
            for peer in (pair.dialler, pair.listener):
                await peer.call("gossip-close", check=False)
    values = {
        "gossip-messages": two.reached,
        "gossip-deliveries": many.reached * (gossiping.nodes - 1),
        "gossip-p50": many.reply["p50_ms"],
        "gossip-p99": many.reply["p99_ms"],
        "gossip-cpu": many.reply["cpu_s"] / many.reply["delivered"] * 1e6,
    }
    return Sample(values, pair.spent)


async def _two(pair: Pair, gossiping: Gossiping) -> Run:
    """The dialler publishes, the listener is subscribed; each with a host of its own for this."""
    addr = (await pair.listener.call("gossip-open"))["addr"]
    await pair.dialler.call("gossip-join", addr)
    runs = 0

    async def publish(rate: float, count: int) -> Message:
        nonlocal runs
        runs += 1
        await pair.listener.call("gossip-expect", str(runs), str(count))
        await pair.call("gossip-publish", runs, rate, count, gossiping.size)
        return await pair.listener.call("gossip-take", timeout=CALL_TIMEOUT)

    found = await highest(publish, 100, gossiping, f"{pair.name}, two processes")
    for peer in (pair.dialler, pair.listener):
        await peer.call("gossip-close")
    return found


async def _many(pair: Pair, gossiping: Gossiping) -> Run:
    async def publish(rate: float, count: int) -> Message:
        return await pair.call("gossip-many", gossiping.nodes, rate, count, gossiping.size)

    return await highest(publish, LEAST_COUNT, gossiping, f"{pair.name}, {gossiping.nodes} nodes")


async def highest(publish: Publish, burst: int, gossiping: Gossiping, who: str) -> Run:
    """The run at the highest rate that is held. `publish` runs so many messages/s, so many in all."""
    reply = await publish(BURST_RATE, burst)
    search = Search(_reached(reply, BURST_RATE, burst) or burst / 2, gossiping.tolerance)
    best: Run | None = None
    for _ in range(MOST_TRIALS):
        rate, count = search.rate, max(LEAST_COUNT, round(search.rate * gossiping.seconds))
        reply = await publish(rate, count)
        reached = _reached(reply, rate, count)
        held = bool(reached) and reply["seconds"] <= count / rate * STRETCH + SLACK
        if held and (best is None or reached > best.reached):
            best = Run(reached, reply)
        search.tell(held, reached)
        if search.done:
            break
    if best is None:
        raise PeerError(f"{who}: expected a rate at which everything arrives, found none down to {search.rate:g}/s")
    return best


def _reached(reply: Message, rate: float, count: int) -> float:
    """Messages/s of a run, 0 if some were lost."""
    if reply["delivered"] != reply["expected"] or not reply["seconds"]:
        return 0.0
    return count / max(count / rate, float(reply["seconds"]))
