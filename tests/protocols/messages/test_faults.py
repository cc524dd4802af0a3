"""Faults that once were: each at its smallest."""

from __future__ import annotations

from collections.abc import AsyncIterator

import outcome
import pytest
import trio
import trio.testing

from protocols.base import NotConnected, Protocol, Stream, StreamReset
from protocols.messages import AnswerError, Message, RemoteError, SubProtocol
from protocols.messages.channel import Waiter
from protocols.messages.errors import OversizeError
from protocols.messages.writer import Writer
from tests.memnet import MemNet, PipeBytes
from tests.protocols.messages.world import Light, echo, lights, parts_of


@pytest.mark.parametrize("first", ["cancel", "tell"])
async def test_an_answer_that_comes_as_its_caller_is_cancelled_harms_nobody(first):
    """One of them wins: the caller isn't woken twice, for which trio would end whoever does."""
    answer, ended = Message(protocol="sync", payload=b""), []
    waiter, scope = Waiter(), trio.CancelScope()

    async def wait() -> None:
        with scope:
            ended.append(await waiter.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        if first == "cancel":
            scope.cancel()
        waiter.tell(outcome.Value(answer))
        scope.cancel()
    assert ended == ([] if first == "cancel" else [answer])


async def test_what_waits_in_order_when_its_stream_is_lost_gives_its_place_back(autojump_clock):
    sub = SubProtocol("notes", requests_in_flight=8)
    handled = []

    @sub.on_message
    async def slow(message: Message) -> None:
        handled.append(message.payload)
        await trio.sleep(10)

    async with lights(sub) as (a, b):
        for round in range(3):
            for number in range(8):
                await a.messages.send(b.peer, "notes", b"%d" % number)
            await trio.sleep(1)
            assert len(handled) == round + 1
            a.node.disconnect(b.node)
            await trio.sleep(1)
            a.assert_forgotten()
            b.assert_idle()
            await a.node.connect(b.node)


async def test_what_is_sent_once_the_writer_has_ended_fails_at_once(autojump_clock):
    async with MemNet(window=1024) as net:
        ours, _ = net.pipe("10.0.0.1", "10.0.0.2")
        stream = Stream(PipeBytes(ours), Protocol("/x", max_frame=100_000), "peer")
        writer, errors = Writer(stream), []

        async def send() -> None:
            try:
                await writer.send(bytes(5000))
            except StreamReset as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            nursery.start_soon(send)
            nursery.start_soon(send)
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        assert not errors, "they were cancelled themselves"
        with trio.fail_after(1):
            await send()
        assert "was closed" in str(errors[0])


async def test_a_node_that_doesnt_run_yet_fails_a_request_and_answers_the_next(autojump_clock):
    async with MemNet() as net:
        a, b = Light(net, 1), Light(net, 2, echo())
        await net.nursery.start(b.messages.run)
        await a.node.connect(b.node)
        for _ in range(2):
            with pytest.raises(NotConnected, match="doesn't run"):
                await a.messages.request(b.peer, "echo", b"")
            assert len(a.messages._client) == 0
        await net.nursery.start(a.messages.run)
        assert (await a.messages.request(b.peer, "echo", b"0:x")).payload == b"0:x"


async def test_a_channel_that_is_replaced_ends_properly_and_loses_nothing(autojump_clock):
    """Its connection leaves: what is sent, and what waits behind it, still arrives, and is handled."""
    sub = SubProtocol("notes")
    handled = []

    @sub.on_message
    async def note(message: Message) -> None:
        await trio.sleep(0.1)
        handled.append(message.payload[:2])

    @sub.on_request
    async def answer(request: Message) -> bytes:
        return request.payload

    async with lights(sub, window=4096, bandwidth=100_000) as (a, b):
        await a.messages.request(b.peer, "notes", b"")

        async def send(number: int) -> None:
            await trio.sleep(number / 1000)
            await a.messages.send(b.peer, "notes", b"%02d" % number + bytes(20_000))

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(send, number)
            await trio.sleep(0.1)
            (outbox,) = a.outboxes
            assert outbox._channel is not None
            assert outbox._channel.stream is not None
            outbox._channel.stream._raw.leaving = True  # type: ignore[misc]
            assert (await a.messages.request(b.peer, "notes", b"on another stream")).payload == b"on another stream"
        await trio.sleep(2)
        assert handled == [b"00", b"01", b"02", b"03", b"04"]
        assert b.streams == 1
        assert not a.failed + b.failed


async def test_an_outbox_that_ends_late_isnt_taken_for_its_successor(autojump_clock):
    async with lights(echo()) as (a, b):
        await a.messages.request(b.peer, "echo", b"")
        (old,) = a.outboxes
        client = a.messages._client
        a.node.disconnect(b.node)
        await trio.sleep(1)
        assert len(client) == 0
        await a.node.connect(b.node)
        await a.messages.request(b.peer, "echo", b"")
        (new,) = a.outboxes
        assert new is not old
        old.release_if_idle()
        assert a.outboxes == [new]


async def test_a_handler_that_gives_no_bytes_harms_nobody_else(autojump_clock):
    sub = SubProtocol("odd")

    @sub.on_request(type=1)
    async def text(request: Message) -> bytes:
        return "text"  # type: ignore[return-value]

    @sub.on_request(type=2)
    async def nothing(request: Message) -> bytes:
        pass  # type: ignore[return-value]

    @sub.on_request(type=3)
    async def patient(request: Message) -> bytes:
        await trio.sleep(5)
        return b"unharmed"

    @sub.on_parts(type=4)
    async def texts(request: Message) -> AsyncIterator[bytes]:
        yield "text"  # type: ignore[misc]

    @sub.on_parts(type=5)
    async def untidy(request: Message) -> AsyncIterator[bytes]:
        try:
            yield bytes(2 << 20)  # too large, so it is given up
        finally:
            raise LookupError("in tidying up")

    @sub.on_parts(type=6)
    async def none(request: Message) -> bytes:  # type: ignore[arg-type]
        return b"no generator"

    async with lights(sub) as (a, b):
        async with trio.open_nursery() as nursery:

            async def unharmed() -> None:
                assert (await a.messages.request(b.peer, "odd", b"", type=3)).payload == b"unharmed"

            nursery.start_soon(unharmed)
            for kind in (1, 2, 4, 5):
                with pytest.raises(RemoteError, match="expected"):
                    await a.messages.request(b.peer, "odd", b"", type=kind)
            with pytest.warns(RuntimeWarning, match="never awaited"), pytest.raises(RemoteError, match="async"):
                await a.messages.request(b.peer, "odd", b"", type=6)
        assert b.node.registry.failed == {}
        kinds = [type(error) for error in b.failed]
        assert kinds == [TypeError, TypeError, TypeError, ValueError, LookupError, TypeError]


async def test_parts_may_take_longer_in_all_than_a_handler_may_for_one(autojump_clock):
    sub = SubProtocol("long", answer_timeout=3, timeout=5, stall_timeout=20)

    @sub.on_parts(type=0)
    async def steady(request: Message) -> AsyncIterator[bytes]:
        for _ in range(10):
            await trio.sleep(2)
            yield b"part"

    @sub.on_parts(type=1)
    async def stuck(request: Message) -> AsyncIterator[bytes]:
        yield b"part"
        yield b"part"
        await trio.sleep(4)
        yield b"never"

    @sub.on_parts(type=2)
    async def large(request: Message) -> AsyncIterator[bytes]:
        for _ in range(4):
            yield bytes(1 << 19)

    async with lights(sub) as (a, b):
        async with a.messages.request_stream(b.peer, "long", b"") as answer:
            assert [part async for part in answer] == [b"part"] * 10
        seen, failure = await parts_of(a, b.peer, "long", type=1)
        assert seen == [b"part", b"part"]
        assert isinstance(failure, RemoteError)
        assert failure.text == "no answer was found within 3 s"
        async with a.messages.request_stream(b.peer, "long", b"", type=2) as answer:
            async for _ in answer:
                await trio.sleep(4)  # a slow reader isn't the handler's fault
        assert answer.bytes == 2 << 20


async def test_one_sub_protocol_declared_twice_keeps_the_channels_bound(autojump_clock):
    small, large = echo(max_payload=100), echo(max_payload=100_000)
    async with lights(large) as (a, b):
        assert (await a.messages.request(b.peer, small, b"0:")).payload == b"0:"
        with pytest.raises(ValueError, match="at most"):
            await a.messages.request(b.peer, large, b"0:" + bytes(50_000))
        assert (await a.messages.request(b.peer, small, b"0:")).payload == b"0:"
        assert not a.failed


async def test_an_answer_over_our_bound_is_told_as_any_other_fault_of_the_peers(autojump_clock):
    async with MemNet() as net:
        ours, theirs = SubProtocol("big", max_payload=100), SubProtocol("big")

        @theirs.on_request
        async def answer(request: Message) -> bytes:
            return bytes(10_000)

        @theirs.on_parts(type=1)
        async def parts(request: Message) -> AsyncIterator[bytes]:
            yield bytes(10_000)

        a, b = Light(net, 1), Light(net, 2, theirs)
        for light in (a, b):
            await net.nursery.start(light.messages.run)
        await a.node.connect(b.node)
        with pytest.raises(StreamReset, match=r"frame: expected a frame of at most 4196 bytes, got one of .*, from"):
            await a.messages.request(b.peer, ours, b"")
        _, failure = await parts_of(a, b.peer, ours, type=1)
        assert isinstance(failure, OversizeError)
        assert [(error.reason, error.peer) for error in a.rejected] == [("oversize", b.peer)] * 2


async def test_an_answer_error_of_any_text_reaches_the_caller(autojump_clock):
    sub = SubProtocol("errors")

    @sub.on_request
    async def answer(request: Message) -> bytes:
        raise AnswerError(request.payload.decode())

    async with lights(sub) as (a, b):
        for text in ("", "no such key", "ключа нет " * 200, "two\nlines"):
            with pytest.raises(RemoteError) as caught:
                await a.messages.request(b.peer, "errors", text.encode())
            assert text.replace("\n", "\ufffd").startswith(caught.value.text)
            assert caught.value.text or not text
        assert not b.failed
