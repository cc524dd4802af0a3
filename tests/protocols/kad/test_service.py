"""Kademlia on light nodes: look-ups, values, providers, and peers that don't behave."""

from __future__ import annotations

import random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from protocols import Protocol, ProtocolError, StreamError
from protocols.framing import encode_frame, encode_uvarint
from protocols.kad import dht_pb2
from protocols.kad.engine import Engine
from protocols.kad.lookup import LookupParams
from protocols.kad.records import HOUR, RecordParams, RecordRefusedError, Records
from protocols.kad.service import NotFoundError
from protocols.kad.table import Table
from protocols.kad.validators import InvalidValueError, Validators
from protocols.kad.wire import MAX_FRAME, Message, Peer, Record, Type, decode, encode
from tests.kadnet import PROTOCOL, KadHost, _Base, _register, addr_of, die, join, nearest
from tests.memnet import MemNet
from tests.protocols.kad.test_records import Numbers
from tests.protocols.kad.test_wire import peer_id


class Raw(_Base):
    """A host whose answers the test writes itself: `handler` gets the stream of bytes."""

    def __init__(self, net, ip, handler):
        super().__init__(net, ip)
        self.node.registry.add(Protocol(PROTOCOL, max_frame=None, timeout=None, streams_per_peer=64, handler=handler))
        _register(net, self)


def made(net, count, **options):
    hosts = [KadHost(net, f"10.0.0.{number + 1}", **options) for number in range(count)]
    for host in hosts:
        host.kad.validators.register("n", Numbers())
    return hosts


async def ring(net, count, **options):
    """Hosts that have met."""
    hosts = made(net, count, **options)
    await join(hosts, rounds=1)
    return hosts


async def acquaint(hosts):
    """All have all others in their tables, without the hundreds of look-ups that it takes."""
    for host in hosts:
        for other in hosts:
            if other is not host:
                await host.met(other.id)


async def meet(one, other):
    await one.dial(other.id, [addr_of(other.ip)])


# who there is


async def test_a_peer_is_found_through_others(autojump_clock):
    async with MemNet() as net:
        a, b, c = made(net, 3)
        await meet(a, b)
        await meet(b, c)
        assert a.id not in c.kad.table
        assert await a.kad.find_peer(c.id) == (addr_of(c.ip),)
        assert a.is_connected(c.id)
        assert c.id in a.kad.table
        assert a.id in c.kad.table
        assert await a.kad.find_peer(a.id) == (addr_of(a.ip),)
        assert await a.kad.find_peer(peer_id(1)) == ()
        # one that isn't there any more is where others say it was
        d = KadHost(net, "10.0.0.9")
        await meet(b, d)
        die(net, [a, b, c, d], [d])
        assert await c.kad.find_peer(d.id) == (addr_of(d.ip),)


async def test_a_peer_that_is_connected_and_has_not_said_where_it_is_is_where_others_say(autojump_clock, monkeypatch):
    async with MemNet() as net:
        a, b, c = made(net, 3)
        await meet(a, b)
        await meet(c, b)
        await meet(c, a)
        told = type(a).told
        monkeypatch.setattr(a, "told", lambda peer, asker: () if peer == c.id else told(a, peer, asker))
        assert a.is_connected(c.id)
        assert await a.kad.find_peer(c.id) == (addr_of(c.ip),)


async def test_a_value_that_cannot_be_kept_is_an_answer_all_the_same(autojump_clock):
    class First:
        def validate(self, key, value):
            pass

        def select(self, key, values):
            return 0

    async with MemNet() as net:
        hosts = await ring(net, 4)
        for host in hosts:
            host.kad.validators.register("first", First())
        now = hosts[0].kad.wall()
        hosts[0].kad.records.put(b"/first/x", b"2", hosts[0].id, now)
        for host in hosts[1:]:
            host.kad.records.put(b"/first/x", b"1", host.id, now)
        assert await hosts[0].kad.get(b"/first/x") == b"1"


