"""Eclipse: an attacker floods a victim's exchange, Kademlia results and inbound slots with identities of two /16s. The
node's own rules, on the network of tests/poolsim.py, where everything that the attacker is asked he answers his way.
"""

from __future__ import annotations

import typing
from dataclasses import replace

import pytest

from node.peers.choice import Targets
from node.peers.standing import subnet
from tests.poolsim import Network, SimNode

QUICK = Targets(low=8, target=16, high=40, outbound=8, feeler_interval=10)


class Attacker(SimNode):
    """Answers, stays connected, dials nobody by rule, and tells of its own kind only."""

    gang: typing.ClassVar[list[Attacker]] = []

    def _work(self) -> None:
        pass

    def tell(self, asker: SimNode) -> list[str]:
        rng = self.network.rng
        return [other.id for other in rng.sample(self.gang, min(100, len(self.gang)))]


def eclipse(
    honest: int,
    identities: int,
    minutes: float,
    targets: Targets,
    *,
    restarts: bool,
    settling: float = 120,
    seed: int = 1,
) -> dict[str, float]:
    """A victim begins (`restarts`: begins anew, with its book) under attack, when the others have had `settling`
    seconds: what part of its outbound is honest."""
    network = Network(seed=seed, targets=targets)
    rng = network.rng
    nodes = [network.add("20.0.0.1")]
    nodes += [network.add(f"{20 + n % 50}.{n // 50}.0.7", nodes[:1]) for n in range(1, honest)]
    network.run(settling)
    Attacker.gang = gang = [
        network.add(f"{80 + n % 2}.1.{n // 250}.{n // 2 % 125 + 1}", kind=Attacker)  # type: ignore[misc]
        for n in range(identities)
    ]
    victim = network.add("90.7.0.1", nodes[:2])
    if restarts:
        network.run(2.5 * settling)
    lowest, shares, slots = 1.0, list[float](), 0
    for second in range(int(60 * minutes)):
        # inbound slots: whoever isn't connected with the victim dials it, and some of the others, to be told of
        for attacker in rng.sample(gang, min(50, len(gang))):
            network.join(attacker, victim)
            network.join(attacker, rng.choice(nodes))
        # Kademlia's results, and the connections that lookups make to those that they name
        if second % 10 == 0:
            for other in gang:
                victim.found(other.id, other.addr, "dht")
            for other in rng.sample(gang, 3):
                if other not in victim.links:
                    network.join(victim, other)
        if restarts and second == 60:
            book = victim.book
            network.kill(victim)
            network.run(1)
            del network.nodes[victim.id]
            victim = network.add("90.7.0.1", nodes[:2], book=book)
        network.run(1)
        outbound = victim.outbound()
        good = sum(not isinstance(network.nodes[peer], Attacker) for peer in outbound)
        if len(outbound) >= targets.low:
            slots += 1
            shares.append(good / len(outbound))
            lowest = min(lowest, shares[-1])
    return {
        "lowest_honest_share": lowest,
        "mean_honest_share": sum(shares) / max(1, len(shares)),
        "seconds_measured": slots,
        "outbound": len(victim.outbound()),
        "inbound_attackers": sum(isinstance(other, Attacker) for other in victim.links) - len(outbound) + good,
        "inbound_honest": sum(not isinstance(other, Attacker) for other in victim.links) - good,
        "attackers_in_book": sum(
            subnet(f"/ip4/{e.peer[1:]}") in ("80.1.0.0/16", "81.1.0.0/16") for e in victim.book.entries()
        ),
    }


def check(result: dict[str, float]) -> None:
    print({name: round(value, 2) for name, value in result.items()})
    assert result["seconds_measured"] > 60, result
    assert result["lowest_honest_share"] >= 0.5, result


@pytest.mark.parametrize(
    ("honest", "identities", "minutes", "targets", "settling"),
    [
        pytest.param(30, 150, 1.1, QUICK, 30, marks=pytest.mark.bar_quick, id="quick"),
        pytest.param(100, 500, 30, Targets(), 120, marks=pytest.mark.bar, id="full"),
    ],
)
@pytest.mark.parametrize("restarts", [False, True], ids=["new", "restarted"])
def test_bar_eclipse(
    honest: int, identities: int, minutes: float, targets: Targets, settling: float, restarts: bool
) -> None:
    check(eclipse(honest, identities, minutes, targets, settling=settling, restarts=restarts))


@pytest.mark.bar_quick
def test_bar_eclipse_succeeds_where_subnets_have_no_limit() -> None:
    result = eclipse(30, 150, 1.1, replace(QUICK, subnet_share=1.0), settling=30, restarts=True)
    assert result["lowest_honest_share"] < 0.5, result
