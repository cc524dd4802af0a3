"""Networks of engines: under any schedule, accepted messages arrive once, and nothing else travels."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interop.lab.gossip_sim import simulate
from interop.lab.simulation import Simulation
from protocols.gossip.actions import Send
from protocols.gossip.messages import Verdict
from protocols.gossip.params import GossipParams
from protocols.gossip.rpc import PubsubMessage, Rpc
from protocols.gossip.score_params import PeerScoreParams
from protocols.gossip.state import FLOODSUB, MESHSUB_11, MESHSUB_12

TOPIC = "t"
ACCEPT, REJECT, IGNORE = Verdict.ACCEPT, Verdict.REJECT, Verdict.IGNORE

# what each node does with a message: the verdict, and after how many seconds; None for never
VERDICTS = [(ACCEPT, 0.0), (ACCEPT, 0.0), (ACCEPT, 0.5), (ACCEPT, 3.0), (REJECT, 0.2), (IGNORE, 0.1), (None, 0.0)]


class Watched:
    """A network whose every relay and delivery is checked as it happens."""

    def __init__(self, seed, nodes, params, **network):
        self.simulation = simulation = Simulation(seed=seed, **network)
        self.rng = random.Random(seed)
        self.delivered = {}  # (node, ID) -> times
        self.accepted = set()  # (node, ID), own messages too
        self.rejected = set()
        self.plan = {}  # ID -> (verdict, delay), the same at every node
        for node in range(nodes):
            simulation.add(node, params, score=PeerScoreParams())
        simulation.on_deliver = self.on_deliver
        simulation.on_action = self.on_action

    def on_deliver(self, node, delivery):
        key = node, delivery.message_id
        self.delivered[key] = self.delivered.get(key, 0) + 1
        verdict, delay = self.plan[delivery.message_id]
        if verdict is not None:
            self.simulation.at(self.simulation.now + delay, lambda: self.judge(key, verdict))

    def judge(self, key, verdict):
        if verdict is ACCEPT:
            self.accepted.add(key)  # before, because the relay happens within
        if not self.simulation.verdict(*key, verdict):
            self.accepted.discard(key)

    def on_action(self, node, action):
        if isinstance(action, Send):
            ids = [self.id_of(message) for message in action.rpc.publish]
            control = action.rpc.control
            ids += [one for have in (control.ihave if control else ()) for one in have.message_ids]
            for message_id in ids:
                assert (node, message_id) in self.accepted, "nothing is relayed, given or advertised before accept"

    def id_of(self, message):
        return self.simulation.engines[0]._state.message_id(message)

    def publish(self, node, data, verdict, delay=0.0):
        # the ID is known beforehand, as in any network whose IDs are made of the content
        message_id = self.id_of(PubsubMessage(TOPIC, data))
        self.plan[message_id] = verdict, delay
        self.accepted.add((node, message_id))
        assert self.simulation.publish(node, TOPIC, data) == message_id
        return message_id

    def check(self):
        assert all(times == 1 for times in self.delivered.values()), "delivered at most once"
        for engine in self.simulation.engines.values():
            count, size = engine.pending
            assert 0 <= count <= engine.params.max_pending_messages
            assert 0 <= size <= engine.params.max_pending_bytes
            assert len(engine._seen) <= engine.params.max_seen
            assert sum(map(len, engine._lazy._rounds)) == len(engine._lazy.unwanted)
            assert all(len(topic.mesh or ()) <= 8 for topic in engine._state.joined.values())
            assert engine.take() == []


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.booleans())
def test_any_schedule_delivers_once_and_relays_only_what_is_accepted(seed, wire):
    """Eight nodes; links, latencies, protocols, verdicts, comings and goings drawn by lot."""
    rng = random.Random(seed)
    params = GossipParams(verdict_timeout=4, d=3, d_lo=2, d_hi=4, d_score=2, d_out=1, idontwant_message_threshold=64)
    net = Watched(seed, 8, params, wire=wire, loss=rng.choice([0.0, 0.05]))
    simulation = net.simulation
    for node in range(8):
        simulation.subscribe(node, TOPIC)
    pairs = [(a, b) for a in range(8) for b in range(a)]
    for a, b in rng.sample(pairs, 16):
        protocol = rng.choice([MESHSUB_12, MESHSUB_12, MESHSUB_11, FLOODSUB])
        simulation.connect(a, b, rng.uniform(0.001, 0.4), protocol, direct=rng.random() < 0.1)
    for number in range(15):
        data = number.to_bytes(4, "big") * rng.choice([1, 40])
        verdict, delay = rng.choice(VERDICTS)
        at, node = rng.uniform(0, 20), rng.randrange(8)
        simulation.at(at, lambda n=node, d=data, v=verdict, w=delay: net.publish(n, d, v, w))
    for _ in range(20):
        a, b = rng.choice(pairs)
        change = rng.choice([simulation.disconnect, simulation.connect])
        simulation.at(rng.uniform(0, 20), lambda a=a, b=b, change=change: change(a, b))
    for _ in range(4):
        node, away = rng.randrange(8), rng.uniform(1, 15)
        simulation.at(away, lambda n=node: simulation.unsubscribe(n, TOPIC))
        simulation.at(away + 2, lambda n=node: simulation.subscribe(n, TOPIC))
    for second in range(1, 40):
        simulation.run(float(second))
        net.check()
    assert all(engine.pending == (0, 0) for engine in simulation.engines.values()), "every message found its end"


def ring(net, *more):
    nodes = len(net.simulation.engines)
    for node in range(nodes):
        net.simulation.connect(node, (node + 1) % nodes, 0.02)
        for step in more:
            net.simulation.connect(node, (node + step) % nodes, 0.05)
        net.simulation.subscribe(node, TOPIC)
    net.simulation.run(5.0)


def test_what_all_accept_reaches_everybody_once():
    net = Watched(1, 20, GossipParams())
    ring(net, 3, 7)
    ids = [net.publish(number % 20, b"%d" % number, ACCEPT, 0.1 * (number % 3)) for number in range(30)]
    net.simulation.run(15.0)
    net.check()
    for message_id in ids:
        assert sum((node, message_id) in net.delivered for node in range(20)) == 19


def test_a_burst_of_a_hundred_arrives_whole():
    net = Watched(1, 10, GossipParams())
    ring(net, 3)
    ids = [net.publish(0, b"%d" % number * 500, ACCEPT) for number in range(100)]
    net.simulation.run(8.0)
    net.check()
    assert all((node, message_id) in net.delivered for node in range(1, 10) for message_id in ids)


def test_what_the_neighbours_reject_reaches_no_one_else():
    net = Watched(1, 20, GossipParams(flood_publish=False))
    ring(net)
    message_id = net.publish(0, b"bad", REJECT, 0.5)
    net.simulation.run(10.0)
    assert {node for node, one in net.delivered if one == message_id} == {1, 19}
    assert net.simulation.engines[1].scores.score(0) < 0


@pytest.mark.parametrize("wire", [False, True])
def test_a_line_waits_for_every_verdict(wire):
    """With one node in the only path, its verdict is all that lets a message pass: after it, never before."""
    net = Watched(1, 4, GossipParams(), wire=wire)
    for node in range(4):
        net.simulation.subscribe(node, TOPIC)
    for node in range(3):
        net.simulation.connect(node, node + 1, 0.01)
    net.simulation.run(3.0)
    arrivals = {}
    judge = net.on_deliver
    net.simulation.on_deliver = lambda node, one: (arrivals.setdefault(node, net.simulation.now), judge(node, one))
    net.publish(0, b"x" * 2000, ACCEPT, 3.0)
    net.simulation.run(20.0)
    assert [round(arrivals[node], 1) for node in (1, 2, 3)] == [3.0, 6.0, 9.0]


def test_gossip_repairs_what_links_lose():
    result = simulate(60, 30, loss=0.3, rate=5.0)
    assert result.coverage > 0.995


def test_nodes_that_join_late_are_taken_in():
    net = Watched(3, 12, GossipParams())
    ring(net, 4)
    simulation = net.simulation
    simulation.add(12, GossipParams(), score=PeerScoreParams())
    simulation.subscribe(12, TOPIC)
    for other in range(6):
        simulation.connect(12, other)
    simulation.run(8.0)
    message_id = net.publish(9, b"hello", ACCEPT)
    simulation.run(12.0)
    assert (12, message_id) in net.delivered


def test_the_simulator_covers_and_repeats():
    first, second = (simulate(60, 10, seed=5) for _ in range(2))
    assert first.coverage == 1
    assert (first.p50_ms, first.p99_ms, first.rpcs) == (second.p50_ms, second.p99_ms, second.rpcs)


def test_the_simulator_carries_bytes():
    plain, wired = simulate(30, 5, seed=2), simulate(30, 5, seed=2, wire=True)
    assert (plain.coverage, plain.p50_ms, plain.rpcs) == (wired.coverage, wired.p50_ms, wired.rpcs)


def test_an_empty_rpc_changes_nothing():
    simulation = Simulation()
    simulation.add(0)
    simulation.add(1)
    simulation.connect(0, 1)
    simulation.send(0, 1, Rpc())
    simulation.run(0.05)
    assert simulation.engines[1].take() == []
