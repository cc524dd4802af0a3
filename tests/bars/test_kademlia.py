"""Look-ups where a fifth of the network is dead: ours, and py-libp2p's on the same hosts, links and deaths.

    50 nodes, 100 ms there and back, a connection one round trip, a stream one more; then 10 nodes fall silent: who
    dials them waits, and every table still has them. Look-ups of random keys at random nodes that live.

Ours must find the 20 nearest of the living, in order, in 99 of 100, and in a fifth of py-libp2p's median time. Times
are of the network: computing costs none in simulated time.
"""

from __future__ import annotations

import logging
import random
import re
import statistics
from dataclasses import dataclass, field

import pytest
import trio

from tests.kadnet import KadHost, StockHost, die, join, nearest
from tests.memnet import MemNet, scheduling

NODES, DEAD, K = 50, 10, 20


@dataclass
class Result:
    """Of each look-up: seconds, hops, and which share of the nearest it found."""

    seconds: list[float] = field(default_factory=list)
    hops: list[int] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    exact: int = 0
    unit: str = "hops"

    def line(self, name: str) -> str:
        hops, requests = statistics.median(self.hops), statistics.median(self.requests)
        return (
            f"{name}: exactly the {K} nearest in {self.exact} of {len(self.seconds)} look-ups, "
            f"{statistics.mean(self.shares):.1%} of them; medians {statistics.median(self.seconds):.2f} s, "
            f"{hops:g} {self.unit}, {requests:g} requests; longest {max(self.seconds):.1f} s"
        )


async def meet_all(hosts, rng):
    """Everybody has heard of everybody, in an order of their own: the tables are as after a long life."""
    for host in hosts:
        for other in rng.sample(hosts, len(hosts)):
            if other is not host:
                await host.met(other.id)


async def measure(kind, lookups, told, *, live_join, seed=5):
    rng = random.Random(seed)
    result = Result(unit="hops" if kind is KadHost else "rounds")
    async with MemNet(seed=1, latency=0.05) as net:
        hosts = [kind(net, f"10.0.0.{number + 1}") for number in range(NODES)]
        if live_join:
            await join(hosts, rounds=1)
        else:
            await meet_all(hosts, rng)
        dead = rng.sample(hosts[1:], DEAD)
        die(net, hosts, dead)
        living = [host for host in hosts if host not in dead]
        await trio.sleep(1.0)
        for _ in range(lookups):
            key, host = rng.randbytes(34), rng.choice(living)
            began = trio.current_time()
            found = await host.look_up(key)
            result.seconds.append(trio.current_time() - began)
            wanted = nearest((other for other in living if other is not host), key, K)
            result.exact += found == wanted
            result.shares.append(len(set(found) & set(wanted)) / K)
            if isinstance(host, KadHost):
                result.hops.append(host.kad.last.hops)
                result.requests.append(host.kad.last.requests)
            else:
                rounds, queries = re.search(r"(\d+) rounds \((\d+) queries", told[-1]).groups()
                result.hops.append(int(rounds))
                result.requests.append(int(queries))
    return result


@pytest.fixture
def told(monkeypatch):
    """What py-libp2p's look-ups say of themselves. Its records are neither signed nor verified: that takes long, and
    nobody looks at them here.
    """
    from libp2p.kad_dht import kad_dht, peer_routing

    for module in (kad_dht, peer_routing):
        monkeypatch.setattr(module, "env_to_send_in_RPC", lambda *_: (b"", False))
        monkeypatch.setattr(module, "maybe_consume_signed_record", lambda *_: True)
    lines: list[str] = []
    monkeypatch.setattr(peer_routing.logger, "info", lambda text, *_: lines.append(text))
    logging.disable(logging.CRITICAL)
    yield lines
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    ("ours", "stock", "live_join"),
    [
        pytest.param(25, 10, False, marks=pytest.mark.bar_quick, id="quick"),
        pytest.param(100, 50, True, marks=pytest.mark.bar, id="full"),
    ],
)
async def test_bar_kademlia(autojump_clock, told, ours, stock, live_join):
    with scheduling(1):
        mine = await measure(KadHost, ours, told, live_join=live_join)
        theirs = await measure(StockHost, stock, told, live_join=live_join)
    times = statistics.median(theirs.seconds) / statistics.median(mine.seconds)
    print(f"\n{mine.line('ours')}\n{theirs.line('py-libp2p')}\n{times:.1f} times as fast, {DEAD} of {NODES} dead")
    assert mine.exact >= 0.99 * ours
    assert times >= 5
