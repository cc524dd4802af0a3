"""`Stream` over a pipe of the in-memory network: frames, bounds, time, and what cancelling does."""

from __future__ import annotations

import gc
import warnings

import pytest
import trio
import trio.testing

from protocols import EndOfStream, Protocol, ProtocolError, Stream, StreamError, StreamReset, StreamTimeout
from protocols.framing import encode_frame
from tests.memnet import WINDOW, MemNet, PipeBytes, PipeEnd

FRAMES = Protocol("/frames/1.0.0", max_frame=1000, timeout=10.0)
BIG = Protocol("/big/1.0.0", max_frame=4 * WINDOW, timeout=10.0)
BYTES = Protocol("/bytes/1.0.0", max_frame=None, timeout=10.0)


@pytest.fixture
async def net(autojump_clock):
    async with MemNet(latency=0.02) as net:
        yield net


def streams(net: MemNet, protocol: Protocol) -> tuple[Stream, Stream]:
    """Both sides of one stream."""
    a, b = net.pipe("10.0.0.1", "10.0.0.2")
    return Stream(PipeBytes(a), protocol, "b"), Stream(PipeBytes(b), protocol, "a", protocol.bucket(0))


def against_bytes(net: MemNet, protocol: Protocol) -> tuple[PipeEnd, Stream]:
    """A stream, and a peer that may send anything."""
    a, b = net.pipe("10.0.0.1", "10.0.0.2")
    return a, Stream(PipeBytes(b), protocol, "a")


# declarations


@pytest.mark.parametrize("bad", ["", "/", "x/1.0.0", "/a\n", "/" + 256 * "x"])
def test_an_id_is_a_line_that_starts_with_a_slash(bad):
    with pytest.raises(ValueError, match="a protocol ID starts with"):
        Protocol(bad)
    assert Protocol("/" + 255 * "x").id


@pytest.mark.parametrize("name", ["max_frame", "timeout", "streams_per_peer", "rate", "burst"])
@pytest.mark.parametrize("value", [0, -1])
def test_bounds_are_positive(name, value):
    with pytest.raises(ValueError, match=f"/x: {name} is a positive number, not {value}"):
        Protocol("/x", **{name: value})


def test_a_protocol_has_one_handler():
    protocol = Protocol("/x")

    @protocol.serve
    async def handler(stream):
        pass

    assert protocol.handler is handler
    with pytest.raises(ValueError, match="has a handler already"):
        protocol.serve(handler)


def test_a_rate_without_a_burst_allows_a_seconds_worth():
    assert Protocol("/x").bucket(0) is None
    assert Protocol("/x", rate=10).bucket(0).burst == 10
    assert Protocol("/x", rate=0.1).bucket(0).burst == 1
    assert Protocol("/x", rate=10, burst=3).bucket(0).burst == 3


# frames


async def test_frames_come_as_they_were_sent_and_end_with_the_stream(net, autojump_clock):
    ours, theirs = streams(net, FRAMES)
    sent = [b"", b"a", bytes(1000)]
    async with ours:
        for frame in sent:
            await ours.send(frame)
    assert [frame async for frame in theirs] == sent
    with pytest.raises(EndOfStream, match=r"a has ended /frames/1\.0\.0"):
        await theirs.receive()


async def test_both_sides_may_talk_and_one_may_end_first(net, autojump_clock):
    ours, theirs = streams(net, FRAMES)
    await ours.send(b"question")
    await ours.send_eof()
    assert [frame async for frame in theirs] == [b"question"]
    await theirs.send(b"answer")
    await theirs.close()
    assert await ours.receive() == b"answer"
    with pytest.raises(StreamError):
        await ours.send(b"more")


async def test_a_frame_over_the_bound_is_refused_on_either_side(net, autojump_clock):
    ours, theirs = streams(net, FRAMES)
    with pytest.raises(ValueError, match="at most 1000 bytes, not 1001"):
        await ours.send(bytes(1001))
    await ours.send(b"the stream is whole still")
    assert await theirs.receive() == b"the stream is whole still"
    raw, stream = against_bytes(net, FRAMES)
    await raw.send_all(encode_frame(bytes(1001), 1001))
    with pytest.raises(ProtocolError, match="at most 1000 bytes, got one of 1001"):
        await stream.receive()


async def test_an_end_inside_a_frame_is_the_peers_fault_and_not_an_end(net, autojump_clock):
    for begun in (b"\x05abc", b"\x80"):
        raw, stream = against_bytes(net, FRAMES)
        await raw.send_all(b"\x01x" + begun)
        await raw.send_eof()
        assert await stream.receive() == b"x"
        with pytest.raises(ProtocolError, match="a whole frame from a"):
            await stream.receive()


async def test_interleaved_senders_do_not_mix_their_frames(net, autojump_clock):
    ours, theirs = streams(net, BIG)
    frames = [bytes([number]) * (WINDOW + number) for number in range(4)]

    async def send_and_end():
        async with trio.open_nursery() as nursery:
            for frame in frames:
                nursery.start_soon(ours.send, frame)
        await ours.close()

    net.nursery.start_soon(send_and_end)
    assert sorted([frame async for frame in theirs]) == frames


