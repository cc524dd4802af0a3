"""Churn: nodes come and go, a fifth of them each minute. The node's own rules, on the network of tests/poolsim.py."""

from __future__ import annotations

import time

import pytest

from node.peers.choice import Targets
from tests.poolsim import Network, SimNode

LOOK = 1.0
GRACE = 30.0
FORMING = 60  # seconds in which all begin at once, before anybody goes


def churn(count: int, minutes: int, targets: Targets, *, seed: int = 1) -> dict[str, float]:
    """`count` nodes and two that stay, for `minutes`, of which a fifth is replaced each minute."""
    started = time.process_time()
    network = Network(seed=seed, targets=targets)
    # three in each /16
    addresses = (f"{20 + n // 3 % 60}.{n // 180}.{n % 3}.7" for n in range(40_000))
    stay: list[SimNode] = []
    for _ in range(2):
        stay.append(network.add(next(addresses), stay))
    living = [network.add(next(addresses), stay) for _ in range(count)]
    below: dict[SimNode, float] = {}
    longest, splits, dials = 0.0, 0, list[int]()
    per_minute = max(1, count // 5)
    replaced = 0
    for second in range(FORMING + 60 * minutes):
        while replaced < (second - FORMING) * per_minute / 60:
            replaced += 1
            gone = living.pop(network.rng.randrange(len(living)))
            network.kill(gone, machine=network.rng.random() < 0.5)
            living.append(network.add(next(addresses), stay))
        network.run(LOOK)
        for node in [*living, *stay]:
            if node.live() >= targets.low or second < FORMING:
                below.pop(node, None)
            else:
                below.setdefault(node, network.now)
        alive = set(living) | set(stay)
        below = {node: since for node, since in below.items() if node in alive}
        longest = max([longest, *(network.now - since for since in below.values())])
        splits += second > FORMING and not network.in_one_piece(alive)
        if second % 60 == 59:
            for node in alive:
                if network.now - node.born >= 60:
                    dials.append(node.dials)
                node.dials = 0
    return {
        "longest_below_low_s": longest,
        "splits": splits,
        "dials_per_node_and_minute": sum(dials) / len(dials),
        "most_dials_in_a_minute": max(dials),
        "cpu_s": time.process_time() - started,
    }


def check(result: dict[str, float], targets: Targets) -> None:
    print({name: round(value, 2) for name, value in result.items()})
    assert result["longest_below_low_s"] <= GRACE, result
    assert result["splits"] == 0, result
    # what the rate allows, and the burst
    assert result["most_dials_in_a_minute"] <= 60 * targets.dial_rate + targets.max_dials + 1, result


@pytest.mark.parametrize(
    ("count", "minutes", "targets"),
    [
        pytest.param(40, 5, Targets(low=8, target=14, high=32, outbound=7), marks=pytest.mark.bar_quick, id="quick"),
        pytest.param(200, 60, Targets(), marks=pytest.mark.bar, id="full"),
    ],
)
def test_bar_churn(count: int, minutes: int, targets: Targets) -> None:
    check(churn(count, minutes, targets), targets)
