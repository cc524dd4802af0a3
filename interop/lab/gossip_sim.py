"""`python -m interop.lab.gossip_sim [--nodes N] [--messages M] [--seed S] ...`: how gossip spreads in a large network.

    --nodes N      engines, all in one topic (default 1000)
    --messages M   published one after the other, each by a node drawn by lot (default 100)
    --seed S       everything drawn by lot: links, latencies, publishers (default 1)
    --rate R       messages published in a second (default 20)
    --size B       bytes of a message's data (default 1024, from which IDONTWANT is sent)
    --links L      peers that each node dials; it has about twice as many (default 10)
    --verdict V    seconds from delivery to verdict (default 0)
    --loss P       part of RPCs that are lost (default 0)
    --wire         every RPC goes through its bytes
    --json         the result as one line of JSON on standard output

Latencies are 10 to 100 ms, evenly. Meshes have five seconds to form, the last messages ten to arrive. Delays are
those from publish to delivery, in milliseconds of simulated time; duplicates are copies that a node had already, for
each delivery. Exit status: 0 if everything arrived everywhere, else 1.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass

from interop.lab.simulation import Simulation
from protocols.gossip.actions import Deliver
from protocols.gossip.messages import Verdict
from protocols.gossip.params import GossipParams
from protocols.gossip.score_params import PeerScoreParams

TOPIC = "sim"
WARM_UP = 5.0
SETTLE = 10.0


@dataclass
class Result:
    nodes: int
    messages: int
    coverage: float  # part of the deliveries that there should have been
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    duplicates: float
    rpcs: int
    seconds: float  # of real time
    cpu_seconds: float
    memory_mb: float  # the process's largest resident size


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="interop.lab.gossip_sim", description="Gossip in a simulated network.")
    parser.add_argument("--nodes", metavar="N", type=int, default=1000)
    parser.add_argument("--messages", metavar="M", type=int, default=100)
    parser.add_argument("--seed", metavar="S", type=int, default=1)
    parser.add_argument("--rate", metavar="R", type=float, default=20.0)
    parser.add_argument("--size", metavar="B", type=int, default=1024)
    parser.add_argument("--links", metavar="L", type=int, default=10)
    parser.add_argument("--verdict", metavar="V", type=float, default=0.0)
    parser.add_argument("--loss", metavar="P", type=float, default=0.0)
    parser.add_argument("--wire", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.nodes < 2 or args.messages < 1 or args.rate <= 0 or args.size < 8 or not 0 <= args.loss < 1:
        parser.error("expected at least 2 nodes, 1 message, 8 bytes, a positive rate and a loss below 1")
    result = simulate(
        args.nodes,
        args.messages,
        seed=args.seed,
        rate=args.rate,
        size=args.size,
        links=args.links,
        verdict=args.verdict,
        loss=args.loss,
        wire=args.wire,
    )
    if args.json:
        print(json.dumps(asdict(result)))
    else:
        for name, value in asdict(result).items():
            print(f"{name:12} {value:g}")
    return 0 if result.coverage == 1 else 1


def simulate(
    nodes: int,
    messages: int,
    *,
    seed: int = 1,
    rate: float = 20.0,
    size: int = 1024,
    links: int = 10,
    verdict: float = 0.0,
    loss: float = 0.0,
    wire: bool = False,
) -> Result:
    """Runs one network and measures it."""
    # engines make no reference cycles, and looking for them among millions of objects would take most of the time
    gc.disable()
    try:
        return _simulate(nodes, messages, seed, rate, size, links, verdict, loss, wire)
    finally:
        gc.enable()


def _simulate(
    nodes: int,
    messages: int,
    seed: int,
    rate: float,
    size: int,
    links: int,
    verdict: float,
    loss: float,
    wire: bool,
) -> Result:
    started, started_cpu = time.perf_counter(), time.process_time()
    simulation = Simulation(seed=seed, wire=wire, loss=loss)
    rng = simulation.rng
    params, score = GossipParams(), PeerScoreParams()
    for node in range(nodes):
        simulation.add(node, params, score=score)
        simulation.subscribe(node, TOPIC)
    for node in range(nodes):
        for other in rng.sample(range(nodes), min(links, nodes)):
            simulation.connect(node, other, latency=rng.uniform(0.01, 0.1))

    published: dict[bytes, float] = {}
    delays: list[float] = []

    def delivered(node: int, delivery: Deliver) -> None:
        delays.append(simulation.now - published[delivery.message_id])
        if verdict:
            simulation.at(simulation.now + verdict, lambda: _accept(simulation, node, delivery.message_id))
        else:
            simulation.verdict(node, delivery.message_id, Verdict.ACCEPT)

    def publish(number: int) -> None:
        data = number.to_bytes(8, "big").ljust(size, b".")
        # the ID is needed before the first delivery, which a link's latency puts after this call
        published[simulation.publish(rng.randrange(nodes), TOPIC, data)] = simulation.now

    simulation.on_deliver = delivered
    for number in range(messages):
        simulation.at(WARM_UP + number / rate, lambda number=number: publish(number))  # type: ignore[misc]
    simulation.run(WARM_UP + messages / rate + SETTLE + verdict * 10)
    delays.sort()
    duplicates = sum(engine.counts["duplicate"] for engine in simulation.engines.values())

    def percentile(part: float) -> float:
        return round(delays[min(len(delays) - 1, int(part * len(delays)))] * 1000, 2) if delays else 0.0

    return Result(
        nodes=nodes,
        messages=messages,
        coverage=len(delays) / (messages * (nodes - 1)),
        p50_ms=percentile(0.5),
        p90_ms=percentile(0.9),
        p99_ms=percentile(0.99),
        max_ms=percentile(1),
        duplicates=round(duplicates / max(len(delays), 1), 3),
        rpcs=simulation.rpcs,
        seconds=round(time.perf_counter() - started, 2),
        cpu_seconds=round(time.process_time() - started_cpu, 2),
        memory_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    )


def _accept(simulation: Simulation, node: int, message_id: bytes) -> None:
    simulation.verdict(node, message_id, Verdict.ACCEPT)


if __name__ == "__main__":
    sys.exit(main())
