"""Perf between light nodes: the answering side through the real registry, in simulated time."""

from __future__ import annotations

import tracemalloc

import pytest
import trio

from protocols import EndOfStream, NotSupported, Protocol, ProtocolError, StreamReset, StreamTimeout
from protocols.perf import CHUNK, COUNT_BYTES, MAX_BYTES, PERF, Result, measure, serve_one
from tests.memnet import MemNet, MemNode

A, B = "10.0.0.1", "10.0.0.2"
LATENCY = 0.02
MIB = 1 << 20


@pytest.fixture
async def net(autojump_clock):
    async with MemNet(latency=LATENCY) as net:
        yield net


async def pair(net: MemNet, answering: Protocol = PERF) -> tuple[MemNode, MemNode]:
    a, b = net.node(A), net.node(B, [answering])
    await a.connect(b)
    return a, b


def answered_by(handler) -> Protocol:
    return Protocol(PERF.id, max_frame=None, timeout=None, streams_per_peer=8, handler=handler)


def count(number: int) -> bytes:
    return number.to_bytes(COUNT_BYTES, "big")


async def read_all(stream) -> bytes:
    return b"".join([data async for data in stream])


# measuring


@pytest.mark.parametrize("upload", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK - 1])
@pytest.mark.parametrize("download", [0, 1, CHUNK, 2 * CHUNK + 1])
async def test_as_many_bytes_arrive_as_were_wanted(net, autojump_clock, upload, download):
    served = []

    async def tell(stream):
        served.append(await serve_one(stream))

    a, b = await pair(net, answered_by(tell))
    result = await measure(a, b.peer_id, upload=upload, download=download)
    assert (result.upload, result.download) == (upload, download)
    assert served == [(upload, download)]
    await trio.sleep(1)
    assert net.ends == 2  # the connection's; the stream is gone on both sides
    assert b.registry.streams(a.peer_id, PERF.id) == 0


async def test_nothing_takes_one_round_trip(net, autojump_clock):
    a, b = await pair(net)
    assert await measure(a, b.peer_id, upload=0, download=0) == Result(0, 0, pytest.approx(2 * LATENCY), 0)


async def test_each_part_has_its_own_seconds(autojump_clock):
    async with MemNet(latency=0.001, bandwidth=1e6) as net:
        a, b = await pair(net)
        result = await measure(a, b.peer_id, upload=3_000_000, download=1_000_000)
        assert result.upload_seconds == pytest.approx(3, rel=0.1)
        assert result.download_seconds == pytest.approx(1, rel=0.1)


async def test_many_at_once(net, autojump_clock):
    a, b = await pair(net)
    results = []

    async def one(number):
        results.append(await measure(a, b.peer_id, upload=number * CHUNK, download=CHUNK))

    async with trio.open_nursery() as nursery:
        for number in range(PERF.streams_per_peer):
            nursery.start_soon(one, number)
    assert {result.upload for result in results} == {number * CHUNK for number in range(8)}


@pytest.mark.parametrize("name", ["upload", "download"])
@pytest.mark.parametrize("value", [-1, MAX_BYTES + 1])
async def test_a_count_out_of_bounds_is_the_callers_fault(net, autojump_clock, name, value):
    a, b = await pair(net)
    with pytest.raises(ValueError, match=f"{name}: expected 0 to {MAX_BYTES} bytes, got {value}"):
        await measure(a, b.peer_id, **{"upload": 0, "download": 0, name: value})


@pytest.mark.parametrize(("sent", "got"), [(0, "0 and the end"), (999, "999 and the end"), (1001, "more")])
async def test_another_number_of_bytes_is_the_peers_fault(net, autojump_clock, sent, got):
    async def miscount(stream):
        await read_all(stream)
        if sent:
            await stream.send(bytes(sent))

    a, b = await pair(net, answered_by(miscount))
    with pytest.raises(ProtocolError, match=f"the 1000 bytes asked for from {b.peer_id}, got {got}"):
        await measure(a, b.peer_id, upload=10, download=1000)


async def test_a_peer_that_never_ends_is_left(net, autojump_clock):
    async def flood(stream):
        await read_all(stream)
        while True:
            await stream.send(bytes(CHUNK))

    a, b = await pair(net, answered_by(flood))
    with pytest.raises(ProtocolError, match="got more"):
        await measure(a, b.peer_id, upload=0, download=CHUNK)
    await trio.sleep(1)
    assert net.ends == 2


