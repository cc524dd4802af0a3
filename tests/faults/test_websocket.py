"""Peers that don't play by WebSocket's rules, on real sockets: each ends its own connection and nothing else."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
import trio
import trio.lowlevel
from multiaddr import Multiaddr
from websockets.frames import Frame, Opcode

from interop.rawbytes import BYTES, echo_pattern
from node.websocket.session import MAX_MESSAGE
from node.websocket.stream import MAX_ANSWERS
from tests.nodes import eventually, running

LISTEN = "/ip4/127.0.0.1/tcp/0/ws"
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture
async def node():
    async with running(listen=(LISTEN,), protocols=[BYTES], upgrade_timeout=2.0) as node:
        yield node


def port(node) -> int:
    return int(node.addrs[0].split("/")[4])


async def raw(node, *, opened: bool = True) -> trio.SocketStream:
    stream = await trio.open_tcp_stream("127.0.0.1", port(node))
    if opened:
        await stream.send_all(REQUEST)
        assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 101 ")
    return stream


async def everything(stream: trio.SocketStream) -> bytes:
    """All that comes until the node ends the connection."""
    received = b""
    with trio.fail_after(10):
        try:
            while data := await stream.receive_some(65536):
                received += data
        except trio.BrokenResourceError:
            pass
    await stream.aclose()
    return received


async def still_works(node) -> None:
    async with running(protocols=[BYTES]) as other:
        await other.connect(node.addrs[0])
        await echo_pattern(other, node.peer_id, 100_000)
    await eventually(lambda: not node.swarm.running())


async def send(stream: trio.SocketStream, data: bytes) -> None:
    """Sends it, as far as the node takes it."""
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)


async def test_a_plain_request_gets_a_clear_answer(node):
    stream = await raw(node, opened=False)
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = await everything(stream)
    assert answer.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
    assert b"WebSocket" in answer.partition(b"\r\n\r\n")[2]
    await still_works(node)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 100_000,
        b"\x13/multistream/1.0.0\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\n\n",
    ],
    ids=["garbage", "a header without an end", "headers without an end", "multistream", "TLS"],
)
async def test_what_is_no_request_ends_it(node, data):
    stream = await raw(node, opened=False)
    await send(stream, data)
    await everything(stream)
    await still_works(node)


async def test_whoever_says_nothing_or_too_slowly_is_not_waited_for(node):
    silent = await raw(node, opened=False)
    slow = await raw(node, opened=False)
    with trio.fail_after(10):
        try:
            for byte in REQUEST * 100:
                await slow.send_all(bytes([byte]))
                await trio.sleep(0.05)
        except trio.BrokenResourceError:
            pass
    assert not await everything(silent)
    await everything(slow)
    await still_works(node)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x82\xff" + (MAX_MESSAGE + 1).to_bytes(8, "big"), 1009),
        (b"\x82\xff" + (1 << 62).to_bytes(8, "big"), 1009),
        (Frame(Opcode.BINARY, bytes(100)).serialize(mask=False), 1002),
        (b"\xc2\x88" + bytes(12), 1002),
        (Frame(Opcode.TEXT, b"text").serialize(mask=True), 1003),
        (Frame(Opcode.PING, b"").serialize(mask=True) * 50_000, 1008),
        (Frame(Opcode.PING, bytes(125)).serialize(mask=True) * 50_000, 1008),
        (Frame(Opcode.BINARY, b"").serialize(mask=True) * 50_000, 1008),
    ],
    ids=["too large", "huge", "unmasked", "compressed", "text", "pings", "large pings", "empty"],
)
async def test_frames_that_break_the_rules_end_it(node, data, code):
    stream = await raw(node)
    await send(stream, data)
    received = await everything(stream)
    # a reset may overtake the close frame where much was on its way
    assert code.to_bytes(2, "big") in received or len(data) > 10_000
    assert len(received) < MAX_ANSWERS
    await still_works(node)


async def test_one_byte_in_each_frame_holds_nobody_up(node):
    """Many small frames are looked at in turns: others run between. It is the thread's own time that counts,
    whatever else the machine does."""
    stream = await raw(node)
    await stream.send_all(Frame(Opcode.BINARY, b"\x13").serialize(mask=True))
    longest, last = 0.0, time.thread_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, stream, Frame(Opcode.BINARY, b"a").serialize(mask=True) * 200_000)
        with trio.move_on_after(1.0):
            while True:
                await trio.lowlevel.checkpoint()
                longest, last = max(longest, time.thread_time() - last), time.thread_time()
        nursery.cancel_scope.cancel()
    await stream.aclose()
    assert longest < 0.25, longest
    await still_works(node)


async def test_a_shared_port_waits_for_nobody_long(node):
    """Whoever says nothing is taken for TCP, where it is offered, and ends by the deadline of that."""
    await node.host.listen(Multiaddr(f"/ip4/127.0.0.1/tcp/{port(node)}"))
    stream = await raw(node, opened=False)
    with trio.fail_after(5):
        assert not await everything(stream)
    await still_works(node)


async def test_no_slot_stays_taken(node):
    streams = [await raw(node, opened=number % 2 == 0) for number in range(8)]
    for stream in streams:
        await stream.aclose()
    await eventually(lambda: not node.swarm.limits.half_open)
    await still_works(node)
