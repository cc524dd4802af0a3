"""`gossip_router = "stock"`: py-libp2p's router behind our methods, with its like and with ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from node.api import gossip
from node.node import Node
from protocols.gossip import GossipMessage, PublishError, Verdict
from tests.nodes import running

LIMIT = 15.0
TOPIC = "blocks"


async def _until(done: Callable[[], bool]) -> None:
    while not done():  # noqa: ASYNC110 - the routers tell nobody
        await trio.sleep(0.02)


async def _meshed(*nodes: Node) -> None:
    for node in nodes:
        await _until(lambda node=node: bool(node.gossip.engine.mesh(TOPIC)))  # type: ignore[misc]


@pytest.mark.parametrize("signing", ["own", "strict"])
@pytest.mark.parametrize(("one", "other"), [("stock", "stock"), ("stock", "vouch"), ("vouch", "stock")])
async def test_two_nodes_exchange_messages(one: str, other: str, signing: str) -> None:
    with trio.fail_after(LIMIT):
        async with (
            running(gossip_router=one, gossip_signing=signing) as a,
            running(gossip_router=other, gossip_signing=signing) as b,
            a.gossip.subscribe(TOPIC) as at_a,
            b.gossip.subscribe(TOPIC) as at_b,
        ):
            await b.connect(a.addrs[0])
            await _meshed(a, b)
            for author, reader, messages in ((a, b, at_b), (b, a, at_a)):
                for number in range(20):  # more than its spam protection would let through
                    receipt = await author.gossip.publish(TOPIC, b"%d" % number)
                    assert receipt.peers == (reader.peer_id,)
                    message = await anext(messages)
                    assert (message.author, message.forwarder) == (author.peer_id, author.peer_id)
                    assert (message.payload, message.message_id) == (b"%d" % number, receipt.message_id)
                    assert message.accept()


async def test_what_is_accepted_travels_on_and_nothing_else() -> None:
    verdicts: list[GossipMessage] = []
    with trio.fail_after(LIMIT):
        async with (
            running() as a,
            running(gossip_router="stock") as between,
            running() as c,
            a.gossip.subscribe(TOPIC),
            c.gossip.subscribe(TOPIC) as at_c,
        ):

            @between.gossip.validator(TOPIC)
            async def check(message: GossipMessage) -> Verdict:
                verdicts.append(message)
                await trio.sleep(0.3)
                return Verdict.ACCEPT if message.payload.startswith(b"good") else Verdict.REJECT

            await a.connect(between.addrs[0])
            await c.connect(between.addrs[0])
            await _meshed(a, c)
            await _until(lambda: len(between.gossip.engine.mesh(TOPIC)) == 2)
            async with between.gossip.subscribe(TOPIC, decide=False) as listening:
                await a.gossip.publish(TOPIC, b"bad")
                published = trio.current_time()
                await a.gossip.publish(TOPIC, b"good")
                assert (await anext(at_c)).payload == b"good"
                assert trio.current_time() - published >= 0.3
                assert (await anext(listening)).payload == b"good"
            # each message has a task of its own there, and trio shuffles them
            assert sorted(message.payload for message in verdicts) == [b"bad", b"good"]
            await _until(lambda: between.gossip.stats.verdicts == {Verdict.ACCEPT: 1, Verdict.REJECT: 1})


async def test_a_message_that_two_have_brought_is_asked_about_once() -> None:
    asked: list[GossipMessage] = []
    with trio.fail_after(LIMIT):
        async with (
            running() as a,
            running() as b,
            running(gossip_router="stock") as judge,
        ):
            a.gossip.relay(TOPIC)
            b.gossip.relay(TOPIC)

            @judge.gossip.validator(TOPIC)
            async def check(message: GossipMessage) -> Verdict:
                asked.append(message)
                await trio.sleep(0.5)
                return Verdict.ACCEPT

            await a.connect(b.addrs[0])
            await judge.connect(a.addrs[0])
            await judge.connect(b.addrs[0])
            for node in (a, b, judge):
                await _until(lambda node=node: len(node.gossip.engine.mesh(TOPIC)) == 2)  # type: ignore[misc]
            await a.gossip.publish(TOPIC, b"once")
            await trio.sleep(1.0)
            assert len(asked) == 1


async def test_what_it_cannot_do_is_said() -> None:
    async with running(gossip_router="stock") as node:
        gossip = node.gossip
        with pytest.raises(ValueError, match="expected no message_id"):
            gossip.configure(TOPIC, message_id=lambda message: message.data)
        with pytest.raises(ValueError, match="verdict_timeout"):
            gossip.configure(TOPIC, verdict_timeout=1e6)
        async with gossip.subscribe(TOPIC):
            with pytest.raises(ValueError, match="decides already"):
                gossip.relay(TOPIC)
    with pytest.raises(PublishError, match="ended"):
        await gossip.publish(TOPIC, b"")


async def test_its_state_can_be_asked_for() -> None:
    with trio.fail_after(LIMIT):
        async with running(gossip_router="stock") as node, node.gossip.subscribe(TOPIC):
            state = await gossip.state(node, gossip.GossipQuery())
            assert [row.topic for row in state.topics] == [TOPIC]
            assert (state.published, state.duplicates) == (0, 0)
