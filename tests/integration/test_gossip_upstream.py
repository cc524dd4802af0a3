"""What is wrong with py-libp2p's pubsub (docs/upstream.md), on whole nodes of ours: each fault has its test here.

Those that concern the rules alone are in tests/protocols/gossip: thresholds, P1 to P3b, the order of what is sent.
"""

from __future__ import annotations

import hashlib
from contextlib import AsyncExitStack

import pytest
import trio

from node.records import seal
from protocols.gossip import Verdict
from protocols.gossip.rpc import PubsubMessage
from tests.gossiping import QUIET, TOPIC, accept_all, eventually, gossiper, knows, line, meet
from tests.memnet import MemNet
from tests.rawgossip import graft, ihave, iwant, publish, raw_gossip, subscribe

MALFORMED = [
    b"\xff",
    b"\x0a\x05ab",  # a subscription that is cut off
    b"\x0a\x02\x08\x01",  # one without a topic
    b"\x0a\x06\x08\x01\x12\x02\xff\xfe",  # a topic that is no text
    b"\x1a\x02\xff\xff",  # control
    bytes(8),
]


@pytest.fixture
async def net(autojump_clock):
    async with MemNet(seed=1, latency=0.01) as net:
        yield net


def signed(author, payload, topic=TOPIC):
    """A message of a node's that needs not run."""
    return author.gossip.policy.make(topic, payload, 0)


# crashes and stalls


@pytest.mark.parametrize("data", MALFORMED, ids=bytes.hex)
async def test_a_malformed_rpc_ends_its_stream_and_nothing_else(net, autojump_clock, data):
    async with line(net, 2) as (a, b), raw_gossip(net, "10.0.0.9") as raw:
        came = accept_all(b)
        await raw.node.connect(b.addrs[0])
        await eventually(knows(a, b))
        # what comes before it is good, and isn't put off
        other = gossiper(net, 8)
        await raw.say(b, subscribe(TOPIC))
        await raw.until(lambda: raw.heard("graft"))
        await raw.say(b, publish(signed(other, b"before")))
        await raw.say_bytes(b, data)
        await eventually(lambda: b.registry.streams(raw.node.peer_id, raw.protocol.id) == 0)
        await eventually(lambda: came == [b"before"])
        await a.gossip.publish(TOPIC, b"after")
        await eventually(lambda: came == [b"before", b"after"])
        # the peer stays, pays, and may speak again
        assert set(b.connected_peers()) == {a.peer_id, raw.node.peer_id}
        assert b.gossip.engine.counts["graylisted"] == 0
        assert not b.registry.failed
        raw.forget_stream(b)
        await raw.say(b, publish(signed(other, b"again")))
        await eventually(lambda: came[2:] == [b"again"])
        await raw.until(lambda: b"after" in b"".join(message.data for message in raw.messages()))


async def test_who_keeps_sending_malformed_rpcs_is_graylisted(net, autojump_clock):
    async with gossiper(net, 1) as node, raw_gossip(net, "10.0.0.9") as raw:
        accept_all(node)
        await raw.node.connect(node.addrs[0])
        for _ in range(8):
            await raw.say_bytes(node, b"\xff")
            raw.forget_stream(node)
            await trio.sleep(2)
        assert node.gossip.engine.scores.score(raw.node.peer_id) < -80


