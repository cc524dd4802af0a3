"""Gossip between whole nodes, on the in-memory network: what programs call."""

from __future__ import annotations

import pytest
import trio

from node import Config, Identity, Node
from node.errors import UsageError
from protocols.gossip import Verdict, VerdictError
from tests.gossiping import QUIET, TOPIC, accept_all, eventually, gossiper, knows, line, meet
from tests.memnet import MemNet
from tests.nodes import NOWHERE, running


@pytest.fixture
async def net(autojump_clock):
    async with MemNet(seed=1, latency=0.01) as net:
        yield net


async def test_a_message_travels_once_it_is_vouched_for(net, autojump_clock):
    async with line(net, 3) as (a, b, c):
        came = accept_all(c)
        async with b.gossip.subscribe(TOPIC) as messages:
            await meet(b, c)
            await eventually(knows(a, b))
            receipt = await a.gossip.publish(TOPIC, b"ahoy", type=7)
            assert receipt.peers == (b.peer_id,)
            message = await anext(messages)
            assert (message.payload, message.type, message.topic) == (b"ahoy", 7, TOPIC)
            assert (message.author, message.forwarder) == (a.peer_id, a.peer_id)
            assert message.message_id == receipt.message_id
            await trio.sleep(3)
            assert came == []
            assert message.accept() is True
            await eventually(lambda: came == [b"ahoy"])
            assert b.gossip.stats.verdicts == {Verdict.ACCEPT: 1}
            assert b.gossip.stats.verdict_times[-1] == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("first", ["accept", "reject", "ignore"])
async def test_a_second_verdict_is_an_error(net, autojump_clock, first):
    async with line(net, 2) as (a, b), b.gossip.subscribe(TOPIC) as messages:
        await eventually(knows(a, b))
        await a.gossip.publish(TOPIC, b"ahoy")
        message = await anext(messages)
        assert getattr(message, first)() is True
        for second in (message.accept, message.reject, message.ignore):
            with pytest.raises(VerdictError, match=f"has its verdict already: {first}"):
                second()


# the deadline; and after the ID itself has been forgotten
@pytest.mark.parametrize("late", [31, 1000])
async def test_a_verdict_after_the_deadline_has_no_effect(net, autojump_clock, late):
    async with line(net, 3) as (a, b, c):
        came = accept_all(c)
        async with b.gossip.subscribe(TOPIC) as messages:
            await meet(b, c)
            await eventually(knows(a, b))
            await a.gossip.publish(TOPIC, b"ahoy")
            message = await anext(messages)
            await trio.sleep(late)
            assert b.gossip.stats.dropped == {"timeout": 1}
            assert message.accept() is False
            assert b.gossip.stats.late == 1
            with pytest.raises(VerdictError):
                message.accept()
            await trio.sleep(QUIET)
            assert came == []
            assert b.gossip.engine.scores.score(a.peer_id) >= 0


async def test_one_decides_and_others_listen(net, autojump_clock):
    async with line(net, 2) as (a, b):
        async with b.gossip.subscribe(TOPIC) as deciding, b.gossip.subscribe(TOPIC, decide=False) as listening:
            with pytest.raises(ValueError, match="has somebody who decides already"):
                b.gossip.subscribe(TOPIC)
            with pytest.raises(ValueError, match="has somebody who decides already"):
                b.gossip.relay(TOPIC)
            await eventually(knows(a, b))
            for payload, verdict in ((b"good", "accept"), (b"bad", "reject"), (b"dull", "ignore")):
                await a.gossip.publish(TOPIC, payload)
                getattr(await anext(deciding), verdict)()
            heard = await anext(listening)
            assert heard.payload == b"good"
            with pytest.raises(VerdictError, match="somebody else decides"):
                heard.accept()
            with trio.move_on_after(QUIET):
                pytest.fail(f"expected no more to be heard, got {await anext(listening)}")
        async with b.gossip.subscribe(TOPIC):  # the place is free again
            pass
        await eventually(lambda: not a.gossip.engine.peers(TOPIC))


async def test_who_listens_without_a_decider_joins_and_relays_nothing(net, autojump_clock):
    async with line(net, 3) as (a, b, c):
        came = accept_all(c)
        async with b.gossip.subscribe(TOPIC, decide=False) as listening:
            await meet(b, c)
            await eventually(knows(a, b))
            await a.gossip.publish(TOPIC, b"ahoy")
            with trio.move_on_after(40):
                pytest.fail(f"expected nothing to be heard, got {await anext(listening)}")
            assert came == []
            assert b.gossip.stats.dropped == {"timeout": 1}
            assert b.gossip.engine.scores.score(a.peer_id) >= 0


async def test_queues_are_bounded_and_what_finds_no_room_is_ignored(net, autojump_clock):
    async with line(net, 2) as (a, b):
        decider, listener = b.gossip.subscribe(TOPIC, limit=3), b.gossip.subscribe(TOPIC, decide=False, limit=2)
        async with decider as deciding, listener as listening:
            await eventually(knows(a, b))
            for number in range(5):
                await a.gossip.publish(TOPIC, b"%d" % number)
            await eventually(lambda: deciding.missed == 2)
            assert b.gossip.stats.no_room == 2
            for _ in range(3):
                (await anext(deciding)).accept()
            assert [(await anext(listening)).payload for _ in range(2)] == [b"0", b"1"]
            assert listening.missed == 1
            assert b.gossip.stats.verdicts == {Verdict.ACCEPT: 3}  # nobody has judged the other two
            assert b.gossip.engine.scores.score(a.peer_id) >= 0
        with pytest.raises(ValueError, match="limit"):
            b.gossip.subscribe(TOPIC, limit=0)


