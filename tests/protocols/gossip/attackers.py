"""Adversaries for `battle.Battle`: each kind is a node with rules of its own.

`Script` speaks raw RPCs: it subscribes, grafts, and does something to each of its peers now and then. `Traitor` is an
honest engine whose actions are tampered with. Both have what of `Engine` the simulator uses.
"""

from __future__ import annotations

import random

from protocols.gossip.actions import Deliver, Send
from protocols.gossip.engine import Engine
from protocols.gossip.messages import Verdict
from protocols.gossip.params import GossipParams
from protocols.gossip.rpc import (
    Control,
    Graft,
    IDontWant,
    IHave,
    IWant,
    PeerInfo,
    Prune,
    PubsubMessage,
    Rpc,
    Subscription,
)
from protocols.gossip.state import content_id

TOPIC = "t"


class Script:
    """A node without an engine. `every`: seconds between two attacks on the same peer."""

    every = 1.0
    grafts = True

    def __init__(self, simulation, node, everybody):
        self.simulation, self.node, self.everybody = simulation, node, everybody  # everybody: all attackers' numbers
        self.params, self.rng = GossipParams(), random.Random(node)
        self.peers = []
        self.next = 0.0
        self.received = 0  # messages
        self.sent = 0  # RPCs

    # what the simulator calls

    def add_peer(self, now, peer, protocol, **facts):
        self.peers.append(peer)
        self.send(peer, subscriptions=(Subscription(TOPIC, True),))
        if self.grafts:
            self.control(peer, graft=(Graft(TOPIC),))

    def receive(self, now, peer, rpc):
        self.received += len(rpc.publish)

    def take(self):
        return []

    def wake(self, now):
        self.next = now + self.every
        if now >= 1:
            for peer in self.peers:
                self.attack(now, peer)

    def next_wakeup(self):
        return self.next

    # what a kind is made of

    def attack(self, now, peer):
        """What it does to one peer."""

    def send(self, peer, **rpc):
        self.sent += 1
        self.simulation.send(self.node, peer, Rpc(**rpc))

    def control(self, peer, **control):
        self.send(peer, control=Control(**control))

    def ids(self, number):
        return tuple(self.rng.randbytes(20) for _ in range(number))

    def junk(self, number, word=b"bad"):
        return tuple(PubsubMessage(TOPIC, word + one) for one in self.ids(number))


class InvalidMessages(Script):
    """Sends what everybody rejects."""

    def attack(self, now, peer):
        self.send(peer, publish=self.junk(3))


class StaleMessages(Script):
    """Sends what everybody ignores, so that nobody pays: to fill the memory of what has been seen."""

    every = 2.0

    def attack(self, now, peer):
        self.send(peer, publish=self.junk(10, b"old"))


class SlowVerdicts(Script):
    """Sends what takes its judges three seconds, to fill what awaits its verdict."""

    every = 3.0

    def attack(self, now, peer):
        self.send(peer, publish=self.junk(40, b"hard"))


class IHaveFlood(Script):
    """More IHAVEs than anybody takes, of messages that don't exist."""

    every = 2.0

    def attack(self, now, peer):
        have = (IHave(TOPIC, self.ids(10)),)
        for _ in range(12):
            self.control(peer, ihave=have)


class PromiseBreaker(Script):
    """One message in a heartbeat that it has not."""

    def attack(self, now, peer):
        self.control(peer, ihave=(IHave(TOPIC, self.ids(1)),))


class IWantFlood(Script):
    """Asks for everything it has heard of or got, again and again, and for what doesn't exist."""

    every = 2.0
    grafts = False

    def __init__(self, *args):
        super().__init__(*args)
        self.known = {}

    def receive(self, now, peer, rpc):
        super().receive(now, peer, rpc)
        known = self.known.setdefault(peer, {})
        known.update((content_id(message), None) for message in rpc.publish)
        for have in rpc.control.ihave if rpc.control else ():
            known.update(dict.fromkeys(have.message_ids))

    def attack(self, now, peer):
        ids = tuple(self.known.get(peer, ()))[-20:] + self.ids(5)
        for _ in range(4):
            self.control(peer, iwant=(IWant(ids),))


class EarlyGraft(Script):
    """Grafts as soon as it was pruned, by itself if nobody else does it."""

    def attack(self, now, peer):
        self.control(peer, prune=(Prune(TOPIC),))
        self.control(peer, graft=(Graft(TOPIC),))


class Flapping(Script):
    """Unsubscribes instead of pruning, and comes back at once."""

    def attack(self, now, peer):
        self.send(peer, subscriptions=(Subscription(TOPIC, False),))
        self.send(peer, subscriptions=(Subscription(TOPIC, True),))
        self.control(peer, graft=(Graft(TOPIC),))


class PruneExchange(Script):
    """Leaves the mesh and names other attackers instead."""

    def attack(self, now, peer):
        named = tuple(PeerInfo(b"%d" % one, b"record") for one in self.rng.sample(self.everybody, 16))
        self.control(peer, prune=(Prune(TOPIC, named, 60),))


class SubscriptionSpam(Script):
    """Other topics all the time, none of which exists."""

    every = 2.0

    def attack(self, now, peer):
        self.send(peer, subscriptions=tuple(Subscription(one.hex(), True) for one in self.ids(30)))
        self.control(peer, graft=tuple(Graft(one.hex()) for one in self.ids(10)))


class IDontWantFlood(Script):
    """Doesn't want what doesn't exist."""

    every = 2.0

    def attack(self, now, peer):
        for _ in range(5):
            self.control(peer, idontwant=(IDontWant(self.ids(10)),))


class Traitor(Engine):
    """An engine that takes part in the mesh. `tamper` says which actions are left of it."""

    def __init__(self, simulation, node, everybody):
        super().__init__(node, rng=simulation.rng, now=simulation.now)
        self.simulation, self.node = simulation, node
        self.sent = 0
        self.subscribe(0.0, TOPIC)

    def take(self):
        found = []
        for action in super().take():
            if isinstance(action, Deliver):
                self.verdict(self.simulation.now, action.message_id, Verdict.ACCEPT)
                found += self.take()
            elif not isinstance(action, Send) or self.passes(action):
                found.append(action)
        return found

    def passes(self, action):
        return True

    @property
    def peers(self):
        return self.simulation.neighbours(self.node)


def tells(action):
    """Whether a Send carries messages, or tells of some."""
    return bool(action.rpc.publish or (action.rpc.control and action.rpc.control.ihave))


class Censor(Traitor):
    """Takes everything and relays nothing."""

    def passes(self, action):
        return not tells(action)


class Covert(Traitor):
    """Relays like anybody, and then, all at the same moment, nothing."""

    flips_at = 12.0

    def passes(self, action):
        return self.simulation.now < self.flips_at or not tells(action)
