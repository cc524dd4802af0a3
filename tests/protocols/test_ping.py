"""Ping between light nodes: the answering side through the real registry, in simulated time."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

from protocols import NotSupported, Protocol, ProtocolError, StreamError, StreamReset, StreamTimeout
from protocols.ping import PING, SIZE, ping, round_trip
from tests.memnet import MemNet, MemNode

A, B = "10.0.0.1", "10.0.0.2"
LATENCY = 0.02


@pytest.fixture
async def net(autojump_clock):
    async with MemNet(latency=LATENCY) as net:
        yield net


async def pair(net: MemNet, answering: Protocol = PING) -> tuple[MemNode, MemNode]:
    a, b = net.node(A), net.node(B, [answering])
    await a.connect(b)
    return a, b


def answered_by(handler) -> Protocol:
    return Protocol(PING.id, max_frame=None, timeout=None, streams_per_peer=2, handler=handler)


async def test_a_ping_takes_one_round_trip(net, autojump_clock):
    a, b = await pair(net)
    assert await ping(a, b.peer_id) == pytest.approx([2 * LATENCY])
    await trio.sleep(1)
    assert net.ends == 2  # the connection's; the stream is gone on both sides
    assert b.registry.streams(a.peer_id, PING.id) == 0


async def test_many_pings_share_a_stream_and_keep_their_interval(net, autojump_clock):
    a, b = await pair(net)
    started = trio.current_time()
    assert await ping(a, b.peer_id, count=5, interval=1.0) == pytest.approx([2 * LATENCY] * 5)
    # one round trip to open the stream, one for each ping, the interval between them
    assert trio.current_time() - started == pytest.approx(6 * 2 * LATENCY + 4)


async def test_loss_shows_as_a_longer_round_trip(autojump_clock):
    async with MemNet(seed=2, latency=LATENCY, loss=0.2) as net:
        a, b = await pair(net)
        times = await ping(a, b.peer_id, count=30)
        assert min(times) == pytest.approx(2 * LATENCY)
        assert max(times) >= 2 * LATENCY + 0.2


@pytest.mark.parametrize("change", [lambda data: bytes(SIZE), lambda data: data[::-1]])
async def test_other_bytes_than_were_sent_are_the_peers_fault(net, autojump_clock, change):
    async def lie(stream):
        await stream.send(change(await stream.receive_exactly(SIZE)))
        await trio.sleep_forever()

    a, b = await pair(net, answered_by(lie))
    with pytest.raises(ProtocolError, match=f"the 32 bytes sent to come back from {b.peer_id}, got others"):
        await ping(a, b.peer_id)


async def test_an_answer_that_ends_too_early_is_the_peers_fault(net, autojump_clock):
    async def stop_short(stream):
        await stream.send((await stream.receive_exactly(SIZE))[:5])

    a, b = await pair(net, answered_by(stop_short))
    with pytest.raises(ProtocolError, match="expected 32 bytes"):
        await ping(a, b.peer_id)


async def test_a_silent_peer_times_out_after_sixty_seconds(net, autojump_clock):
    async def keep_silent(stream):
        await trio.sleep_forever()

    a, b = await pair(net, answered_by(keep_silent))
    started = trio.current_time()
    with pytest.raises(StreamTimeout, match="for 60 s"):
        await ping(a, b.peer_id)
    assert trio.current_time() - started == pytest.approx(60 + 2 * LATENCY)


async def test_our_own_answer_gives_up_on_a_silent_peer_and_frees_its_slot(net, autojump_clock):
    a, b = await pair(net)
    async with a.stream(b.peer_id, PING) as stream:
        await round_trip(stream)
        await trio.sleep(59.9)
        await round_trip(stream)
        assert b.registry.streams(a.peer_id, PING.id) == 1
        await trio.sleep(61)
        assert b.registry.streams(a.peer_id, PING.id) == 0
        with pytest.raises(StreamReset):
            await round_trip(stream)


async def test_a_peer_that_is_gone_or_knows_no_ping_is_a_stream_error(net, autojump_clock):
    a, b = await pair(net, Protocol("/other/1.0.0", handler=trio.sleep_forever))
    with pytest.raises(NotSupported):
        await ping(a, b.peer_id)
    with pytest.raises(StreamError):
        await ping(a, "nobody")
    net.kill(B)
    await trio.sleep(1)
    with pytest.raises(StreamError):
        await ping(a, b.peer_id)


async def test_a_peer_may_keep_four_ping_streams(net, autojump_clock):
    a, b = await pair(net)
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(a.stream(b.peer_id, PING)) for _ in range(4)]
        with pytest.raises(StreamReset):
            await ping(a, b.peer_id)
        assert [await round_trip(stream) for stream in streams] == [pytest.approx(2 * LATENCY)] * 4


async def test_half_a_ping_and_an_end_fail_quietly(net, autojump_clock, caplog):
    a, b = await pair(net)
    async with a.stream(b.peer_id, PING) as stream:
        await stream.send(bytes(5))
    await trio.sleep(1)
    assert b.registry.streams(a.peer_id, PING.id) == 0
    assert not b.registry.failed
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
