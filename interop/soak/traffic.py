"""What goes over the streams of a soak: the protocols that every node serves, and the actions that use them.

    /soak/echo/1.0.0     bytes come back as they are read
    /soak/frames/1.0.0   frames come back
    /soak/source/1.0.0   Order -> as many bytes of its payload, then the end
    /soak/sink/1.0.0     Order, its payload, the end -> how many bytes there were, in 8 bytes
    /soak/reset/1.0.0    one byte -> the stream is reset

An `Order` is 16 bytes: the payload's seed, its size, and milliseconds to wait before each read, for a slow reader. Both
ends make the payload from the seed, so that every byte is checked at the end that reads it; of a stream that is cut off
what has come must be a beginning of it. A stream that ends early without a reset is a fault like a wrong byte.

An action raises Fault if its peer, or the stream, did other than it should, and lets errors of streams through: whether
they were to be expected is the caller's to know. Its choices come from the random numbers that it is given.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from random import Random
from typing import NamedTuple

import trio

from protocols import (
    EndOfStream,
    Network,
    NotSupported,
    Protocol,
    ProtocolError,
    Stream,
    StreamError,
    StreamReset,
    StreamTimeout,
)

MAX_PAYLOAD = 1 << 20
# what is sent before anything is read must fit into the windows of one way there and one way back
MAX_UNREAD = 128 * 1024
MAX_CHUNK = 128 * 1024
MAX_FRAME = 16 * 1024
MAX_REQUESTS = 30
# seconds for one read or write; the peer's process is this one, which may be busy
TIMEOUT = 60.0
STREAMS_PER_PEER = 32
COUNT = struct.Struct(">Q")
ORDER = struct.Struct(">QIHxx")


class Fault(Exception):
    """Something happened that must not happen."""


class Order(NamedTuple):
    """What is to be moved: see the module."""

    seed: int
    size: int
    pause_ms: int = 0

    def encode(self) -> bytes:
        return ORDER.pack(*self)

    def payload(self) -> bytes:
        return Random(self.seed).randbytes(self.size)


class Moved:
    """Payload bytes that were checked, in all."""

    def __init__(self) -> None:
        self.bytes = 0

    def check(self, got: bytes, wanted: bytes, what: str, *, whole: bool = True) -> None:
        """Raises Fault unless `got` is what was wanted, or its beginning."""
        if len(got) > len(wanted) or (whole and len(got) != len(wanted)):
            raise Fault(f"{what}: expected {len(wanted)} bytes, got {len(got)}")
        if got != wanted[: len(got)]:
            at = next(i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b)
            raise Fault(f"{what}: byte {at} of {len(wanted)} is {got[at]}, expected {wanted[at]}")
        self.bytes += len(got)


def _protocol(name: str, max_frame: int | None = None) -> Protocol:
    return Protocol(f"/soak/{name}/1.0.0", max_frame=max_frame, timeout=TIMEOUT, streams_per_peer=STREAMS_PER_PEER)


ECHO, FRAMES, SOURCE, SINK, RESET = (
    _protocol("echo"),
    _protocol("frames", MAX_FRAME),
    _protocol("source"),
    _protocol("sink"),
    _protocol("reset"),
)


def served(moved: Moved, fault: Callable[[str], None]) -> list[Protocol]:
    """The protocols with their handlers, which count into `moved` and tell `fault` what they find."""

    async def echo(stream: Stream) -> None:
        async for data in stream:
            await stream.send(data)

    async def source(stream: Stream) -> None:
        payload = (await _order(stream)).payload()
        for at in range(0, len(payload), MAX_CHUNK):
            await stream.send(payload[at : at + MAX_CHUNK])

    async def sink(stream: Stream) -> None:
        order = await _order(stream)
        payload, got, whole = order.payload(), bytearray(), False
        try:
            while True:
                await trio.sleep(order.pause_ms / 1000)
                got += await stream.receive()
        except EndOfStream:
            whole = True
        finally:  # cut off or not, what came must be right
            try:
                moved.check(bytes(got), payload, f"an upload from {stream.peer}", whole=whole)
            except Fault as error:
                fault(str(error))
        await stream.send(COUNT.pack(len(got)))

    async def reset(stream: Stream) -> None:
        await stream.receive_exactly(1)
        await stream.reset()

    handlers = ((ECHO, echo), (FRAMES, echo), (SOURCE, source), (SINK, sink), (RESET, reset))
    protocols = [_protocol(protocol.id.split("/")[2], protocol.max_frame) for protocol, _ in handlers]
    for protocol, (_, handler) in zip(protocols, handlers, strict=True):
        protocol.serve(handler)
    return protocols


async def _order(stream: Stream) -> Order:
    try:
        return Order._make(ORDER.unpack(await stream.receive_exactly(ORDER.size)))
    except EndOfStream:
        raise ProtocolError(f"expected an order from {stream.peer}, got the end") from None


# actions


def _size(rng: Random, most: int = MAX_PAYLOAD) -> int:
    """Small sizes as often as large ones, by their powers of two."""
    return int(2 ** rng.uniform(0, most.bit_length() - 1)) if rng.random() > 0.02 else 0


async def _send(stream: Stream, rng: Random, payload: bytes) -> None:
    at = 0
    while at < len(payload):
        step = max(_size(rng, MAX_CHUNK), 256)
        await stream.send(payload[at : at + step])
        at += step


async def _rest(stream: Stream, rng: Random | None = None) -> bytes:
    """All that comes until the end, read in pieces of random size."""
    got = bytearray()
    while True:
        try:
            got += await stream.receive_some(rng.randint(1, MAX_CHUNK) if rng else MAX_CHUNK)
        except EndOfStream:
            return bytes(got)


async def both_ways(network: Network, peer: str, rng: Random, moved: Moved) -> None:
    """Sends and reads what comes back at the same time; half-closes when all is sent."""
    payload = rng.randbytes(_size(rng))
    async with network.stream(peer, ECHO) as stream:
        got = b""

        async def read() -> None:
            nonlocal got
            got = await _rest(stream)

        await _at_once(read, lambda: _send_all(stream, rng, payload))
        moved.check(got, payload, "an echo")


async def half_close(network: Network, peer: str, rng: Random, moved: Moved) -> None:
    """Sends all and half-closes before it reads."""
    payload = rng.randbytes(_size(rng, MAX_UNREAD))
    async with network.stream(peer, ECHO) as stream:
        await _send_all(stream, rng, payload)
        moved.check(await _rest(stream, rng), payload, "an echo after a half-close")


async def upload(network: Network, peer: str, rng: Random, moved: Moved) -> None:
    """Sends, half-closes, and is told how much it was."""
    await _upload(network, peer, rng, Order(rng.getrandbits(64), _size(rng)))


async def upload_to_slow_reader(network: Network, peer: str, rng: Random, moved: Moved) -> None:
    """The same to a peer that waits between reads: its window stops us."""
    await _upload(network, peer, rng, Order(rng.getrandbits(64), rng.randint(MAX_PAYLOAD // 4, MAX_PAYLOAD), 5))


async def _upload(network: Network, peer: str, rng: Random, order: Order) -> None:
    async with network.stream(peer, SINK) as stream:
        await stream.send(order.encode())
        await _send_all(stream, rng, order.payload())
        await _expect_count(stream, order.size)


async def download(network: Network, peer: str, rng: Random, moved: Moved) -> None:
    """Asks for a payload and reads it to its end."""
    await _download(network, peer, Order(rng.getrandbits(64), _size(rng)), moved, rng, 0)


async def read_slowly(network: Network, peer: str, rng: Random, moved: Moved) -> None:
    """The same, waiting between reads: our window stops the peer."""
    order = Order(rng.getrandbits(64), rng.randint(MAX_PAYLOAD // 4, MAX_PAYLOAD))
    await _download(network, peer, order, moved, rng, rng.uniform(0, 0.01))


async def _download(network: Network, peer: str, order: Order, moved: Moved, rng: Random, pause: float) -> None:
    got = bytearray()
    async with network.stream(peer, SOURCE) as stream:
        await stream.send(order.encode())
        while True:
            if pause:
                await trio.sleep(pause)
            try:
                got += await stream.receive_some(rng.randint(1, MAX_CHUNK))
            except EndOfStream:
                break
        moved.check(bytes(got), order.payload(), "a download")


async def requests(network: Network, peer: str, rng: Random, moved: Moved) -> None:
    """Small requests on one stream, one after the other."""
    async with network.stream(peer, FRAMES) as stream:
        for _ in range(rng.randint(1, MAX_REQUESTS)):
            frame = rng.randbytes(_size(rng, 4096))
            await stream.send(frame)
            moved.check(await stream.receive(), frame, "an answer")


async def open_and_close(network: Network, peer: str, rng: Random, moved: Moved) -> None:
    """Streams that say nothing."""
    for _ in range(rng.randint(1, 8)):
        async with network.stream(peer, rng.choice((ECHO, FRAMES))):
            pass


async def reset_by_us(network: Network, peer: str, rng: Random, moved: Moved) -> None:
    """Gives an upload or a download up on the way."""
    order = Order(rng.getrandbits(64), rng.randint(MAX_PAYLOAD // 4, MAX_PAYLOAD))
    some = rng.randrange(order.size)
    if rng.random() < 0.5:
        async with network.stream(peer, SINK) as stream:
            await stream.send(order.encode())
            await _send(stream, rng, order.payload()[:some])
            await stream.reset()
    else:
        async with network.stream(peer, SOURCE) as stream:
            await stream.send(order.encode())
            got = await stream.receive_exactly(max(some, 1))
            moved.check(got, order.payload(), "a download", whole=False)
            await stream.reset()


async def reset_by_peer(network: Network, peer: str, rng: Random, moved: Moved) -> None:
    """The peer resets the stream, which must not look like its end."""
    async with network.stream(peer, RESET) as stream:
        await stream.send(b"x")
        try:
            data = await stream.receive_some(1)
        except StreamReset:
            await stream.reset()
            return
        except EndOfStream:
            raise Fault("expected the stream to be reset, got its end") from None
        raise Fault(f"expected the stream to be reset, got {len(data)} bytes")


async def cancelled_reads(network: Network, peer: str, rng: Random, moved: Moved) -> None:
    """Reads that are cancelled all the time lose nothing."""
    payload = rng.randbytes(_size(rng, MAX_UNREAD))
    async with network.stream(peer, ECHO) as stream:
        got = bytearray()

        async def read() -> None:
            while True:
                with trio.move_on_after(rng.expovariate(1000)):
                    try:
                        got.extend(await stream.receive_some(rng.randint(1, MAX_CHUNK)))
                    except EndOfStream:
                        return

        await _at_once(read, lambda: _send_all(stream, rng, payload))
        moved.check(bytes(got), payload, "an echo with cancelled reads")


async def cancelled_write(network: Network, peer: str, rng: Random, moved: Moved) -> None:
    """A write that is cancelled half way breaks its own stream, which says so; the peer has a right beginning."""
    order = Order(rng.getrandbits(64), MAX_PAYLOAD, 5)
    async with network.stream(peer, SINK) as stream:
        await stream.send(order.encode())
        payload, began = order.payload(), False
        with trio.move_on_after(rng.uniform(0, 0.05)) as scope:
            began = not scope.cancel_called
            await stream.send(payload)
        if scope.cancelled_caught:
            if not began:  # the stream is whole: nothing was cut off
                await stream.reset()
                return
            try:
                await stream.send(b"too late")
            except StreamError:
                return  # at the block's end it is reset
            raise Fault("expected a stream with a write that was cut off to take no more, it took more")
        await stream.send_eof()
        await _expect_count(stream, order.size)


async def _send_all(stream: Stream, rng: Random, payload: bytes) -> None:
    await _send(stream, rng, payload)
    await stream.send_eof()


async def _expect_count(stream: Stream, size: int) -> None:
    try:
        (count,) = COUNT.unpack(await stream.receive_exactly(COUNT.size))
    except (EndOfStream, ProtocolError) as error:
        raise Fault(f"expected to be told that {size} bytes have come, got: {error}") from None
    if count != size:
        raise Fault(f"expected to be told that {size} bytes have come, was told {count}")


async def _at_once(first: Callable[[], Awaitable[None]], second: Callable[[], Awaitable[None]]) -> None:
    """Runs both; raises what one of them raised as it is, a Fault before all else."""
    failures: list[Exception] = []

    async def run(task: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        try:
            await task()
        except (StreamError, ProtocolError, Fault) as error:
            failures.append(error)
            scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, first, nursery.cancel_scope)
        nursery.start_soon(run, second, nursery.cancel_scope)
    for failure in sorted(failures, key=lambda error: not isinstance(error, Fault)):
        raise failure


Action = Callable[[Network, str, Random, Moved], Awaitable[None]]

# how often each is chosen, against the others
ACTIONS: dict[Action, int] = {
    both_ways: 3,
    half_close: 2,
    upload: 3,
    upload_to_slow_reader: 1,
    download: 3,
    read_slowly: 1,
    requests: 6,
    open_and_close: 3,
    reset_by_us: 2,
    reset_by_peer: 2,
    cancelled_reads: 2,
    cancelled_write: 2,
}


def is_cut_off(error: Exception) -> bool:
    """Whether a stream may end like that when its connection is closed under it: not properly, and not in silence."""
    return isinstance(error, StreamError) and not isinstance(error, EndOfStream | NotSupported | StreamTimeout)
