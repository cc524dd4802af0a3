"""The muxer on a connection: cancellation, slow readers, lost and silent connections, in simulated time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamReset,
)

from node.identity import Identity
from node.upgrade.muxer import LINGER, PULSE, WRITE_TIMEOUT, Muxer
from node.upgrade.secure import NoiseTransport
from node.upgrade.yamux_state import BACKLOG, Limits
from tests.memnet import MemNet

A, B = "10.0.0.1", "10.0.0.2"
TEXT = bytes(range(256)) * 4096


@asynccontextmanager
async def pair(net: MemNet, limits: Limits | None = None) -> AsyncIterator[tuple[Muxer, Muxer]]:
    """Two muxers on one connection, admitted and running; both have ended at the block's end."""
    ends = [RawConnection(TrioTCPStream(end), first) for end, first in zip(net.pipe(A, B), (True, False), strict=True)]
    keys = [Identity.generate().key_pair() for _ in ends]
    sides = [NoiseTransport(key_pair) for key_pair in keys]
    secured = {}

    async def dial() -> None:
        secured[0] = await sides[0].secure_outbound(ends[0], sides[1].peer_id)

    async def answer() -> None:
        secured[1] = await sides[1].secure_inbound(ends[1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        nursery.start_soon(answer)
    muxers = [Muxer(secured[number], sides[1 - number].peer_id, limits) for number in (0, 1)]
    async with trio.open_nursery() as nursery:
        for muxer in muxers:
            muxer.admitted()
            nursery.start_soon(muxer.start)
        for muxer in muxers:
            await muxer.event_started.wait()
        yield muxers[0], muxers[1]
        for muxer in muxers:
            await muxer.close()


async def read_all(stream) -> bytes:
    data = b""
    while True:
        try:
            data += await stream.read(100_000)
        except MuxedStreamEOF:
            return data


async def echo(stream) -> None:
    with suppress(MuxedStreamReset):
        await stream.write(await read_all(stream))
        await stream.close()


async def ask(muxer: Muxer, text: bytes) -> None:
    stream = await muxer.open_stream()
    await stream.write(text)
    await stream.close_write()
    assert await read_all(stream) == text
    await stream.close()


async def serve(muxer: Muxer, nursery: trio.Nursery) -> None:
    while True:
        nursery.start_soon(echo, await muxer.accept_stream())


async def test_many_streams_at_once_both_ways(autojump_clock):
    async with MemNet(latency=0.005) as net, pair(net) as (a, b), trio.open_nursery() as nursery:
        for muxer in (a, b):
            nursery.start_soon(serve, muxer, nursery)
        async with trio.open_nursery() as asking:
            for number in range(200):
                asking.start_soon(ask, (a, b)[number % 2], TEXT[: number * 1000 + 1])
            asking.start_soon(ask, a, TEXT)
            asking.start_soon(ask, b, TEXT)
        await trio.sleep(1)
        assert not a.streams
        assert not b.streams
        nursery.cancel_scope.cancel()


async def test_a_cancelled_write_ends_its_stream_at_most_and_harms_no_other(autojump_clock):
    rng = random.Random(1)
    async with MemNet(latency=0.001) as net, pair(net) as (a, b), trio.open_nursery() as nursery:
        nursery.start_soon(serve, b, nursery)
        cut = 0
        for _ in range(100):
            stream = await a.open_stream()
            with trio.move_on_after(rng.random() * 0.02) as scope:
                await stream.write(TEXT * 8)
            cut += scope.cancelled_caught
            if scope.cancelled_caught and stream._hole:
                with pytest.raises(MuxedStreamClosed):
                    await stream.write(b"more")
            await stream.reset()
            await ask(a, b"unharmed")
        assert cut > 50
        nursery.cancel_scope.cancel()


async def test_a_cancelled_read_loses_nothing(autojump_clock):
    rng = random.Random(2)
    async with MemNet(latency=0.01) as net, pair(net) as (a, b), trio.open_nursery() as nursery:
        stream = await a.open_stream()
        nursery.start_soon(stream.write, TEXT)
        other = await b.accept_stream()
        data = b""
        while len(data) < len(TEXT):
            with trio.move_on_after(rng.random() * 0.01):
                data += await other.read(rng.randrange(1, 90_000))
        assert data == TEXT


async def test_a_reader_that_pauses_a_minute_gets_everything_afterwards(autojump_clock):
    async with MemNet() as net, pair(net) as (a, b), trio.open_nursery() as nursery:
        stream = await a.open_stream()
        nursery.start_soon(stream.write, TEXT)
        other = await b.accept_stream()
        nursery.start_soon(serve, b, nursery)
        await trio.sleep(60)
        assert other.state.size <= 256 * 1024
        await ask(a, b"others go on")
        data = b""
        while len(data) < len(TEXT):
            data += await other.read()
        assert data == TEXT
        nursery.cancel_scope.cancel()


async def test_what_write_returned_for_arrives_though_the_connection_closes(autojump_clock):
    async with MemNet() as net, pair(net) as (a, b):
        stream = await a.open_stream()
        await stream.write(TEXT[:200_000])
        await stream.close_write()
        await a.close()
        other = await b.accept_stream()
        assert await read_all(other) == TEXT[:200_000]


async def test_a_connection_that_dies_wakes_everybody_at_once(autojump_clock):
    async with MemNet() as net, pair(net) as (a, b), trio.open_nursery() as nursery:
        stream = await a.open_stream()
        await stream.write(b"x")
        await b.accept_stream()
        ended = []

        async def expect(error, call, *args) -> None:
            with pytest.raises(error):
                await call(*args)
            ended.append(trio.current_time())

        nursery.start_soon(expect, MuxedStreamReset, stream.read)
        nursery.start_soon(expect, MuxedStreamReset, stream.write, bytes(10_000_000))
        nursery.start_soon(expect, MuxedConnUnavailable, a.accept_stream)
        await trio.sleep(1)
        killed = trio.current_time()
        net.kill(B)
        await trio.sleep(1)
        assert len(ended) == 3
        assert all(at - killed < 0.1 for at in ended)
        with pytest.raises(MuxedConnUnavailable):
            await a.open_stream()


async def test_a_silent_link_is_noticed_and_the_round_trip_is_measured(autojump_clock):
    async with MemNet(latency=0.03) as net, pair(net) as (a, _):
        await trio.sleep(1)
        assert a.round_trip == pytest.approx(0.06, abs=0.001)
        net.give_up = 10_000
        net.partition({A}, {B})
        silent_since = trio.current_time()
        await a.event_closed.wait()
        assert trio.current_time() - silent_since <= 2 * PULSE + 1


async def test_a_stream_that_we_closed_and_the_peer_never_does_is_reset(autojump_clock):
    async with MemNet() as net, pair(net) as (a, b):
        stream = await a.open_stream()
        await stream.write(b"x")
        other = await b.accept_stream()
        await stream.close()
        await trio.sleep(LINGER / 2)
        assert a.streams
        await other.write(bytes(100_000))  # dropped, and credited
        await trio.sleep(LINGER + 3 * PULSE)
        assert not a.streams
        with pytest.raises(MuxedStreamReset):
            await other.write(b"y")


@pytest.mark.parametrize("first", [0, 1])
async def test_half_closing_and_resetting_from_each_side(first, autojump_clock):
    async with MemNet() as net, pair(net) as muxers:
        here, there = muxers[first], muxers[1 - first]
        stream = await here.open_stream()
        await stream.write(b"question")
        await stream.close_write()
        other = await there.accept_stream()
        assert await read_all(other) == b"question"
        await other.write(b"answer")
        await other.close_write()
        assert await read_all(stream) == b"answer"
        stream = await here.open_stream()
        await stream.write(b"x")
        other = await there.accept_stream()
        await other.reset()
        with pytest.raises(MuxedStreamReset):
            await stream.read()


async def test_opening_waits_while_the_peer_has_many_unanswered(autojump_clock):
    async with MemNet() as net, pair(net) as (a, b):
        for _ in range(BACKLOG):
            stream = await a.open_stream()
            await stream.write(b"x")
        with trio.move_on_after(10) as waited:
            await a.open_stream()
        assert waited.cancelled_caught
        others = [await b.accept_stream() for _ in range(BACKLOG)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.open_stream)
            await others[7].write(b"y")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.open_stream)
            await trio.sleep(1)
            await stream.reset()


async def test_a_peer_that_goes_away_for_a_reason_is_left_and_one_without_when_its_streams_have_ended(autojump_clock):
    async with MemNet() as net, pair(net) as (a, b):
        stream = await a.open_stream()
        await stream.write(b"question")
        other = await b.accept_stream()
        b.session.go_away(0)
        b.flush_soon()
        await trio.sleep(1)
        assert a.leaving
        with pytest.raises(MuxedConnUnavailable):
            await a.open_stream()
        await other.write(b"answer")
        await other.close()
        assert await read_all(stream) == b"answer"
        assert not a.is_closed
        await stream.close()
        await a.event_closed.wait()
    async with MemNet() as net, pair(net) as (a, b):
        await a.open_stream()
        b.session.go_away(2)
        b.flush_soon()
        await a.event_closed.wait()


async def test_a_peer_that_takes_nothing_is_left_after_a_while(autojump_clock):
    async with MemNet(window=65536) as net, pair(net) as (a, _), trio.open_nursery() as nursery:
        net.give_up = 10_000
        stream = await a.open_stream()

        async def write() -> None:
            with pytest.raises(MuxedStreamReset):
                await stream.write(bytes(10_000_000))

        nursery.start_soon(write)
        net.partition({A}, {B})
        started = trio.current_time()
        await a.event_closed.wait()
        assert trio.current_time() - started <= max(WRITE_TIMEOUT, 2 * PULSE) + 1