# an author "Qm..." whose key is garbage, or none; and what isn't signed at all
@pytest.mark.parametrize(
    "key",
    [b"garbage", b"", None, b"\x08\x01\x12\x20" + bytes(31), b"\x08\x63\x12\x01x"],
    ids=["garbage", "empty", "absent", "cut off", "unknown type"],
)
@pytest.mark.parametrize(
    "from_",
    [b"\x12\x20" + bytes(32), b"\x00\x24\x08\x01\x12\x20" + bytes(32), b"", None],
    ids=["hash", "inline key", "empty", "absent"],
)
async def test_an_author_with_a_bad_key_costs_the_forwarder_and_stops_nothing(net, autojump_clock, from_, key):
    async with line(net, 2, gossip_signing="strict") as (a, b), raw_gossip(net, "10.0.0.9") as raw:
        came = accept_all(b)
        await raw.node.connect(b.addrs[0])
        await eventually(knows(a, b))
        forged = PubsubMessage(TOPIC, b"forged", from_, b"12345678", b"s" * 64, key)
        await raw.say(b, subscribe(TOPIC), publish(forged))
        await eventually(lambda: b.gossip.engine.scores.score(raw.node.peer_id) < 0)
        await a.gossip.publish(TOPIC, b"ahoy")
        await eventually(lambda: came == [b"ahoy"])
        assert set(b.connected_peers()) == {a.peer_id, raw.node.peer_id}


# verdicts


async def test_a_validator_that_raises_ignores(net, autojump_clock, caplog):
    async with line(net, 3) as (a, b, c):
        came, wrong = accept_all(c), iter((RuntimeError("mine"), ValueError("mine"), KeyError("mine")))

        @b.gossip.validator(TOPIC)
        async def check(message):
            raise next(wrong)

        @b.gossip.validator("plain")
        def not_async(message):
            raise OSError("mine")

        @b.gossip.validator("bool")
        async def no_verdict(message):
            return True

        for topic in (TOPIC, "plain", "bool"):
            await eventually(knows(a, b, topic=topic))
        await meet(b, c)
        for number in range(3):
            await a.gossip.publish(TOPIC, b"%d" % number)
        await a.gossip.publish("plain", b"ahoy")
        await a.gossip.publish("bool", b"ahoy")
        await eventually(lambda: b.gossip.stats.failed == 5)
        await trio.sleep(QUIET)
        assert b.gossip.stats.verdicts == {Verdict.IGNORE: 5}
        assert b.gossip.engine.scores.score(a.peer_id) >= 0
        assert came == []
        assert set(b.connected_peers()) == {a.peer_id, c.peer_id}


async def test_no_verdict_in_time_ignores_and_nobody_pays(net, autojump_clock):
    async with line(net, 3) as (a, b, c):
        came = accept_all(c)

        @b.gossip.validator(TOPIC)
        async def never(message):
            await trio.sleep(100)
            return Verdict.ACCEPT

        await meet(b, c)
        await eventually(knows(a, b))
        await a.gossip.publish(TOPIC, b"ahoy")
        await trio.sleep(120)
        assert b.gossip.stats.dropped == {"timeout": 1}
        assert b.gossip.stats.late == 0  # the validator has ended with the message
        assert b.gossip.engine.scores.score(a.peer_id) >= 0
        assert came == []


async def test_a_verdict_three_seconds_late_with_ten_forwarders(net, autojump_clock):
    async with AsyncExitStack() as stack:
        node, behind = [await stack.enter_async_context(gossiper(net, number)) for number in (1, 2)]
        raws = [await stack.enter_async_context(raw_gossip(net, f"10.0.1.{number}")) for number in range(10)]
        validated, came = [], accept_all(behind)

        @node.gossip.validator(TOPIC)
        async def check(message):
            validated.append(message.payload)
            await trio.sleep(3)
            return Verdict.ACCEPT

        async with node.gossip.subscribe(TOPIC, decide=False) as listening:
            await node.connect(behind.addrs[0])
            await meet(node, behind)
            message = signed(gossiper(net, 9), b"ahoy")
            for raw in raws:
                await raw.node.connect(node.addrs[0])
                await raw.say(node, subscribe(TOPIC), graft(TOPIC))
            await eventually(lambda: len(node.gossip.engine.peers(TOPIC)) == 11)
            started = trio.current_time()
            for raw in raws:
                await raw.say(node, publish(message))
                await trio.sleep(0.25)
            assert (validated, came) == ([b"ahoy"], [])
            assert (await anext(listening)).payload == b"ahoy"
            assert trio.current_time() == pytest.approx(started + 3, abs=0.1)
            await trio.sleep(QUIET)
            assert node.gossip.engine.counts["duplicate"] == 9
            assert (validated, came) == ([b"ahoy"], [b"ahoy"])  # one validation, one relay
            assert not [raw for raw in raws if raw.messages()]  # and none to who had it
            assert node.gossip.stats.verdicts == {Verdict.ACCEPT: 1}
            with trio.move_on_after(QUIET):
                pytest.fail(f"expected one delivery, got {await anext(listening)}")


