"""Nodes that gossip, for tests on the in-memory network."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager

import trio

from node.node import Node
from protocols.gossip import Verdict
from tests.memnet import MemNet, mem_node

TOPIC = "harbour"
QUIET = 5.0  # seconds, simulated: five heartbeats


def gossiper(net: MemNet, number: int, **settings) -> Node:
    """The node on 10.0.0.`number`."""
    return mem_node(net, f"10.0.0.{number}", **({"dht": "off"} | settings))


@asynccontextmanager
async def line(net: MemNet, count: int, **settings):
    """Nodes in a row, each connected with the next."""
    async with trio.open_nursery() as nursery:
        nodes = [gossiper(net, number + 1, **settings) for number in range(count)]
        for node in nodes:
            await nursery.start(node.run)
        for one, other in itertools.pairwise(nodes):
            await one.connect(other.addrs[0])
        yield nodes
        nursery.cancel_scope.cancel()


async def eventually(condition, timeout: float = 60.0) -> None:
    """Polls a condition, coarsely enough for simulated time."""
    with trio.fail_after(timeout):
        while not condition():  # noqa: ASYNC110  nobody sets an event for these
            await trio.sleep(0.05)


def knows(node: Node, *others: Node, topic: str = TOPIC):
    """Whether a node knows that the others are in the topic."""
    return lambda: set(node.gossip.engine.peers(topic)) >= {other.peer_id for other in others}


async def meet(*nodes: Node, topic: str = TOPIC) -> None:
    """Waits until each of the nodes has its neighbours among them in the topic's mesh."""
    for node in nodes:
        around = {other.peer_id for other in nodes} & set(node.connected_peers())
        await eventually(lambda node=node, around=around: set(node.gossip.engine.mesh(topic)) >= around)


def accept_all(node: Node, topic: str = TOPIC) -> list[bytes]:
    """The payloads of what comes, once each time; all of it is accepted."""
    payloads: list[bytes] = []

    @node.gossip.validator(topic)
    async def check(message):
        payloads.append(message.payload)
        return Verdict.ACCEPT

    return payloads
