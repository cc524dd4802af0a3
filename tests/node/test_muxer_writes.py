"""Writes: what one may hold back, who waits for whom, and what a cancelled one leaves, in simulated time."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
import trio
import trio.testing
from libp2p.stream_muxer.exceptions import (
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamError,
    MuxedStreamReset,
)

from node.upgrade.yamux_state import INITIAL_WINDOW, Limits
from tests.memnet import MemNet
from tests.node.test_muxer_shell import pair
from tests.node.test_muxer_timeouts import opened

UNSENT = 10_000
SMALL = Limits(max_unsent=UNSENT, max_all_unsent=4 * UNSENT)


async def filled(a, b):
    """A stream whose window the other side's reader has let run full, with nothing unsent."""
    stream, other = await opened(a, b)
    await stream.write(b"x" * (INITIAL_WINDOW - 1))
    await trio.sleep(5)
    assert stream.state.send_window == stream.state.unsent_size == 0
    return stream, other


async def gather(stream, into: bytearray, n: int = 100_000) -> str:
    """Reads to the end, however it ends: how it did."""
    try:
        while True:
            into += await stream.read(n)
    except MuxedStreamEOF:
        return "end"
    except MuxedStreamReset:
        return "reset"


async def test_a_writer_waits_beyond_what_its_stream_may_hold_back(autojump_clock):
    async with MemNet() as net, pair(net, SMALL) as (a, b), trio.open_nursery() as nursery:
        stream, other = await filled(a, b)
        with trio.fail_after(1):  # of simulated time: at once
            await stream.write(b"1" * (UNSENT - 1))
            await stream.write(b"2" * UNSENT)
        assert stream.state.unsent_size == 2 * UNSENT - 1, "less than the limit takes one more piece, never two"
        assert not stream.write_nowait(b"3")
        with trio.move_on_after(100) as waited:
            await stream.write(b"3")
        assert waited.cancelled_caught
        nursery.start_soon(stream.write, b"4" * 5 * UNSENT)
        data = bytearray()
        while len(data) < INITIAL_WINDOW - 1 + 7 * UNSENT - 1:
            assert stream.state.unsent_size < 2 * UNSENT
            data += await other.read(7_000)
        assert data.lstrip(b"x") == b"1" * (UNSENT - 1) + b"2" * UNSENT + b"4" * 5 * UNSENT


async def test_streams_wait_for_one_another_beyond_what_the_connection_may_hold_back(autojump_clock):
    async with MemNet() as net, pair(net, SMALL) as (a, b), trio.open_nursery() as nursery:
        ends = [await filled(a, b) for _ in range(10)]
        streams = [stream for stream, _ in ends]

        async def write(stream) -> None:
            with pytest.raises(MuxedStreamReset):
                await stream.write(bytes(3 * UNSENT))

        for stream in streams:
            nursery.start_soon(write, stream)
        await trio.sleep(10)
        assert all(stream.state.unsent_size == UNSENT for stream in streams), "the first piece always goes in"
        assert a.session._unsent == 10 * UNSENT
        small, other = await opened(a, b)
        with trio.fail_after(1):
            await small.write(b"small ones go first in")
            assert await other.read(100) == b"small ones go first in"
        for stream, other in ends:
            await stream.reset()
            with suppress(MuxedStreamReset):
                while True:
                    await other.read()
        assert a.session._unsent == 0


@pytest.mark.parametrize("held_back", [UNSENT, 0])
async def test_writers_of_one_stream_go_one_after_the_other(held_back, autojump_clock):
    """The first one waits: for room to begin if something was held back, else for room for its second piece."""
    async with MemNet() as net, pair(net, SMALL) as (a, b), trio.open_nursery() as nursery:
        stream, other = await filled(a, b)
        wanted = b"0" * held_back
        await stream.write(wanted)
        for number, size in enumerate([50_000, 1, 20_000, 3, 12_345]):
            text = bytes([65 + number]) * size
            wanted += text
            nursery.start_soon(stream.write, text)
            await trio.testing.wait_all_tasks_blocked()
        data = b""
        while len(data) < INITIAL_WINDOW - 1 + len(wanted):
            data += await other.read(5000)
        assert data[INITIAL_WINDOW - 1 :] == wanted


async def test_a_slow_reader_leaves_another_stream_at_full_speed(autojump_clock):
    async def transfer(a, b) -> float:
        stream, other = await opened(a, b)
        started, data = trio.current_time(), bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gather, other, data)
            await stream.write(bytes(2_000_000))
            await stream.close_write()
        assert data == bytes(2_000_000)
        return trio.current_time() - started

    limits = Limits(max_unsent=256 * 1024, max_all_unsent=1024 * 1024)
    async with MemNet(latency=0.002, bandwidth=1_000_000) as net, pair(net, limits) as (a, b):
        alone = await transfer(a, b)
        slow, other = await opened(a, b)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.write, bytes(10_000_000))
            await trio.sleep(5)
            assert other.state.size == INITIAL_WINDOW - 1
            beside = await transfer(a, b)
            nursery.cancel_scope.cancel()
        await slow.reset()
    assert 1.9 < alone < 2.5
    assert beside < 1.05 * alone


