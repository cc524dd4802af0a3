"""`Messages`: all sub-protocols of a node, sent and answered.

    messages = Messages(network, rules)
    registry.add(messages.serve(sync))                 # what peers ask us
    nursery.start(messages.run)
    await messages.request(peer, "sync", payload)      # what we ask them

It owns the tasks of the streams that we open; those that peers open are the registry's. Nothing is sent again by
itself: a caller that is told of a failure knows best whether its message may arrive twice.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from protocols.base import Network, NotConnected, Protocol, ProtocolError, StreamError
from protocols.messages.answer import Answer
from protocols.messages.client import Client
from protocols.messages.declare import SubProtocol
from protocols.messages.errors import MessageDropped, MessageError
from protocols.messages.rules import Rules
from protocols.messages.server import Server
from protocols.messages.tally import Tally
from protocols.messages.wire import Message

# (error, sub-protocol): a MessageError or MessageDropped, which names the peer and the reason
OnRejected = Callable[[MessageError | MessageDropped, str], None]
# (error, sub-protocol, peer)
OnFailed = Callable[[Exception, str, str], None]


class Messages:
    """A node's messages. `stats` counts by (sub-protocol, what): sent, requests, received, answered, refused, failed,
    unhandled, late, unknown, and "rejected:" or "dropped:" with the reason; `tally` what became of requests.
    """

    def __init__(
        self,
        network: Network,
        rules: Rules,
        *,
        on_rejected: OnRejected | None = None,
        on_failed: OnFailed | None = None,
        wall_ms: Callable[[], int] | None = None,
    ) -> None:
        self.network = network
        self.rules = rules
        self.stats: Counter[tuple[str, str]] = Counter()
        self.tally = Tally()
        self.wall_ms = wall_ms or _wall_ms
        self._on_rejected = on_rejected
        self._on_failed = on_failed
        self._client = Client(self)
        self._subs: dict[str, SubProtocol] = {}
        self._nursery: trio.Nursery | None = None

    def serve(self, sub: SubProtocol) -> Protocol:
        """A sub-protocol that is answered from now on: as the Protocol that a registry runs. Raises ValueError."""
        if not sub.handled:
            raise ValueError(f"{sub!r} has no handler: name one with on_message, on_request or on_parts")
        self._declare(sub)
        return Server(self, sub).protocol()

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Owns the streams that we open, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def send(self, peer: str, sub: str | SubProtocol, payload: bytes, *, type: int = 0) -> None:
        """A one-way message: returns when it is on its way. Raises StreamError, ValueError."""
        await self._client.send(peer, self._sub(sub), payload, type)

    async def request(
        self, peer: str, sub: str | SubProtocol, payload: bytes, *, type: int = 0, timeout: float | None = None
    ) -> Message:
        """A question and its answer, within `timeout` seconds in all (by default the sub-protocol's).

        Raises RemoteError if the peer answers with an error, StreamTimeout, StreamReset if the peer is lost before it
        answers, NotConnected, NotSupported, other StreamErrors, ValueError.
        """
        return await self._client.request(peer, self._sub(sub), payload, type, timeout)

    def request_stream(
        self, peer: str, sub: str | SubProtocol, payload: bytes, *, type: int = 0, timeout: float | None = None
    ) -> AbstractAsyncContextManager[Answer]:
        """A question whose answer comes in parts, each within `timeout` seconds. A block that is left early tells the
        peer to stop. Raises as `request` does.
        """
        return self._client.request_stream(peer, self._sub(sub), payload, type, timeout)

    # what client and servers need

    def spawn(self, run: Callable[[], Awaitable[None]]) -> None:
        if self._nursery is None:
            raise NotConnected("the node doesn't run")
        self._nursery.start_soon(run)

    def rejected(self, error: Exception, protocol: str) -> None:
        assert isinstance(error, MessageError | MessageDropped)
        kind = "dropped" if isinstance(error, MessageDropped) else "rejected"
        self.stats[protocol, f"{kind}:{error.reason}"] += 1
        if self._on_rejected is not None:
            self._on_rejected(error, protocol)

    def handler_failed(self, error: Exception, protocol: str, peer: str) -> None:
        if self._on_failed is not None and not isinstance(error, ProtocolError | StreamError):
            self._on_failed(error, protocol, peer)

    def _sub(self, sub: str | SubProtocol) -> SubProtocol:
        if isinstance(sub, SubProtocol):
            return sub
        found = self._subs.get(sub)
        return self._declare(SubProtocol(sub)) if found is None else found

    def _declare(self, sub: SubProtocol) -> SubProtocol:
        self._subs[sub.name] = sub
        return sub


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
