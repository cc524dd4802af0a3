"""Calls of the control socket that go on telling: how they begin and end, and what waits for a slow client."""

from __future__ import annotations

import json
import time
from contextlib import AsyncExitStack

import pytest
import trio

from node import Config, Identity, Node
from node.api import gossip
from node.api.client import Client
from node.api.control import MAX_LINE
from node.api.gossip import MAX_WAITING, Missed, Received
from node.errors import UsageError
from tests.node.test_control import DEADLINE, ask, node_at, raw_client, serving
from tests.nodes import eventually

TOPIC = "blocks"


@pytest.fixture
async def node(tmp_path):
    async with node_at(tmp_path / "data", dht="off") as made, serving(made):
        yield made


@pytest.fixture
async def author(tmp_path, node):
    async with node_at(tmp_path / "author", dht="off") as made:
        await made.connect(node.addrs[0])
        yield made


async def begun(client, number=1, **params):
    """Subscribes; what the node says first."""
    answer = await client.ask("subscribe", number, topic=TOPIC, **params)
    assert answer["id"] == number
    return answer["item"]


async def joined(node, *topics):
    """Waits until the node has joined these topics and no others."""
    with trio.fail_after(DEADLINE):
        while [row["topic"] for row in (await ask(node, "gossip"))["topics"]] != list(topics):  # noqa: ASYNC110  nobody sets an event for these
            await trio.sleep(0.01)


async def heard(author):
    """Waits until the author knows that somebody listens."""
    await eventually(lambda: author.gossip.engine.peers(TOPIC))


async def test_messages_are_told_as_they_come(node, author):
    async with raw_client(node) as client:
        assert await begun(client) == {"event": "subscribed", "topic": TOPIC, "relays": True}
        await heard(author)
        before = time.monotonic_ns()
        receipt = await author.gossip.publish(TOPIC, b"hello", type=7)
        item = (await client.answer())["item"]
        assert before < item.pop("received_ns") < time.monotonic_ns()
        assert abs(item.pop("timestamp_ms") - time.time() * 1000) < DEADLINE * 1000
        assert item == {
            "event": "message",
            "topic": TOPIC,
            "message_id": receipt.message_id.hex(),
            "author": author.peer_id,
            "forwarder": author.peer_id,
            "type": 7,
            "size": 5,
            "payload": "aGVsbG8=",
        }


async def test_without_payload(node, author):
    async with raw_client(node) as client:
        await begun(client, payload=False)
        await heard(author)
        await author.gossip.publish(TOPIC, b"hello")
        item = (await client.answer())["item"]
        assert (item["size"], item["payload"]) == (5, "")


async def test_it_ends_when_the_client_goes(node):
    async with raw_client(node) as client:
        await begun(client)
        await joined(node, TOPIC)
    await joined(node)


async def test_it_ends_when_the_client_shuts_its_side(node):
    async with raw_client(node) as client:
        await begun(client)
        await client.stream.send_eof()
        assert await client.answer() is None
    await joined(node)


async def test_a_client_that_goes_while_it_is_told(node, author):
    async with raw_client(node) as client:
        await begun(client)
        await heard(author)
        for number in range(20):  # more than the socket takes without a reader
            await author.gossip.publish(TOPIC, bytes([number]) * 100_000)
        await eventually(lambda: node.gossip.stats.delivered_messages == 20)
    await joined(node)
    assert (await ask(node, "status"))["peer_id"] == node.peer_id


async def test_what_is_asked_meanwhile_waits_and_is_bounded(node):
    async with raw_client(node) as client:
        await begun(client)
        await client.send(b'{"id": 2, "call": "status"}\n')
        with trio.move_on_after(0.2):
            raise AssertionError(f"expected no answer, got {await client.answer()}")
        await client.send(b"x" * (MAX_LINE + 1))
        await joined(node)


async def test_the_nodes_end_ends_it(tmp_path):
    config = Config(listen=("/ip4/127.0.0.1/tcp/0",), data_dir=tmp_path, dht="off")
    node = Node(config, identity=Identity.generate())
    async with serving(node), AsyncExitStack() as stack:
        async with node:
            client = await stack.enter_async_context(raw_client(node))
            await begun(client)
        assert await client.answer() == {"id": 1, "result": None}


