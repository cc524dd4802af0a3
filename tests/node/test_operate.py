"""What operators ask for over the control socket: topics, log levels, settings, events, readiness, verdicts."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import trio

from node.api.functions import CALLS
from node.api.verdicts import undecided
from node.errors import NotFoundError, OffError, UsageError
from node.events import KINDS
from tests.node.test_control import DEADLINE, ask, node_at, raw_client, serving
from tests.nodes import eventually

ROOT = Path(__file__).parents[2]

TOPIC = "blocks"


@pytest.fixture
async def node(tmp_path):
    async with node_at(tmp_path / "data", dht="off", topic={TOPIC: ""}) as made, serving(made):
        yield made


@pytest.fixture
async def author(tmp_path, node):
    async with node_at(tmp_path / "author", dht="off") as made:
        await made.connect(node.addrs[0])
        yield made


async def test_topics_and_their_meshes(node, author):
    assert await ask(node, "topics") == {
        "topics": [{"topic": TOPIC, "mesh": 0, "subscribers": 0, "decided_by": "relay", "listeners": 0}],
        "pending": 0,
    }
    author.gossip.relay(TOPIC)
    await eventually(lambda: node.gossip.engine.mesh(TOPIC))
    mesh = await ask(node, "mesh", topic=TOPIC)
    assert mesh["joined"]
    assert [(row["peer"], row["in_mesh"]) for row in mesh["peers"]] == [(author.peer_id, True)]
    assert await ask(node, "mesh", topic="others") == {"topic": "others", "joined": False, "peers": []}


async def test_what_the_settings_switch_off(tmp_path):
    async with node_at(tmp_path / "data", dht="off", gossip="off") as node, serving(node):
        for call, params in {
            "gossip": {},
            "topics": {},
            "find_peer": {"peer": node.peer_id},
            "registrations": {},
        }.items():
            with pytest.raises(OffError, match="expected"):
                await ask(node, call, **params)


async def test_log_levels(node):
    assert "node" in (await ask(node, "loglevel"))["parts"]
    try:
        levels = (await ask(node, "set_loglevel", part="node", level="error"))["levels"]
        assert levels["node"] == "error"
        assert logging.getLogger("vouch.node").level == logging.ERROR
        assert "node" not in (await ask(node, "set_loglevel", part="node", level=""))["levels"]
        for part, level in (("node", "loud"), ("nothing", "info"), ("", "")):
            with pytest.raises(UsageError, match="expected one of the"):
                await ask(node, "set_loglevel", part=part, level=level)
    finally:
        logging.getLogger("vouch.node").setLevel(logging.NOTSET)


async def test_settings_without_secrets(tmp_path):
    async with node_at(tmp_path / "data", dht="off", topic={TOPIC: "true --secret hunter2"}) as node, serving(node):
        answer = await ask(node, "config")
    rows = {row["name"]: row for row in answer["settings"]}
    assert rows["dht"] == {
        "name": "dht",
        "value": "off",
        "help": "part played in the distributed hash table",
        "advanced": False,
        "changed": True,
    }
    assert rows["topic"]["value"] == {TOPIC: "(a command)"}
    assert not rows["max_streams"]["changed"]
    assert "hunter2" not in repr(answer)


async def test_events_are_told(node, tmp_path):
    async with raw_client(node) as client, raw_client(node) as refused:
        await client.send(b'{"id": 1, "call": "events", "params": {"kinds": ["admitted"]}}\n')
        await refused.send(b'{"id": 2, "call": "events", "params": {"kinds": ["nothing"]}}\n')
        assert "expected kinds of events among admitted, banned" in (await refused.answer())["error"]["message"]
        async with node_at(tmp_path / "other", dht="off") as other:
            await other.connect(node.addrs[0])
            item = (await client.answer())["item"]
            assert item["event"] == "admitted"
            assert item["fields"]["peer"] == other.peer_id


async def test_readiness_has_reasons(node):
    answer = await ask(node, "ready")
    assert answer["ready"]
    states = {check["name"]: check["state"] for check in answer["checks"]}
    assert set(states) == {"started", "listening", "peers", "bootstrap", "addressbook", "event_loop"}
    assert states["listening"] == "ok"


async def test_a_node_without_its_bootstrap_is_not_ready(tmp_path, node):
    nobody = f"/ip4/127.0.0.1/tcp/1/p2p/{node.peer_id}"
    async with node_at(tmp_path / "lonely", dht="off", bootstrap=(nobody,)) as lonely, serving(lonely):
        answer = await ask(lonely, "ready")
        assert not answer["ready"]
        check = next(check for check in answer["checks"] if check["name"] == "peers")
        assert (check["state"], check["detail"]) == ("fail", "expected 1 peers (ready_peers), got 0")
        await lonely.connect(node.addrs[0])
        assert (await ask(lonely, "ready"))["ready"]


async def test_a_book_that_cannot_be_written_is_a_reason(node):
    node.addressbook.path, node.addressbook.error = "somewhere", "disk full"
    try:
        answer = await CALLS["ready"].function(node, CALLS["ready"].params())
    finally:
        node.addressbook.path, node.addressbook.error = None, ""
    assert not answer.ready
    assert "disk full" in next(check for check in answer.checks if check.name == "addressbook").detail


async def deciding(client, author, topic="txs"):
    """Subscribes to decide, and has one message come."""
    await client.send(b'{"id": 1, "call": "subscribe", "params": {"topic": "%s", "decide": true}}\n' % topic.encode())
    assert (await client.answer())["item"] == {"event": "subscribed", "topic": topic, "relays": False}
    await eventually(lambda: author.gossip.engine.peers(topic))
    await author.gossip.publish(topic, b"hello")
    return (await client.answer())["item"]


@pytest.mark.parametrize("verdict", ["accept", "reject", "ignore"])
async def test_a_client_decides(node, author, verdict):
    async with raw_client(node) as client:
        item = await deciding(client, author)
        assert item["verdict_id"] == item["message_id"]
        assert 0 < item["verdict_within"] <= node.gossip.params.verdict_timeout
        assert await ask(node, "verdict", id=item["verdict_id"], verdict=verdict) == {
            "id": item["verdict_id"],
            "counted": True,
        }
        assert {kind.value: count for kind, count in node.gossip.stats.verdicts.items() if count} == {verdict: 1}
        with pytest.raises(NotFoundError, match="no message waits for a verdict"):
            await ask(node, "verdict", id=item["verdict_id"], verdict="accept")


async def test_what_a_client_leaves_undecided_is_ignored(node, author):
    async with raw_client(node) as client:
        await deciding(client, author)
        assert len(undecided(node)) == 1
    with trio.fail_after(DEADLINE):
        await eventually(lambda: sum(node.gossip.stats.verdicts.values()))
    assert {kind.value: count for kind, count in node.gossip.stats.verdicts.items() if count} == {"ignore": 1}
    assert len(undecided(node)) == 0


async def test_only_one_decides(node, author):
    async with raw_client(node) as client, raw_client(node) as second:
        await deciding(client, author)
        await second.send(b'{"id": 1, "call": "subscribe", "params": {"topic": "txs", "decide": true}}\n')
        assert "somebody who decides already" in (await second.answer())["error"]["message"]


def test_every_kind_of_event_is_in_the_documentation():
    pages = "".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    assert [kind.__name__ for kind in KINDS.values() if f"`{kind.__name__}`" not in pages] == []
    assert KINDS["peer_flaky"].__name__ == "PeerFlaky"
