"""What can be asked of a node: `perf`, how fast bytes go to a peer and back."""

from __future__ import annotations

import msgspec
import trio

from node.api.reach import reach
from node.errors import UsageError, VouchError
from node.node import Node
from protocols import ProtocolError, StreamError
from protocols import perf as protocol

# a measurement occupies its caller, and the link; who wants more calls again
MAX_BYTES = 4 << 30
MAX_STREAMS = protocol.PERF.streams_per_peer
MAX_SECONDS = 50.0


class PerfWith(msgspec.Struct, forbid_unknown_fields=True):
    """`target`: the ID of a connected peer, or the multiaddr of one to connect with; bytes to send, then to receive, on
    each of `streams` streams at once.
    """

    target: str
    upload: int = 16 << 20
    download: int = 16 << 20
    streams: int = 1


class Performed(msgspec.Struct):
    """Bytes of all streams, and the seconds of the slowest; opening the streams isn't measured. 0 seconds: 0 bytes."""

    peer: str
    upload: int
    download: int
    streams: int
    upload_seconds: float
    download_seconds: float


async def perf(node: Node, params: PerfWith) -> Performed:
    """Measures. Raises UsageError, and VouchError for a peer that doesn't serve it or takes too long."""
    for name in ("upload", "download"):
        if not 0 <= getattr(params, name) * max(1, params.streams) <= MAX_BYTES:
            raise UsageError(f"{name}: expected 0 to {MAX_BYTES} bytes in all, got {getattr(params, name)}")
    if not 1 <= params.streams <= MAX_STREAMS:
        raise UsageError(f"streams: expected 1 to {MAX_STREAMS}, got {params.streams}")
    peer = str(await reach(node, params.target))
    results: list[protocol.Result] = []

    async def one() -> None:
        results.append(await protocol.measure(node, peer, upload=params.upload, download=params.download))

    with trio.move_on_after(MAX_SECONDS) as scope:
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(params.streams):
                    nursery.start_soon(one)
        except* (ProtocolError, StreamError) as group:
            raise VouchError(str(group.exceptions[0])) from group
    if scope.cancelled_caught:
        raise VouchError(f"{peer} didn't take and send all within {MAX_SECONDS:g} s: ask for fewer bytes")
    return Performed(
        peer,
        sum(result.upload for result in results),
        sum(result.download for result in results),
        params.streams,
        max(result.upload_seconds for result in results) if params.upload else 0.0,
        max(result.download_seconds for result in results) if params.download else 0.0,
    )