async def test_errors_are_answers(node):
    async with raw_client(node) as client:
        answer = await client.ask("subscribe", 3, topic="No Name")
        assert answer["id"] == 3
        assert answer["error"]["kind"] == "UsageError"
        assert "expected a name of 1 to 64" in answer["error"]["message"]
        answer = await client.ask("subscribe", 4)
        assert "missing required field `topic`" in answer["error"]["message"]
        assert "result" in await client.ask("status", 5)


async def test_a_node_without_gossip(tmp_path):
    async with node_at(tmp_path, dht="off", gossip="off") as node, serving(node):
        for call in ("subscribe", "publish"):
            with pytest.raises(UsageError, match='gossip: expected "on" in the settings, got "off"'):
                await ask_stream(node) if call == "subscribe" else await ask(node, "publish", topic=TOPIC, payload="")


async def test_the_synchronous_client(node, author):
    def listen():
        with Client(node.config.control_socket) as client:
            items = client.stream("subscribe", topic=TOPIC)
            first, second = next(items), next(items)
            items.close()
        return first["event"], second["payload"]

    results = []
    async with trio.open_nursery() as nursery:

        async def run():
            results.append(await trio.to_thread.run_sync(listen))

        nursery.start_soon(run)
        await heard(author)
        await author.gossip.publish(TOPIC, b"hello")
    assert results == [("subscribed", "aGVsbG8=")]


async def ask_stream(node):
    def call():
        with Client(node.config.control_socket) as client:
            return list(client.stream("subscribe", topic=TOPIC))

    return await trio.to_thread.run_sync(call)


# publish, and how gossip is


async def test_publish(node, author):
    author.gossip.relay(TOPIC)
    await eventually(lambda: node.gossip.engine.peers(TOPIC))
    before = time.monotonic_ns()
    answer = await ask(node, "publish", topic=TOPIC, payload="aGVsbG8=", type=3)
    assert before < answer.pop("published_ns") < time.monotonic_ns()
    assert len(bytes.fromhex(answer.pop("message_id"))) == 20
    assert answer == {"peers": [author.peer_id], "subscribers": 1, "connected": 1}
    await eventually(lambda: author.gossip.stats.delivered_messages == 1)

    state = await ask(node, "gossip")
    assert (state["topics"], state["published"], state["delivered"]) == ([], 1, 0)
    node.gossip.relay(TOPIC)
    await eventually(lambda: node.gossip.engine.mesh(TOPIC))
    state = await ask(node, "gossip")
    assert state["topics"] == [{"topic": TOPIC, "mesh": [author.peer_id], "subscribers": 1}]
    assert state["bytes_received"] > 0


async def test_the_largest_message_can_be_published(node, author):
    largest = node.gossip.policy.max_payload
    answer = await ask(node, "publish", topic=TOPIC, payload=encoded(b"x" * largest))
    assert answer["peers"] == []
    with pytest.raises(UsageError, match=f"payload: expected at most {largest} bytes, got {largest + 1}"):
        await ask(node, "publish", topic=TOPIC, payload=encoded(b"x" * (largest + 1)))


async def test_publish_what_cannot_be(node):
    with pytest.raises(UsageError, match="publish: "):
        await ask(node, "publish", topic=TOPIC, payload="no base64!")
    with pytest.raises(UsageError, match="expected a name of 1 to 64"):
        await ask(node, "publish", topic="No Name", payload="")


def encoded(payload):
    return json.loads(gossip.msgspec.json.encode(payload))


# what waits for a slow client


def received(size):
    return Received(TOPIC, "id", "author", "forwarder", 0, None, 0, size, b"x" * size)


async def test_a_slow_client_is_told_how_much_it_missed():
    queue, megabyte = gossip._Queue(), 1 << 20
    for _ in range(10):
        queue.put(received(megabyte))
    kept = MAX_WAITING // megabyte - 1  # an entry is a little more than its payload
    for _ in range(kept):
        assert isinstance(await queue.next(), Received)
    assert await queue.next() == Missed(10 - kept)
    queue.put(received(1))
    queue.end()
    assert (await queue.next()).size == 1
    assert await queue.next() is None
