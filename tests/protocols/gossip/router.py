"""One engine under test: peers by name, RPCs in, and what it asked for out."""

from __future__ import annotations

import random

from protocols.gossip.actions import Deliver, Send
from protocols.gossip.engine import Engine
from protocols.gossip.messages import Verdict
from protocols.gossip.params import GossipParams
from protocols.gossip.rpc import Control, Graft, IDontWant, IHave, IWant, Prune, PubsubMessage, Rpc, Subscription
from protocols.gossip.score_params import PeerScoreParams, TopicScoreParams
from protocols.gossip.state import MESHSUB_12

TOPIC = "t"
ACCEPT, REJECT, IGNORE = Verdict.ACCEPT, Verdict.REJECT, Verdict.IGNORE


def data_id(message):
    """A message's data is its ID, which makes tests easy to read."""
    return message.data


def message(data=b"m", topic=TOPIC, **fields):
    return PubsubMessage(topic, data, **fields)


def p5(scores, **params):
    """Score parameters under which a peer has the score that the program gives it, in `scores`, and nothing else."""
    params.setdefault("default_topic", None)
    return PeerScoreParams(app_specific_score=lambda peer: scores.get(peer, 0.0), **params)


def one_topic(**params):
    """Score parameters of TOPIC where only what is named counts."""
    off = {
        "time_in_mesh_weight": 0,
        "first_message_deliveries_weight": 0,
        "invalid_message_deliveries_weight": 0,
    }
    return PeerScoreParams(topics={TOPIC: TopicScoreParams(**(off | params))}, default_topic=None, topic_score_cap=0)


class Router:
    def __init__(self, *, joined=True, score=None, thresholds=None, direct=(), message_id=data_id, seed=1, **params):
        self.now = 0.0
        self.engine = Engine(
            b"me",
            GossipParams(**params),
            score=score,
            thresholds=thresholds,
            direct=direct,
            rng=random.Random(seed),
            message_id=message_id,
        )
        if joined:
            self.engine.subscribe(0.0, TOPIC)
            self.engine.take()

    def peer(self, *names, protocol=MESHSUB_12, topics=(TOPIC,), mesh=False, **facts):
        """Peers that subscribe to `topics`; with `mesh`, they graft us in TOPIC too."""
        for name in names:
            self.engine.add_peer(self.now, name, protocol, **facts)
            self.receive(name, Rpc(tuple(Subscription(topic, True) for topic in topics)))
            if mesh:
                self.graft(name)
                assert name in self.engine.mesh(TOPIC), f"{name} wasn't taken in"
        self.engine.take()
        return names

    def receive(self, peer, rpc):
        self.engine.receive(self.now, peer, rpc)

    def messages(self, peer, *messages):
        self.receive(peer, Rpc(publish=messages))

    def control(self, peer, **control):
        self.receive(peer, Rpc(control=Control(**control)))

    def graft(self, peer, topic=TOPIC):
        self.control(peer, graft=(Graft(topic),))

    def prune(self, peer, topic=TOPIC, **prune):
        self.control(peer, prune=(Prune(topic, **prune),))

    def ihave(self, peer, *ids, topic=TOPIC):
        self.control(peer, ihave=(IHave(topic, ids),))

    def iwant(self, peer, *ids):
        self.control(peer, iwant=(IWant(ids),))

    def idontwant(self, peer, *ids):
        self.control(peer, idontwant=(IDontWant(ids),))

    def verdict(self, message_id, verdict=ACCEPT):
        return self.engine.verdict(self.now, message_id, verdict)

    def publish(self, data=b"mine", topic=TOPIC):
        return self.engine.publish(self.now, topic, message(data, topic))

    def heartbeat(self, times=1, interval=1.0):
        for _ in range(times):
            self.now += interval
            self.engine.heartbeat(self.now)

    def score(self, peer):
        return self.engine.scores.score(peer)

    # what came of it: each takes the actions

    def take(self, kind):
        return [one for one in self.engine.take() if isinstance(one, kind)]

    def delivered(self):
        return [one.message_id for one in self.take(Deliver)]

    def sent(self):
        """The RPCs by peer."""
        found = {}
        for send in self.take(Send):
            for peer in send.peers:
                found.setdefault(peer, []).append(send.rpc)
        return found

    def sent_messages(self):
        """The data of messages by peer."""
        found = {peer: [one.data for rpc in rpcs for one in rpc.publish] for peer, rpcs in self.sent().items()}
        return {peer: messages for peer, messages in found.items() if messages}

    def sent_control(self, kind):
        """One kind of control message ("graft") by peer."""
        found = {}
        for peer, rpcs in self.sent().items():
            entries = [one for rpc in rpcs if rpc.control for one in getattr(rpc.control, kind)]
            if entries:
                found[peer] = entries
        return found
