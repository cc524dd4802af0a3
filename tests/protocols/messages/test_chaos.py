"""Whatever is delayed, lost, cancelled or cut off, in any order: no answer reaches the wrong caller and no place stays
taken.

`lights` asserts at its end that both sides have forgotten everything.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import trio

from protocols.base import NotConnected, Protocol, Stream, StreamError, StreamReset, StreamTimeout
from protocols.messages import Message, RemoteError, SubProtocol
from tests.cancelling import cancelled_at
from tests.memnet import scheduling
from tests.protocols.messages.world import Light, lights, parts_of

A_REQUEST, A_NOTE, IN_PARTS = 1, 2, 3


def moody(seed: int, **bounds: int | float) -> SubProtocol:
    """Answers with its question, sooner or later, or raises, or in parts that all begin with the question."""
    rng = random.Random(seed)
    sub = SubProtocol("moody", timeout=4, answer_timeout=3, stall_timeout=3, patience=2, **bounds)  # type: ignore[arg-type]

    @sub.on_request
    async def answer(request: Message) -> bytes:
        await trio.sleep(rng.choice([0, 0, 0.01, 0.5, 2, 5]))
        if rng.random() < 0.1:
            raise LookupError(request.payload[:20].decode())
        return request.payload

    @sub.on_message
    async def note(message: Message) -> None:
        await trio.sleep(rng.choice([0, 0, 0.1, 5]))

    @sub.on_parts(type=IN_PARTS)
    async def parts(request: Message) -> AsyncIterator[bytes]:
        for number in range(rng.randrange(6)):
            await trio.sleep(rng.choice([0, 0.1, 2]))
            yield request.payload + b"/%d" % number

    return sub


@pytest.mark.parametrize("seed", range(12))
async def test_no_answer_reaches_the_wrong_caller_and_no_place_stays_taken(seed, autojump_clock):
    rng, ended = random.Random(seed), Counter[str]()
    fails: list[tuple[str, str]] = []  # the text of an error, and of the question
    sub = moody(seed, requests_in_flight=6, bytes_in_flight=50_000, parts_at_once=2, rate=rng.choice([40, 1000]))

    async def call(here: Light, there: Light, number: int) -> None:
        await trio.sleep(rng.random() * 30)
        payload = b"%d:%d:" % (seed, number) + bytes(rng.choice([0, 10, 20_000]))
        kind = rng.choice(["request", "request", "request", "send", "parts"])
        with trio.move_on_after(rng.choice([0.01, 0.3, 1, 60, 60, 60])) as patience:
            started = trio.current_time()
            try:
                if kind == "request":
                    answer = await here.messages.request(there.peer, "moody", payload)
                    assert answer.payload == payload, "another's answer"
                    assert trio.current_time() - started <= 4.001
                elif kind == "send":
                    await here.messages.send(there.peer, "moody", payload, type=A_NOTE)
                else:
                    got, error = await parts_of(here, there.peer, "moody", payload, type=IN_PARTS)
                    assert got == [payload + b"/%d" % number for number in range(len(got))], "another's parts"
                    if error is not None:
                        raise error
                ended["ok"] += 1
            except RemoteError as error:
                fails.append((error.text, payload[:20].decode().replace("\0", "\ufffd")))
                ended["remote"] += 1
            except (StreamReset, StreamTimeout, NotConnected) as error:
                assert kind != "request" or trio.current_time() - started <= 4.001
                ended[type(error).__name__] += 1
        ended["cancelled"] += patience.cancelled_caught

    async def trouble(a: Light, b: Light) -> None:
        net = a.node.net
        while trio.current_time() < 32:
            await trio.sleep(rng.random() * 6)
            if rng.random() < 0.5:
                a.node.disconnect(b.node)
                await trio.sleep(rng.random())
            else:
                net.partition([a.node.ip], [b.node.ip])
                await trio.sleep(rng.random() * 3)
                net.heal()
            await a.node.connect(b.node)

    with scheduling(seed):
        async with lights(sub, seed=seed, loss=0.02, window=16_384, latency=0.03) as (a, b):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trouble, a, b)
                for number in range(150):
                    here, there = rng.choice([(a, b), (b, a)])
                    nursery.start_soon(call, here, there, number)
            assert ended["ok"] > 40, ended
            assert ended["cancelled"] > 5, ended
            assert ended.total() == 150
            for text, question in fails:
                assert text == question or text.startswith(("busy: ", "no answer was found")), "another's error"
            # a note took too long, a question was refused
            assert {type(error) for error in a.failed + b.failed} <= {LookupError, trio.TooSlowError}
            assert not a.rejected + b.rejected


CALLS = {
    "request": lambda a, b: a.messages.request(b.peer, "moody", b"question"),
    "a large one": lambda a, b: a.messages.request(b.peer, "moody", bytes(60_000)),
    "send": lambda a, b: a.messages.send(b.peer, "moody", bytes(60_000)),
    "parts": lambda a, b: parts_of(a, b.peer, "moody", b"question", type=IN_PARTS),
}


@pytest.mark.parametrize("connected_before", [False, True])
@pytest.mark.parametrize("call", CALLS)
async def test_any_call_can_be_cancelled_at_any_await_and_harms_no_other(call, connected_before, autojump_clock):
    sub = SubProtocol("moody", requests_in_flight=3)

    @sub.on_request
    async def answer(request: Message) -> bytes:
        await trio.sleep(0.1)
        return request.payload

    @sub.on_message
    async def note(message: Message) -> None:
        await trio.sleep(0.01)

    @sub.on_parts(type=IN_PARTS)
    async def parts(request: Message) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield bytes(20_000)

    async with lights(sub, window=8192, bandwidth=1e6) as (a, b):
        steps, cut = 1, True
        while cut:
            if connected_before:
                await a.messages.request(b.peer, "moody", b"before")
            others: list[bytes] = []

            async def other(number: int, others: list[bytes] = others) -> None:
                payload = b"%d" % number * 5000
                assert (await a.messages.request(b.peer, "moody", payload)).payload == payload
                others.append(payload)

            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(other, number)
                cut = await cancelled_at(steps, lambda: CALLS[call](a, b))
            assert len(others) == 4
            await trio.sleep(1)
            a.assert_idle()
            b.assert_idle()
            assert b.streams == 1
            if not connected_before:
                a.node.disconnect(b.node)
                await trio.sleep(1)
                a.assert_forgotten()
                await a.node.connect(b.node)
            steps += 1
        assert steps > 2, "there was something to cancel"
        assert not a.failed + b.failed


async def test_a_frame_that_waits_behind_a_slow_peer_can_be_cancelled(autojump_clock):
    """It is taken out of the queue; what is under way goes on, and those behind it come in order."""
    sub, handled = SubProtocol("notes", max_payload=200_000), []

    @sub.on_message
    async def note(message: Message) -> None:
        handled.append(message.payload[:1])

    async with lights(sub, window=4096, bandwidth=50_000) as (a, b):
        await a.messages.send(b.peer, "notes", b"0")
        scopes: list[trio.CancelScope] = []

        async def send(number: int) -> None:
            with trio.CancelScope() as scope:
                scopes.append(scope)
                await a.messages.send(b.peer, "notes", b"%d" % number * 100_000)

        async with trio.open_nursery() as nursery:
            for number in range(1, 7):
                nursery.start_soon(send, number)
                await trio.sleep(0.01)
            for number in (1, 3, 4):  # the first is under way
                scopes[number - 1].cancel()
        await trio.sleep(20)
        assert handled == [b"0", b"1", b"2", b"5", b"6"]
        assert b.streams == 1


async def test_a_peer_that_reads_nothing_is_given_up_and_each_sender_told(autojump_clock):
    async with lights(window=4096) as (a, b):
        sub = SubProtocol("deaf", stall_timeout=5, timeout=20)

        async def deaf(stream: Stream) -> None:
            await trio.sleep(50)

        b.node.registry.add(Protocol(sub.id, handler=deaf))
        errors: list[Exception] = []

        async def ask(call) -> None:
            try:
                await call(b.peer, sub, bytes(10_000))
            except StreamError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for call in [a.messages.send] * 3 + [a.messages.request] * 3:
                nursery.start_soon(ask, call)
        assert trio.current_time() == pytest.approx(5, abs=0.5)
        assert [type(error) for error in errors] == [StreamTimeout] * 6