async def test_a_client_finds_and_is_found_but_is_in_no_table(autojump_clock):
    async with MemNet() as net:
        a, b = made(net, 2)
        client = KadHost(net, "10.0.0.9", serves=False)
        await meet(a, b)
        await meet(client, b)
        assert await client.kad.find_peer(a.id) == (addr_of(a.ip),)
        client.node.disconnect(a.node)
        await trio.sleep(1.0)
        assert [len(host.kad.table) for host in (a, b, client)] == [1, 1, 2]
        assert await a.kad.find_peer(client.id) == (addr_of(client.ip),)


async def test_look_ups_find_the_nearest_and_tell_how_they_went(autojump_clock):
    async with MemNet(latency=0.05) as net:
        hosts = made(net, 25)
        await acquaint(hosts)
        key = b"somewhere"
        me = hosts[7]
        assert await me.kad.closest(key) == nearest((host for host in hosts if host is not me), key)
        assert me.kad.last.requests <= 24
        assert me.kad.last.hops == 1
        assert 0 < me.kad.last.seconds < 2
        walked = await me.kad.walk()
        assert len(walked) == 20
        assert {peer.id for peer in walked} <= {host.id for host in hosts}
        assert set(me.heard) <= {host.id for host in hosts} - {me.id}


async def test_one_who_serves_no_more_leaves_the_table(autojump_clock):
    async with MemNet() as net:
        a, b = made(net, 2)
        await meet(a, b)
        b.node.registry.remove(PROTOCOL)
        assert await a.kad.closest(b"k") == []
        assert b.id not in a.kad.table


async def test_an_outage_of_our_own_empties_no_table(autojump_clock):
    async with MemNet() as net:
        hosts = await ring(net, 6)
        me, others = hosts[0], hosts[1:]
        die(net, hosts, others)
        assert await me.kad.closest(b"k") == []
        await trio.sleep(1.0)
        net.heal()
        await trio.sleep(150.0)  # the dialler's backoff
        assert len(await me.kad.closest(b"k")) == 5


# values


async def test_put_and_get(autojump_clock):
    async with MemNet() as net:
        hosts = await ring(net, 8)
        assert await hosts[0].kad.put(b"/n/1", b"5") == 7
        assert await hosts[5].kad.get(b"/n/1") == b"5"
        with pytest.raises(NotFoundError, match=r"b'/n/2', got none from 7 peers"):
            await hosts[5].kad.get(b"/n/2")
        with pytest.raises(InvalidValueError):
            await hosts[0].kad.put(b"/n/1", b"no number")
        with pytest.raises(InvalidValueError):
            await hosts[0].kad.get(b"/free/1")
        with pytest.raises(RecordRefusedError, match="got an older"):
            await hosts[0].kad.put(b"/n/1", b"4")


async def test_the_best_value_wins_and_is_passed_on(autojump_clock):
    async with MemNet() as net:
        hosts = await ring(net, 8)
        for number, host in enumerate(hosts[1:4]):
            host.kad.records.put(b"/n/1", b"%d" % (10 + number), host.id, 0.0)
        assert await hosts[0].kad.get(b"/n/1") == b"12"
        assert {host.kad.records.value(b"/n/1", 1.0).value for host in hosts[1:]} == {b"12"}


async def test_our_own_is_published_again_and_what_nobody_renews_expires(autojump_clock):
    async with MemNet() as net:
        hosts = await ring(net, 4)
        await hosts[0].kad.put(b"/n/1", b"5")
        await hosts[0].kad.provide(b"cid")
        await trio.sleep(22 * HOUR)
        late = KadHost(net, "10.0.0.99")
        late.kad.validators.register("n", Numbers())
        await meet(late, hosts[0])
        assert await hosts[0].kad.republish() == 2
        assert await hosts[0].kad.republish() == 0
        await trio.sleep(1.0)  # nobody answers that they provide
        assert late.kad.records.value(b"/n/1", trio.current_time()) is not None
        assert [p.peer for p in late.kad.records.providers(b"cid", trio.current_time())] == [hosts[0].id]
        assert hosts[0].kad.withdraw(b"/n/1")
        assert hosts[0].kad.withdraw(b"cid")
        await trio.sleep(48 * HOUR)
        assert await hosts[0].kad.republish() == 0
        for host in (*hosts, late):
            host.kad.records.expire(trio.current_time())
        with pytest.raises(NotFoundError):
            await late.kad.get(b"/n/1")
        assert await late.kad.find_providers(b"cid") == []


# providers


