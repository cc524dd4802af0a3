"""Faults that the muxer once had, and what is around it: each test fails where its fault is there again."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamClosed, MuxedStreamEOF, MuxedStreamReset

from node.identity import Identity
from node.tcp_stream import BufferedTcpStream
from node.upgrade.muxer import LINGER, PULSE, Muxer
from node.upgrade.secure import NoiseTransport, SecureConn
from node.upgrade.yamux import Session
from node.upgrade.yamux_state import ACK, DATA, FIN, GO_AWAY, HEADER, MESSAGE, RST, SYN, WINDOW_UPDATE
from protocols import Protocol, Stream
from tests.memnet import MemNet
from tests.node.test_muxer_shell import A, B, pair
from tests.nodes import running
from tests.rawpeer import RawPeer

BIG = bytes(2 * 1024 * 1024)


def header(kind: int, flags: int, stream: int, length: int = 0) -> bytes:
    return HEADER.pack(0, kind, flags, stream, length)


@asynccontextmanager
async def by_hand(net: MemNet, *, initiator: bool = False) -> AsyncIterator[tuple[Muxer, SecureConn]]:
    """A muxer, and the other end of its connection, on which a test says frames by hand."""
    ours, theirs = net.pipe(A, B)
    sides = [NoiseTransport(Identity.generate().key_pair()) for _ in range(2)]
    secured: dict[bool, SecureConn] = {}

    async def dial(end, me, other) -> None:
        secured[True] = await me.secure_outbound(RawConnection(TrioTCPStream(end), True), other.peer_id)

    async def answer(end, me) -> None:
        secured[False] = await me.secure_inbound(RawConnection(TrioTCPStream(end), False))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial, ours if initiator else theirs, sides[0], sides[1])
        nursery.start_soon(answer, theirs if initiator else ours, sides[1])
    muxer = Muxer(secured[initiator], sides[initiator].peer_id)
    async with trio.open_nursery() as nursery:
        muxer.admitted()
        nursery.start_soon(muxer.start)
        await muxer.event_started.wait()
        yield muxer, secured[not initiator]
        await muxer.close()
        nursery.cancel_scope.cancel()


# a large write waits for its lock, one turn at least, and doesn't look again whether the stream is still open


async def test_a_close_beside_a_large_write_doesnt_end_the_connection(autojump_clock):
    async with MemNet(latency=0.01) as net, pair(net) as (a, b), trio.open_nursery() as nursery:

        async def write(stream) -> None:
            with suppress(MuxedStreamClosed, MuxedStreamReset):
                await stream.write(BIG)

        for _ in range(20):  # which of the two tasks runs first is chance
            if a.lost:
                break
            stream = await a.open_stream()
            nursery.start_soon(write, stream)
            nursery.start_soon(stream.close_write)
            await trio.sleep(1)
        fault = b.fault
        nursery.cancel_scope.cancel()
    assert not fault, fault  # "expected nothing behind the end of stream": data went out behind the FIN


async def test_a_reset_beside_a_large_write_leaves_nothing_and_wakes_the_writer(autojump_clock):
    async with MemNet(latency=0.01) as net, pair(net) as (a, _), trio.open_nursery() as nursery:
        waiting = 0

        async def write(stream) -> None:
            nonlocal waiting
            waiting += 1
            with suppress(MuxedStreamClosed, MuxedStreamReset):
                await stream.write(BIG)
            waiting -= 1

        for _ in range(20):
            stream = await a.open_stream()
            await stream.write(b"hello")
            nursery.start_soon(write, stream)
            nursery.start_soon(stream.reset)
            await trio.sleep(1)
        left = a.session._unsent
        await a.close()
        await trio.sleep(1)
        was = waiting
        nursery.cancel_scope.cancel()
    assert (was, left) == (0, 0)


async def test_a_writer_of_a_stream_that_lingered_is_woken(autojump_clock):
    async with MemNet(latency=0.01) as net, pair(net) as (a, b), trio.open_nursery() as nursery:
        stream = await a.open_stream()
        ended = trio.Event()

        async def write() -> None:
            with suppress(MuxedStreamClosed, MuxedStreamReset):
                for _ in range(4):
                    await stream.write(BIG[: 1024 * 1024])
            ended.set()

        nursery.start_soon(write)
        await b.accept_stream()
        await trio.sleep(1)
        await stream.close()  # another task closes what this one writes to; b doesn't read
        await trio.sleep(LINGER + 2 * PULSE)
        assert stream.state.reset
        await a.close()
        await trio.sleep(1)
        was = ended.is_set()
        nursery.cancel_scope.cancel()
    assert was  # neither the reset nor the connection's end woke it


# the peer goes away


async def test_the_last_answer_reaches_a_peer_that_goes_away(autojump_clock):
    async with MemNet(latency=0.01) as net, by_hand(net, initiator=True) as (a, conn):
        stream = await a.open_stream()
        got = 0
        await stream.write(bytes(100))
        await trio.sleep(0.1)
        # all the window that it needs, its own end, and go-away
        await conn.write(header(WINDOW_UPDATE, ACK, 1, len(BIG)) + header(DATA, FIN, 1, 0) + header(GO_AWAY, 0, 0, 0))
        await trio.sleep(0.1)
        size = 900 * 1024
        await stream.write(bytes(size))
        await stream.close()
        with trio.move_on_after(20), suppress(Exception):
            while got < size:
                data = await conn.read(65536)
                if not data:
                    break
                got += len(data)
        assert got >= size


async def test_a_peer_that_goes_away_is_left_when_the_last_stream_ends(autojump_clock):
    async with MemNet(latency=0.01) as net, by_hand(net, initiator=True) as (a, conn):
        stream = await a.open_stream()
        await stream.write(b"x")
        await stream.close()
        await trio.sleep(1)
        await conn.write(header(GO_AWAY, 0, 0, 0))
        await trio.sleep(1)
        before = trio.current_time()
        await conn.write(header(DATA, FIN | ACK, 1, 0))
        with trio.move_on_after(100):
            await a.event_closed.wait()
        assert trio.current_time() - before < 1


# what is queued and doesn't go out


async def test_a_stream_that_is_read_first_is_announced_at_once(autojump_clock):
    async with MemNet(latency=0.01) as net, pair(net) as (a, b), trio.open_nursery() as nursery:
        old = await a.open_stream()
        await old.write(b"x")
        other = await b.accept_stream()
        with trio.move_on_after(1):
            await old.read(1)  # cancelled: its event stays
        await other.write(b"y")  # "wakes" the reader that isn't there
        await trio.sleep(1)
        new = await a.open_stream()
        nursery.start_soon(new.read, 1)
        before = trio.current_time()
        while new.stream_id not in b.streams and trio.current_time() - before < 100:  # noqa: ASYNC110
            await trio.sleep(0.1)
        took = trio.current_time() - before
        nursery.cancel_scope.cancel()
    assert took < 1


# timeouts


async def test_a_slow_link_that_takes_all_the_time_isnt_silent(autojump_clock):
    """20 KB/s, 8 uploads: the ping waits behind a sealed batch, its answer comes after PULSE."""
    async with MemNet(latency=0.05, bandwidth=20_000) as net, pair(net) as (a, b), trio.open_nursery() as nursery:
        got = 0

        async def upload() -> None:
            stream = await a.open_stream()
            with suppress(MuxedStreamReset):
                await stream.write(bytes(256 * 1024))
                await stream.close()

        async def take() -> None:
            nonlocal got
            with suppress(Exception):
                stream = await b.accept_stream()
                while True:
                    count = len(await stream.read(65536))  # not in the sum: another task may add meanwhile
                    got += count

        for _ in range(8):
            nursery.start_soon(upload)
            nursery.start_soon(take)
        await trio.sleep(200)
        lost = a.lost
        nursery.cancel_scope.cancel()
    assert (got, lost) == (8 * 256 * 1024, False)


async def test_what_was_written_before_close_isnt_cut_off_while_the_peer_reads_it(autojump_clock):
    """1 MB, then close; the peer reads 10 KB a second of it."""
    async with MemNet(latency=0.01) as net, pair(net) as (a, b):
        stream = await a.open_stream()
        got = 0
        await stream.write(bytes(1000_000))
        await stream.close()
        other = await b.accept_stream()
        with suppress(MuxedStreamEOF, MuxedStreamReset):
            while True:
                got += len(await other.read(10_000))
                await trio.sleep(1)
        assert (got, a.lost) == (1000_000, False)


# what a stranger can grow


async def test_a_number_opened_twice_in_one_breath_is_one_stream(autojump_clock):
    """SYN, RST, SYN, RST, … SYN of one number in one message."""
    async with MemNet(latency=0.01) as net, by_hand(net) as (a, conn):
        again = header(WINDOW_UPDATE, SYN, 1) + header(WINDOW_UPDATE, RST, 1)
        await conn.write(again * 2000 + header(WINDOW_UPDATE, SYN, 1))
        await trio.sleep(1)
        assert len(a.streams) == 1
        assert len(a._accepted) <= a.session.limits.max_streams


async def test_a_reader_of_a_number_that_was_used_again_has_its_timeout(autojump_clock):
    async with MemNet(latency=0.01) as net, by_hand(net) as (a, conn):
        await conn.write(header(WINDOW_UPDATE, SYN, 1) + header(WINDOW_UPDATE, RST, 1) + header(WINDOW_UPDATE, SYN, 1))
        stream = await a.accept_stream()
        with trio.move_on_after(100) as scope, suppress(trio.TooSlowError, MuxedStreamReset):
            await stream.read(1, timeout=5)
        assert not scope.cancelled_caught


async def test_streams_that_were_reset_before_anybody_took_them_are_forgotten(autojump_clock):
    async with MemNet(latency=0.01) as net, by_hand(net) as (a, conn):
        for start in range(1, 20_000, 1000):
            numbers = range(start, start + 1000, 2)
            await conn.write(b"".join(header(WINDOW_UPDATE, SYN, number) for number in numbers))
            await conn.write(b"".join(header(WINDOW_UPDATE, RST, number) for number in numbers))
        await trio.sleep(1)
        assert not a.streams
        assert len(a._accepted) <= a.session.limits.max_streams


def test_what_is_unread_pins_little_more_than_its_size():
    """A chunk of 4096 bytes and 61 KB for a stream that is gone, in each message."""
    session = Session(initiator=False)
    session.receive(header(WINDOW_UPDATE, SYN, 1))
    stream = session.streams[1]
    stray = MESSAGE - 2 * HEADER.size - 4096
    message = header(DATA, 0, 1, 4096) + bytes(4096) + header(DATA, 0, 3, stray) + bytes(stray)
    for _ in range(60):
        session.receive(bytes(bytearray(message)))
    pinned = sum(len(c.obj) if isinstance(c, memoryview) else len(c) for c in stream.received)
    assert pinned < 4 * stream.size


# others run


async def test_others_run_while_a_handler_takes_empty_frames():
    """A handler that only receives; the bytes are there: 64 KiB of them are 65,536 frames. In time of the processor."""

    class Raw:
        def receive_nowait(self, n: int) -> bytes:
            return bytes(n)

    stream = Stream(Raw(), Protocol("/x"), "peer")  # type: ignore[arg-type]
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()
            await trio.lowlevel.checkpoint()
            longest = max(longest, time.thread_time() - before)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        with trio.move_on_after(2):
            async for _ in stream:
                pass
        nursery.cancel_scope.cancel()
    assert longest < 0.1


async def test_others_run_between_empty_noise_messages():
    """256 KiB of Noise messages without a payload."""
    transports = [NoiseTransport(Identity.generate().key_pair()) for _ in range(2)]
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    ends: dict[bool, SecureConn] = {}

    async def dial() -> None:
        raw = RawConnection(BufferedTcpStream(await trio.open_tcp_stream("127.0.0.1", port)), True)
        ends[True] = await transports[0].secure_outbound(raw, transports[1].peer_id)

    async def answer() -> None:
        raw = RawConnection(BufferedTcpStream(await listener.accept()), False)
        ends[False] = await transports[1].secure_inbound(raw)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        nursery.start_soon(answer)
    muxer = Muxer(ends[False], transports[0].peer_id)
    sealed = memoryview(bytearray(16000 * 18))
    ends[True].session.seal([b""] * 16000, sealed)
    longest, most = 0.0, 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends[True]._raw.write, bytes(sealed))
        got = 0
        with trio.move_on_after(5):
            while got < 16000:
                await trio.sleep(0.2)
                before = time.thread_time()
                messages = await ends[False].receive()
                for message in messages:
                    muxer.session.receive(message)
                longest = max(longest, time.thread_time() - before)
                most = max(most, len(messages))
                got += len(messages)
        nursery.cancel_scope.cancel()
    await ends[True].close()
    await ends[False].close()
    await listener.aclose()
    assert longest < 0.02, (most, longest)


# closed sockets


async def test_waiting_on_a_closed_socket_is_a_closed_resource():
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    stream = BufferedTcpStream(await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]))
    await stream.stream.aclose()
    await listener.aclose()
    for wait in (stream.wait_readable, lambda: stream.wait_writable(memoryview(b""))):
        with trio.fail_after(3), pytest.raises((trio.ClosedResourceError, OSError)):
            await wait()


# honest peers


async def test_an_honest_peer_that_fills_its_windows_isnt_accused(autojump_clock):
    """300 streams of a first window each, which nobody reads yet."""
    async with MemNet(latency=0.001) as net, pair(net) as (a, b), trio.open_nursery() as nursery:

        async def upload() -> None:
            stream = await a.open_stream()
            with suppress(MuxedStreamReset):
                await stream.write(bytes(256 * 1024))

        async def accept() -> None:
            with suppress(MuxedStreamReset, MuxedConnUnavailable):
                while True:
                    await (await b.accept_stream()).write(b"x")

        nursery.start_soon(accept)
        async with trio.open_nursery() as uploads:
            for _ in range(300):
                uploads.start_soon(upload)
            await trio.sleep(5)
            uploads.cancel_scope.cancel()
        fault = b.fault
        nursery.cancel_scope.cancel()
    assert not fault, fault


# the same before admission, on a node


async def test_a_stranger_grows_nothing_by_opening_and_resetting():
    async with running() as node, trio.open_nursery() as nursery:
        peer = await RawPeer.dial(node.addrs[0], nursery)
        most = 0
        with trio.move_on_after(3), suppress(Exception):
            for start in range(1, 200_000, 512):
                numbers = range(start, start + 512, 2)
                await peer.conn.write(b"".join(header(WINDOW_UPDATE, SYN, number) for number in numbers))
                await peer.conn.write(b"".join(header(WINDOW_UPDATE, RST, number) for number in numbers))
                for connection in node.swarm._running:
                    most = max(most, len(connection.muxed_conn._accepted))
        nursery.cancel_scope.cancel()
    assert most <= 1024
