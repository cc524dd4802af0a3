"""`python -m interop.lab.propagation [--nodes N] [--messages M] ...`: one network, measured and simulated.

    --nodes N, --messages M, --size B, --rate R, --seed S, --full-mesh   as of `vouch measure propagation`
    --json         both results as one line of JSON on standard output; else a table in Markdown

First `vouch measure propagation` runs. Then the same links, publishers and times are simulated, with the engines of
production, on a machine like this one: its cores handle one copy of a message after another, in the order in which they
were sent, and each takes as long as the measured nodes took on average (CPU beyond what they take at rest, divided by
the copies they received). Nothing else takes time: on loopback the wait for a core is what delays.

Exit status: 0 if everything arrived everywhere in both, else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from typing import Any

from interop.lab.simulation import Node, Simulation
from node.cli.measure import TOPIC, measure
from node.cli.propagation import Propagation, Spread, links
from protocols.gossip.actions import Deliver, Send
from protocols.gossip.messages import Verdict
from protocols.gossip.params import GossipParams
from protocols.gossip.rpc import Rpc, encode
from protocols.gossip.score_params import PeerScoreParams

WARM_UP = 5.0
SETTLE = 10.0
SIGNED = 160  # bytes that a signature and what is signed with the payload add, about
ROWS = ("coverage", "p50_ms", "p90_ms", "p99_ms", "max_ms", "duplicates", "bytes_per_byte", "hops_mean", "hops_max")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="interop.lab.propagation", description="One network, measured and simulated.")
    parser.add_argument("--nodes", metavar="N", type=int, default=20)
    parser.add_argument("--messages", metavar="M", type=int, default=100)
    parser.add_argument("--size", metavar="B", type=int, default=1024)
    parser.add_argument("--rate", metavar="R", type=float, default=10.0)
    parser.add_argument("--seed", metavar="S", type=int, default=1)
    parser.add_argument("--full-mesh", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.nodes < 2 or args.messages < 1 or args.size < 16 or args.rate <= 0:
        parser.error("expected at least 2 nodes, 1 message, 16 bytes, and a positive rate")
    given: dict[str, Any] = {"rate": args.rate, "seed": args.seed, "full_mesh": args.full_mesh}
    measured, _ = measure(args.nodes, args.messages, args.size, report=_report, **given)
    work = measured.cpu_us / 1e6 / (1 + measured.duplicates)
    simulated = simulate(args.nodes, args.messages, args.size, work=work, cores=_cores(), **given)
    if args.json:
        print(json.dumps({"measured": measured.as_dict(), "simulated": simulated.as_dict()}))
    else:
        print(side_by_side(measured, simulated))
    return 0 if measured.coverage == simulated.coverage == 1 else 1


class OneMachine(Simulation):
    """All nodes on one machine: an RPC with messages waits for a free core, and takes `work` seconds of it."""

    def __init__(self, cores: int, work: float, **settings: Any) -> None:
        super().__init__(**settings)
        self._free = [0.0] * cores
        self._work = work

    def _put(self, node: Node, other: Node, rpc: Rpc) -> None:
        if other not in self._links[node]:
            return
        core = min(range(len(self._free)), key=self._free.__getitem__)
        done = max(self._free[core], self.now)
        if rpc.publish:
            done = self._free[core] = done + self._work
        self.at(done, (node, other, rpc))


def simulate(
    nodes: int,
    messages: int,
    size: int,
    *,
    rate: float,
    seed: int,
    work: float,
    cores: int,
    full_mesh: bool = False,
) -> Propagation:
    """The network of `measure`, on simulated time. `work`: seconds of one of the `cores` for each RPC."""
    pairs = links(nodes, seed, full_mesh=full_mesh)
    simulation, spread = OneMachine(cores, work, seed=seed), Spread()
    params, score = GossipParams(), PeerScoreParams()
    received = 0

    def count(_node: int, action: Any) -> None:
        nonlocal received
        if isinstance(action, Send):
            received += len(encode(action.rpc)) * len(action.peers)

    def delivered(node: int, delivery: Deliver) -> None:
        spread.came(delivery.message_id.hex(), str(node), str(delivery.forwarder), round(simulation.now * 1e9))
        simulation.verdict(node, delivery.message_id, Verdict.ACCEPT)

    publishers = random.Random(seed)

    def publish(number: int) -> None:
        node = publishers.randrange(nodes)
        data = number.to_bytes(8, "big").ljust(size + SIGNED, b".")
        spread.sent(simulation.publish(node, TOPIC, data).hex(), str(node), round(simulation.now * 1e9))

    simulation.on_deliver, simulation.on_action = delivered, count
    for node in range(nodes):
        simulation.add(node, params, score=score)
        simulation.subscribe(node, TOPIC)
    for node, other in pairs:
        simulation.connect(node, other, latency=0.0)
    simulation.run(WARM_UP)
    received, before = 0, _duplicates(simulation)
    for number in range(messages):
        simulation.at(WARM_UP + number / rate, lambda number=number: publish(number))  # type: ignore[misc]
    simulation.run(WARM_UP + messages / rate + SETTLE)
    return spread.summary(
        nodes=nodes,
        links=len(pairs),
        messages=messages,
        size=size,
        rate=rate,
        seed=seed,
        duplicates=_duplicates(simulation) - before,
        received=received,
    )


def side_by_side(measured: Propagation, simulated: Propagation) -> str:
    """Both results as one table in Markdown."""
    here, there = measured.as_dict(), simulated.as_dict()
    head = (
        f"{measured.nodes} nodes, {measured.links} links; {measured.messages} messages of {measured.size} bytes, "
        f"{measured.rate:g}/s; seed {measured.seed}; {measured.cpu_us:.0f} µs of CPU a delivery"
    )
    rows = [f"| `{name}` | {here[name]:g} | {there[name]:g} |" for name in ROWS]
    return "\n".join([head, "", "| | measured | simulated |", "|---|---:|---:|", *rows])


def _duplicates(simulation: Simulation) -> int:
    return sum(engine.counts["duplicate"] for engine in simulation.engines.values())


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _report(text: str) -> None:
    print(f"propagation: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
