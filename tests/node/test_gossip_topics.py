"""Who decides on a node's topics: what the settings name, and who listens to a topic that nobody decides on."""

from __future__ import annotations

import shlex
from contextlib import asynccontextmanager

import pytest
import trio

from node import Config, Identity, Node
from node.api import gossip
from node.errors import UsageError
from node.settings import load
from protocols.gossip import Verdict
from tests.nodes import DEFAULTS, NOWHERE, eventually, running

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def made(**settings):
    """A node that isn't running yet."""
    config = Config(**{"listen": (LOOPBACK,), "data_dir": NOWHERE, **DEFAULTS, **settings})
    return Node(config, identity=Identity.generate())


async def joined(node):
    return [row.topic for row in (await gossip.state(node, gossip.GossipQuery())).topics]


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


# what the settings name


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        ({"No Name": ""}, "topic: expected a name of 1 to 64 of a-z"),
        (
            {"blocks": "no-such-program-anywhere"},
            "topic: blocks: expected a command whose program can be run, got 'no-",
        ),
    ],
)
def test_topics_that_cannot_be(topic, text):
    with pytest.raises(UsageError, match=text):
        made(topic=topic)


def test_topics_need_gossip():
    with pytest.raises(UsageError, match='topic: expected gossip to be "on" for topics, got "off"'):
        made(topic={"blocks": ""}, gossip="off")
    with pytest.raises(UsageError, match="gossip"):
        _ = made(gossip="off").topics


def test_the_setting_in_each_layer(tmp_path):
    file = tmp_path / "vouch.toml"
    file.write_text('topic = { blocks = "", txs = "check --strict" }\n')
    assert load({}, file=file, environ={}).config.topic == {"blocks": "", "txs": "check --strict"}
    environ = {"VOUCH_TOPIC": "blocks, txs=check -a=b"}
    assert load({}, file=file, environ=environ).config.topic == {"blocks": "", "txs": "check -a=b"}
    assert load({"topic": ["txs=x"]}, file=file, environ=environ).config.topic == {"txs": "x"}
    with pytest.raises(UsageError, match=r"topic: expected a table of texts, each name once.*\(flag --topic\)"):
        load({"topic": ["txs=x", "txs"]}, file=None, environ={})


async def test_a_topic_of_the_settings_has_its_decider():
    node = made(topic={"blocks": "", "txs": "/bin/sh -c true"})
    assert await joined(node) == ["blocks", "txs"]
    for topic in ("blocks", "txs"):
        with pytest.raises(ValueError, match=f"{topic} has somebody who decides already"):
            node.gossip.subscribe(topic)


# who listens


async def test_a_topic_that_nobody_decides_on_is_relayed_as_long_as_somebody_listens():
    node = made()
    with node.topics.listening("blocks") as (_, relays):
        assert relays
        with node.topics.listening("blocks") as (_, also):
            assert also
        with pytest.raises(ValueError, match="decides already"):
            node.gossip.relay("blocks")
        assert await joined(node) == ["blocks"]
    assert await joined(node) == []
    node.gossip.relay("blocks")


async def test_listening_leaves_a_topic_to_who_decides_on_it():
    node = made(topic={"blocks": ""})
    with node.topics.listening("blocks") as (_, relays):
        assert not relays
    assert await joined(node) == ["blocks"]
    with pytest.raises(UsageError, match="topic: expected a name"), node.topics.listening("No Name"):
        pass


async def test_a_listener_sees_what_the_program_accepts():
    script = "test $(cat) = good && exit 0; exit 65"
    async with running_pair(topic={"blocks": shlex.join(["/bin/sh", "-c", script])}) as (judge, author):
        with judge.topics.listening("blocks") as (messages, _):
            await eventually(lambda: author.gossip.engine.peers("blocks"))
            for payload in (b"bad", b"good", b"worse"):
                receipt = await author.gossip.publish("blocks", payload)
                assert receipt.peers == (judge.peer_id,)
            with trio.fail_after(20):
                assert (await anext(messages)).payload == b"good"
            await eventually(lambda: judge.gossip.stats.verdicts == {Verdict.ACCEPT: 1, Verdict.REJECT: 2})


@asynccontextmanager
async def running_pair(**settings):
    """A node with these settings, and one that is connected with it."""
    async with running(**settings) as node, running() as other:
        await other.connect(node.addrs[0])
        yield node, other