async def test_provide_and_find(autojump_clock):
    async with MemNet() as net:
        hosts = await ring(net, 8)
        for host in hosts[:3]:
            assert await host.kad.provide(b"cid") == 7
        await trio.sleep(1.0)
        found = await hosts[7].kad.find_providers(b"cid")
        assert {peer.id for peer in found} == {host.id for host in hosts[:3]}
        assert found[0].addrs == (addr_of(hosts[[h.id for h in hosts].index(found[0].id)].ip),)
        assert len(await hosts[7].kad.find_providers(b"cid", limit=2)) == 2


async def test_whom_one_peer_alone_names_comes_last(autojump_clock):
    async with MemNet() as net:
        hosts = await ring(net, 8)
        await hosts[0].kad.provide(b"cid")
        await trio.sleep(1.0)
        liar = hosts[3]
        invented = tuple(Peer(peer_id(number)) for number in range(20))
        liar.kad.engine.answer = lambda *_: Message(Type.GET_PROVIDERS, b"cid", None, (), invented)
        found = await hosts[6].kad.find_providers(b"cid")
        assert found[0].id == hosts[0].id
        assert len(found) == 20


async def test_a_provider_is_the_sender_and_nobody_else(autojump_clock):
    async with MemNet() as net:
        a, b = made(net, 2)
        await meet(a, b)
        with pytest.raises(ProtocolError, match="the sender as provider"):
            b.kad.engine.answer(a.id, Message(Type.ADD_PROVIDER, b"k", providers=(Peer(peer_id(1)),)), 0.0)
        both = (Peer(peer_id(1), (b"x",)), Peer(a.id, (b"y",)))
        assert b.kad.engine.answer(a.id, Message(Type.ADD_PROVIDER, b"k", providers=both), 0.0) is None
        assert [(p.peer, p.addrs) for p in b.kad.records.providers(b"k", 0.0)] == [(a.id, (b"y",))]
        with pytest.raises(ProtocolError, match="at most 80 bytes"):
            b.kad.engine.answer(a.id, Message(Type.ADD_PROVIDER, b"k" * 81, providers=both), 0.0)


class Alone:
    """Addresses of nobody."""

    def told(self, peer, asker):
        return ()

    def shown(self, addrs, asker):
        return tuple(addrs)

    believed = shown

    def is_connected(self, peer):
        return False

    def subnet(self, peer):
        return None


fields = st.fixed_dictionaries(
    {"type": st.integers(0, 5)},
    optional={
        "key": st.binary(max_size=90) | st.sampled_from([b"/n/1", b"/pk/x", peer_id(0), peer_id(1)]),
        "record": st.builds(
            dht_pb2.Record, key=st.sampled_from([b"/n/1", b"x"]), value=st.sampled_from([b"", b"1", b"2", b"\xff"])
        ),
        "closer_peers": st.lists(st.builds(dht_pb2.Peer, id=st.binary(max_size=40)), max_size=3),
        "provider_peers": st.lists(
            st.builds(dht_pb2.Peer, id=st.sampled_from([peer_id(1), b"x"]), addrs=st.lists(st.binary(max_size=9))),
            max_size=3,
        ),
    },
)


@given(st.lists(st.tuples(st.integers(1, 3), fields), max_size=30))
def test_whatever_is_asked_is_answered_or_an_error(questions):
    validators = Validators()
    validators.register("n", Numbers())
    table = Table(peer_id(0))
    for number in range(1, 30):
        table.add(peer_id(number), 0.0)
    engine = Engine(table, Records(peer_id(0), validators), Alone())
    for sender, wire in questions:
        question = decode(dht_pb2.Message(**wire).SerializeToString())
        try:
            answer = engine.answer(peer_id(sender), question, 0.0)
        except ProtocolError:
            continue
        assert (answer is None) == (question.type is Type.ADD_PROVIDER)
        if answer is not None:
            assert decode(encode(answer)).type is question.type
            assert {peer_id(0), peer_id(sender)}.isdisjoint(peer.id for peer in answer.closer)
    assert {provider.peer for provider in engine.records.all_providers()} <= {peer_id(1)}


# streams


