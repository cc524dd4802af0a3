"""Who decides on a node's topics: what the settings name, and who listens to a topic that nobody decides on."""

from __future__ import annotations

import trio

from node import Config, Identity, Node
from protocols.gossip import Verdict
from tests.nodes import DEFAULTS, NOWHERE

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def made(**settings):
    """A node that isn't running yet."""
    config = Config(**{"listen": (LOOPBACK,), "data_dir": NOWHERE, **DEFAULTS, **settings})
    return Node(config, identity=Identity.generate())


# before it runs


def test_a_node_is_made_and_its_topics_are_joined_before_anything_runs():
    node = made()

    @node.gossip.validator("blocks")
    async def check(_message):
        return Verdict.ACCEPT

    async def run():
        async with node:
            await trio.sleep(0.2)
            return node.gossip.engine.next_wakeup() - trio.current_time()

    assert 0 < trio.run(run) <= 1
