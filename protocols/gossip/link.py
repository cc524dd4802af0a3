"""One peer of the router: the stream that we opened to it, and what waits to go out on it.

    OPENING --a stream of /meshsub/1.2.0, or an older one--> UP --stream or peer lost--> DOWN

Each side opens one stream and only writes on it; what the other says comes on its own. What goes out at once goes out
in the task that has something to say; what must wait for the peer is the link's task's. Source: libp2p/specs,
pubsub/README.md.
"""

from __future__ import annotations

from contextlib import suppress

import trio

from protocols.base import EndOfStream, ProtocolError, Stream, StreamError, StreamReset
from protocols.gossip.outbound import Outbound


class Link:
    """The way to one peer. Call `flush` after something was put into `queue`."""

    def __init__(self, peer: str, stream: Stream, queue: Outbound) -> None:
        self.peer = peer
        self.stream = stream
        self.queue = queue
        self.bytes_sent = 0
        self.rpcs_sent = 0
        self._held = b""  # the RPC that waits for the peer; what comes meanwhile waits behind it
        self._wake = trio.Event()
        self._failed = False

    def flush(self) -> None:
        """Sends what waits, as far as that goes without waiting."""
        if self._held:
            return
        queue, stream = self.queue, self.stream
        try:
            while queue:
                data = queue.next()
                if not stream.send_nowait(data):
                    self._held = data
                    self._wake.set()
                    return
                self.bytes_sent += len(data)
                self.rpcs_sent += 1
        except StreamError:
            self.fail()

    def fail(self) -> None:
        """Ends the link: the stream is lost, or the peer doesn't take what it must take."""
        self._failed = True
        self._wake.set()

    async def run(self) -> None:
        """Sends what has to wait, until the stream is lost. Raises StreamError or ProtocolError then."""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                nonlocal failure
                try:
                    await self._watch()
                except (StreamError, ProtocolError) as error:
                    failure = failure or error
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                await self._write()
            except (StreamError, ProtocolError) as error:
                failure = failure or error
            nursery.cancel_scope.cancel()
        raise failure or StreamReset(f"the pubsub stream to {self.peer} was lost")

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            if self._failed:
                raise StreamReset(f"{self.peer} didn't take what it was sent, or its stream was lost")
            if self._held:
                await self.stream.send(self._held)
                self.bytes_sent += len(self._held)
                self.rpcs_sent += 1
                self._held = b""
                self.flush()

    async def _watch(self) -> None:
        """Nothing comes on a stream that we opened but its end."""
        with suppress(EndOfStream):
            await self.stream.receive()
            raise ProtocolError(f"expected nothing on the pubsub stream that we opened to {self.peer}, got a frame")
