"""Answers in parts: in order, counted, held back by their reader, given up on either side."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from protocols.base import StreamReset, StreamTimeout
from protocols.messages import Answer, AnswerError, Message, RemoteError, SubProtocol
from tests.protocols.messages.world import lights, parts_of

PART = 32 * 1024


class Producer:
    """A sub-protocol whose answer has as many parts as it is asked for; it counts what it made, and how it ended."""

    def __init__(self, pause: float = 0.0, **bounds: float) -> None:
        self.made = 0
        self.ended: list[str] = []
        self.sub = SubProtocol("parts", rate=None, **bounds)  # type: ignore[arg-type]

        @self.sub.on_parts
        async def produce(request: Message) -> AsyncIterator[bytes]:
            try:
                for number in range(int(request.payload)):
                    self.made += 1
                    yield number.to_bytes(4, "big") * (PART // 4)
                    await trio.sleep(pause)
                self.ended.append("all")
            except BaseException as error:
                self.ended.append(type(error).__name__)
                raise


async def test_parts_come_in_order_and_are_counted(autojump_clock):
    producer = Producer()
    async with lights(producer.sub) as (a, b):
        async with a.messages.request_stream(b.peer, "parts", b"100") as answer:
            seen = 0
            async for part in answer:
                assert part == seen.to_bytes(4, "big") * (PART // 4)
                seen += 1
                assert (answer.parts, answer.bytes) == (seen, seen * PART)
                assert not answer.complete  # that it was the last one is said behind it
        assert seen == 100
        assert answer.complete
        assert answer.peer == b.peer
        await trio.sleep(1)
        assert producer.ended == ["all"]
        assert b.streams == 0, "its stream was its own"
        assert len(a.messages._client) == 0


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (2, 2)])
async def test_an_answer_may_have_no_part_or_one(autojump_clock, count, expected):
    async with lights(Producer().sub) as (a, b):
        parts, error = await parts_of(a, b.peer, "parts", b"%d" % count)
        assert (len(parts), error) == (expected, None)


async def test_a_reader_that_pauses_holds_back_the_one_who_makes_them(autojump_clock):
    producer = Producer(stall_timeout=100)
    async with lights(producer.sub) as (a, b), a.messages.request_stream(b.peer, "parts", b"1000") as answer:
        await anext(answer)
        await trio.sleep(20)
        held_back = producer.made
        assert held_back < 20, "what the window holds, and no more"
        await trio.sleep(20)
        assert producer.made == held_back
        for _ in range(50):
            await anext(answer)
        assert answer.parts == 51
        assert producer.made < 51 + 20


async def test_a_reader_that_takes_nothing_is_given_up(autojump_clock):
    producer = Producer(stall_timeout=5)
    async with lights(producer.sub) as (a, b):
        async with a.messages.request_stream(b.peer, "parts", b"1000") as answer:
            await trio.sleep(20)
            assert producer.ended
            with pytest.raises(StreamReset):
                await read_on(answer)
        b.assert_idle()


async def read_on(answer: Answer) -> None:
    async for _ in answer:
        pass


@pytest.mark.parametrize("how", ["break", "raise", "cancel"])
async def test_an_answer_that_is_left_early_stops_the_one_who_makes_it(autojump_clock, how):
    producer = Producer(pause=0.1)
    async with lights(producer.sub) as (a, b):
        with trio.move_on_after(2 if how == "cancel" else 100):
            try:
                async with a.messages.request_stream(b.peer, "parts", b"1000") as answer:
                    async for _ in answer:
                        if answer.parts == 10 and how == "break":
                            break
                        if answer.parts == 10 and how == "raise":
                            raise KeyError("enough")
            except KeyError:
                assert how == "raise"
        assert not answer.complete
        await trio.sleep(1)
        made = producer.made
        assert made < 25
        await trio.sleep(5)
        assert producer.made == made
        assert len(producer.ended) == 1
        assert not a.failed + b.failed
        assert b.streams == 0
        b.assert_idle()
        a.assert_forgotten()


async def test_what_the_reader_does_is_not_counted_as_the_requests(autojump_clock):
    async with lights(Producer().sub) as (a, b):
        tally = a.messages.tally

        async def leave_after(parts):
            async with a.messages.request_stream(b.peer, "parts", b"2") as answer:
                while not answer.complete and answer.parts < parts:
                    await anext(answer, None)
                await trio.sleep(1000)
                raise KeyError("the reader's own")

        with pytest.raises(KeyError):
            await leave_after(3)
        tally.fold()
        assert tally.outcomes() == {("parts", "answered"): 1}
        assert tally.asked["parts"].sum < 1
        with pytest.raises(KeyError):
            await leave_after(1)
        tally.fold()
        assert tally.outcomes() == {("parts", "answered"): 1, ("parts", "given_up"): 1}


async def test_an_error_in_the_middle_comes_after_the_parts_before_it(autojump_clock):
    sub = SubProtocol("parts")

    @sub.on_parts(type=0)
    async def breaks(request: Message) -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number
        raise LookupError("no fourth")

    @sub.on_parts(type=1)
    async def refuses(request: Message) -> AsyncIterator[bytes]:
        raise AnswerError("nothing for you")
        yield b""

    @sub.on_parts(type=2)
    async def large(request: Message) -> AsyncIterator[bytes]:
        yield b"0"
        yield bytes(2 << 20)

    @sub.on_parts(type=3)
    async def empty(request: Message) -> AsyncIterator[bytes]:
        for part in (b"", b"0", b"", b"", b"1", b""):
            yield part

    @sub.on_request(type=4)
    async def whole(request: Message) -> bytes:
        return b"whole"

    async with lights(sub) as (a, b):
        for kind, expected, text in ((0, [b"0", b"1", b"2"], "no fourth"), (1, [], "nothing"), (2, [b"0"], "payload:")):
            parts, error = await parts_of(a, b.peer, "parts", type=kind)
            assert parts == expected
            assert isinstance(error, RemoteError)
            assert error.text.startswith(text)
        assert [type(error) for error in b.failed] == [LookupError, ValueError]
        assert await parts_of(a, b.peer, "parts", type=3) == ([b"0", b"1"], None)
        assert await parts_of(a, b.peer, "parts", type=4) == ([b"whole"], None)
        _, error = await parts_of(a, b.peer, "parts", type=5)
        assert "doesn't answer requests of type 5" in str(error)


async def test_so_many_answers_in_parts_at_once(autojump_clock):
    producer = Producer(pause=1, parts_at_once=2)
    async with lights(producer.sub) as (a, b):
        ended: list[float] = []

        async def read() -> None:
            parts, error = await parts_of(a, b.peer, "parts", b"3")
            assert (len(parts), error) == (3, None)
            ended.append(round(trio.current_time()))

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(read)
            await trio.sleep(0.5)
            assert b.streams == 2
        assert ended == [3, 3, 6, 6, 9, 9]


async def test_whoever_waits_too_long_to_ask_in_parts_is_told(autojump_clock):
    producer = Producer(pause=1, parts_at_once=1)
    async with lights(producer.sub) as (a, b), a.messages.request_stream(b.peer, "parts", b"50") as answer:
        await anext(answer)
        _, error = await parts_of(a, b.peer, "parts", b"1", timeout=3)
        assert isinstance(error, StreamTimeout)
        assert "take the request within 3 s" in str(error)


async def test_each_part_has_its_time(autojump_clock):
    producer = Producer(pause=4)
    async with lights(producer.sub) as (a, b):
        parts, error = await parts_of(a, b.peer, "parts", b"5", timeout=5)
        assert (len(parts), error) == (5, None), "20 s in all"
        parts, error = await parts_of(a, b.peer, "parts", b"5", timeout=3)
        assert isinstance(error, StreamTimeout)
        assert "send the next part within 3 s" in str(error)
        await trio.sleep(10)
        b.assert_idle()


async def test_a_lost_connection_ends_an_answer_in_parts_on_both_sides(autojump_clock):
    producer = Producer(pause=1)
    async with lights(producer.sub) as (a, b):
        async with trio.open_nursery() as nursery:
            outcomes = []

            async def read() -> None:
                outcomes.append(await parts_of(a, b.peer, "parts", b"50"))

            nursery.start_soon(read)
            await trio.sleep(5)
            a.node.disconnect(b.node)
        ((parts, error),) = outcomes
        assert 2 <= len(parts) <= 5
        assert isinstance(error, StreamReset)
        await trio.sleep(1)
        assert producer.ended == ["Cancelled"]
        assert not b.failed
