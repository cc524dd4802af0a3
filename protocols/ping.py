"""`/ipfs/ping/1.0.0`: 32 random bytes go out, the same 32 come back (https://github.com/libp2p/specs/tree/master/ping).

The whole protocol is this file. It has no frames, so it is declared with `max_frame=None` and reads exact counts.
How often to ping, and what a slow answer means, is the caller's.
"""

from __future__ import annotations

import os

import trio

from protocols.base import EndOfStream, Network, Protocol, ProtocolError, Stream

SIZE = 32

# a peer that keeps its stream may pause between pings; the others of the field allow a minute. Some open a stream for
# each ping of their own watch, beside those that somebody asked for
PING = Protocol("/ipfs/ping/1.0.0", max_frame=None, timeout=60.0, streams_per_peer=4)


@PING.serve
async def answer(stream: Stream) -> None:
    """Sends back what comes, until the peer ends the stream."""
    while True:
        try:
            payload = await stream.receive_exactly(SIZE)
        except EndOfStream:
            return
        await stream.send(payload)


async def round_trip(stream: Stream) -> float:
    """One ping on an open stream: its round-trip time in seconds, at the clock's resolution (about a microsecond).

    Raises StreamError when the peer is gone or silent, ProtocolError when it sends back something else.
    """
    payload = os.urandom(SIZE)
    started = trio.current_time()
    await stream.send(payload)
    echoed = await stream.receive_exactly(SIZE)
    rtt = trio.current_time() - started
    if echoed != payload:
        raise ProtocolError(f"expected the {SIZE} bytes sent to come back from {stream.peer}, got others")
    return rtt


async def ping(
    network: Network, peer: str, count: int = 1, interval: float = 0.0, into: list[float] | None = None
) -> list[float]:
    """The round-trip times in seconds of `count` pings on one stream, with `interval` seconds between them.

    They are appended to `into` as they come, so that a failure loses none. Raises as `round_trip` does.
    """
    times: list[float] = [] if into is None else into
    async with network.stream(peer, PING) as stream:
        for number in range(count):
            if number:
                await trio.sleep(interval)
            times.append(await round_trip(stream))
    return times
