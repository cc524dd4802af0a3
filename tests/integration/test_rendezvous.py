"""Rendezvous between whole nodes, in simulated time: found, renewed, forgotten in time; and hostile peers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest
import trio
from multiaddr import Multiaddr

from node import Identity, Node
from node.envelopes import open_record, seal_record
from protocols import Protocol, ProtocolError, StreamError
from protocols.framing import encode_frame
from protocols.rendezvous import rendezvous_pb2 as pb
from protocols.rendezvous import service
from protocols.rendezvous.rules import Form
from protocols.rendezvous.wire import (
    HOUR,
    MAX_QUESTION,
    PROTOCOL_ID,
    Discover,
    Refused,
    Register,
    Status,
    decode_answer,
    encode_question,
)
from tests.memnet import MemNet, mem_node

POINT, A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"
RAW = Protocol(PROTOCOL_ID, max_frame=None, timeout=30)
EPOCH = 1_800_000_000


class Pool:
    """A feed that wants so many peers."""

    def __init__(self, wants: int = 10) -> None:
        self.wants = wants
        self.peers: dict[str, Sequence[str]] = {}
        self.told = 0

    def found(self, peer, addrs, *, record=None, told_by=""):
        self.told += 1
        self.peers[peer] = addrs

    async def wanted(self) -> int:
        await trio.lowlevel.checkpoint()
        return self.wants


def make(net: MemNet, ip: str, **settings) -> Node:
    return mem_node(net, ip, **{"dht": "off", "gossip": "off"} | settings)


def make_point(net: MemNet, ip: str = POINT, **settings) -> tuple[Node, str]:
    """A point in memory whose wall clock is the simulated one, and its address."""
    node = make(net, ip, rendezvous_point="memory", **settings)
    assert node.point is not None
    node.point.clock = lambda: EPOCH + trio.current_time()
    return node, f"/ip4/{ip}/tcp/4001/p2p/{node.peer_id}"


def registered(point: Node) -> list[tuple[str, str]]:
    assert point.point is not None
    return [(row.peer, row.namespace) for row in point.point.registrations]


async def ask(node: Node, point: Node, question) -> object:
    """An answer to a question, or the refusal."""
    try:
        return await service._ask(node, point.peer_id, question)
    except Refused as refused:
        return refused


def refused(answer: object, status: Status) -> bool:
    return isinstance(answer, Refused) and answer.status == status


def record_of(node: Node, form: Form = Form.STANDARD, seq: int = 1) -> bytes:
    return seal_record(node.identity.key_pair(), [Multiaddr("/ip4/10.9.9.9/tcp/1")], seq, form)


async def test_nodes_register_and_find_each_other(autojump_clock):
    async with MemNet() as net:
        point, addr = make_point(net)
        a, b = make(net, A, rendezvous=(addr,)), make(net, B, rendezvous=(addr,))
        pool = Pool()
        async with point, a, b, trio.open_nursery() as nursery:
            assert b.rendezvous is not None
            nursery.start_soon(b.rendezvous.run, pool)
            await trio.sleep(120)
            assert sorted(registered(point)) == sorted((n.peer_id, "vouch/vouch-local") for n in (a, b))
            assert pool.peers == {a.peer_id: (f"/ip4/{A}/tcp/4001",)}
            assert b.rendezvous.registered == [point.peer_id]
            c = make(net, C, rendezvous=(addr,))
            async with c:
                await trio.sleep(600)
                assert set(pool.peers) == {a.peer_id, c.peer_id}
            nursery.cancel_scope.cancel()


async def test_nodes_that_know_a_point_alone_connect_with_each_other(autojump_clock):
    async with MemNet() as net:
        point, addr = make_point(net, exchange="off")
        nodes = [make(net, f"10.0.1.{number}", rendezvous=(addr,), exchange="off", pool="on") for number in range(1, 5)]
        async with point, AsyncExitStack() as stack:
            for node in nodes:
                await stack.enter_async_context(node)
            everybody = {point.peer_id, *(node.peer_id for node in nodes)}
            with trio.fail_after(300):
                while any({node.peer_id, *node.connected_peers()} != everybody for node in nodes):  # noqa: ASYNC110
                    await trio.sleep(1)


async def test_a_registration_is_renewed_for_hours_and_ends_after_its_node(autojump_clock):
    async with MemNet() as net:
        point, addr = make_point(net, exchange="off")
        async with point:
            a = make(net, A, rendezvous=(addr,), exchange="off")
            async with a:
                for _ in range(7):
                    await trio.sleep(HOUR)
                    assert registered(point) == [(a.peer_id, "vouch/vouch-local")]
            await trio.sleep(2 * HOUR + 120)
            assert registered(point) == []


async def test_a_point_that_comes_later_or_forgets_is_registered_at_again(autojump_clock):
    identity = Identity.generate()
    async with MemNet() as net:
        addr = f"/ip4/{POINT}/tcp/4001/p2p/{identity.peer_id}"
        async with make(net, A, rendezvous=(addr,)) as a:
            await trio.sleep(300)
            assert a.rendezvous is not None
            assert a.rendezvous.registered == []
            for _ in range(2):
                point, _ = make_point(net, identity=identity)
                async with point:
                    await trio.sleep(1500)
                    assert [peer for peer, _ in registered(point)] == [a.peer_id]


async def test_one_that_listens_nowhere_asks_and_does_not_register(autojump_clock):
    async with MemNet() as net:
        point, addr = make_point(net)
        pool = Pool()
        async with (
            point,
            make(net, A, rendezvous=(addr,)) as a,
            make(net, B, rendezvous=(addr,), listen=()) as b,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(b.rendezvous.run, pool)
            await trio.sleep(60)
            assert [peer for peer, _ in registered(point)] == [a.peer_id] == list(pool.peers)
            nursery.cancel_scope.cancel()


async def test_namespaces_are_apart(autojump_clock):
    async with MemNet() as net:
        point, addr = make_point(net)
        pool = Pool()
        async with (
            point,
            make(net, A, rendezvous=(addr,), rendezvous_namespace="ours"),
            make(net, B, rendezvous=(addr,), rendezvous_namespace="others") as b,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(b.rendezvous.run, pool)
            await trio.sleep(600)
            assert len(registered(point)) == 2
            assert pool.peers == {}
            nursery.cancel_scope.cancel()


async def test_both_forms_go_to_a_point_of_an_open_network(autojump_clock):
    async with MemNet() as net:
        point, addr = make_point(net, admission="open")
        pool = Pool()
        async with (
            point,
            make(net, A, rendezvous=(addr,), admission="open") as a,
            make(net, B, rendezvous=(addr,), admission="open") as b,
            trio.open_nursery() as nursery,
        ):
            await trio.sleep(10)
            rows = list(point.point.registrations)
            assert len(rows) == 4
            for row in rows:
                signed = open_record(row.record)
                assert (signed.peer, signed.form) == (row.peer, row.form)
            nursery.start_soon(b.rendezvous.run, pool)
            await trio.sleep(10)
            assert list(pool.peers) == [a.peer_id]
            await service.unregister(a, point.peer_id, "vouch/vouch-local")
            assert {peer for peer, _ in registered(point)} == {b.peer_id}
            nursery.cancel_scope.cancel()


async def test_a_peer_that_registers_in_rusts_form_is_answered_in_it(autojump_clock):
    async with MemNet() as net:
        point, _ = make_point(net)
        async with point, make(net, A) as a, make(net, B) as b, make(net, C) as c:
            for node, form in ((a, Form.STANDARD), (b, Form.LEGACY), (c, Form.LEGACY)):
                await node.connect(point.addrs[0])
                await service.register(node, point.peer_id, "ns", record_of(node, form))
            await trio.sleep(1)
            seen = await service.discover(b, point.peer_id, "ns")
            assert [open_record(found.record).form for found in seen.registrations] == [Form.LEGACY] * 2
            assert len((await service.discover(a, point.peer_id, "ns")).registrations) == 3


# hostile peers


@pytest.mark.parametrize(("ip", "told"), [("9.9.9.9", 0), (POINT, 1)])
async def test_a_point_in_the_world_is_not_believed_private_addresses(ip, told, autojump_clock):
    async with MemNet() as net:
        point, addr = make_point(net, ip)
        pool = Pool()
        async with point, make(net, A) as a, make(net, B, rendezvous=(addr,)) as b, trio.open_nursery() as nursery:
            await a.connect(point.addrs[0])
            await service.register(a, point.peer_id, "vouch/vouch-local", record_of(a))
            nursery.start_soon(b.rendezvous.run, pool)
            await trio.sleep(60)
            assert len(pool.peers) == told
            nursery.cancel_scope.cancel()


async def test_others_records_and_forged_ones_are_refused(autojump_clock):
    async with MemNet() as net:
        point, _ = make_point(net)
        async with point, make(net, A) as a, make(net, B) as b:
            await a.connect(point.addrs[0])
            assert refused(await ask(a, point, Register("ns", record_of(b))), Status.NOT_AUTHORIZED)
            good = record_of(a)
            spoiled = bytearray(good)
            spoiled[-1] ^= 1
            nowhere = seal_record(a.identity.key_pair(), [], 1, Form.STANDARD)
            for bad in (bytes(spoiled), good[:-1], b"nonsense", nowhere):
                assert refused(await ask(a, point, Register("ns", bad)), Status.INVALID_SIGNED_PEER_RECORD)
            assert refused(await ask(a, point, Register("ns", good, 60)), Status.INVALID_TTL)
            assert registered(point) == []
            assert not isinstance(await ask(a, point, Register("ns", good)), Refused)
            assert refused(await ask(a, point, Register("ns", record_of(a, seq=0))), Status.INVALID_SIGNED_PEER_RECORD)
            assert refused(await ask(a, point, Discover("ns", b"forged cookie")), Status.INVALID_COOKIE)


@pytest.mark.parametrize("size", [256, 300, 4000])
async def test_an_oversized_namespace_is_refused(size, autojump_clock):
    async with MemNet() as net:
        point, _ = make_point(net)
        async with point, make(net, A) as a:
            await a.connect(point.addrs[0])
            for question in (
                pb.Message(type=0, register=pb.Register(ns=b"n" * size, signed_peer_record=b"r")),
                pb.Message(type=2, unregister=pb.Unregister(ns=b"n" * size)),
                pb.Message(type=3, discover=pb.Discover(ns=b"n" * size)),
            ):
                async with a.stream(point.peer_id, service.CLIENT) as stream:
                    await stream.send(question.SerializeToString())
                    assert refused(decode_answer(await stream.receive()), Status.INVALID_NAMESPACE)
            assert registered(point) == []


async def test_what_is_no_question_ends_its_stream_alone(autojump_clock):
    async with MemNet() as net:
        point, _ = make_point(net)
        async with point, make(net, A) as a:
            await a.connect(point.addrs[0])
            for garbage in (
                encode_frame(b"\xff\xff\xff", 100),
                encode_frame(b"", 100),
                encode_frame(pb.Message(type=1).SerializeToString(), 100),
                encode_frame(bytes(MAX_QUESTION + 1), 1 << 20),
                b"\xff" * 20,
            ):
                async with a.stream(point.peer_id, RAW) as stream:
                    await stream.send(garbage)
                    with pytest.raises(StreamError):
                        await stream.receive()
            assert (await service.discover(a, point.peer_id, "ns")).registrations == ()


async def test_a_flood_is_refused_and_others_are_answered(autojump_clock):
    async with MemNet() as net:
        point, _ = make_point(net, max_registrations_per_peer=5, rendezvous_rate=1.0)
        async with point, make(net, A) as a, make(net, B) as b:
            await a.connect(point.addrs[0])
            await b.connect(point.addrs[0])
            record = record_of(a)
            answers = [await ask(a, point, Register(f"ns {number}", record)) for number in range(100)]
            assert len(registered(point)) == 5
            assert all(refused(answer, Status.UNAVAILABLE) for answer in answers[5:])
            assert "fewer questions" in answers[-1].text
            async with a.stream(point.peer_id, RAW) as stream:  # UNREGISTER has no answer that would say so
                await stream.send(encode_frame(bytes.fromhex("080222040a026e73"), 100))
                with pytest.raises((StreamError, ProtocolError)):
                    await stream.receive()
            await service.register(b, point.peer_id, "ns", record_of(b))
            await trio.sleep(60)
            assert len((await service.discover(a, point.peer_id)).registrations) == 6


async def test_registrations_count_with_the_subnet_that_they_come_from(autojump_clock):
    async with MemNet() as net:
        point, _ = make_point(net, "9.9.9.9", max_registrations_per_subnet=2)
        public, private = ["8.8.0.1", "8.8.4.4", "8.8.8.8", "1.1.1.1"], ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        async with point, AsyncExitStack() as stack:
            answers = []
            for ip in public + private:
                node = await stack.enter_async_context(make(net, ip))
                await node.connect(point.addrs[0])
                answers.append(await ask(node, point, Register("ns", record_of(node))))
            assert [refused(answer, Status.UNAVAILABLE) for answer in answers] == [False] * 2 + [True] + [False] * 4
            assert "from 8.8.0.0/16" in answers[2].text


async def test_a_thousand_questions_on_one_stream_are_answered_in_order(autojump_clock):
    async with MemNet() as net:
        point, _ = make_point(net, rendezvous_rate=1e6)
        async with point, make(net, A) as a:
            await a.connect(point.addrs[0])
            async with a.stream(point.peer_id, RAW) as stream:
                await stream.send(encode_frame(encode_question(Discover("ns")), 100) * 1000)
                await stream.send_eof()
                data = b"".join([part async for part in stream])
            assert data.count(b"\x08\x04") >= 1000


# hostile points


def lying_point(net: MemNet, ip: str, answers) -> tuple[Node, str, list[bytes]]:
    """A node that answers each question with the next of `answers`, again and again; what it was asked."""
    asked: list[bytes] = []
    lying = Protocol(PROTOCOL_ID, max_frame=1 << 20, timeout=30)

    @lying.serve
    async def lie(stream):
        async for frame in stream:
            asked.append(frame)
            answer = answers[(len(asked) - 1) % len(answers)]
            if answer is None:
                await trio.sleep_forever()
            await stream.send(answer)

    node = mem_node(net, ip, dht="off", gossip="off", protocols=[lying])
    return node, f"/ip4/{ip}/tcp/4001/p2p/{node.peer_id}", asked


def found_message(*records: bytes) -> bytes:
    rows = [pb.Register(ns=b"vouch/vouch-local", signed_peer_record=record, ttl=7200) for record in records]
    return pb.Message(
        type=4, discover_response=pb.DiscoverResponse(registrations=rows, cookie=b"12345678")
    ).SerializeToString()


async def test_what_a_point_makes_up_reaches_nobody(autojump_clock):
    async with MemNet() as net:
        honest, ours = Identity.generate(), Identity.generate()
        addrs = [Multiaddr("/ip4/10.1.1.1/tcp/1")]
        good, own = (seal_record(peer.key_pair(), addrs, 1, Form.STANDARD) for peer in (honest, ours))
        spoiled = good[:-1] + bytes([good[-1] ^ 1])
        point, addr, asked = lying_point(net, POINT, [found_message(spoiled, b"nonsense", own, good)])
        a = make(net, A, rendezvous=(addr,), listen=(), identity=ours)
        pool = Pool(wants=1000)
        async with point, a, trio.open_nursery() as nursery:
            nursery.start_soon(a.rendezvous.run, pool)
            await trio.sleep(3600)
            assert pool.peers == {honest.peer_id: ("/ip4/10.1.1.1/tcp/1",)}
            assert len(asked) <= 2 * (3600 / 22 + 5)  # the pool asks too
            nursery.cancel_scope.cancel()


async def test_a_point_with_endless_pages_is_asked_now_and_then(autojump_clock):
    async with MemNet() as net:
        page = found_message(*[b"r"] * 1000)
        point, addr, asked = lying_point(net, POINT, [page])
        pool = Pool(wants=1000)
        async with point, make(net, A, rendezvous=(addr,), listen=()) as a, trio.open_nursery() as nursery:
            nursery.start_soon(a.rendezvous.run, pool)
            await trio.sleep(600)
            assert pool.peers == {}
            assert len(asked) <= 2 * 10 * (600 / 22 + 5)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"",
        b"\xff\xff",
        pb.Message(type=1, register_response=pb.RegisterResponse(status=0)).SerializeToString(),
        pb.Message(type=1, register_response=pb.RegisterResponse(status=400, status_text=b"\xff")).SerializeToString(),
        pb.Message(type=1, register_response=pb.RegisterResponse(ttl=2**64 - 1)).SerializeToString(),
        pb.Message(type=1, register_response=pb.RegisterResponse(ttl=0)).SerializeToString(),
        found_message(),
    ],
    ids=["silence", "nothing", "garbage", "no TTL", "an error", "for ever", "no time", "another answer"],
)
async def test_whatever_a_point_answers_it_is_asked_with_pauses(answer, autojump_clock):
    async with MemNet() as net:
        point, addr, asked = lying_point(net, POINT, [answer])
        async with point, make(net, A, rendezvous=(addr,)) as a, trio.open_nursery() as nursery:
            nursery.start_soon(a.rendezvous.run, Pool())
            await trio.sleep(1200)
            assert 1 <= len(asked) <= 2 * 1200 / 22 + 60
            assert point.peer_id in a.connected_peers()
            nursery.cancel_scope.cancel()
