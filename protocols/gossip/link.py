"""One peer of the router: the stream that we opened to it, and what waits to go out on it.

    OPENING --a stream of /meshsub/1.2.0, or an older one--> UP --stream lost, or its connection goes--> OPENING

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
    """The way to one peer, over one stream after another. Call `flush` after something was put into `queue`; what is
    put there while there is no stream waits for the next one.
    """

    def __init__(self, peer: str, queue: Outbound) -> None:
        self.peer = peer
        self.queue = queue
        self.bytes_sent = 0
        self.rpcs_sent = 0
        self.overflowed = False  # something was lost that the peer must know
        self._stream: Stream | None = None
        self._held = b""  # the RPC that waits for the peer; what comes meanwhile waits behind it
        self._wake = trio.Event()
        self._failed = self._moving = False

    def flush(self) -> None:
        """Sends what waits, as far as that goes without waiting."""
        queue, stream = self.queue, self._stream
        if self._held or stream is None:
            return
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
        """Gives the stream up: it is lost, or the peer doesn't take what it must take."""
        self._failed = True
        self._wake.set()

    def move_if_leaving(self) -> None:
        """Ends the stream properly if its connection goes: there is another one to the peer."""
        if self._stream is not None and self._stream.leaving:
            self._moving = True
            self._wake.set()

    async def run(self, stream: Stream) -> None:
        """Sends on a stream until it is to be left for another. Raises StreamError or ProtocolError if it is lost."""
        self._stream, self._wake = stream, trio.Event()
        self._failed = self._moving = False
        self.flush()
        try:
            await self._run(stream)
        finally:
            self._stream, self._held = None, b""  # half of it may be there: the peer can ask for what it misses

    async def _run(self, stream: Stream) -> None:
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                nonlocal failure
                try:
                    await self._watch(stream)
                except (StreamError, ProtocolError) as error:
                    failure = failure or error
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                await self._write(stream)
            except (StreamError, ProtocolError) as error:
                failure = failure or error
            nursery.cancel_scope.cancel()
        if not self._moving or failure is not None:
            raise failure or StreamReset(f"the pubsub stream to {self.peer} was lost")

    async def _write(self, stream: Stream) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            if self._failed:
                raise StreamReset(f"{self.peer} didn't take what it was sent, or its stream was lost")
            if self._held:
                await stream.send(self._held)
                self.bytes_sent += len(self._held)
                self.rpcs_sent += 1
                self._held = b""
                self.flush()
            if self._moving and not self._held:
                return

    async def _watch(self, stream: Stream) -> None:
        """Nothing comes on a stream that we opened but its end."""
        with suppress(EndOfStream):
            await stream.receive()
            raise ProtocolError(f"expected nothing on the pubsub stream that we opened to {self.peer}, got a frame")
