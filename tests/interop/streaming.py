"""What the tests of streams share: a node and a peer that are connected, and servers that end or are reset as told."""

from __future__ import annotations

from contextlib import asynccontextmanager

import trio

from interop.rawbytes import BYTES, RESET, echo_pattern
from node.events import Admitted
from protocols import Protocol, StreamReset


@asynccontextmanager
async def connected(here, peer, *, dialler="python", serving=(BYTES, RESET), **settings):
    """`async with connected(here, Peer.go(...)) as (local, other)`: a node that serves `serving`, and that peer."""
    async with here(**{"dht": "off", **settings}) as local, peer as other:
        for protocol in serving:
            await local.node.serve(protocol)
        if dialler == "python":
            await local.node.connect(other.addr)
        else:
            await other.call("connect", local.addr)
        await local.event(Admitted, peer=other.peer_id)
        yield local, other


async def echo(asker, local, other, length, streams=1):
    """An echo of so many bytes on each of so many streams, asked for by "python" or the other."""
    if asker == "python":
        await echo_pattern(local.node, other.peer_id, length, streams)
    else:
        await other.call("echo", local.peer_id, str(length), str(streams))


class Sending:
    """A pattern that is sent, and how much of it was taken so far: `sent`."""

    def __init__(self, stream, pattern):
        self.stream, self.pattern, self.sent = stream, pattern, 0

    async def send(self):
        """Sends all of it, and the end."""
        while data := self.pattern.at(self.sent):
            await self.stream.send(data)
            self.sent += len(data)
        await self.stream.send_eof()


def protocol_of_bytes(handler):
    """/vouch/bytes/1.0.0 with another server."""
    protocol = Protocol(BYTES.id, max_frame=None, timeout=BYTES.timeout, streams_per_peer=BYTES.streams_per_peer)
    protocol.serve(handler)
    return protocol


async def after_the_end(stream):
    """Answers when the other has ended, and a while later."""
    received = b"".join([data async for data in stream])
    await trio.sleep(0.1)
    await stream.send(received)


def telling(ended):
    """A server that sends back what comes, and adds to `ended` how each of its streams came to its end."""

    async def serve(stream):
        try:
            async for data in stream:
                await stream.send(data)
            ended.append("end")
        except StreamReset:
            ended.append("reset")
            raise

    return protocol_of_bytes(serve)