async def test_streams_are_used_again_and_a_closed_one_is_replaced(autojump_clock):
    async with MemNet() as net:
        a, b = made(net, 2)
        await meet(a, b)
        opened = 0
        stream = a.node.stream

        def counted(*args):
            nonlocal opened
            opened += 1
            return stream(*args)

        a.node.stream = counted
        for _ in range(5):
            assert await a.kad.closest(b"k") == [b.id]
        assert opened == 1
        # the peer closes what was idle for a minute, and we before it
        await trio.sleep(61.0)
        assert await a.kad.closest(b"k") == [b.id]
        assert opened == 2
        await trio.sleep(46.0)
        await a.kad.questions.close_idle()
        assert not a.kad.questions._kept
        assert await a.kad.closest(b"k") == [b.id]
        assert opened == 3
        a.node.disconnect(b.node)
        await trio.sleep(1.0)
        assert await a.kad.closest(b"k") == [b.id]


async def test_idle_streams_are_closed_while_others_ask(autojump_clock):
    async with MemNet() as net:
        a, b = made(net, 2)
        await meet(a, b)
        questions, message = a.kad.questions, Message(Type.FIND_NODE, b"k")
        async with trio.open_nursery() as nursery:  # two at once keep two streams
            for _ in range(2):
                nursery.start_soon(questions.ask, b.node.peer_id, message)
        assert len(questions._kept[b.node.peer_id]) == 2
        await trio.sleep(50.0)

        def taken_meanwhile(kept):
            async def close():
                await trio.lowlevel.checkpoint()
                if b.node.peer_id in questions._kept:
                    questions._take(b.node.peer_id)

            kept.stack.push_async_callback(close)

        for kept in questions._kept[b.node.peer_id]:
            taken_meanwhile(kept)
        await questions.close_idle()
        assert not questions._kept
        assert questions._count == 0


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Message(Type.FIND_NODE), "FIND_NODE with a key"),
        (Message(Type.PUT_VALUE, b"/n/1"), "a record of the key"),
        (Message(Type.PUT_VALUE, b"/n/1", Record(b"/n/2", b"1")), "a record of the key"),
        (Message(Type.PUT_VALUE, b"/n/1", Record(b"/n/1", b"x")), "invalid literal"),
        (Message(Type.PUT_VALUE, b"/free/1", Record(b"/free/1", b"x")), "under /n/…, /pk/…"),
    ],
)
async def test_a_bad_question_ends_its_own_stream_only(autojump_clock, message, text):
    async with MemNet() as net:
        a, b = made(net, 2)
        await meet(a, b)
        with pytest.raises(ProtocolError, match=text):
            b.kad.engine.answer(a.id, message, 0.0)
        async with a.node.stream(b.node.peer_id, a.kad.protocol) as other:
            async with a.node.stream(b.node.peer_id, a.kad.protocol) as stream:
                await stream.send(encode(message))
                with pytest.raises(StreamError):
                    await stream.receive()
            await other.send(encode(Message(Type.PING)))
            assert decode(await other.receive()).type is Type.PING


# peers that don't behave


async def with_raw(net, handler, count=6):
    """Hosts that have met, and one of them that has met an attacker too."""
    hosts = await ring(net, count, params=LookupParams(deadline=20.0))
    evil = Raw(net, "10.0.9.9", handler)
    await meet(hosts[0], evil)
    assert evil.id in hosts[0].kad.table
    return hosts, evil


async def look_up_beside(hosts, evil):
    """A look-up that asks the attacker too finds all others, in time."""
    began = trio.current_time()
    found = await hosts[0].kad.closest(evil.id)
    assert {host.id for host in hosts[1:]} <= set(found)
    return trio.current_time() - began


async def test_an_answer_of_megabytes(autojump_clock):
    async def huge(stream):
        await stream.receive_some(1000)
        await stream.send(encode_uvarint(50 << 20) + b"x" * 1000)
        await trio.sleep_forever()

    async with MemNet() as net:
        hosts, evil = await with_raw(net, huge)
        assert await look_up_beside(hosts, evil) < 2.0
        assert hosts[0].kad.table.get(evil.id).failures == 1