async def test_more_than_ten_validations_go_on_at_once(net, autojump_clock):
    async with line(net, 2) as (a, b):
        running = most = 0

        @b.gossip.validator(TOPIC)
        async def check(message):
            nonlocal running, most
            running += 1
            most = max(running, most)
            await trio.sleep(1)
            running -= 1
            return Verdict.ACCEPT

        await eventually(knows(a, b))
        for number in range(100):
            await a.gossip.publish(TOPIC, b"%d" % number)
        await eventually(lambda: b.gossip.stats.verdicts[Verdict.ACCEPT] == 100)
        assert most == 64


# wrong results


async def test_a_burst_of_a_hundred_is_delivered_whole(net, autojump_clock):
    async with line(net, 3) as (a, b, c):
        came = {node: accept_all(node) for node in (b, c)}
        await meet(b, c)
        await eventually(knows(a, b))
        for number in range(100):
            await a.gossip.publish(TOPIC, b"%d" % number)
        await eventually(lambda: len(came[c]) == 100)
        for payloads in came.values():
            assert sorted(payloads) == sorted(b"%d" % number for number in range(100))


async def test_a_graft_goes_to_those_in_the_topic_only(net, autojump_clock):
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(gossiper(net, 1))
        topics = ("one", "two", "three")
        raws = {topic: [] for topic in topics}
        for number in range(6):
            raw = await stack.enter_async_context(raw_gossip(net, f"10.0.1.{number}"))
            await raw.node.connect(node.addrs[0])
            await raw.say(node, subscribe(topics[number % 3]))
            raws[topics[number % 3]].append(raw)
        await eventually(lambda: all(len(node.gossip.engine.peers(topic)) == 2 for topic in topics))
        for topic in topics:
            accept_all(node, topic)
        await trio.sleep(QUIET)
        for topic, those in raws.items():
            for raw in those:
                assert [one.topic for one in raw.heard("graft")] == [topic]


async def test_a_prune_names_its_backoff_and_is_kept(net, autojump_clock):
    async with gossiper(net, 1) as node, raw_gossip(net, "10.0.0.9") as raw:
        await raw.node.connect(node.addrs[0])
        async with node.gossip.subscribe(TOPIC) as messages:
            await raw.say(node, subscribe(TOPIC))
            await raw.until(lambda: raw.heard("graft"))
            await raw.say(node, publish(signed(gossiper(net, 8), b"ahoy")))
            (await anext(messages)).reject("no")
            await raw.until(lambda: raw.heard("prune"))  # the heartbeat's
            await trio.sleep(50)
            assert len(raw.heard("graft")) == 1
        async with node.gossip.subscribe("other"):
            await raw.say(node, subscribe("other"), graft("other"))
            await trio.sleep(1)
        await raw.until(lambda: len(raw.heard("prune")) >= 2)
        assert {one.topic: one.backoff for one in raw.heard("prune")} == {TOPIC: 60, "other": 60}