async def test_a_validators_queue_is_bounded_too(net, autojump_clock):
    async with line(net, 2) as (a, b):
        judged = []

        @b.gossip.validator(TOPIC, at_once=2, limit=3)
        async def slowly(message):
            await trio.sleep(1)
            judged.append(message.payload)
            return Verdict.ACCEPT

        await eventually(knows(a, b))
        for number in range(10):
            await a.gossip.publish(TOPIC, b"%d" % number)
        await trio.sleep(QUIET)
        assert len(judged) + b.gossip.stats.no_room == 10
        assert 3 <= len(judged) <= 5


async def test_validators_without_an_end_are_ended_with_the_messages_time(net, autojump_clock):
    async with line(net, 2) as (a, b):
        begun, ended = [], []

        @b.gossip.validator(TOPIC, at_once=2)
        async def hangs(message):
            begun.append(message.payload)
            try:
                if message.payload != b"at last":
                    await trio.sleep_forever()
                return Verdict.ACCEPT
            finally:
                ended.append(message.payload)

        await eventually(knows(a, b))
        for number in range(5):
            await a.gossip.publish(TOPIC, b"%d" % number)
        await trio.sleep(b.gossip.params.verdict_timeout + 1)
        assert b.gossip.stats.dropped == {"timeout": 5}
        assert begun == sorted(ended) == [b"0", b"1"]  # the others' time was over when it was their turn
        await a.gossip.publish(TOPIC, b"at last")
        await eventually(lambda: b.gossip.stats.verdicts == {Verdict.ACCEPT: 1})


async def test_a_subscriber_that_raises_harms_no_other(net, autojump_clock):
    async with line(net, 3) as (a, b, c):
        other, behind = accept_all(b, "other"), accept_all(c)

        async def subscriber():
            async with b.gossip.subscribe(TOPIC) as messages:
                await meet(b, c)
                await eventually(knows(a, b))
                for number in range(3):
                    await a.gossip.publish(TOPIC, b"%d" % number)
                await anext(messages)
                raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine"):
            await subscriber()
        await eventually(knows(a, b, topic="other"))
        await a.gossip.publish("other", b"on we go")
        await eventually(lambda: other == [b"on we go"])
        assert behind == []
        assert b.gossip.engine.pending == (0, 0)
        assert b.gossip.stats.verdicts == {Verdict.IGNORE: 2, Verdict.ACCEPT: 1}
        assert b.gossip.stats.dropped == {"unsubscribed": 1}
        assert b.gossip.engine.scores.score(a.peer_id) >= 0


async def test_a_subscription_that_ends_ignores_what_waits(net, autojump_clock):
    async with line(net, 2) as (a, b), b.gossip.subscribe(TOPIC, decide=False):
        async with b.gossip.subscribe(TOPIC):
            await eventually(knows(a, b))
            for number in range(3):
                await a.gossip.publish(TOPIC, b"%d" % number)
            await eventually(lambda: b.gossip.engine.pending[0] == 3)
        assert b.gossip.engine.pending == (0, 0)
        assert b.gossip.stats.verdicts == {Verdict.IGNORE: 3}
        assert b.gossip.stats.late == 0


async def test_a_relay_accepts_and_leave_ends_it(net, autojump_clock):
    async with line(net, 3) as (a, b, c):
        b.gossip.relay(TOPIC)
        came = accept_all(c)
        await meet(b, c)
        await eventually(knows(a, b))
        await a.gossip.publish(TOPIC, b"ahoy")
        await eventually(lambda: came == [b"ahoy"])
        b.gossip.leave(TOPIC)
        await eventually(lambda: not a.gossip.engine.peers(TOPIC))
        assert (await a.gossip.publish(TOPIC, b"too late")).peers == ()


def test_a_node_and_its_validators_are_put_together_before_trio_runs():
    config = Config(listen=("/ip4/127.0.0.1/tcp/0",), data_dir=NOWHERE, dht="off")
    node = Node(config, identity=Identity.generate())
    came = accept_all(node)

    async def main():
        async with node, running() as other:
            await other.connect(node.addrs[0])
            await eventually(knows(other, node))
            await other.gossip.publish(TOPIC, b"ahoy")
            await eventually(lambda: came == [b"ahoy"])

    trio.run(main)


async def test_a_node_without_gossip_speaks_none(net, autojump_clock):
    async with gossiper(net, 1) as a, gossiper(net, 2, gossip="off") as b:
        with pytest.raises(UsageError, match='gossip: expected "on"'):
            b.gossip.engine  # noqa: B018
        await a.connect(b.addrs[0])
        await trio.sleep(QUIET)
        assert not {protocol for protocol in b.registry.ids() if "sub/" in protocol}
        assert a.connected_peers() == [b.peer_id]
        assert a.gossip.stats.rpcs_sent == 0
        accept_all(a)
        assert (await a.gossip.publish(TOPIC, b"ahoy")).peers == ()