async def test_a_silent_peer_times_out_after_thirty_seconds(net, autojump_clock):
    async def keep_silent(stream):
        await trio.sleep_forever()

    a, b = await pair(net, answered_by(keep_silent))
    with pytest.raises(StreamTimeout, match=r"did not take anything .* for 30 s"):
        await measure(a, b.peer_id, upload=MIB, download=0)
    with pytest.raises(StreamTimeout, match=r"did not send anything .* for 30 s"):
        await measure(a, b.peer_id, upload=0, download=1)


async def test_a_peer_that_is_gone_or_knows_no_perf_is_a_stream_error(autojump_clock):
    async with MemNet(latency=LATENCY, bandwidth=1e6) as net:
        a, b = await pair(net)
        with pytest.raises(NotSupported):
            await measure(b, a.peer_id, upload=0, download=0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later, 0.5, net.kill, B)
            with pytest.raises(StreamReset):
                await measure(a, b.peer_id, upload=MIB, download=0)


async def later(seconds, function, argument):
    await trio.sleep(seconds)
    function(argument)


# answering


async def test_the_answer_comes_after_the_upload_and_ends(net, autojump_clock):
    a, b = await pair(net)
    async with a.stream(b.peer_id, PERF) as stream:
        await stream.send(count(5) + bytes(10))
        with trio.move_on_after(10) as waiting:
            await stream.receive()
        assert waiting.cancelled_caught
        await stream.send_eof()
        assert len(await read_all(stream)) == 5
        with pytest.raises(EndOfStream):
            await stream.receive()


async def test_more_than_the_bound_is_refused_before_anything_is_sent(net, autojump_clock):
    a, b = await pair(net)
    for asked in (MAX_BYTES + 1, 2**64 - 1):
        async with a.stream(b.peer_id, PERF) as stream:
            await stream.send(count(asked))
            with pytest.raises(StreamReset):
                await stream.receive()
    assert not b.registry.failed


async def test_an_upload_over_the_bound_is_refused(net, autojump_clock, monkeypatch):
    a, b = await pair(net)
    monkeypatch.setattr("protocols.perf.MAX_BYTES", 1000)
    async with a.stream(b.peer_id, PERF) as stream:
        await stream.send(count(0) + bytes(1001))
        with pytest.raises(StreamReset):
            await stream.receive()
    assert not b.registry.failed


@pytest.mark.parametrize("said", [b"", bytes(3)])
async def test_an_end_before_the_count_resets_quietly(net, autojump_clock, said, caplog):
    a, b = await pair(net)
    async with a.stream(b.peer_id, PERF) as stream:
        if said:
            await stream.send(said)
        await stream.send_eof()
        with pytest.raises(StreamReset):
            await stream.receive()
    assert not b.registry.failed
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_a_client_that_stalls_loses_its_place(net, autojump_clock):
    a, b = await pair(net)
    async with a.stream(b.peer_id, PERF) as uploading, a.stream(b.peer_id, PERF) as downloading:
        await uploading.send(count(0) + bytes(10))
        await downloading.send(count(MIB))
        await downloading.send_eof()
        await trio.sleep(29)
        assert b.registry.streams(a.peer_id, PERF.id) == 2
        await trio.sleep(2)
        assert b.registry.streams(a.peer_id, PERF.id) == 0
        with pytest.raises(StreamReset):
            await uploading.receive()


async def test_one_stream_more_than_the_bound_is_reset(net, autojump_clock):
    a, b = await pair(net)
    async with trio.open_nursery() as nursery:
        for _ in range(PERF.streams_per_peer):
            await nursery.start(hold, a, b)
        with pytest.raises(StreamReset):
            await measure(a, b.peer_id, upload=0, download=0)
        nursery.cancel_scope.cancel()


async def hold(a, b, task_status=trio.TASK_STATUS_IGNORED):
    async with a.stream(b.peer_id, PERF) as stream:
        await stream.send(count(0))
        task_status.started()
        await trio.sleep_forever()


async def test_memory_is_constant(net, autojump_clock):
    a, b = await pair(net)
    await measure(a, b.peer_id, upload=MIB, download=MIB)
    tracemalloc.start()
    try:
        await measure(a, b.peer_id, upload=64 * MIB, download=64 * MIB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB
