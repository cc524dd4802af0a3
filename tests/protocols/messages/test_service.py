"""The whole service between light nodes, in simulated time: what callers and handlers may rely on."""

from __future__ import annotations

import random

import pytest
import trio

from protocols.base import NotConnected, NotSupported, StreamError, StreamReset, StreamTimeout
from protocols.messages import AnswerError, AnswerInPartsError, Message, RemoteError, Reply, SubProtocol
from protocols.messages.wire import RESPONSE, encode_signed
from tests.memnet import MemNet
from tests.protocols.messages.world import Light, echo, lights, parts_of


async def ask(light: Light, peer: str, payload: bytes, into: list[object], sub: str = "echo", **more: float) -> None:
    """A request, whose answer or error goes into a list."""
    try:
        into.append((await light.messages.request(peer, sub, payload, **more)).payload)
    except (RemoteError, StreamError) as error:
        into.append(error)


# many at once


async def test_many_at_once_share_one_stream_and_are_answered_in_any_order(autojump_clock):
    async with lights(echo()) as (a, b):
        got: list[object] = []
        waits = [number / 10 for number in range(64)]
        random.Random(1).shuffle(waits)
        async with trio.open_nursery() as nursery:
            for wait in waits:
                nursery.start_soon(ask, a, b.peer, b"%.1f:" % wait, got)
            await trio.sleep(1)
            assert b.streams == 1
        assert got == [b"%.1f:" % wait for wait in sorted(waits)], "the slow ones hold up nobody"
        assert b.streams == 1
        a.assert_idle()
        b.assert_idle()
        assert a.stats == {"requests": 64}
        assert b.stats == {"received": 64, "answered": 64}


async def test_both_sides_may_ask_at_once_and_each_has_a_stream_of_its_own(autojump_clock):
    async with lights(echo()) as (a, b):
        got: list[object] = []
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, a, b.peer, b"0:a%d" % number, got)
                nursery.start_soon(ask, b, a.peer, b"0:b%d" % number, got)
        assert len({*got}) == 40
        assert (a.streams, b.streams) == (1, 1)


async def test_the_request_past_the_bound_waits_for_a_place(autojump_clock):
    async with lights(echo(timeout=100)) as (a, b):
        got: list[object] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, a, b.peer, b"5:0", got)
            await trio.sleep(0.1)  # which of several tasks is first to have a place, trio draws
            for number in range(1, 66):
                nursery.start_soon(ask, a, b.peer, b"20:%d" % number, got)
            await trio.sleep(3.9)
            (peer,) = b.servers[0]._peers.values()
            assert peer.gate.taken == 64
            assert a.outboxes[0]._places.statistics().tasks_waiting == 2
            await trio.sleep(2)
            assert got == [b"5:0"]
            assert peer.gate.taken == 64
            assert a.outboxes[0]._places.statistics().tasks_waiting == 1
        assert len(got) == 66
        a.assert_idle()


async def test_a_request_that_waits_for_a_place_ends_in_time_too(autojump_clock):
    async with lights(echo(requests_in_flight=1)) as (a, b):
        got: list[object] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, a, b.peer, b"8:", got)
            await trio.sleep(0.1)
            started = trio.current_time()
            with pytest.raises(StreamTimeout, match=r"echo: .* didn't answer within 3 s"):
                await a.messages.request(b.peer, "echo", b"0:", timeout=3)
            assert trio.current_time() - started == pytest.approx(3)
        assert got == [b"8:"]
        a.assert_idle()


# callers that give up


async def test_a_cancelled_caller_frees_its_place_and_the_late_answer_is_counted(autojump_clock):
    async with lights(echo(requests_in_flight=2)) as (a, b):
        got: list[object] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, a, b.peer, b"3:", got)
            with trio.move_on_after(1):
                await a.messages.request(b.peer, "echo", b"2:")
            assert a.outboxes[0]._places.value == 1
            assert len(a.outboxes[0]._channel.requests) == 1
        assert got == [b"3:"]
        assert a.stats["late"] == 1
        a.assert_idle()


async def test_the_timeout_is_the_sub_protocols_unless_the_caller_says_otherwise(autojump_clock):
    async with lights(echo(timeout=7)) as (a, b):
        for more, seconds in (({}, 7), ({"timeout": 2}, 2), ({"timeout": 20}, 20)):
            started = trio.current_time()
            with pytest.raises(StreamTimeout, match=f"within {seconds} s"):
                await a.messages.request(b.peer, "echo", b"30:", **more)
            assert trio.current_time() - started == pytest.approx(seconds)
        await trio.sleep(40)
        assert a.stats["late"] == 3


