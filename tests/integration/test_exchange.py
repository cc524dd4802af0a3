"""Peer exchange between whole nodes, in memory: who is told of whom, and what strangers can do with it."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager

import base58
import pytest
import trio

from node.discovery.exchange import NodeExchange
from node.events import Identified, Misbehaved
from node.identity import Identity
from node.records import seal, unseal
from protocols import Protocol, ProtocolError, StreamError, StreamReset, StreamTimeout
from protocols.exchange.wire import (
    MAX_FRAME,
    PROTOCOL_ID,
    Addresses,
    GetAddresses,
    Ping,
    Pong,
    decode,
    encode,
)
from protocols.framing import encode_uvarint
from protocols.messages.authors import Ed25519Signer
from tests.memnet import MemNet, mem_node
from tests.nodes import Recorder, eventually

QUIET = 5.0
REQUESTS = 10_000


@pytest.fixture
async def net(autojump_clock):
    async with MemNet(seed=1, latency=0.01) as net:
        yield net


def quiet_node(net, ip, **config):
    """A node that asks nobody by itself."""
    node = mem_node(net, ip, **({"dht": "off", "gossip": "off", "addressbook": "memory"} | config))
    node.peers.sources.clear()
    return node


@asynccontextmanager
async def nodes(net, *ips, **config):
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(quiet_node(net, ip, **config)) for ip in ips]


async def meet(a, b):
    """Connects a to b, and each knows what the other is."""
    await a.connect(b.addrs[0])
    await eventually(lambda: b.peer_id in a.identify.known and a.peer_id in b.identify.known)


class TestFeed:
    """Keeps what is found; hungry only when told."""

    __test__ = False

    def __init__(self):
        self.found_peers = {}
        self.records = {}
        self.hungry = trio.Event()

    def found(self, peer, addrs, *, record=None, told_by=""):
        self.found_peers[peer] = tuple(addrs)
        if record is not None:
            self.records[peer] = record

    async def wanted(self):
        await self.hungry.wait()
        return 8


def source(node) -> NodeExchange:
    assert node.exchange is not None
    return node.exchange


# who is told of whom


async def test_a_peer_that_was_tested_is_told_with_its_record(net, autojump_clock):
    async with nodes(net, "10.0.0.1", "10.0.0.2", "10.0.0.3") as (a, b, c):
        await meet(b, c)
        await meet(a, b)
        found = await source(a).ask(b.peer_id)
        assert found == {c.peer_id: (("/ip4/10.0.0.3/tcp/4001",), c.records.own())}
        assert await source(b).ask(a.peer_id) == {}  # a has tested nobody but b
        assert await source(c).ask(b.peer_id) == {}  # a has dialled b: nobody has dialled a yet


async def test_what_was_learned_isnt_told_before_it_is_tested(net, autojump_clock):
    async with nodes(net, "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4") as (a, b, c, d):
        await meet(b, c)
        await meet(a, b)
        await meet(d, a)
        for peer, (addrs, record) in (await source(a).ask(b.peer_id)).items():
            a.addressbook.learn(peer, addrs, "exchange", record=record)
        assert c.peer_id in a.addressbook
        assert set(await source(d).ask(a.peer_id)) == {b.peer_id}
        await meet(a, c)
        await trio.sleep(QUIET)
        assert set(await source(d).ask(a.peer_id)) == {b.peer_id, c.peer_id}


async def test_private_addresses_stay_among_private_peers(net, autojump_clock):
    async with nodes(net, "93.184.0.1", "10.0.0.2", "93.185.0.3", "10.0.0.4") as (world, inside, other, asker):
        await meet(world, inside)
        await meet(world, other)
        await meet(asker, world)
        assert set(await source(other).ask(world.peer_id)) == set()  # it would hear of a private peer
        # who asks is seen at its own address
        assert set(await source(asker).ask(world.peer_id)) == {other.peer_id}
        assert set(await source(inside).ask(world.peer_id)) == {other.peer_id}


@pytest.mark.parametrize(("ip", "count"), [("93.184.0.1", 0), ("10.0.0.6", 1)])
async def test_only_a_private_peer_may_name_private_addresses(net, autojump_clock, ip, count):
    record = seal(Ed25519Signer(bytes(32)), ["/ip4/10.0.0.7/tcp/22"], 1)
    async with liar_and_node(net, lying(lambda: [record])[0], ip) as (node, liar, events):
        assert len(await source(node).ask(liar.peer_id)) == count
        assert events.of(Misbehaved) == []


async def test_the_source_asks_new_peers_and_again_at_intervals(net, autojump_clock):
    async with (
        nodes(net, "10.0.0.2", "10.0.0.3") as (b, c),
        quiet_node(net, "10.0.0.1", exchange_interval=100.0) as a,
        trio.open_nursery() as nursery,
    ):
        feed = TestFeed()
        nursery.start_soon(source(a).run, feed)
        await meet(a, b)
        await trio.sleep(QUIET)
        assert feed.found_peers == {}
        await meet(b, c)
        await trio.sleep(50)
        assert feed.found_peers == {}
        await trio.sleep(100)
        assert feed.found_peers == {c.peer_id: ("/ip4/10.0.0.3/tcp/4001",)}
        assert feed.records == {c.peer_id: c.records.own()}
        nursery.cancel_scope.cancel()


async def test_the_source_asks_sooner_when_the_pool_is_hungry(net, autojump_clock):
    async with (
        nodes(net, "10.0.0.2", "10.0.0.3") as (b, c),
        quiet_node(net, "10.0.0.1", exchange_interval=10_000.0) as a,
        trio.open_nursery() as nursery,
    ):
        feed = TestFeed()
        nursery.start_soon(source(a).run, feed)
        await meet(a, b)
        await trio.sleep(60)
        await meet(b, c)
        assert feed.found_peers == {}
        feed.hungry.set()
        await trio.sleep(QUIET)
        assert set(feed.found_peers) == {c.peer_id}
        asked = b.exchange.exchange.share
        told = asked.told
        await trio.sleep(300)
        assert 5 <= asked.told - told <= 31  # and no more often than it answers
        assert asked.refused == 0
        nursery.cancel_scope.cancel()


async def test_who_asks_is_heard_of(net, autojump_clock):
    async with nodes(net, "10.0.0.1", "10.0.0.2") as (a, b), trio.open_nursery() as nursery:
        feed = TestFeed()
        nursery.start_soon(source(b).run, feed)
        await meet(a, b)
        await source(a).ask(b.peer_id)
        assert feed.found_peers == {a.peer_id: ("/ip4/10.0.0.1/tcp/4001",)}
        nursery.cancel_scope.cancel()


async def test_a_network_of_twenty_knows_itself_from_one(net, autojump_clock):
    async with nodes(net, *(f"10.0.1.{number}" for number in range(1, 21))) as (first, *others):
        for other in others:
            await meet(first, other)
        heard = [len(await source(other).ask(first.peer_id)) for other in others]
        assert heard == [18] * 19  # all but itself and who was asked


async def test_a_record_follows_the_addresses(net, autojump_clock):
    async with nodes(net, "10.0.0.1", "10.0.0.2") as (a, b):
        await meet(a, b)
        at_a, before = Recorder(a), a.identify.known[b.peer_id].record
        await b._listen("/ip4/10.0.0.2/tcp/4002")
        await at_a.next(Identified)
        after = a.identify.known[b.peer_id].record
        assert unseal(after).seq > unseal(before).seq
        assert unseal(after).addrs == ("/ip4/10.0.0.2/tcp/4001", "/ip4/10.0.0.2/tcp/4002")
        await trio.sleep(QUIET)
        assert a.addressbook.get(b.peer_id).record == after


# strangers that answer


def lying(records=list, **alive):
    """A protocol that answers as an exchange, but for what is given; what it was asked for is counted."""
    protocol = Protocol(PROTOCOL_ID, max_frame=MAX_FRAME)
    asked = []

    @protocol.serve
    async def answer(stream):
        ping = decode(await stream.receive())
        said = {"peer_id": alive.get("peer_id"), "nonce": alive.get("nonce", ping.nonce)}
        if said["peer_id"] is None:
            said["peer_id"] = base58.b58decode(alive["identity"].peer_id) if "identity" in alive else own[0]
        await stream.send(encode(Pong(**said)))
        await stream.receive()
        asked.append(1)
        await stream.send(encode(Addresses(tuple(records()))))

    own = [b""]
    protocol.own = own
    return protocol, asked


@asynccontextmanager
async def liar_and_node(net, protocol, ip="10.0.0.6"):
    identity = Identity.generate()
    protocol.own[0] = base58.b58decode(identity.peer_id)
    liar = mem_node(
        net,
        ip,
        dht="off",
        gossip="off",
        addressbook="memory",
        exchange="off",
        protocols=[protocol],
        identity=identity,
    )
    async with quiet_node(net, "10.0.0.1") as node, liar:
        events = Recorder(node)
        await meet(node, liar)
        yield node, liar, events


async def test_forged_records_are_dropped_and_the_forger_pays(net, autojump_clock):
    good, signer = Ed25519Signer(bytes(32)), Ed25519Signer(bytes([1]) * 32)
    sealed = seal(good, ["/ip4/10.0.0.7/tcp/1"], 5)
    forged = sealed[:-1] + bytes([sealed[-1] ^ 1])
    other = seal(signer, ["/ip4/10.0.0.8/tcp/1"], 5)
    records = [forged, b"nonsense", b"", bytes(5000), other]
    async with liar_and_node(net, lying(lambda: records)[0]) as (node, liar, events):
        found = await source(node).ask(liar.peer_id)
        assert list(found) == [unseal(other).peer]
        (fault,) = events.of(Misbehaved)
        assert (fault.peer, fault.protocol, fault.reason) == (liar.peer_id, PROTOCOL_ID, "bad_record")
        before = node.records.verified
        await source(node).ask(liar.peer_id)
        assert node.records.verified == before  # the same lies cost nothing the second time


async def test_an_older_record_is_dropped_and_nobody_pays(net, autojump_clock):
    signer = Ed25519Signer(bytes(32))
    newer, older = (seal(signer, ["/ip4/10.0.0.7/tcp/1"], seq) for seq in (5, 4))
    said = [newer]
    async with liar_and_node(net, lying(lambda: said)[0]) as (node, liar, events):
        assert len(await source(node).ask(liar.peer_id)) == 1
        said[0] = older
        assert await source(node).ask(liar.peer_id) == {}
        assert events.of(Misbehaved) == []
        node.addressbook.learn(unseal(newer).peer, ["/ip4/10.0.0.7/tcp/1"], "exchange", record=seal(signer, [], 9))
        said[0] = newer
        assert await source(node).ask(liar.peer_id) == {}  # the book knows a newer one


async def test_more_records_than_asked_for_another_nonce_and_another_peer_id_cost_the_stream(net, autojump_clock):
    many = [seal(Ed25519Signer(bytes([number]) * 32), ["/ip4/10.0.0.7/tcp/1"], 1) for number in range(5)]
    for protocol in (
        lying(lambda: many)[0],
        lying(nonce=0)[0],
        lying(peer_id=b"")[0],
        lying(identity=Identity.generate())[0],
    ):
        async with liar_and_node(net, protocol) as (node, liar, events):
            with pytest.raises(ProtocolError):
                await source(node).ask(liar.peer_id, 4)
            assert [fault.reason for fault in events.of(Misbehaved)] == ["protocol"]
            assert liar.peer_id in node.connected_peers()


async def test_a_silent_peer_costs_ten_seconds(net, autojump_clock):
    protocol = Protocol(PROTOCOL_ID, max_frame=MAX_FRAME)

    @protocol.serve
    async def drip(stream):
        ping = decode(await stream.receive())
        await trio.sleep(6)
        await stream.send(encode(Pong(own[0], nonce=ping.nonce)))
        await trio.sleep_forever()

    own = protocol.own = [b""]
    async with liar_and_node(net, protocol) as (node, liar, events):
        started = trio.current_time()
        with pytest.raises(StreamTimeout):
            await source(node).ask(liar.peer_id)
        assert 10 <= trio.current_time() - started < 11
        assert events.of(Misbehaved) == []


# strangers that ask


RAW = Protocol(PROTOCOL_ID, max_frame=None, timeout=60.0)
FRAMES = Protocol(PROTOCOL_ID, max_frame=MAX_FRAME, timeout=60.0)


async def to_the_end(stream):
    async for _ in stream:
        pass


async def refused(stranger, node, *frames):
    """Says these frames; the stream must be reset."""
    async with stranger.stream(node.peer_id, FRAMES) as stream:
        for frame in frames:
            await stream.send(frame)
        with pytest.raises(StreamReset):
            await to_the_end(stream)


async def test_wrong_orders_and_foreign_ids_cost_the_stream_and_are_told(net, autojump_clock):
    async with nodes(net, "10.0.0.1", "10.0.0.2") as (node, stranger):
        await meet(stranger, node)
        events = Recorder(node)
        me = base58.b58decode(stranger.peer_id)
        for frames in (
            [encode(GetAddresses(1))],
            [encode(Ping(b"somebody else"))],
            [encode(Ping(me)), encode(Ping(me))],
            [b"\xff\xff"],
        ):
            await refused(stranger, node, *frames)
        assert [fault.reason for fault in events.of(Misbehaved)] == ["protocol"] * 4
        assert {fault.peer for fault in events.of(Misbehaved)} == {stranger.peer_id}
        assert stranger.peer_id in node.connected_peers()


async def test_a_frame_over_the_bound_is_refused_by_its_length(net, autojump_clock):
    async with nodes(net, "10.0.0.1", "10.0.0.2") as (node, stranger):
        await meet(stranger, node)
        events = Recorder(node)
        async with stranger.stream(node.peer_id, RAW) as stream:
            await stream.send(encode_uvarint(MAX_FRAME + 1))
            with pytest.raises(StreamReset):
                await stream.receive()
        assert [fault.reason for fault in events.of(Misbehaved)] == ["protocol"]


async def test_a_ping_alone_is_answered(net, autojump_clock):
    async with nodes(net, "10.0.0.1", "10.0.0.2") as (node, stranger):
        await meet(stranger, node)
        events = Recorder(node)
        async with stranger.stream(node.peer_id, FRAMES) as stream:
            await stream.send(encode(Ping(base58.b58decode(stranger.peer_id), nonce=9)))
            pong = decode(await stream.receive())
            assert (pong.nonce, len(pong.multiaddrs)) == (9, 1)
        await trio.sleep(QUIET)
        assert events.of(Misbehaved) == []


async def test_ten_thousand_requests_are_answered_a_few_times(net, autojump_clock):
    async with nodes(net, "10.0.0.1", "10.0.0.2", "10.0.0.3") as (node, flooder, honest):
        await meet(node, honest)
        await meet(flooder, node)
        events = Recorder(node)
        frames = encode(Ping(base58.b58decode(flooder.peer_id))), encode(GetAddresses(100))
        answered = 0
        started = trio.current_time()

        async def ask():
            nonlocal answered
            try:
                async with flooder.stream(node.peer_id, FRAMES) as stream:
                    for frame in frames:
                        await stream.send(frame)
                        await stream.receive()
                    answered += 1
            except (StreamError, ProtocolError):
                pass

        limiter = trio.CapacityLimiter(8)

        async def one():
            async with limiter:
                await ask()

        async with trio.open_nursery() as nursery:
            for _ in range(REQUESTS):
                nursery.start_soon(one)
        took = trio.current_time() - started
        assert answered <= 5 + took / 10 + 1
        faults = events.of(Misbehaved)
        assert {(fault.peer, fault.reason) for fault in faults} == {(flooder.peer_id, "flood")}
        assert len(faults) <= 1 + took / 10
        found = await source(honest).ask(node.peer_id)  # others are served all the same
        assert set(found) <= {flooder.peer_id}


async def test_a_network_finds_itself_by_exchange_alone(net, autojump_clock):
    count, ticks = 12, 120
    config = {"dht": "off", "gossip": "off", "addressbook": "memory", "pool": "on"}
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(mem_node(net, "10.0.2.1", **config))
        others = [
            await stack.enter_async_context(mem_node(net, f"10.0.2.{number}", bootstrap=(first.addrs[0],), **config))
            for number in range(2, count + 1)
        ]
        for _ in range(ticks):
            if all(len(node.connected_peers()) == count - 1 for node in (first, *others)):
                break
            await trio.sleep(5)
        assert [len(node.connected_peers()) for node in (first, *others)] == [count - 1] * count