@pytest.mark.parametrize("seed", range(15))
async def test_a_cancelled_write_leaves_nothing_or_a_hole_and_no_torn_frame(seed, autojump_clock):
    """Random writes on several streams, cancelled at random; the reader checks every byte that comes."""
    rng = random.Random(seed)
    cut = holes = 0

    async def write_and_check(stream, other, name: int) -> None:
        nonlocal cut, holes
        written, got, ways = bytearray(), bytearray(), []

        async def reader() -> None:
            ways.append(await gather(other, got, rng.choice([500, 5_000, 50_000])))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            part = b""
            for number in range(25):
                text = bytes([name, number]) * rng.choice([1, 500, UNSENT // 2, 2 * UNSENT, 40_000])
                with trio.move_on_after(rng.random() * rng.choice([0.001, 0.02, 0.2])) as scope:
                    await stream.write(text)
                cut += scope.cancelled_caught
                if not scope.cancelled_caught:
                    written += text
                elif stream._hole:
                    part = text
                    break
            if part:
                holes += 1
                with pytest.raises(MuxedStreamClosed):
                    await stream.write(b"more")
                if rng.random() < 0.5:
                    await trio.sleep(10)
                    pieces, rest = divmod(len(got) - len(written), UNSENT)
                    assert rest == 0
                    assert pieces > 0, "a hole is behind a piece that went out"
                    assert got == written + part[: pieces * UNSENT]
            await stream.close_write()
        # no end behind a hole: the peer would take what came for all
        assert ways == ["reset" if part else "end"]
        assert (written + part).startswith(got)
        assert part or len(got) == len(written)

    link = MemNet(seed=seed, latency=0.003, bandwidth=rng.choice([200_000, 2_000_000]), window=32 * 1024)
    async with link as net, pair(net, SMALL) as (a, b):
        ends = [await opened(a, b) for _ in range(6)]
        async with trio.open_nursery() as nursery:
            for name, (stream, other) in enumerate(ends):
                nursery.start_soon(write_and_check, stream, other, name)
        assert (a.fault, b.fault, a.lost, b.lost) == ("", "", False, False)
        assert a.session._unsent == b.session._unread == 0
        stream, other = await opened(a, b)
        await stream.write(b"unharmed")
        assert await other.read(8) == b"unharmed"
    assert cut


async def two_writers(a, b, nursery: trio.Nursery):
    """A stream on which a large write waits for room and another one for its turn; what comes of the second."""
    stream, other = await filled(a, b)
    await stream.write(b"0" * UNSENT)
    outcome: list[type[BaseException] | None] = []

    async def second() -> None:
        try:
            await stream.write(b"2" * UNSENT)
            outcome.append(None)
        except MuxedStreamError as error:
            outcome.append(type(error))

    first = trio.CancelScope()

    async def large() -> None:
        with first, suppress(MuxedStreamError):
            await stream.write(b"1" * 200 * UNSENT)

    nursery.start_soon(large)
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(second)
    await trio.testing.wait_all_tasks_blocked()
    return stream, other, first, outcome


async def test_nothing_is_written_behind_another_writers_hole(autojump_clock):
    async with MemNet() as net, pair(net, SMALL) as (a, b), trio.open_nursery() as nursery:
        stream, other, first, outcome = await two_writers(a, b, nursery)
        data = bytearray()
        while len(data) < INITIAL_WINDOW:
            data += await other.read()
        await trio.sleep(10)
        assert stream._partial, "the first one is under way"
        first.cancel()
        with trio.move_on_after(10):
            await gather(other, data)
        nursery.cancel_scope.cancel()
        assert outcome == [MuxedStreamClosed]
        assert set(data.lstrip(b"x0")) == {ord("1")}
        assert stream._hole


async def test_a_writer_that_waits_for_another_learns_of_a_reset(autojump_clock):
    async with MemNet() as net, pair(net, SMALL) as (a, b), trio.open_nursery() as nursery:
        stream, _, _, outcome = await two_writers(a, b, nursery)
        await stream.reset()
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
        assert outcome == [MuxedStreamReset]
        assert a.session._unsent == 0


async def test_a_writer_that_waits_for_another_learns_of_a_lost_connection(autojump_clock):
    async with MemNet() as net, pair(net, SMALL) as (a, b), trio.open_nursery() as nursery:
        _, _, _, outcome = await two_writers(a, b, nursery)
        net.kill("10.0.0.2")
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
        assert outcome == [MuxedStreamReset]