async def test_answers_that_nobody_asked_for_are_counted_and_dropped(autojump_clock):
    sub = SubProtocol("inventive")

    @sub.on_request
    async def answer(request: Message) -> bytes:
        (session,) = sessions
        for number in (77, 0, request.request_id):
            message = session._template.encode(
                b"%d" % number, type=0, kind=RESPONSE, request_id=number, timestamp_ms=b.messages.wall_ms()
            )
            await session.writer.send(encode_signed(message, b.messages.rules.sign(message)))
        return b"the second answer is late"

    async with lights(sub) as (a, b):
        sessions = watch_sessions(b)
        assert (await a.messages.request(b.peer, "inventive", b"")).payload == b"1"
        await trio.sleep(1)
        assert (a.stats["unknown"], a.stats["late"]) == (2, 1)


def watch_sessions(light: Light) -> list:
    """The sessions that a light node's server opens from now on."""
    from protocols.messages import server

    seen: list = []
    original = server._Session.run

    async def run(self) -> None:
        seen.append(self)
        server._Session.run = original
        await original(self)

    server._Session.run = run
    return seen


# handlers


async def test_what_a_handler_raises_reaches_the_caller_and_the_operator(autojump_clock):
    sub = SubProtocol("faulty")

    @sub.on_request(type=1)
    async def breaks(request: Message) -> bytes:
        raise LookupError("no such block: 17")

    @sub.on_request(type=2)
    async def refuses(request: Message) -> bytes:
        raise AnswerError("not for you")

    @sub.on_request(type=3)
    async def silent(request: Message) -> bytes:
        raise LookupError

    @sub.on_request(type=4)
    async def network(request: Message) -> bytes:
        raise StreamReset("another peer is lost")

    async with lights(sub) as (a, b):
        for kind, text in (
            (1, "no such block: 17"),
            (2, "not for you"),
            (3, "LookupError"),
            (4, "another peer is lost"),
        ):
            with pytest.raises(RemoteError) as caught:
                await a.messages.request(b.peer, "faulty", b"", type=kind)
            assert (caught.value.text, caught.value.peer, caught.value.protocol) == (text, b.peer, "faulty")
        with pytest.raises(RemoteError, match="faulty doesn't answer requests of type 9"):
            await a.messages.request(b.peer, "faulty", b"", type=9)
        assert [str(error) for error in b.failed] == ["no such block: 17", ""], "only what is a fault of ours is told"


async def test_a_handler_has_its_time(autojump_clock):
    async with lights(echo(answer_timeout=3, timeout=10)) as (a, b):
        started = trio.current_time()
        with pytest.raises(RemoteError, match="no answer was found within 3 s"):
            await a.messages.request(b.peer, "echo", b"5:")
        assert trio.current_time() - started == pytest.approx(3, abs=0.2)
        assert (await a.messages.request(b.peer, "echo", b"2:")).payload == b"2:"
        b.assert_idle()
        assert b.stats["failed"] == 1


async def test_handlers_are_found_by_type_and_a_reply_has_a_type(autojump_clock):
    sub = SubProtocol("typed")

    @sub.on_request
    async def any_other(request: Message) -> Reply:
        return Reply(b"other", request.type + 1)

    @sub.on_request(type=7)
    async def seven(request: Message) -> bytes:
        return b"seven"

    async with lights(sub) as (a, b):
        for kind, expected in ((7, (b"seven", 0)), (8, (b"other", 9))):
            answer = await a.messages.request(b.peer, sub, b"", type=kind)
            assert (answer.payload, answer.type, answer.peer) == (*expected, b.peer)


async def test_an_answer_over_the_bound_is_an_error_of_the_peers(autojump_clock):
    sub = SubProtocol("big", max_payload=1000)

    @sub.on_request
    async def answer(request: Message) -> bytes:
        return bytes(int(request.payload))

    async with lights(sub) as (a, b):
        assert (await a.messages.request(b.peer, sub, b"1000")).payload == bytes(1000)
        with pytest.raises(RemoteError, match="payload: expected at most 1000 bytes, got 1001"):
            await a.messages.request(b.peer, sub, b"1001")
        for call in (a.messages.request, a.messages.send):
            with pytest.raises(ValueError, match="payload: expected at most 1000 bytes, got 1001"):
                await call(b.peer, sub, bytes(1001))
        with pytest.raises(ValueError, match="payload: expected"):
            async with a.messages.request_stream(b.peer, sub, bytes(1001)):
                pass
        assert b.stats["received"] == 2


# connections


