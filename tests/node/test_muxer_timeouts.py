"""Readers with timeouts: each in its time, in simulated time, watched no longer than needed."""

from __future__ import annotations

import math
import random
from contextlib import suppress

import pytest
import trio
import trio.testing
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from node.upgrade.muxer import Muxer
from tests.memnet import MemNet
from tests.node.test_muxer_shell import pair


def watched(muxer: Muxer) -> bool:
    """Whether any reader's deadline is still looked at."""
    return muxer._watched_until < math.inf


def tasks() -> int:
    """How many tasks there are."""
    return trio.lowlevel.current_statistics().tasks_living


async def opened(a: Muxer, b: Muxer):
    """A stream that both sides know: the opener's end and the other one."""
    stream = await a.open_stream()
    await stream.write(b"x")
    other = await b.accept_stream()
    await other.read(1)
    return stream, other


async def expire(stream, timeout: float, ended: list[tuple[float, float]]) -> None:
    """A read that nothing comes for: appends its timeout, and how long it took."""
    started = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        await stream.read(1, timeout)
    ended.append((timeout, trio.current_time() - started))


@pytest.mark.parametrize("seed", range(5))
async def test_readers_expire_in_the_order_and_at_the_time_of_their_deadlines(seed, autojump_clock):
    rng = random.Random(seed)
    timeouts = [rng.choice([0.0, 0.001, 0.5, 0.5, 3, 7.25, 40]) + rng.random() for _ in range(20)]
    ended: list[tuple[float, float]] = []
    async with MemNet(latency=0.01) as net, pair(net) as (a, b):
        streams = [(await opened(a, b))[0] for _ in timeouts]
        assert not watched(a)
        before = tasks()
        async with trio.open_nursery() as nursery:
            for stream, timeout in zip(streams, timeouts, strict=True):
                nursery.start_soon(expire, stream, timeout, ended)
            await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            assert tasks() <= before + len(timeouts) + 1, "one task at most for all deadlines"
            assert watched(a)
        assert [timeout for timeout, _ in ended] == sorted(timeouts)
        assert all(took == pytest.approx(timeout, abs=1e-6) for timeout, took in ended)
        await trio.testing.wait_all_tasks_blocked()
        assert not watched(a)
        assert tasks() == before


async def test_data_in_time_is_read_and_a_later_wait_has_its_own_deadline(autojump_clock):
    ended: list[tuple[float, float]] = []
    async with MemNet(latency=0.01) as net, pair(net) as (a, b), trio.open_nursery() as nursery:
        stream, other = await opened(a, b)
        idle, _ = await opened(a, b)
        nursery.start_soon(expire, idle, 6.0, ended)
        for _ in range(4):  # 8 s in all: the deadline is the call's, not the stream's
            nursery.start_soon(_after, 1.9, other, b"in time")
            assert await stream.read(100, 2.0) == b"in time"
            await trio.sleep(0.1)
        assert ended == [(6.0, pytest.approx(6.0, abs=1e-6))]
        assert await stream.read(0, 1.0) == b""
        await other.write(b"both")
        await trio.sleep(1)
        assert await stream.read(100, 0.0) == b"both", "what has come is read, whatever the timeout"
        await expire(stream, 0.0, ended)
        await other.close_write()
        with pytest.raises(MuxedStreamEOF):
            await stream.read(100, 5.0)


async def _after(seconds: float, stream, data: bytes) -> None:
    await trio.sleep(seconds)
    await stream.write(data)


async def test_an_earlier_deadline_that_comes_later_is_in_time(autojump_clock):
    ended: list[tuple[float, float]] = []
    async with MemNet() as net, pair(net) as (a, b), trio.open_nursery() as nursery:
        streams = [(await opened(a, b))[0] for _ in range(4)]
        for stream, timeout in zip(streams, (100.0, 20.0, 5.0, 1.0), strict=True):
            nursery.start_soon(expire, stream, timeout, ended)
            await trio.sleep(0.25)
        await trio.sleep(2)
        nursery.start_soon(expire, streams[3], 0.5, ended)
        await trio.sleep(120)
        assert [timeout for timeout, _ in ended] == [1.0, 0.5, 5.0, 20.0, 100.0]
        assert all(took == pytest.approx(timeout, abs=1e-6) for timeout, took in ended)
        assert not watched(a)


async def test_who_was_served_cancelled_or_cut_off_is_not_watched_past_its_deadline(autojump_clock):
    async with MemNet() as net, pair(net) as (a, b):
        served, other = await opened(a, b)
        cancelled, _ = await opened(a, b)
        reset, far = await opened(a, b)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.read, 1, 3.0)
            nursery.start_soon(_cut_after, 0.5, cancelled, 4.0)
            nursery.start_soon(_cut_after, 9.0, reset, 5.0)
            await trio.testing.wait_all_tasks_blocked()
            assert watched(a)
            await other.write(b"x")
            await far.reset()
        assert trio.current_time() < 3
        await trio.sleep(5)
        assert not watched(a)
        with trio.move_on_after(50) as patience:
            await cancelled.read(1)  # a reader without a deadline isn't woken by one that was there before
        assert patience.cancelled_caught
        assert not watched(a)


async def _cut_after(seconds: float, stream, timeout: float) -> None:
    with trio.move_on_after(seconds), suppress(Exception):  # a stream that is reset, too
        await stream.read(1, timeout)


async def test_a_deadline_is_kept_on_a_connection_that_takes_nothing(autojump_clock):
    ended: list[tuple[float, float]] = []
    async with MemNet(window=65536) as net, pair(net) as (a, b), trio.open_nursery() as nursery:
        net.give_up = 10_000
        stream, _ = await opened(a, b)
        busy, _ = await opened(a, b)
        net.partition({"10.0.0.1"}, {"10.0.0.2"})
        with trio.move_on_after(1):
            await busy.write(bytes(3_000_000))
        nursery.start_soon(expire, stream, 3.0, ended)
        await trio.sleep(4)
        assert ended == [(3.0, pytest.approx(3.0, abs=1e-6))]
        net.heal()


async def test_a_stream_opened_by_reading_is_known_to_the_peer_at_once(autojump_clock):
    """Whoever reads a new stream first waits for the peer's word: its SYN goes out whatever others are doing."""

    async def to_its_end(stream) -> None:
        with pytest.raises(MuxedStreamEOF):
            await stream.read(1)

    async def to_its_end_and_on(muxer: Muxer, stream) -> None:
        await to_its_end(stream)
        new = await muxer.open_stream()
        with suppress(trio.TooSlowError):
            await new.read(1, 2.0)

    late = 0
    for _ in range(20):  # trio runs the two readers in any order
        async with MemNet(latency=0.01) as net, pair(net) as (a, b):
            first, other_first = await opened(a, b)
            second, other_second = await opened(a, b)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(to_its_end_and_on, a, first)
                nursery.start_soon(to_its_end, second)
                await trio.testing.wait_all_tasks_blocked()
                for stream in (other_first, other_second):
                    b.session.end(stream.state)  # both ends in one message
                b.flush_soon()
                with trio.move_on_after(1) as patience:
                    await b.accept_stream()
                late += patience.cancelled_caught
    assert late == 0
