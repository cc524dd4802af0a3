"""The perf suite's program: uploads, downloads and round trips (docs/write-a-perf-test-app.md there).

    listener: listens, publishes its address, answers /perf/1.0.0 until it is ended
    dialer:   waits for the address, connects, measures, prints three sections (`stats`)

    UPLOAD_BYTES, DOWNLOAD_BYTES              1 GiB unless given
    UPLOAD_ITERATIONS, DOWNLOAD_ITERATIONS    10
    LATENCY_ITERATIONS                        100: a byte each way
    DURATION                                  not looked at, as in the suite's other programs

A sample is the time from the request's first byte to the end of the answer, on a stream of its own, open by then.
The suite leaves the request to each application, and there are two on the wire under the same name:

    the specification, Python, Nim    [8 bytes: download] [upload] end  ->  [download] end
    the suite's Rust program          [8 bytes: upload] [8 bytes: download] [upload] end  ->  [download] end

The listener tells them apart at the end of the request: only in the second does the first number fit what came. The
dialer asks once, with a request of 16 bytes that both can answer. The suite's Go and JavaScript programs measure
nothing at all and don't answer the protocol: against one, round trips are those of ping, and nothing is printed of
transfers but that there were 0 iterations.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from interop.contract.failing import Failure
from interop.contract.hosts import node_for, own_address
from interop.contract.redis import Redis
from interop.contract.stats import Summary
from interop.contract.variables import Variables, count
from node.node import Node
from protocols import EndOfStream, NotSupported, Protocol, ProtocolError, Stream
from protocols.perf import CHUNK, COUNT_BYTES, MAX_BYTES, PERF
from protocols.ping import ping

GIBIBYTE = 1 << 30
_BLOCK = bytes(CHUNK)
# a whole upload may lie between two bytes of ours; what is slower than the suite's own limit fails there
SILENCE = 300.0

SERVED = Protocol(PERF.id, max_frame=None, timeout=SILENCE, streams_per_peer=PERF.streams_per_peer)


@dataclass(frozen=True)
class Amounts:
    """What is measured: bytes and how often."""

    upload: int
    download: int
    uploads: int
    downloads: int
    round_trips: int

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Amounts:
        """Raises UnsupportedError."""

        def get(name: str, default: int) -> int:
            return count(name, environ.get(name, ""), default)

        return cls(
            upload=get("UPLOAD_BYTES", GIBIBYTE),
            download=get("DOWNLOAD_BYTES", GIBIBYTE),
            uploads=get("UPLOAD_ITERATIONS", 10),
            downloads=get("DOWNLOAD_ITERATIONS", 10),
            round_trips=get("LATENCY_ITERATIONS", 100),
        )


async def run(variables: Variables, amounts: Amounts) -> None:
    """One role to its end. The listener has none; how long the dialer may take is the harness's. Raises Failure,
    StreamError, ProtocolError, VouchError.
    """
    async with (
        Redis.connect(variables.redis_host, variables.redis_port, within=variables.timeout) as redis,
        node_for(variables, SERVED) as node,
    ):
        if not variables.is_dialer:
            addr = own_address(node.addrs, redis)
            await redis.set(variables.redis_key, addr)
            print(f"listening on {addr}", file=sys.stderr)
            await trio.sleep_forever()
        with trio.move_on_after(variables.timeout) as scope:
            addr = await redis.wait_for(variables.redis_key)
        if scope.cancelled_caught:
            raise Failure(f"expected a listener's address within {variables.timeout:g} s, got none")
        print(f"dialing {addr}", file=sys.stderr)
        connection = await node.connect(addr)
        print(await _measure(node, connection.peer, amounts), flush=True)


async def _measure(node: Node, peer: str, amounts: Amounts) -> str:
    """What is printed."""
    try:
        two_counts = await wants_two_counts(node, peer)
    except NotSupported:
        print(f"{peer} doesn't answer {PERF.id}: round trips are those of ping, no transfers", file=sys.stderr)
        ups, downs = Summary.of(()), Summary.of(())
        trips = Summary.of([rtt * 1000 for rtt in await ping(node, peer, amounts.round_trips)])
    else:

        async def times(upload: int, download: int, iterations: int) -> list[float]:
            taken = []
            for number in range(iterations):
                async with node.stream(peer, SERVED) as stream:
                    taken.append(await ask(stream, upload, download, two_counts=two_counts))
                print(f"{number + 1}: {upload} up, {download} down: {taken[-1]:.6f} s", file=sys.stderr)
            return taken

        ups = Summary.of([_gbps(amounts.upload, s) for s in await times(amounts.upload, 0, amounts.uploads)])
        downs = Summary.of([_gbps(amounts.download, s) for s in await times(0, amounts.download, amounts.downloads)])
        trips = Summary.of([seconds * 1000 for seconds in await times(1, 1, amounts.round_trips)])
    sections = ups.text("upload", "Gbps", 2), downs.text("download", "Gbps", 2), trips.text("latency", "ms", 3)
    return "\n".join(["# Measurements from dialer", *sections])


def _gbps(amount: int, taken: float) -> float:
    return amount * 8 / max(taken, 1e-9) / 1e9


async def wants_two_counts(node: Node, peer: str) -> bool:
    """Whether the listener expects both counts before the upload. Raises NotSupported if it answers no perf at all."""
    async with node.stream(peer, SERVED) as stream:
        # the specification: 8 bytes come, one is wanted; the other: one comes (and isn't there), none is wanted
        await stream.send((1).to_bytes(COUNT_BYTES, "big") + bytes(COUNT_BYTES))
        await stream.send_eof()
        return not await _receive(stream)


async def ask(stream: Stream, upload: int, download: int, *, two_counts: bool = False) -> float:
    """One request on a stream that hasn't been used, in seconds. Raises StreamError, ProtocolError."""
    began = trio.current_time()
    counts = (upload, download) if two_counts else (download,)
    await stream.send(b"".join(number.to_bytes(COUNT_BYTES, "big") for number in counts))
    await _send(stream, upload)
    await stream.send_eof()
    received = 0
    while received <= download and (data := await _receive(stream)):
        received += len(data)
    if received != download:
        raise ProtocolError(f"expected {download} bytes from {stream.peer}, got {received}")
    return trio.current_time() - began


