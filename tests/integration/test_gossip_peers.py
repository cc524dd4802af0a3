"""Gossip between whole nodes, on the in-memory network: what becomes of peers, their connections and their streams."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from libp2p.peer.id import ID

from node.connection import Connection
from node.events import Admitted
from protocols import StreamReset
from protocols.gossip import GossipParams, PeerScoreThresholds, Verdict
from protocols.gossip.peers import AGAIN_AFTER, REOPEN_AFTER
from protocols.gossip.rpc import PeerInfo
from protocols.gossip.state import MESHSUB_11, MESHSUB_12
from protocols.messages.wire import MAX_GOSSIP, MAX_OVERHEAD
from tests.gossiping import QUIET, TOPIC, accept_all, eventually, gossiper, knows, line, meet
from tests.memnet import MemNet, mem_node
from tests.nodes import Recorder, both
from tests.rawgossip import floodsub, graft, prune, publish, raw_gossip, subscribe


@pytest.fixture
async def net(autojump_clock):
    async with MemNet(seed=1, latency=0.01) as net:
        yield net


async def lose_all_streams(node, raw):
    """Until `node` gives it up; how many streams that took."""
    streams = 1 + len(REOPEN_AFTER)
    for number in range(streams):
        await raw.until(lambda number=number: len(raw.told) == number + 1, timeout=60)
        raw.drop_inbound()
    await eventually(lambda: raw.node.peer_id not in node.gossip.engine.peers(TOPIC))
    return streams


async def refuses(connection, protocol):
    raise StreamReset(f"{connection.peer} takes no {protocol.id} today")


def signed_message(author, payload, topic=TOPIC):
    """An RPC with a message of a node's that isn't running."""
    return publish(author.gossip.policy.make(topic, payload, 0))


async def test_a_peer_that_is_reconnected_gossips_again(net, autojump_clock):
    async with line(net, 2) as (a, b):
        came = accept_all(b)
        accept_all(a, "back")
        for number in range(3):
            await eventually(knows(a, b))
            await eventually(knows(b, a, topic="back"))
            assert (await a.gossip.publish(TOPIC, b"%d" % number)).peers == (b.peer_id,)
            await eventually(lambda number=number: len(came) == number + 1)
            net.kill("10.0.0.1", "10.0.0.2")
            await eventually(lambda: not a.connected_peers() and not b.connected_peers())
            assert not a.gossip.engine.peers(TOPIC)
            assert not b.gossip.engine.peers("back")
            await a.connect(b.addrs[0])
        await eventually(knows(b, a, topic="back"))


async def test_a_subscription_that_was_made_while_alone_is_told_later(net, autojump_clock):
    async with line(net, 2) as (a, b):
        net.kill("10.0.0.1", "10.0.0.2")
        await eventually(lambda: not a.connected_peers() and not b.connected_peers())
        came = accept_all(b)
        await a.connect(b.addrs[0])
        await eventually(knows(a, b))
        await a.gossip.publish(TOPIC, b"ahoy")
        await eventually(lambda: came == [b"ahoy"])


async def test_a_dial_from_both_sides_at_once(net, autojump_clock):
    async with gossiper(net, 1) as a, gossiper(net, 2) as b:
        at_a, at_b = accept_all(a), accept_all(b)
        await both(lambda: a.connect(b.addrs[0]), lambda: b.connect(a.addrs[0]))
        await meet(a, b)
        # past the end of the connection that goes
        for number in range(100):
            await a.gossip.publish(TOPIC, b"a %d" % number)
            await b.gossip.publish(TOPIC, b"b %d" % number)
            await trio.sleep(0.1)
        await trio.sleep(QUIET)
        assert sorted(at_a) == sorted(b"b %d" % number for number in range(100))
        assert sorted(at_b) == sorted(b"a %d" % number for number in range(100))
        assert len(a.swarm.admitted_connections()) == len(b.swarm.admitted_connections()) == 1
        await meet(a, b)


async def test_a_stream_that_is_lost_is_opened_anew_however_often(net, autojump_clock):
    async with gossiper(net, 1) as node, raw_gossip(net, "10.0.0.2") as raw:
        accept_all(node)
        await raw.node.connect(node.addrs[0])
        await raw.say(node, subscribe(TOPIC))
        for number in range(10):
            await raw.until(lambda number=number: len(raw.told) == number + 1)
            await eventually(lambda: raw.node.peer_id in node.gossip.engine.peers(TOPIC))
            # what it said once, on a stream that goes on, still holds
            await node.gossip.publish(TOPIC, b"%d" % number)
            await raw.until(lambda number=number: len(raw.messages()) == number + 1)
            await trio.sleep(100)
            raw.drop_inbound()
        assert raw.node.connected_peers() == [node.peer_id]


@pytest.mark.parametrize("by_itself", [True, False])
async def test_a_peer_that_lost_all_streams_comes_back_without_a_new_connection(net, autojump_clock, by_itself):
    async with gossiper(net, 1) as node, raw_gossip(net, "10.0.0.2") as raw:
        accept_all(node)
        await raw.node.connect(node.addrs[0])
        await raw.say(node, subscribe(TOPIC))
        streams = await lose_all_streams(node, raw)
        await trio.sleep(AGAIN_AFTER / 2)
        assert len(raw.told) == streams
        if by_itself:
            raw.forget_stream(node)
            await raw.say(node, subscribe(TOPIC))
        await raw.until(lambda: len(raw.told) == streams + 1, timeout=1 if by_itself else AGAIN_AFTER)
        await eventually(lambda: raw.node.peer_id in node.gossip.engine.peers(TOPIC))
        await node.gossip.publish(TOPIC, b"back")
        await raw.until(lambda: len(raw.messages()) == 1)
        assert raw.node.connected_peers() == [node.peer_id]


async def test_a_peer_that_was_given_up_comes_back_when_it_speaks_on_the_stream_that_it_has(net, autojump_clock):
    async with gossiper(net, 1) as node, raw_gossip(net, "10.0.0.2") as raw:
        accept_all(node)
        await raw.node.connect(node.addrs[0])
        await raw.say(node, subscribe(TOPIC))
        await lose_all_streams(node, raw)
        await raw.say(node, subscribe("another"))
        await eventually(lambda: raw.node.peer_id in node.gossip.engine.peers("another"))
        await eventually(lambda: raw.node.peer_id in node.gossip.engine.peers(TOPIC))


async def test_what_a_peer_subscribed_to_is_kept_however_often_it_is_given_up(net, autojump_clock, monkeypatch):
    async with gossiper(net, 1) as node, raw_gossip(net, "10.0.0.2") as raw:
        accept_all(node)
        await raw.node.connect(node.addrs[0])
        await raw.say(node, subscribe(TOPIC))
        streams = await lose_all_streams(node, raw)
        with monkeypatch.context() as patched:  # a second time, without a stream at all
            patched.setattr(Connection, "open", refuses)
            await trio.sleep(1.5 * AGAIN_AFTER)
        await raw.until(lambda: len(raw.told) == streams + 1, timeout=AGAIN_AFTER)
        await eventually(lambda: raw.node.peer_id in node.gossip.engine.peers(TOPIC))


async def test_a_peer_that_takes_nothing_loses_its_own_messages_only(net, autojump_clock):
    async with (
        gossiper(net, 1, max_gossip_queue=256 * 1024) as node,
        raw_gossip(net, "10.0.0.2", max_stream_window=256 * 1024) as slow,
        gossiper(net, 3) as quick,
    ):
        came = accept_all(quick)
        slow.deaf = True
        await slow.node.connect(node.addrs[0])
        await quick.connect(node.addrs[0])
        await slow.say(node, subscribe(TOPIC))
        await eventually(knows(node, quick))
        await eventually(knows(node, slow.node))
        lost = 0
        for number in range(100):
            receipt = await node.gossip.publish(TOPIC, bytes([number]) * 32 * 1024)
            assert quick.peer_id in receipt.peers
            lost += slow.node.peer_id not in receipt.peers
            await trio.sleep(0.05)
        await eventually(lambda: len(came) == 100)
        assert lost > 50
        assert set(node.connected_peers()) == {slow.node.peer_id, quick.peer_id}
        await slow.until(lambda: len(slow.told) == 2, timeout=40)  # it took nothing for too long: another try
        await node.disconnect(slow.node.peer_id)
        await eventually(lambda: node.gossip.stats.lost["message"] == lost)


async def test_a_slow_peer_is_told_the_news_first_when_it_wakes(net, autojump_clock):
    async with (
        gossiper(net, 1, max_gossip_queue=1 << 20) as node,
        raw_gossip(net, "10.0.0.2", max_stream_window=256 * 1024) as slow,
    ):
        slow.deaf = True
        await slow.node.connect(node.addrs[0])
        await slow.say(node, subscribe(TOPIC))
        await eventually(knows(node, slow.node))
        for number in range(60):
            await node.gossip.publish(TOPIC, bytes([number]) * 32 * 1024)
        await trio.sleep(1)
        async with node.gossip.subscribe(TOPIC):
            slow.wake()
            await slow.until(lambda: slow.heard("graft"))
            heard = len(slow.messages())
            await trio.sleep(QUIET)
            assert heard < len(slow.messages())


async def test_a_peer_that_a_prune_names_is_dialled(net, autojump_clock, monkeypatch):
    monkeypatch.setattr("node.gossip.PeerScoreThresholds", partial(PeerScoreThresholds, accept_px_threshold=0))
    async with gossiper(net, 1) as node, raw_gossip(net, "10.0.0.2") as raw, gossiper(net, 3) as named:
        at_named = Recorder(named)
        other = gossiper(net, 4)
        accept_all(node)
        accept_all(named)
        await raw.node.connect(node.addrs[0])
        await raw.say(node, subscribe(TOPIC))
        await raw.until(lambda: raw.heard("graft"))
        infos = (
            # a record of somebody else's, none, and one that is no record
            PeerInfo(ID.from_base58(other.peer_id).to_bytes(), named.host.signed_record()),
            PeerInfo(ID.from_base58(other.peer_id).to_bytes()),
            PeerInfo(ID.from_base58(other.peer_id).to_bytes(), b"nonsense"),
            PeerInfo(ID.from_base58(named.peer_id).to_bytes(), named.host.signed_record()),
        )
        await raw.say(node, prune(TOPIC, peers=infos, backoff=60))
        assert (await at_named.next(Admitted)).peer == node.peer_id
        await meet(node, named)
        assert set(node.connected_peers()) == {raw.node.peer_id, named.peer_id}


@pytest.mark.parametrize(("ip", "dialled"), [("93.184.0.2", False), ("10.0.0.2", True)])
async def test_a_prune_from_the_world_names_private_addresses_in_vain(net, autojump_clock, monkeypatch, ip, dialled):
    monkeypatch.setattr("node.gossip.PeerScoreThresholds", partial(PeerScoreThresholds, accept_px_threshold=0))
    async with gossiper(net, 1) as node, raw_gossip(net, ip) as raw, gossiper(net, 3) as named:
        accept_all(node)
        await raw.node.connect(node.addrs[0])
        await raw.say(node, subscribe(TOPIC))
        await raw.until(lambda: raw.heard("graft"))
        info = PeerInfo(ID.from_base58(named.peer_id).to_bytes(), named.host.signed_record())
        await raw.say(node, prune(TOPIC, peers=(info,), backoff=60))
        await trio.sleep(QUIET)
        assert (named.peer_id in node.connected_peers()) is dialled


async def test_a_prune_of_a_peer_that_nobody_trusts_names_in_vain(net, autojump_clock):
    async with gossiper(net, 1) as node, raw_gossip(net, "10.0.0.2") as raw, gossiper(net, 3) as named:
        accept_all(node)
        await raw.node.connect(node.addrs[0])
        await raw.say(node, subscribe(TOPIC))
        await raw.until(lambda: raw.heard("graft"))
        info = PeerInfo(ID.from_base58(named.peer_id).to_bytes(), named.host.signed_record())
        await raw.say(node, prune(TOPIC, peers=(info,), backoff=60))
        await trio.sleep(QUIET)
        assert node.connected_peers() == [raw.node.peer_id]
        assert node.gossip.engine.counts["px_ignored"] == 1


async def test_a_floodsub_peer_gets_everything(net, autojump_clock):
    async with line(net, 2) as (a, b), floodsub(net, "10.0.0.3") as flood:
        accept_all(b)
        await flood.node.connect(b.addrs[0])
        await flood.say(b, subscribe(TOPIC))
        await eventually(knows(a, b))
        await eventually(knows(b, flood.node))
        sent = set()
        for number in range(20):
            for node in (a, b):
                sent.add((await node.gossip.publish(TOPIC, b"%d of %s" % (number, node.peer_id.encode()))).message_id)
        await flood.until(lambda: len(flood.messages()) == 40)
        await trio.sleep(QUIET)
        assert {b.gossip.policy.message_id(message) for message in flood.messages()} == sent
        assert len(flood.messages()) == 40
        assert not any(rpc.control for _, rpc in flood.rpcs)
        async with a.gossip.subscribe(TOPIC) as messages:  # and what it says is taken
            await meet(a, b)
            await flood.say(b, signed_message(gossiper(net, 9), b"by flood"))
            assert (await anext(messages)).payload == b"by flood"


@pytest.mark.parametrize("protocol", [MESHSUB_12, MESHSUB_11])
async def test_the_newest_protocol_that_both_speak_is_taken(net, autojump_clock, protocol):
    async with gossiper(net, 1) as node, raw_gossip(net, "10.0.0.2", protocol=protocol) as raw:
        accept_all(node)
        await raw.node.connect(node.addrs[0])
        await raw.say(node, subscribe(TOPIC), graft(TOPIC))
        await raw.until(lambda: raw.rpcs)
        other = gossiper(net, 9)
        await raw.say(node, signed_message(other, bytes(2048)))
        await trio.sleep(QUIET)
        assert node.gossip.engine.mesh(TOPIC) == (raw.node.peer_id,)
        assert node.gossip.stats.verdicts == {Verdict.ACCEPT: 1}


async def test_the_largest_message_passes_and_a_larger_one_is_refused(net, autojump_clock):
    most = MAX_GOSSIP - MAX_OVERHEAD
    async with line(net, 3) as (a, b, c):
        at_b, at_c = accept_all(b), accept_all(c)
        await meet(b, c)
        await eventually(knows(a, b))
        await a.gossip.publish(TOPIC, bytes(most))
        await eventually(lambda: at_b == at_c == [bytes(most)])
        with pytest.raises(ValueError, match="at most"):
            await a.gossip.publish(TOPIC, bytes(most + 1))


async def test_direct_peers_are_reached_kept_and_given_everything(net, autojump_clock):
    async with trio.open_nursery() as nursery:
        a = gossiper(net, 1)
        await nursery.start(a.run)
        b = gossiper(net, 2, gossip_direct=(a.addrs[0],), bootstrap_retry_min=1.0)
        await nursery.start(b.run)
        with trio.fail_after(10):
            while not b.connected_peers():  # noqa: ASYNC110
                await trio.sleep(0.1)
        came = accept_all(a)
        b.gossip.relay(TOPIC)
        await eventually(knows(b, a))
        assert b.gossip.engine.peers(TOPIC) == (a.peer_id,)
        await trio.sleep(QUIET)
        assert not b.gossip.engine.mesh(TOPIC), "direct peers are in no mesh"
        await b.gossip.publish(TOPIC, b"ahoy")
        await eventually(lambda: came == [b"ahoy"])
        net.kill("10.0.0.1", "10.0.0.2")
        await eventually(lambda: not a.connected_peers() and not b.connected_peers())
        ticks = b.gossip.params.direct_connect_ticks
        await eventually(lambda: bool(b.connected_peers()), timeout=1.5 * ticks)
        nursery.cancel_scope.cancel()


async def test_a_heartbeat_that_takes_long_is_told(net, autojump_clock):
    params = GossipParams(slow_heartbeat_warning=1e-9)
    async with mem_node(net, "10.0.0.1", dht="off", gossip_params=params) as node:
        await trio.sleep(QUIET)
        assert node.gossip.stats.slow_heartbeats >= 4