# bytes


async def test_without_frames_bytes_are_read_in_any_portion(net, autojump_clock):
    ours, theirs = streams(net, BYTES)
    await ours.send(b"abcdefgh")
    assert await theirs.receive_some(2) == b"ab"
    assert await theirs.receive_exactly(3) == b"cde"
    assert await theirs.receive() == b"fgh"
    await ours.close()
    for call in (theirs.receive(), theirs.receive_some(1), theirs.receive_exactly(1)):
        with pytest.raises(EndOfStream):
            await call


async def test_receive_exactly_waits_for_the_rest_and_names_an_early_end(net, autojump_clock):
    ours, theirs = streams(net, BYTES)

    async def send_slowly():
        for part in (b"ab", b"cd", b"e"):
            await ours.send(part)
            await trio.sleep(1)
        await ours.close()

    net.nursery.start_soon(send_slowly)
    assert await theirs.receive_exactly(4) == b"abcd"
    with pytest.raises(ProtocolError, match="expected 4 bytes from a, got 1 and the end"):
        await theirs.receive_exactly(4)


async def test_calls_for_bytes_are_refused_where_there_are_frames(net, autojump_clock):
    _, theirs = streams(net, FRAMES)
    for call in (theirs.receive_some(1), theirs.receive_exactly(1)):
        with pytest.raises(TypeError, match=r"/frames/1\.0\.0 has frames: use receive"):
            await call


# time


async def test_a_silent_peer_times_out_after_exactly_the_protocols_time(net, autojump_clock):
    ours, theirs = streams(net, FRAMES)
    with pytest.raises(StreamTimeout, match=r"a did not send anything on /frames/1\.0\.0 for 10 s"):
        await theirs.receive()
    assert trio.current_time() == pytest.approx(10)
    await ours.send(b"late")
    assert await theirs.receive() == b"late"


async def test_every_byte_starts_the_time_anew(net, autojump_clock):
    raw, stream = against_bytes(net, FRAMES)

    async def trickle():
        for byte in b"\x05abcde":
            await raw.send_all(bytes([byte]))
            await trio.sleep(9)

    net.nursery.start_soon(trickle)
    assert await stream.receive() == b"abcde"
    assert trio.current_time() == pytest.approx(45.02)


async def test_a_peer_that_takes_nothing_times_out_and_breaks_the_stream(net, autojump_clock):
    ours, theirs = streams(net, BIG)
    with pytest.raises(StreamTimeout, match="b did not take anything"):
        await ours.send(bytes(2 * WINDOW))
    assert trio.current_time() == pytest.approx(10)
    with pytest.raises(StreamError, match="cut off"):
        await ours.send(b"x")
    await ours.close()
    with pytest.raises(StreamReset):
        await theirs.receive()


async def test_no_timeout_waits_as_long_as_it_takes(net, autojump_clock):
    ours, theirs = streams(net, Protocol("/patient", timeout=None))

    async def send_late():
        await trio.sleep(80_000)
        await ours.send(b"x")

    net.nursery.start_soon(send_late)
    assert await theirs.receive() == b"x"


async def test_a_rate_holds_the_surplus_back_and_the_sender_with_it(net, autojump_clock):
    limited = Protocol("/limited", max_frame=WINDOW, rate=2, burst=3, timeout=60)
    ours, theirs = streams(net, limited)
    times: list[float] = []

    async def send():
        for _ in range(10):
            await ours.send(bytes(WINDOW // 2))
        sent.set()

    sent = trio.Event()
    net.nursery.start_soon(send)
    await trio.sleep(30)
    assert not sent.is_set()
    started = trio.current_time()
    for _ in range(10):
        await theirs.receive()
        times.append(trio.current_time() - started)
    # what is under way takes a round trip to be followed, so no frame comes earlier than the rate allows
    for number, time in enumerate(times):
        assert time >= max(0, (number - 2) / 2) - 1e-9
    assert times[-1] == pytest.approx(3.5, abs=0.5)
    assert sent.is_set()


# ending


async def test_a_send_cut_off_by_cancelling_breaks_its_own_stream_only(net, autojump_clock):
    ours, theirs = streams(net, BIG)
    other, far = streams(net, BIG)
    with trio.move_on_after(1):
        await ours.send(bytes(2 * WINDOW))
    with pytest.raises(StreamError, match="cut off in a send"):
        await ours.send(b"x")
    with pytest.raises(StreamError, match="cut off in a send"):
        await ours.send_eof()
    await ours.close()
    with pytest.raises(StreamReset):
        await theirs.receive()
    await other.send(b"untouched")
    assert await far.receive() == b"untouched"


async def test_a_send_cancelled_before_its_turn_breaks_nothing(net, autojump_clock):
    ours, theirs = streams(net, BIG)
    first = bytes(2 * WINDOW)
    net.nursery.start_soon(ours.send, first)
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(1) as scope:
        await ours.send(b"second")
    assert scope.cancelled_caught
    assert await theirs.receive() == first
    await ours.send(b"third")
    assert await theirs.receive() == b"third"


async def test_an_end_waits_for_a_send_and_is_not_said_when_cancelled_before(net, autojump_clock):
    peer, ours = against_bytes(net, BIG)
    ended = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send, bytes(2 * WINDOW))
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.01) as scope:
            await ours.send_eof()
        assert scope.cancelled_caught

        async def end() -> None:
            await ours.send_eof()
            ended.append(trio.current_time())

        nursery.start_soon(end)
        await trio.sleep(1)
        assert not ended  # the frame first
        got = 0
        while data := await peer.receive_some(WINDOW):
            got += len(data)
    assert got == len(encode_frame(bytes(2 * WINDOW), 4 * WINDOW))
    assert ended


