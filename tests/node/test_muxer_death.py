"""Connections that die in the middle of a frame or of a Noise message, on real sockets: who waits, and what is left."""

from __future__ import annotations

import gc
import socket
import struct
import weakref

import pytest
import trio
import trio.testing
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamReset

from node.identity import Identity
from node.tcp_stream import BufferedTcpStream
from node.upgrade.muxer import Muxer
from node.upgrade.secure import NoiseTransport, SecureConn
from node.upgrade.yamux_state import ACK, BACKLOG, DATA, HEADER, SYN, WINDOW_UPDATE

# what the peer says last: the payload in it that is whole, the message, and how many of its sealed bytes go out
LAST = {
    "in a Noise length": (b"", b"never seen", 1),
    "in a Noise message": (b"", b"never seen", 15),
    "before the last byte of a Noise message": (b"", b"never seen", 2 + 16 + len(b"never seen") - 1),
    "in a frame's header": (b"", HEADER.pack(0, DATA, ACK, 0, 1000)[:5], None),
    "in a frame's payload": (b"x" * 400, None, None),
    "between frames": (b"", b"", None),
}


async def connected(victim_first: bool) -> tuple[SecureConn, SecureConn, trio.SocketStream]:
    """The victim's end of a secured TCP connection, the peer's, and the peer's socket."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    dialled = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
    answered = await listener.accept()
    await listener.aclose()
    near, far = (dialled, answered) if victim_first else (answered, dialled)
    victim, peer = (NoiseTransport(Identity.generate().key_pair()) for _ in range(2))
    ends: dict[NoiseTransport, SecureConn] = {}

    async def secure(transport: NoiseTransport, stream: trio.SocketStream, first: bool, other: NoiseTransport) -> None:
        raw = RawConnection(BufferedTcpStream(stream), first)
        if first:
            ends[transport] = await transport.secure_outbound(raw, other.peer_id)  # type: ignore[assignment]
        else:
            ends[transport] = await transport.secure_inbound(raw)  # type: ignore[assignment]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure, victim, near, victim_first, peer)
        nursery.start_soon(secure, peer, far, not victim_first, victim)
    return ends[victim], ends[peer], far


def seal(peer: SecureConn, message: bytes) -> bytes:
    buffer = memoryview(bytearray(len(message) + 18))
    return bytes(buffer[: peer.session.seal([message], buffer)])


@pytest.mark.parametrize("victim_first", [True, False], ids=["initiator", "responder"])
@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("where", LAST)
async def test_whoever_waits_on_a_connection_that_dies_is_told_and_nothing_is_left(where, how, victim_first):
    payload, message, cut = LAST[where]
    before = trio.lowlevel.current_statistics().tasks_living
    near, peer, far = await connected(victim_first)
    muxer = Muxer(near, peer.get_local_peer())
    muxer.admitted()
    told: dict[str, type[BaseException]] = {}

    async def wait(name: str, call, *args) -> None:
        try:
            await call(*args)
        except Exception as error:  # which one is what the test looks at
            told[name] = type(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxer.start)
        await muxer.event_started.wait()
        ours = [await muxer.open_stream() for _ in range(BACKLOG)]
        stream = ours[0]
        number = 2 if victim_first else 1
        await far.send_all(seal(peer, HEADER.pack(0, WINDOW_UPDATE, SYN, number, 0)))
        theirs = await muxer.accept_stream()
        nursery.start_soon(wait, "reader", ours[1].read)
        nursery.start_soon(wait, "reader with a timeout", ours[2].read, 10, 60.0)
        nursery.start_soon(wait, "writer", stream.write, bytes(3_000_000))
        nursery.start_soon(wait, "reader of what it writes", stream.read)
        nursery.start_soon(wait, "accepting", muxer.accept_stream)
        nursery.start_soon(wait, "opener", muxer.open_stream)
        await trio.testing.wait_all_tasks_blocked(0.002)
        assert not told
        if message is None:
            message = HEADER.pack(0, DATA, 0, theirs.stream_id, 1000) + payload
        await far.send_all(seal(peer, message)[:cut])
        await trio.testing.wait_all_tasks_blocked(0.002)
        assert theirs.state.size == len(payload)
        if how == "reset":
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with trio.fail_after(3):
            await far.aclose()
            await muxer.event_closed.wait()
            while len(told) < 6:
                await trio.lowlevel.checkpoint()
        if payload:
            assert await theirs.read() == payload, "what has come is read first"
        for call, args in ((theirs.read, ()), (theirs.write, (b"x",)), (stream.write, (bytes(3_000_000),))):
            with pytest.raises(MuxedStreamReset):
                await call(*args)
        for refused in (muxer.open_stream, muxer.accept_stream):
            with pytest.raises(MuxedConnUnavailable):
                await refused()
        for each in (*ours, theirs):
            await each.close()
        await muxer.close()
    assert told == {
        "reader": MuxedStreamReset,
        "reader with a timeout": MuxedStreamReset,
        "writer": MuxedStreamReset,
        "reader of what it writes": MuxedStreamReset,
        "accepting": MuxedConnUnavailable,
        "opener": MuxedConnUnavailable,
    }
    assert muxer.lost
    assert not muxer.fault
    assert not muxer._streams
    assert not muxer._accepted
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert near._raw.stream.stream.socket.fileno() == -1
    assert near._transport.reader is None
    gone = weakref.ref(muxer)
    del muxer, stream, ours, theirs, each, call, args, refused
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("victim_first", [True, False], ids=["initiator", "responder"])
async def test_a_connection_that_dies_in_the_middle_of_what_we_send_is_told_to_the_writer(victim_first):
    """The peer's window is open, its socket is full, and half of our message is in it."""
    near, peer, far = await connected(victim_first)
    muxer = Muxer(near, peer.get_local_peer())
    muxer.admitted()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxer.start)
        await muxer.event_started.wait()
        stream = await muxer.open_stream()
        await stream.write(b"x")
        grant = HEADER.pack(0, WINDOW_UPDATE, ACK, stream.stream_id, 1 << 30)
        await far.send_all(seal(peer, grant))

        async def write() -> None:
            with pytest.raises(MuxedStreamReset):
                await stream.write(bytes(50_000_000))

        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked(0.005)
        assert muxer._full
        assert near._unsent
        with trio.fail_after(3):
            await far.aclose()
            await muxer.event_closed.wait()
    assert not muxer._streams
    assert near._raw.stream.stream.socket.fileno() == -1


@pytest.mark.parametrize("victim_first", [True, False], ids=["initiator", "responder"])
async def test_a_peer_that_only_ends_its_own_side_of_the_socket_is_gone(victim_first):
    near, peer, far = await connected(victim_first)
    muxer = Muxer(near, peer.get_local_peer())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxer.start)
        await muxer.event_started.wait()
        stream = await muxer.open_stream()
        await far.send_all(seal(peer, bytes(12))[:10])
        with trio.fail_after(3):
            await far.send_eof()
            with pytest.raises(MuxedStreamReset):
                await stream.read()
            await muxer.event_closed.wait()
    await far.aclose()
