"""The network that the bars of the pool run on."""

from __future__ import annotations

import pytest

from node.peers.actions import Dial
from node.peers.choice import Targets
from tests.poolsim import DIAL_TIMEOUT, RTT, Network

SMALL = Targets(low=4, target=6, high=12, outbound=3)


def some_life(seed: int) -> list[tuple[str, int]]:
    network = Network(seed=seed, targets=SMALL)
    nodes = [network.add("20.0.0.1")]
    nodes += [network.add(f"{20 + n}.1.0.1", nodes[:1]) for n in range(1, 20)]
    for _ in range(8):
        network.run(20)
        network.kill(nodes.pop(), machine=network.rng.random() < 0.5)
    network.run(60)
    return list(network.dialled.items())


def test_a_seed_gives_one_run_and_another_seed_another():
    assert some_life(1) == some_life(1)
    assert some_life(1) != some_life(2)


@pytest.mark.parametrize(("machine", "seconds"), [(False, RTT), (True, DIAL_TIMEOUT)])
def test_who_dials_a_machine_that_is_gone_hears_nothing(machine, seconds):
    network = Network(targets=SMALL)
    one, other = network.add("20.0.0.1"), network.add("21.0.0.1")
    network.kill(other, machine=machine)
    dial = Dial(other.id, (other.addr,), "pool")
    one.book.learn(other.id, [other.addr], "exchange")
    one.pool.dialling[other.id] = dial
    network.dial(one, dial)
    network.run(seconds - 0.01)
    assert other.id in one.pool.dialling
    network.run(0.02)
    assert other.id not in one.pool.dialling