async def test_the_cache_honours_a_topics_own_id(net, autojump_clock):
    def by_length(message):
        return b"%s %d" % (hashlib.sha256(message.topic.encode()).digest()[:4], len(message.data))

    async with gossiper(net, 1) as node, raw_gossip(net, "10.0.0.9") as raw, raw_gossip(net, "10.0.0.8") as asking:
        node.gossip.configure(TOPIC, message_id=by_length)
        came = accept_all(node)
        for one in (raw, asking):
            await one.node.connect(node.addrs[0])
        await raw.say(node, subscribe(TOPIC))
        message = signed(gossiper(net, 7), b"ahoy")
        await raw.say(node, publish(message))
        await eventually(lambda: came == [b"ahoy"])
        await asking.say(node, iwant(by_length(message)))
        await asking.until(lambda: asking.messages() == [message])
        await raw.say(node, ihave(TOPIC, by_length(message), b"another"))
        await raw.until(lambda: raw.heard("iwant"))
        assert [one.message_ids for one in raw.heard("iwant")] == [(b"another",)]
        receipt = await node.gossip.publish(TOPIC, b"a longer one of our own")
        await raw.until(raw.messages)
        assert by_length(raw.messages()[0]) == receipt.message_id


async def test_a_subscription_just_after_a_peer_connects_is_announced(net, autojump_clock):
    for number in range(12):
        topic = f"topic-{number}"
        async with gossiper(net, 1) as a, gossiper(net, 2) as b:
            await a.connect(b.addrs[0])
            for _ in range(number):  # at whatever point of the streams' opening
                await trio.sleep(0.005)
            accept_all(a, topic)
            accept_all(b, topic)
            await meet(a, b, topic=topic)


async def test_a_score_survives_a_reconnection(net, autojump_clock):
    async with gossiper(net, 1) as node, raw_gossip(net, "10.0.0.9") as raw:
        await raw.node.connect(node.addrs[0])
        peer, scores = raw.node.peer_id, node.gossip.engine.scores
        async with node.gossip.subscribe(TOPIC) as messages:
            await raw.say(node, subscribe(TOPIC))
            for number in range(3):
                await raw.say(node, publish(signed(gossiper(net, 8), b"%d" % number)))
                (await anext(messages)).reject()
            before = scores.score(peer)
            assert before < -80
            await raw.node.disconnect(node.peer_id)
            await eventually(lambda: not node.connected_peers())
            raw.forget_stream(node)
            await trio.sleep(30)
            await raw.node.connect(node.addrs[0])
            await raw.say(node, subscribe(TOPIC))
            await trio.sleep(QUIET)
            assert before < scores.score(peer) < 0.8 * before
            assert node.gossip.engine.counts["graylisted"]


async def test_the_address_of_a_peer_is_known_to_its_score(net, autojump_clock):
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(gossiper(net, 1))
        raws = [await stack.enter_async_context(raw_gossip(net, "10.0.0.9", listen=())) for _ in range(13)]
        accept_all(node)
        for raw in raws:
            await raw.node.connect(node.addrs[0])
            await raw.say(node, subscribe(TOPIC))
        await eventually(lambda: len(node.gossip.engine.peers(TOPIC)) == 13)
        assert {node.gossip.engine.scores.score(raw.node.peer_id) for raw in raws} == {-5.0 * 3**2}


async def test_signed_records_are_made_once_and_each_is_verified_once(net, autojump_clock, monkeypatch):
    made = 0

    def counting_seal(*args):
        nonlocal made
        made += 1
        return seal(*args)

    monkeypatch.setattr("node.records.seal", counting_seal)
    async with line(net, 2) as (a, b):
        came = accept_all(b)
        await eventually(knows(a, b))
        await trio.sleep(QUIET)
        assert (made, a.records.verified, b.records.verified) == (2, 1, 1)
        for number in range(50):
            await a.gossip.publish(TOPIC, b"%d" % number)
        await eventually(lambda: len(came) == 50)
        await a.identify.push_all()
        await trio.sleep(QUIET)
        assert (made, a.records.verified, b.records.verified) == (2, 1, 1)
        async with gossiper(net, 3) as c:
            await c.connect(b.addrs[0])
            await eventually(lambda: c.records.verified >= 1 and b.records.verified == 2)
            assert made == 3