async def test_without_a_connection_or_a_handler_callers_are_told_which(autojump_clock):
    async with lights(echo()) as (a, b):
        for call in (a.messages.send, a.messages.request):
            with pytest.raises(NotSupported):
                await call(b.peer, "unheard-of", b"")
        _, error = await parts_of(a, b.peer, "unheard-of")
        assert isinstance(error, NotSupported)
        a.node.disconnect(b.node)
        await trio.sleep(1)
        for call in (a.messages.send, a.messages.request):
            with pytest.raises(NotConnected):
                await call(b.peer, "echo", b"")
        _, error = await parts_of(a, b.peer, "echo")
        assert isinstance(error, NotConnected)
        assert len(a.messages._client) == 0


async def test_a_lost_connection_fails_what_is_in_flight_at_once_and_the_next_has_a_new_stream(autojump_clock):
    async with lights(echo(requests_in_flight=10, timeout=60)) as (a, b):
        got: list[object] = []
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask, a, b.peer, b"30:", got)
            await trio.sleep(0.5)
            for _ in range(5):
                nursery.start_soon(ask, a, b.peer, b"0:", got)  # they wait for a place
            await trio.sleep(0.5)
            a.node.disconnect(b.node)
        assert trio.current_time() - started == pytest.approx(1, abs=0.2)
        kinds = [type(error) for error in got]
        assert (kinds.count(StreamReset), kinds.count(NotConnected)) == (10, 5)
        assert all(
            f"lost {b.peer} before it answered echo" in str(error) for error in got if type(error) is StreamReset
        )
        assert len({id(error) for error in got}) == 15, "each has an error of its own"
        a.assert_forgotten()
        await a.node.connect(b.node)
        assert (await a.messages.request(b.peer, "echo", b"0:")).payload == b"0:"
        assert b.streams == 1


async def test_a_partition_ends_requests_in_their_time(autojump_clock):
    async with lights(echo(timeout=5), give_up=20) as (a, b):
        await a.messages.request(b.peer, "echo", b"0:")
        a.node.net.partition([a.node.ip], [b.node.ip])
        with pytest.raises(StreamTimeout):
            await a.messages.request(b.peer, "echo", b"0:")
        a.node.net.heal()
        assert (await a.messages.request(b.peer, "echo", b"0:")).payload == b"0:"


async def test_two_nodes_may_share_a_declaration(autojump_clock):
    sub = echo()
    async with lights(sub, count=3) as nodes:
        got: list[object] = []
        async with trio.open_nursery() as nursery:
            for here in nodes:
                for there in nodes:
                    if here is not there:
                        nursery.start_soon(ask, here, there.peer, b"0:%s" % here.peer.encode(), got)
        assert sorted(got) == sorted(b"0:%s" % node.peer.encode() for node in nodes for _ in range(2))


async def test_unsigned_nodes_understand_each_other_and_no_signed_one(autojump_clock):
    async with lights(echo(), signatures=False) as (a, b):
        assert (await a.messages.request(b.peer, "echo", b"0:")).payload == b"0:"
    async with MemNet() as net:
        a, b = Light(net, 1, echo()), Light(net, 2, echo(), signatures=False)
        for light in (a, b):
            await net.nursery.start(light.messages.run)
        await a.node.connect(b.node)
        with pytest.raises(StreamReset):
            await b.messages.request(a.peer, "echo", b"0:")
        with pytest.raises(StreamReset, match="signature: expected one, got none"):
            await a.messages.request(b.peer, "echo", b"0:")  # the answer isn't signed
        await trio.sleep(1)
        assert [(error.reason, error.peer) for error in a.rejected] == [("signature", b.peer)] * 2


async def test_a_message_out_of_time_is_dropped_and_costs_nobody_the_stream(autojump_clock):
    async with lights(echo(timeout=2)) as (a, b):
        a.skew_ms = 31_000
        with pytest.raises(StreamTimeout):
            await a.messages.request(b.peer, "echo", b"0:")
        a.skew_ms = 0
        assert (await a.messages.request(b.peer, "echo", b"0:")).payload == b"0:"
        assert b.streams == 1
        assert b.stats["dropped:timestamp"] == 1


# one way


