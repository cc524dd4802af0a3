"""What metrics cost at the load of the benchmark `gossip`: `python -m interop.bench.counting [--rate N] [--seconds N]`.

Ten nodes in this process gossip at `--rate` messages/s, with metrics that are scraped every 5 s. What the counting
costs is too little to be seen beside what two runs differ by. So one run counts how often something is counted, and
that is multiplied by what one time costs here; scrapes are timed as they are made. Both are told as parts of the CPU
time of the nodes.
"""

from __future__ import annotations

import argparse
import time
import timeit
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from interop.bench.ends.gossip import GossipCommands, GossipHost
from interop.bench.ends.gossip_vouch import PARAMS, VouchGossip
from interop.bench.ends.lines import LISTEN
from node.config import Config
from node.counting import Flow
from node.identity import Identity
from node.metrics import Metrics
from node.node import Node
from node.streams import ConnStream
from protocols.gossip.stats import Stats
from protocols.histogram import WAITING, Gathered

SCRAPE_EVERY = 5.0
TIMES = 200_000
# where bytes are counted
COUNTED = ("receive_nowait", "receive_some", "send_nowait", "send_all")


class Load:
    """The nodes of a run, their metrics, and what was spent on them."""

    def __init__(self) -> None:
        self.metrics: list[Metrics] = []
        self.scrapes: list[float] = []
        self.size = 0

    @asynccontextmanager
    async def host(self) -> AsyncIterator[GossipHost]:
        """One node, with metrics."""
        node = Node(Config(listen=(LISTEN,), dht="off", pool="off"), identity=Identity.generate(), gossip_params=PARAMS)
        metrics = Metrics(node)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(metrics.run)
            async with node:
                self.metrics.append(metrics)
                yield VouchGossip(node)
            nursery.cancel_scope.cancel()

    async def scrape(self) -> None:
        """All nodes, every SCRAPE_EVERY seconds. Until cancelled."""
        while True:
            await trio.sleep(SCRAPE_EVERY)
            for metrics in self.metrics:
                began = time.process_time()
                self.size = len(metrics.text())
                self.scrapes.append(time.process_time() - began)


def cost_of_bytes() -> float:
    """Seconds for one `self.flow.received += len(data)`."""

    class Stream:
        def __init__(self) -> None:
            self.flow = Flow("bench")

    stream, data = Stream(), bytes(1000)

    def add() -> None:
        stream.flow.received += len(data)

    return _each(add) - _each(lambda: None)


def cost_of_histogram() -> float:
    """Seconds for one value that is gathered, and folded with WAITING others."""
    histogram = Gathered()

    def fold() -> None:
        for number in range(WAITING):
            histogram.add(number % 97 / 100)

    def nothing() -> None:
        for number in range(WAITING):
            number % 97 / 100

    times = max(1, TIMES // WAITING)
    return (min(timeit.repeat(fold, number=times, repeat=5)) - min(timeit.repeat(nothing, number=times, repeat=5))) / (
        times * WAITING
    )


def _each(work: Callable[[], object]) -> float:
    return min(timeit.repeat(work, number=TIMES, repeat=5)) / TIMES


def counting(calls: Counter[str]) -> None:
    """Counts calls from now on."""

    def wrap(owner: Any, name: str, what: str) -> None:
        inner = getattr(owner, name)

        def counted(*args: Any, **more: Any) -> Any:
            result = inner(*args, **more)
            calls[what] += result != b""  # where nothing has come, nothing is counted
            return result

        setattr(owner, name, counted)

    for name in COUNTED:
        wrap(ConnStream, name, "bytes")
    wrap(Stats, "delivered", "histogram")
    wrap(Stats, "decided", "histogram")


async def run(rate: float, seconds: float) -> None:
    """One run for the CPU time, a second one, half as long, for how often something is counted."""
    costs = {"bytes": cost_of_bytes(), "histogram": cost_of_histogram()}
    load, calls = Load(), Counter[str]()
    async with trio.open_nursery() as nursery:
        many = GossipCommands(nursery, load.host).commands()
        nursery.start_soon(load.scrape)
        await many["gossip-many"]("10", str(rate), str(int(rate)), "1024")
        load.scrapes.clear()
        result = await many["gossip-many"]("10", str(rate), str(int(rate * seconds)), "1024")
        counting(calls)
        shorter = await many["gossip-many"]("10", str(rate), str(int(rate * seconds / 2)), "1024")
        await many["gossip-close"]()
        nursery.cancel_scope.cancel()
    cpu, delivered = result["cpu_s"], result["delivered"]
    told = {what: calls[what] / shorter["delivered"] for what in costs}
    counted = sum(told[what] * costs[what] for what in costs) * delivered
    scrape = sorted(load.scrapes)[len(load.scrapes) // 2] if load.scrapes else 0.0
    scrapes = scrape * 10 * result["seconds"] / SCRAPE_EVERY  # ten nodes
    print(f"{delivered} deliveries in {result['seconds']:.1f} s, CPU {cpu:.2f} s, {cpu / delivered * 1e6:.0f} µs each")
    for what, cost in costs.items():
        print(f"{what:10} {told[what]:.2f} times a delivery, {cost * 1e9:.0f} ns each")
    print(f"counting   {counted / cpu:.2%} of the CPU time")
    print(f"scrapes    {scrapes / cpu:.2%}: {scrape * 1000:.1f} ms each, {load.size} bytes, every {SCRAPE_EVERY:g} s")
    print(f"together   {(counted + scrapes) / cpu:.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="interop.bench.counting", description="What metrics cost.")
    parser.add_argument("--rate", type=float, default=200.0, help="messages/s, each delivered to nine")
    parser.add_argument("--seconds", type=float, default=12.0, help="how long the first run is")
    args = parser.parse_args()
    trio.run(run, args.rate, args.seconds)


if __name__ == "__main__":
    main()