@pytest.mark.parametrize("frame", [b"", b"\xff", b"\x08\x07", b"\x08\x00", encode(Message(Type.GET_VALUE, b"k"))])
async def test_answers_that_are_none(autojump_clock, frame):
    async def nonsense(stream):
        await stream.receive_some(1000)
        await stream.send(encode_frame(frame, MAX_FRAME))
        await trio.sleep_forever()

    async with MemNet() as net:
        hosts, evil = await with_raw(net, nonsense)
        assert await look_up_beside(hosts, evil) < 2.0
        assert hosts[0].kad.table.get(evil.id).failures == 1


async def test_slow_drip(autojump_clock):
    """A byte each second: the answer as a whole has its time, not each byte."""

    async def drip(stream):
        await stream.receive_some(1000)
        for byte in encode_frame(encode(Message(Type.FIND_NODE, b"k" * 200)), MAX_FRAME):
            await trio.sleep(1.0)
            await stream.send(bytes([byte]))

    async with MemNet() as net:
        hosts, evil = await with_raw(net, drip)
        assert await look_up_beside(hosts, evil) < 2.0


async def test_one_who_names_strangers_without_end(autojump_clock):
    """Thousands of invented peers at dead addresses: requests, dials and time stay bounded, the honest are found."""
    rng = random.Random(1)

    async def invent(stream):
        while True:
            await stream.receive_some(4096)
            peers = tuple(Peer(peer_id(rng.randrange(10**9)), (addr_of("10.9.9.9"),)) for _ in range(20))
            await stream.send(encode_frame(encode(Message(Type.FIND_NODE, b"", None, peers)), MAX_FRAME))

    async with MemNet() as net:
        hosts, evil = await with_raw(net, invent)
        before = hosts[0].dials
        assert await look_up_beside(hosts, evil) < 20.0
        assert hosts[0].dials - before <= 20


async def test_sybils_around_a_target_hide_nothing_from_disjoint_paths(autojump_clock):
    """Twenty-five sybils nearest to a key name each other only, and have neither values nor providers. One of them is
    in the victim's table. What honest peers keep is found all the same.
    """
    key = b"/n/wanted"
    async with MemNet() as net:
        pool = [KadHost(net, f"10.0.{number // 200}.{number % 200 + 1}") for number in range(120)]
        near = nearest(pool, key, 25)
        sybils = [host for host in pool if host.id in near]
        hosts = [host for host in pool if host.id not in near][:30]
        for host in pool:
            host.kad.validators.register("n", Numbers())
        await acquaint(hosts)
        await hosts[3].kad.put(key, b"7")
        await hosts[3].kad.provide(b"n/wanted")
        await trio.sleep(1.0)

        def lie(sybil):
            others = tuple(Peer(other.id, (addr_of(other.ip),)) for other in sybils if other is not sybil)
            return lambda sender, message, now: Message(message.type, message.key, None, others[:20])

        for sybil in sybils:
            sybil.kad.engine.answer = lie(sybil)
        victim = KadHost(net, "10.1.0.1", paths=3)
        victim.kad.validators.register("n", Numbers())
        await meet(victim, hosts[0])
        await meet(victim, hosts[1])
        await meet(victim, sybils[0])
        assert await victim.kad.get(key) == b"7"
        assert hosts[3].id in [peer.id for peer in await victim.kad.find_providers(b"n/wanted")]
        assert set(near[:20]) & set(await victim.kad.closest(key))


async def test_floods_of_records_are_slowed_and_bounded(autojump_clock):
    async with MemNet() as net:
        records = RecordParams(max_values_per_peer=16, max_provided_per_peer=16)
        a, b = made(net, 2, records=records)
        await meet(a, b)
        began = trio.current_time()
        refused = 0
        own = Peer(a.id, a.own_addrs())
        for number in range(1000):
            put = Message(Type.PUT_VALUE, b"/n/%d" % number, Record(b"/n/%d" % number, b"1"))
            told = Message(Type.ADD_PROVIDER, b"%d" % number, providers=(own,))
            for message in (put, told):
                try:
                    await a.kad.questions.ask(b.node.peer_id, message)
                except StreamError:
                    refused += 1
        assert sum(b.kad.records.stored(b"/n/%d" % number) is not None for number in range(1000)) == 16
        assert sum(1 for _ in b.kad.records.all_providers()) == 16
        assert refused > 900
        assert trio.current_time() - began > 10  # at 100 a second