async def test_an_end_is_not_said_by_one_who_is_cancelled_already(net, autojump_clock):
    theirs, ours = streams(net, FRAMES)
    with trio.CancelScope() as scope:
        scope.cancel()
        await ours.send_eof()
    assert scope.cancelled_caught
    await ours.send(b"more")
    assert await theirs.receive() == b"more"


async def test_a_cancelled_receive_loses_nothing(net, autojump_clock):
    raw, stream = against_bytes(net, FRAMES)
    await raw.send_all(b"\x05abc")
    with trio.move_on_after(1) as scope:
        await stream.receive()
    assert scope.cancelled_caught
    await raw.send_all(b"de\x01f")
    assert [await stream.receive(), await stream.receive()] == [b"abcde", b"f"]


async def test_a_cancelled_receive_exactly_loses_nothing(net, autojump_clock):
    ours, theirs = streams(net, BYTES)
    for part in (b"abc", b"de"):
        await ours.send(part)
        with trio.move_on_after(1) as scope:
            await theirs.receive_exactly(6)
        assert scope.cancelled_caught
    await ours.send(b"fg")
    assert await theirs.receive_exactly(6) == b"abcdef"
    assert await theirs.receive_some(10) == b"g"


async def test_receiving_from_a_closed_stream_is_an_error(net, autojump_clock):
    ours, theirs = streams(net, FRAMES)
    for _ in range(2):
        await ours.close()
    with pytest.raises(StreamError, match="is closed"):
        await ours.receive()
    with pytest.raises(StreamError, match="is closed"):
        await ours.send(b"x")
    with pytest.raises(StreamError, match="is closed"):
        await ours.send_eof()
    with pytest.raises(EndOfStream):
        await theirs.receive()


async def test_a_reset_reaches_the_peer_and_is_idempotent(net, autojump_clock):
    ours, theirs = streams(net, FRAMES)
    for _ in range(2):
        await ours.reset()
    await ours.close()
    with pytest.raises(StreamReset):
        await theirs.receive()
    with pytest.raises(StreamReset):
        await theirs.send(b"x")


async def test_the_block_closes_at_its_end_and_resets_when_it_raises(net, autojump_clock):
    ours, theirs = streams(net, FRAMES)
    async with ours:
        pass
    with pytest.raises(EndOfStream):
        await theirs.receive()
    ours, theirs = streams(net, FRAMES)
    with pytest.raises(ZeroDivisionError):
        async with ours:
            raise ZeroDivisionError
    with pytest.raises(StreamReset):
        await theirs.receive()


async def test_closing_is_safe_to_cancel(net, autojump_clock):
    ours, theirs = streams(net, FRAMES)
    with trio.CancelScope() as scope:
        scope.cancel()
        await ours.close()
    with pytest.raises(EndOfStream):
        await theirs.receive()


async def test_a_receive_cancelled_while_it_waits_for_the_rate_loses_nothing(net, autojump_clock):
    ours, theirs = streams(net, Protocol("/limited", rate=1, burst=1, timeout=60))
    for frame in (b"1", b"2", b"3"):
        await ours.send(frame)
    assert await theirs.receive() == b"1"
    with trio.move_on_after(0.5) as scope:
        await theirs.receive()
    assert scope.cancelled_caught
    assert await theirs.receive() == b"2"


async def test_frames_before_a_bad_one_are_received_however_they_are_split(net, autojump_clock):
    raw, stream = against_bytes(net, FRAMES)
    await raw.send_all(b"\x04good" + b"\xff\xff\xff\x7f")
    assert await stream.receive() == b"good"
    with pytest.raises(ProtocolError):
        await stream.receive()


async def test_after_a_bad_frame_nothing_more_is_received(net, autojump_clock):
    raw, stream = against_bytes(net, FRAMES)
    await raw.send_all(encode_frame(bytes(1001), 1001))
    with pytest.raises(ProtocolError):
        await stream.receive()
    await raw.send_all(b"\x04evil")
    with pytest.raises((ProtocolError, StreamError)):
        await stream.receive()


async def test_leaving_an_iteration_early_leaves_nothing_behind(net, autojump_clock):
    ours, theirs = streams(net, FRAMES)
    await ours.send(b"1")
    await ours.send(b"2")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async for frame in theirs:
            assert frame == b"1"
            break
        del frame
        gc.collect()
        await trio.lowlevel.checkpoint()
    assert [str(warning.message) for warning in caught] == []
    assert await theirs.receive() == b"2"
