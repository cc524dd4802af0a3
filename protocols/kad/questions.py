"""Questions to peers: one frame there, one back, on streams that are kept for the next question.

    ask --a kept stream--> answer --> kept again (at most MAX_KEPT of a peer, for IDLE seconds)
     \\                  \\--it was closed meanwhile: once more on a new one
      \\--none: a new one

Each question under way has a stream of its own, so a slow answer holds up nobody else's. What has no answer goes on a
new stream: on a kept one nobody would notice that the peer has closed it.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress

import trio

from protocols.base import Network, Protocol, Stream
from protocols.errors import EndOfStream, ProtocolError, StreamError, StreamTimeout
from protocols.kad.wire import Message, Type, decode, encode

# go-libp2p closes streams that were idle for a minute
IDLE = 45.0
MAX_KEPT_OF_PEER = 2
MAX_KEPT = 128


class _Kept:
    __slots__ = ("since", "stack", "stream")

    def __init__(self, stream: Stream, stack: AsyncExitStack, since: float) -> None:
        self.stream = stream
        self.stack = stack
        self.since = since


class Questions:
    """Asks connected peers."""

    def __init__(self, network: Network, protocol: Protocol) -> None:
        self.network = network
        self.protocol = protocol
        self._kept: dict[str, list[_Kept]] = {}
        self._count = 0

    async def ask(self, peer: str, message: Message) -> Message | None:
        """The peer's answer; None at once after an ADD_PROVIDER, which has none. Raises StreamError, ProtocolError.

        The caller bounds the time.
        """
        data = encode(message)
        kept = self._take(peer) if message.type is not Type.ADD_PROVIDER else None
        if kept is not None:
            try:
                async with kept.stack as stack:
                    return await self._exchange(peer, kept.stream, data, message.type, stack)
            except StreamTimeout:
                raise
            except StreamError:
                pass  # the peer has closed it between two questions
        async with AsyncExitStack() as stack:
            stream = await stack.enter_async_context(self.network.stream(peer, self.protocol))
            return await self._exchange(peer, stream, data, message.type, stack)

    async def close_idle(self, idle: float = IDLE) -> None:
        """Closes the streams that nobody used for `idle` seconds."""
        before = trio.current_time() - idle
        old = [(peer, kept) for peer, of_peer in self._kept.items() for kept in of_peer if kept.since <= before]
        for peer, kept in old:  # before any is closed, which takes a turn: nobody may ask on what is about to go
            self._remove(peer, kept)
        for _, kept in old:
            with suppress(StreamError):  # it was lost, and nobody waits for it
                await kept.stack.aclose()

    async def _exchange(
        self, peer: str, stream: Stream, data: bytes, kind: Type, stack: AsyncExitStack
    ) -> Message | None:
        await stream.send(data)
        if kind is Type.ADD_PROVIDER:
            return None
        try:
            answer = decode(await stream.receive())
        except EndOfStream as error:
            raise StreamError(f"expected an answer from {peer}, got the end: {error}") from None
        if answer.type is not kind:
            raise ProtocolError(f"expected an answer to {kind.name} from {peer}, got {answer.type.name}")
        self._keep(peer, stream, stack)
        return answer

    def _take(self, peer: str) -> _Kept | None:
        of_peer = self._kept.get(peer)
        if not of_peer:
            return None
        kept = of_peer[-1]
        self._remove(peer, kept)
        return kept

    def _keep(self, peer: str, stream: Stream, stack: AsyncExitStack) -> None:
        of_peer = self._kept.get(peer, [])
        if len(of_peer) < MAX_KEPT_OF_PEER and self._count < MAX_KEPT:
            self._kept.setdefault(peer, of_peer).append(_Kept(stream, stack.pop_all(), trio.current_time()))
            self._count += 1

    def _remove(self, peer: str, kept: _Kept) -> None:
        of_peer = self._kept[peer]
        of_peer.remove(kept)
        self._count -= 1
        if not of_peer:
            del self._kept[peer]
