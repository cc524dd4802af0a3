"""A network under attack: honest nodes that publish and judge all the time, attackers that are linked to many of them.

    battle = Battle(InvalidMessages, seconds=30)
    battle.coverage, battle.share, battle.peak, battle.scores() ...

The attackers are there first, so that the meshes are theirs when the honest nodes meet. Honest messages start with
"good" and are accepted, others are rejected ("bad"), ignored ("old") or rejected late ("hard"). Every second the bounds
of every honest engine are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from interop.lab.simulation import Simulation
from protocols.gossip.actions import Connect, Send
from protocols.gossip.messages import Verdict
from protocols.gossip.params import GossipParams
from protocols.gossip.score_params import PeerScoreParams, PeerScoreThresholds, TopicScoreParams
from tests.protocols.gossip.attackers import TOPIC

WARM_UP = 3.0
SETTLE = 10.0  # ten heartbeats


@dataclass(frozen=True)
class Setup:
    """honest, attackers: how many. reach: honest nodes that each attacker dials. links: those that an honest one dials.
    victims: honest nodes that every attacker dials. rate: honest messages in a second, of `size` bytes. ip: of all
    attackers, else each has its own. trusted: honest nodes that P5 gives a hundred points. topic: how the topic is
    scored, None for the defaults."""

    honest: int = 200
    attackers: int = 60
    reach: int = 40
    links: int = 8
    victims: int = 0
    rate: float = 2.0
    seconds: float = 20.0
    size: int = 32
    ip: str | None = None
    trusted: int = 0
    params: GossipParams = field(default_factory=GossipParams)
    thresholds: PeerScoreThresholds = field(default_factory=PeerScoreThresholds)
    topic: TopicScoreParams | None = None
    seed: int = 1


class Battle:
    def __init__(self, kind, setup):
        self.setup = setup
        self.simulation = simulation = Simulation(seed=setup.seed)
        self.rng = rng = simulation.rng
        self.honest = range(setup.honest)
        self.arrived = dict.fromkeys(self.honest, 0)  # messages in time, by node
        self.expected = dict.fromkeys(self.honest, 0)
        self.late = 0
        self.dialled = 0  # by honest nodes, because an attacker named somebody
        self.answers = 0  # RPCs from honest nodes to attackers
        self.published = {}
        self.sunk = set()  # (attacker, honest node): was below the graylist threshold there
        self.shares = []  # attackers' part of all honest mesh links, each second
        score = PeerScoreParams(
            topics={TOPIC: setup.topic or TopicScoreParams()},
            app_specific_score=lambda peer: 100.0 if peer < setup.trusted else 0.0,
        )
        numbers = range(setup.honest, setup.honest + setup.attackers)
        self.attackers = [kind(simulation, number, numbers) for number in numbers]
        for node in self.honest:
            simulation.add(node, setup.params, score=score, thresholds=setup.thresholds)
            simulation.subscribe(node, TOPIC)
        for attacker in self.attackers:
            simulation.add_other(attacker.node, attacker)
        for attacker in self.attackers:
            for node in [*range(setup.victims), *rng.sample(self.honest, setup.reach)]:
                self.connect(attacker.node, node, rng.uniform(0.005, 0.02))
        simulation.run(0.5)
        for node in self.honest:
            for other in rng.sample(self.honest, setup.links):
                self.connect(node, other, rng.uniform(0.02, 0.1))
        self.targets = {one.node: tuple(one.peers) for one in self.attackers}  # whom they attacked
        simulation.on_deliver, simulation.on_action = self.on_deliver, self.on_action
        for number in range(int(setup.seconds * setup.rate)):
            simulation.at(WARM_UP + number / setup.rate, lambda number=number: self.publish(number))
        for second in range(1, int(WARM_UP + setup.seconds + SETTLE) + 1):
            simulation.run(float(second))
            self.check_bounds()
            self.shares.append(self.in_meshes())
            self.sunk |= {pair for pair, score in self.scores().items() if score < setup.thresholds.graylist_threshold}

    def address(self, node):
        if node in self.honest:
            return f"198.51.{node // 256}.{node % 256}"
        return self.setup.ip or f"203.0.{node // 256}.{node % 256}"

    def connect(self, node, other, latency):
        """Each sees the other's address."""
        simulation = self.simulation
        if other in simulation.neighbours(node) or node == other:
            return
        simulation.connect(
            node,
            other,
            latency,
            facts={"ip": self.address(other), "peer_id": b"%d" % other},
            other_facts={"ip": self.address(node), "peer_id": b"%d" % node},
        )

    def publish(self, number):
        data = (b"good %d" % number).ljust(self.setup.size, b".")
        node = self.rng.choice(self.honest)
        self.published[self.simulation.publish(node, TOPIC, data)] = self.simulation.now
        for other in self.honest:
            self.expected[other] += other != node

    def on_deliver(self, node, delivery):
        data, now = delivery.message.data, self.simulation.now
        if data.startswith(b"good"):
            in_time = now - self.published[delivery.message_id] <= SETTLE
            self.arrived[node] += in_time
            self.late += not in_time
            verdict, delay = Verdict.ACCEPT, self.rng.uniform(0, 0.1)
        elif data.startswith(b"old"):
            verdict, delay = Verdict.IGNORE, 0.0
        else:
            verdict, delay = Verdict.REJECT, 3.0 if data.startswith(b"hard") else 0.05
        if delay:
            self.simulation.at(now + delay, lambda: self.simulation.verdict(node, delivery.message_id, verdict))
        else:
            self.simulation.verdict(node, delivery.message_id, verdict)

    def on_action(self, node, action):
        if node not in self.honest:
            return
        if isinstance(action, Connect):
            other = int(action.info.peer_id)
            self.dialled += action.via not in self.honest
            self.connect(node, other, 0.02)
        elif isinstance(action, Send):
            self.answers += sum(one >= self.setup.honest for one in action.peers)

    def check_bounds(self):
        """Nothing that strangers cause grows beyond what the parameters say."""
        params = self.setup.params
        for node in self.honest:
            engine = self.simulation.engines[node]
            state, peers = engine._state, len(engine._state.peers)
            unwanted, asked = engine._lazy.unwanted, engine._cache._asked
            count, size = engine.pending
            assert count <= params.max_pending_messages
            assert size <= params.max_pending_bytes
            assert len(engine._seen) <= params.max_seen
            assert len(engine._cache) * self.setup.size <= params.max_cache_bytes
            assert sum(len(ids) for _, ids in engine._seen._batches) == len(engine._seen)
            assert len(unwanted) <= params.max_unwanted
            assert all(len(of) <= peers for of in asked.values())
            assert len(asked) <= len(engine._cache)
            assert len(engine._promises) <= peers * params.max_ihave_messages * (params.iwant_followup_time + 2)
            assert len(state.topics) <= peers * params.max_topics_per_peer + 1
            assert all(len(ends) <= params.max_backoffs_per_topic for ends in state.backoffs._ends.values())
            assert len(state.backoffs._ends) <= 1, "topics that we aren't in have no backoffs"
            dialled = sum(peer.outbound for peer in state.peers.values())  # they get in until the next heartbeat
            assert len(engine.mesh(TOPIC)) <= params.d_hi + dialled
            assert state.waiting_actions == []

    # what came of it

    @property
    def coverage(self):
        return sum(self.arrived.values()) / sum(self.expected.values())

    @property
    def worst(self):
        """Coverage of the node that got least."""
        return min(self.arrived[node] / self.expected[node] for node in self.honest)

    def in_meshes(self):
        """The attackers' part of the links in honest meshes."""
        links = [peer for node in self.honest for peer in self.simulation.engines[node].mesh(TOPIC)]
        return sum(peer >= self.setup.honest for peer in links) / len(links)

    @property
    def share(self):
        return self.shares[-1]

    @property
    def peak(self):
        return max(self.shares)

    def scores(self):
        """What the honest ones think of those who attacked them, by attacker and honest node."""
        engines = self.simulation.engines
        return {
            (node, peer): engines[peer].scores.score(node) for node, peers in self.targets.items() for peer in peers
        }

    def honest_scores(self):
        """What the honest ones think of one another."""
        engines = self.simulation.engines
        return [
            engines[node].scores.score(peer)
            for node in self.honest
            for peer in self.simulation.neighbours(node)
            if peer in self.honest
        ]

    def count(self, what):
        return sum(self.simulation.engines[node].counts[what] for node in self.honest)

    @property
    def attack_rpcs(self):
        return sum(one.sent for one in self.attackers)