@SERVED.serve
async def answer(stream: Stream) -> None:
    """Takes a request of either kind to its end, and sends what it asks for."""
    head, received = b"", 0
    while data := await _receive(stream):
        if len(head) < 2 * COUNT_BYTES:
            head += data[: 2 * COUNT_BYTES - len(head)]
        received += len(data)
        if received > MAX_BYTES:
            raise ProtocolError(f"expected at most {MAX_BYTES} bytes from {stream.peer}, got more")
    wanted = wanted_by(head, received)
    if wanted is None or wanted > MAX_BYTES:
        raise ProtocolError(f"expected a request for at most {MAX_BYTES} bytes from {stream.peer}, got {head!r}")
    await _send(stream, wanted)
    await stream.send_eof()


def wanted_by(head: bytes, received: int) -> int | None:
    """How much a request asks for, of which `head` are the first 16 bytes at most and `received` counts all; None for
    what is no request.
    """
    if len(head) < COUNT_BYTES:
        return None
    first, second = (int.from_bytes(part, "big") for part in (head[:COUNT_BYTES], head[COUNT_BYTES:]))
    if len(head) == 2 * COUNT_BYTES and first == received - 2 * COUNT_BYTES and (first or second):
        return second
    return first


async def _receive(stream: Stream) -> bytes:
    try:
        return await stream.receive_some(CHUNK)
    except EndOfStream:
        return b""


async def _send(stream: Stream, amount: int) -> None:
    for _ in range(amount // CHUNK):
        await stream.send(_BLOCK)
    if rest := amount % CHUNK:
        await stream.send(_BLOCK[:rest])


if __name__ == "__main__":  # python -m interop.contract.perf
    from interop.contract.__main__ import main

    sys.exit(main(["perf"]))
