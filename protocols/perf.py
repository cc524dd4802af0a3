"""`/perf/1.0.0`: how fast bytes go each way (https://github.com/libp2p/specs/blob/master/perf/perf.md).

    client: [8 bytes, big-endian: how many it wants] [its upload] end -->
                                                    <-- [as many bytes as were wanted] end :server

The whole protocol is this file. The server reads to the end before it sends, so the two parts never run at once. What
the bytes are doesn't matter; they are counted, and none is kept.

Anybody who may open such a stream makes the server work, so no node answers it unless it is told to. The
specification allows any 64-bit count, this server `MAX_BYTES` each way; beyond it resets the stream. How much to
move, over how many streams, and what to make of the seconds is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from protocols.base import EndOfStream, Network, Protocol, ProtocolError, Stream

MAX_BYTES = 16 << 30
COUNT_BYTES = 8
CHUNK = 256 * 1024

_BLOCK = bytes(CHUNK)

PERF = Protocol("/perf/1.0.0", max_frame=None, timeout=30.0, streams_per_peer=8)


@dataclass(frozen=True)
class Result:
    """What was moved, in bytes, and how long each part took.

    The upload lasts until the server has read it all, as its first byte or its end tells; the download from then on.
    """

    upload: int
    download: int
    upload_seconds: float
    download_seconds: float


@PERF.serve
async def answer(stream: Stream) -> None:
    """Takes one upload and sends what was asked for."""
    await serve_one(stream)


async def serve_one(stream: Stream) -> tuple[int, int]:
    """As `answer`; the bytes of upload and download. Raises StreamError, and ProtocolError over `MAX_BYTES`."""
    try:
        asked = int.from_bytes(await stream.receive_exactly(COUNT_BYTES), "big")
    except EndOfStream:
        raise ProtocolError(f"expected {COUNT_BYTES} bytes with a count from {stream.peer}, got the end") from None
    if asked > MAX_BYTES:
        raise ProtocolError(f"expected {stream.peer} to ask for at most {MAX_BYTES} bytes, got {asked}")
    received = 0
    while data := await _receive(stream):
        received += len(data)
        if received > MAX_BYTES:
            raise ProtocolError(f"expected at most {MAX_BYTES} bytes from {stream.peer}, got more")
    await _send(stream, asked)
    await stream.send_eof()
    return received, asked


async def measure(network: Network, peer: str, *, upload: int, download: int) -> Result:
    """Sends `upload` bytes and then receives `download` bytes on one stream; opening it isn't measured.

    Raises ValueError for a count that isn't 0 to `MAX_BYTES`, StreamError when the peer can't be had, refuses or is
    silent, ProtocolError when it sends more or fewer bytes than it was asked for.
    """
    _check(upload=upload, download=download)
    async with network.stream(peer, PERF) as stream:
        return await measure_on(stream, upload=upload, download=download)


async def measure_on(stream: Stream, *, upload: int, download: int) -> Result:
    """As `measure`, on a stream of `PERF` that is open and hasn't been used; closing it is left to the caller."""
    _check(upload=upload, download=download)
    started = trio.current_time()
    await stream.send(download.to_bytes(COUNT_BYTES, "big"))
    await _send(stream, upload)
    await stream.send_eof()
    data = await _receive(stream)
    turned = trio.current_time()
    received = len(data)
    while data and received <= download:
        data = await _receive(stream)
        received += len(data)
    ended = trio.current_time()
    if received != download:
        got = "more" if received > download else f"{received} and the end"
        raise ProtocolError(f"expected the {download} bytes asked for from {stream.peer}, got {got}")
    return Result(upload, download, turned - started, ended - turned)


def _check(**counts: int) -> None:
    for name, count in counts.items():
        if not 0 <= count <= MAX_BYTES:
            raise ValueError(f"{name}: expected 0 to {MAX_BYTES} bytes, got {count}")


async def _receive(stream: Stream) -> bytes:
    """The next bytes, b"" at the peer's end."""
    try:
        return await stream.receive_some(CHUNK)
    except EndOfStream:
        return b""


async def _send(stream: Stream, count: int) -> None:
    """Sends as many bytes, always the same block."""
    for _ in range(count // CHUNK):
        await stream.send(_BLOCK)
    if rest := count % CHUNK:
        await stream.send(_BLOCK[:rest])
