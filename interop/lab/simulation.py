"""Many gossip engines in one process, on simulated time: links with latency, a list of events, nothing else.

    simulation = Simulation(seed=1)
    for node in range(20):
        simulation.add(node)
    simulation.connect(0, 1, latency=0.02)
    simulation.at(5.0, lambda: simulation.publish(0, "topic", b"payload"))
    simulation.run(10.0)

What a node does with a message that it is asked about is `on_deliver`; by default it accepts at once. Links deliver in
order and lose nothing, unless `loss` says so; what is on the way when a link is cut is lost. The same seed gives the
same run. Times are seconds.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping
from typing import Any

from protocols.gossip.actions import Deliver, Redial, Send
from protocols.gossip.engine import Engine
from protocols.gossip.fragments import fragments
from protocols.gossip.messages import Verdict
from protocols.gossip.params import GossipParams
from protocols.gossip.rpc import PubsubMessage, Rpc, decode, encode
from protocols.gossip.state import MESHSUB_12

Node = int

TICK = 0.0001  # everything happens at a multiple of this


class Simulation:
    """A network. `wire`: every RPC goes through its bytes. `loss`: the part of RPCs that never arrive."""

    def __init__(self, *, seed: int = 0, wire: bool = False, loss: float = 0.0) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.engines: dict[Node, Engine] = {}
        self.on_deliver: Callable[[Node, Deliver], None] = self.accept
        self.on_action: Callable[[Node, Any], None] | None = None  # every action but Deliver, before it is carried out
        self.rpcs = 0  # handed to links, and the messages in them
        self.messages = 0
        self._wire, self._loss = wire, loss
        self._links: dict[Node, dict[Node, float]] = {}
        self._ticks: list[int] = []  # a heap of the keys of `_slots`: far fewer than there are events
        self._slots: dict[int, list[Any]] = {}

    # the network

    def add(self, node: Node, params: GossipParams | None = None, **settings: Any) -> Engine:
        """A new node. `settings` are `Engine`'s. Its heartbeats begin at a time drawn by lot."""
        params = params or GossipParams()
        settings.setdefault("rng", self.rng)
        engine = Engine(node, params, now=self.now, **settings)
        self.add_other(node, engine, params.heartbeat_interval)
        return engine

    def add_other(self, node: Node, engine: Any, interval: float = 1.0) -> None:
        """A node with rules of its own, an adversary's say: anything that has what of `Engine` is used here."""
        self.engines[node] = engine
        self._links[node] = {}
        self.at(self.now + self.rng.random() * interval, lambda: self._wake(node))

    def connect(
        self,
        node: Node,
        other: Node,
        latency: float = 0.02,
        protocol: str = MESHSUB_12,
        *,
        facts: Mapping[str, Any] | None = None,
        other_facts: Mapping[str, Any] | None = None,
        **both: Any,
    ) -> None:
        """`node` has dialled `other`. `both` are `Engine.add_peer`'s on both sides; `facts` what `node` is told about
        `other` besides, `other_facts` what `other` is told about `node`. Linked nodes stay as they are."""
        if other in self._links[node] or node == other:
            return
        self._links[node][other] = self._links[other][node] = latency
        self.engines[node].add_peer(self.now, other, protocol, outbound=True, **both, **(facts or {}))
        self.engines[other].add_peer(self.now, node, protocol, **both, **(other_facts or {}))
        self._act(node)
        self._act(other)

    def disconnect(self, node: Node, other: Node) -> None:
        if self._links[node].pop(other, None) is not None:
            del self._links[other][node]
            self.engines[node].remove_peer(self.now, other)
            self.engines[other].remove_peer(self.now, node)
            self._act(node)
            self._act(other)

    def neighbours(self, node: Node) -> list[Node]:
        return list(self._links[node])

    # what nodes do

    def subscribe(self, node: Node, topic: str) -> None:
        self.engines[node].subscribe(self.now, topic)
        self._act(node)

    def unsubscribe(self, node: Node, topic: str) -> None:
        self.engines[node].unsubscribe(self.now, topic)
        self._act(node)

    def publish(self, node: Node, topic: str, data: bytes) -> bytes:
        """The message's ID."""
        receipt = self.engines[node].publish(self.now, topic, PubsubMessage(topic, data))
        self._act(node)
        return receipt.message_id

    def verdict(self, node: Node, message_id: bytes, verdict: Verdict) -> bool:
        counted = self.engines[node].verdict(self.now, message_id, verdict)
        self._act(node)
        return counted

    def accept(self, node: Node, delivery: Deliver) -> None:
        """`on_deliver` of a program that takes everything."""
        self.verdict(node, delivery.message_id, Verdict.ACCEPT)

    def send(self, node: Node, other: Node, rpc: Rpc) -> None:
        """An RPC that no engine made, on the link from `node` to `other`."""
        self._put(node, other, rpc)

    # time

    def at(self, time: float, what: Callable[[], None] | tuple[Node, Node, Any]) -> None:
        """Calls something, or brings an RPC, at a time that isn't over."""
        tick = int(time / TICK + 0.5)
        slot = self._slots.get(tick)
        if slot is None:
            slot = self._slots[tick] = []
            heapq.heappush(self._ticks, tick)
        slot.append(what)

    def run(self, until: float) -> None:
        """Everything up to `until`."""
        ticks, slots, links, engines = self._ticks, self._slots, self._links, self.engines
        while ticks and ticks[0] * TICK <= until:
            tick = heapq.heappop(ticks)
            self.now = tick * TICK
            for what in slots[tick]:  # it may grow meanwhile
                if type(what) is tuple:
                    node, other, rpc = what
                    if other in links[node]:  # it may have been cut meanwhile
                        engines[other].receive(self.now, node, decode(rpc) if self._wire else rpc)
                        self._act(other)
                else:
                    what()
            del slots[tick]
        self.now = until

    def _wake(self, node: Node) -> None:
        engine = self.engines[node]
        engine.wake(self.now)
        self._act(node)
        self.at(max(engine.next_wakeup(), self.now + TICK), lambda: self._wake(node))

    def _act(self, node: Node) -> None:
        for action in self.engines[node].take():
            if type(action) is Send:
                if self.on_action is not None:
                    self.on_action(node, action)
                for other in action.peers:
                    self._put(node, other, action.rpc)  # type: ignore[arg-type]  # our peers are nodes
            elif type(action) is Deliver:
                self.on_deliver(node, action)
            else:
                if self.on_action is not None:
                    self.on_action(node, action)
                if type(action) is Redial:
                    self.connect(node, action.peer, direct=True)  # type: ignore[arg-type]

    def _put(self, node: Node, other: Node, rpc: Rpc) -> None:
        latency = self._links[node].get(other)
        if latency is None or (self._loss and self.rng.random() < self._loss):
            return
        self.rpcs += 1
        self.messages += len(rpc.publish)
        if self._wire:
            for part in fragments(rpc, self.engines[node].params.rpc.max_size):
                self.at(self.now + latency, (node, other, encode(part)))
        else:
            self.at(self.now + latency, (node, other, rpc))
