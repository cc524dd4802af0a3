"""Streams of plain bytes, for the tests between languages: `/vouch/bytes/1.0.0` and `/vouch/reset/1.0.0`.

    bytes   client: [bytes] end -->            reset   client: [1 byte] -->
            <-- [the same bytes] end :server           <-- reset :server

The bytes server reads no more while its writes wait, so that it is the client's windows that slow the client. What goes
over a stream is a pattern: the byte at offset i of stream k is (i*31 + (i>>8)*17 + k) & 0xff, the same in every
language. The clients check every byte and the count. No node answers these unless it is told to; how many streams a
connection may have is the node's setting.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from functools import partial

import trio

from protocols import EndOfStream, Network, Protocol, ProtocolError, Stream, StreamError, StreamReset

CHUNK = 256 * 1024
PERIOD = 1 << 16  # bytes; after them the pattern starts again
SILENCE = 20.0  # seconds without a byte, after which a pattern is given up: before whoever waits for it gives up
FEW = 1000  # bytes, where how many doesn't matter

BYTES = Protocol("/vouch/bytes/1.0.0", max_frame=None, timeout=30.0, streams_per_peer=4096)
RESET = Protocol("/vouch/reset/1.0.0", max_frame=None, timeout=10.0, streams_per_peer=4)


@BYTES.serve
async def send_back(stream: Stream) -> None:
    """Sends back what comes, until the peer's end."""
    async for data in stream:
        await stream.send(data)


@RESET.serve
async def reset_it(stream: Stream) -> None:
    """Takes one byte and resets the stream."""
    await stream.receive_exactly(1)
    await stream.reset()


class Pattern:
    """The first `length` bytes of stream `k`'s pattern."""

    def __init__(self, k: int, length: int) -> None:
        self.length = length
        shift = bytes((value + k) & 0xFF for value in range(256))
        # a period and a chunk behind it: any chunk of the pattern is a slice of that
        self._made = _first_pattern()[: min(length, PERIOD + CHUNK)].translate(shift)

    def at(self, offset: int, size: int = CHUNK) -> bytes:
        """At most `size` bytes (up to `CHUNK`) from `offset` on; b"" behind the end."""
        start = offset % PERIOD
        return self._made[start : start + min(size, CHUNK, max(0, self.length - offset))]

    def check(self, offset: int, received: bytes) -> None:
        """Raises ProtocolError, saying what differs, unless `received` is what the pattern has at `offset`."""
        expected = self.at(offset, len(received))
        if received == expected:
            return
        if len(received) > len(expected):
            raise ProtocolError(f"expected {self.length} bytes, got more")
        wrong = next(i for i in range(len(received)) if received[i] != expected[i])
        raise ProtocolError(f"expected {expected[wrong]} at offset {offset + wrong}, got {received[wrong]}")


async def echo_pattern(network: Network, peer: str, length: int, streams: int = 1) -> float:
    """Sends `length` bytes on each of that many streams at once, and checks what comes back; the seconds it took.

    Opening isn't measured: the streams are opened one after the other before. Raises StreamError when the peer can't be
    had or is silent, ProtocolError when it sends anything else.
    """
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(network.stream(peer, BYTES)) for _ in range(streams)]
        started = trio.current_time()
        await at_once(partial(_echo, stream, Pattern(k, length)) for k, stream in enumerate(opened))
        return trio.current_time() - started


async def reset_mine(network: Network, peer: str) -> None:
    """Resets a stream that works; the connection is the better for it. Raises as `echo_pattern`."""
    pattern = Pattern(0, FEW)
    async with network.stream(peer, BYTES) as stream:
        await stream.send(pattern.at(0))
        pattern.check(0, await stream.receive_exactly(FEW))
        await stream.reset()
    await echo_pattern(network, peer, FEW)


async def was_reset(network: Network, peer: str) -> None:
    """Is reset by the peer; the connection is the better for it. Raises as `echo_pattern`."""
    async with network.stream(peer, RESET) as stream:
        try:
            await stream.send(b"\x01")  # the reset may come before this returns
            data = await stream.receive_some(1)
        except StreamReset:
            pass
        except EndOfStream:
            raise ProtocolError(f"expected a reset from {peer}, got the end") from None
        else:
            raise ProtocolError(f"expected a reset from {peer}, got {data!r}")
    await echo_pattern(network, peer, FEW)


async def send_pattern(stream: Stream, pattern: Pattern) -> None:
    """Sends all of it, and the end."""
    for offset in range(0, pattern.length, CHUNK):
        await stream.send(pattern.at(offset))
    await stream.send_eof()


async def receive_pattern(stream: Stream, pattern: Pattern) -> None:
    """Receives all of it, and the end. Raises ProtocolError when anything else comes, or nothing for `SILENCE`."""
    received = 0
    while True:
        with trio.move_on_after(SILENCE) as waiting:
            data = await _receive(stream)
        if waiting.cancelled_caught:
            raise ProtocolError(
                f"expected more, got {received} of {pattern.length} bytes, then nothing for {SILENCE:g} s"
            )
        if not data:
            break
        pattern.check(received, data)
        received += len(data)
    if received != pattern.length:
        raise ProtocolError(f"expected {pattern.length} bytes from {stream.peer}, got {received} and the end")


async def at_once(calls: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Makes all the calls at once. The first that fails cancels the others, and its error is raised as it is."""
    failures: list[Exception] = []

    async def run(call: Callable[[], Awaitable[None]]) -> None:
        try:
            await call()
        except (StreamError, ProtocolError) as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(run, call)
    if failures:
        raise failures[0]


async def _echo(stream: Stream, pattern: Pattern) -> None:
    await at_once([partial(send_pattern, stream, pattern), partial(receive_pattern, stream, pattern)])


async def _receive(stream: Stream) -> bytes:
    try:
        return await stream.receive_some(CHUNK)
    except EndOfStream:
        return b""


@functools.cache
def _first_pattern() -> bytes:
    """Stream 0's, a period and a chunk long."""
    period = bytes((i * 31 + (i >> 8) * 17) & 0xFF for i in range(PERIOD))
    return period * (1 + -(-CHUNK // PERIOD))