async def test_one_way_messages_are_handled_in_order_and_hold_up_no_request(autojump_clock):
    sub = echo("notes")
    handled: list[bytes] = []

    @sub.on_message
    async def note(message: Message) -> None:
        await trio.sleep(1 / (1 + int(message.payload)))
        handled.append(message.payload)
        if message.payload == b"3":
            raise LookupError("at the third")

    async with lights(sub) as (a, b):
        for number in range(20):
            await a.messages.send(b.peer, "notes", b"%d" % number)
        started = trio.current_time()
        await a.messages.request(b.peer, "notes", b"0:")
        assert trio.current_time() - started < 0.1
        assert len(handled) < 20
        await trio.sleep(10)
        assert handled == [b"%d" % number for number in range(20)]
        assert [str(error) for error in b.failed] == ["at the third"]
        b.assert_idle()
        assert (a.stats["sent"], b.stats["received"]) == (20, 21)


async def test_one_way_messages_that_nobody_handles_are_counted(autojump_clock):
    async with lights(echo()) as (a, b):
        await a.messages.send(b.peer, "echo", b"", type=5)
        await trio.sleep(1)
        assert b.stats["unhandled"] == 1
        b.assert_idle()


# bounds of the one who answers


async def test_what_comes_faster_than_the_rate_waits_and_nothing_is_refused(autojump_clock):
    async with lights(echo(rate=10, burst=5, timeout=60)) as (a, b):
        got: list[object] = []
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask, a, b.peer, b"0:", got)
        assert got == [b"0:"] * 50
        assert trio.current_time() - started == pytest.approx(4.5, abs=0.3)
        assert "refused" not in b.stats


async def test_reconnecting_fills_no_bucket(autojump_clock):
    async with lights(echo(rate=1, burst=3, patience=50, timeout=60)) as (a, b):
        started = trio.current_time()
        for _ in range(4):
            for _ in range(3):
                await a.messages.request(b.peer, "echo", b"0:")
            a.node.disconnect(b.node)
            await trio.sleep(0.1)
            await a.node.connect(b.node)
        assert trio.current_time() - started >= 9


async def test_past_its_patience_a_busy_node_refuses_with_an_error(autojump_clock):
    async with lights(echo(rate=0.1, burst=1, patience=5)) as (a, b):
        await a.messages.request(b.peer, "echo", b"0:")
        with pytest.raises(RemoteError, match="busy: more messages a second than are taken"):
            await a.messages.request(b.peer, "echo", b"0:")
        await a.messages.send(b.peer, "echo", b"")
        await trio.sleep(1)
        assert b.stats["refused"] == 2


async def test_a_peer_that_minds_no_bound_waits_and_is_refused_past_the_patience(autojump_clock):
    """Its own bound is larger than ours, so that its surplus comes."""
    async with MemNet() as net:
        a = Light(net, 1)
        b = Light(net, 2, echo(requests_in_flight=2, patience=5))
        for light in (a, b):
            await net.nursery.start(light.messages.run)
        await a.node.connect(b.node)
        got: list[object] = []
        greedy = SubProtocol("echo", requests_in_flight=50, timeout=60)
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(ask, a, b.peer, b"%d:" % (3 + 10 * (number > 1)), got, greedy)
                await trio.sleep(0.2)  # one after the other, or chance would order them
            await trio.sleep(1)
            assert got == [], "they wait"
            await trio.sleep(1.5)
            assert got == [b"3:"] * 2, "and two have a place now"
        answers = [one for one in got if isinstance(one, bytes)]
        errors = [one.text for one in got if isinstance(one, RemoteError)]
        assert answers == [b"3:"] * 2 + [b"13:"] * 2
        assert errors == ["busy: too much of yours is being worked on"] * 2
        b.assert_idle()
        assert b.stats["refused"] == 2


# declarations


async def test_an_answer_in_parts_needs_request_stream(autojump_clock):
    sub = SubProtocol("parts")

    @sub.on_parts
    async def parts(request: Message):
        for number in range(3):
            yield b"%d" % number

    async with lights(sub) as (a, b):
        with pytest.raises(AnswerInPartsError, match="ask with request_stream"):
            await a.messages.request(b.peer, "parts", b"")
        await trio.sleep(1)
        assert a.stats["late"] == 3  # two parts, and the end
        a.assert_idle()


def test_declarations_that_cant_be():
    for bounds in ({"timeout": 0}, {"requests_in_flight": 0}, {"rate": -1}, {"burst": 0.5}, {"max_payload": 2 << 20}):
        with pytest.raises(ValueError, match=f"x: {next(iter(bounds))}: expected"):
            SubProtocol("x", **bounds)
    with pytest.raises(ValueError, match="expected a name"):
        SubProtocol("a/b")
    sub = echo()
    with pytest.raises(ValueError, match="all types has a handler already"):
        sub.on_parts(lambda request: iter(()))
    with pytest.raises(ValueError, match="has no handler"):
        Light(MemNet(), 1, SubProtocol("silent"))
