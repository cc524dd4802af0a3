"""A topic as programs see it: messages that await a verdict, who gives it, and who only listens.

    Deliver --> decider: a validator's function, or one subscription --accept--> travels on, and to every listener
                         (a queue; full: ignored)                     reject, ignore, no verdict in time: to nobody

One decider for each topic. A queue is bounded; what doesn't fit a decider's is ignored, what doesn't fit a listener's
is missed, and both are counted: a subscriber that falls behind or fails harms no other.
"""

from __future__ import annotations

import math
import typing
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType

import trio

from protocols.gossip.messages import Verdict
from protocols.gossip.pending import VerdictError

# bytes of payloads that wait in one queue; what awaits a verdict is bounded by the router's parameters too
QUEUE_BYTES = 32 << 20

Validator = Callable[["GossipMessage"], Awaitable[Verdict]]
# what a decider's verdict goes to; whether it counted
Decide = Callable[["GossipMessage", Verdict, str], bool]


class GossipMessage:
    """A message of a topic, held until its verdict: `accept`, `reject` or `ignore`, at any time, from any task.

    author: the peer ID of who signed it. forwarder: of who brought it first. received_at: on trio's clock.
    timestamp_ms: Unix time of the author's clock; None in foreign networks. deadline: when its time for a verdict ends.
    """

    __slots__ = (
        *("_decide", "author", "deadline", "forwarder", "message_id", "payload", "received_at", "timestamp_ms"),
        *("topic", "type", "verdict"),
    )

    def __init__(
        self,
        topic: str,
        payload: bytes,
        *,
        author: str,
        forwarder: str,
        message_id: bytes,
        received_at: float,
        type: int = 0,
        timestamp_ms: int | None = None,
        deadline: float = math.inf,
        decide: Decide | None = None,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.author = author
        self.forwarder = forwarder
        self.message_id = message_id
        self.received_at = received_at
        self.deadline = deadline
        self.type = type
        self.timestamp_ms = timestamp_ms
        self.verdict: Verdict | None = None
        self._decide = decide

    def accept(self) -> bool:
        """It travels on. False if the verdict came too late to count. Raises VerdictError for a second one."""
        return self._give(Verdict.ACCEPT, "")

    def reject(self, reason: str = "") -> bool:
        """It is never relayed, and who sent it pays. As `accept` otherwise."""
        return self._give(Verdict.REJECT, reason)

    def ignore(self) -> bool:
        """It isn't relayed, and nobody pays. As `accept` otherwise."""
        return self._give(Verdict.IGNORE, "")

    def _give(self, verdict: Verdict, reason: str) -> bool:
        if self._decide is None:
            raise VerdictError(f"a message of {self.topic} that somebody else decides on has no verdict to give")
        if self.verdict is not None:
            raise VerdictError(f"a message of {self.topic} has its verdict already: {self.verdict.value}")
        self.verdict = verdict
        return self._decide(self, verdict, reason)

    def seen_by_listeners(self) -> GossipMessage:
        """The same, for those who don't decide."""
        return GossipMessage(
            self.topic,
            self.payload,
            author=self.author,
            forwarder=self.forwarder,
            message_id=self.message_id,
            received_at=self.received_at,
            type=self.type,
            timestamp_ms=self.timestamp_ms,
        )

    def __repr__(self) -> str:
        return f"<GossipMessage {self.topic} {self.message_id.hex()[:12]} by {self.author}>"


class _Queue:
    """Messages that wait, bounded in number and bytes. Those whose time for a verdict is over go."""

    def __init__(self, limit: int, max_bytes: int) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self._bytes = 0
        self._messages: deque[GossipMessage] = deque()

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: GossipMessage, now: float) -> bool:
        """Whether there was room. One message always fits an empty queue."""
        waiting = self._messages
        while waiting and waiting[0].deadline <= now:
            self.take()
        if len(waiting) >= self._limit or (waiting and self._bytes + len(message.payload) > self._max_bytes):
            return False
        waiting.append(message)
        self._bytes += len(message.payload)
        return True

    def take(self) -> GossipMessage:
        """The oldest. Raises IndexError."""
        message = self._messages.popleft()
        self._bytes -= len(message.payload)
        return message

    def next(self, now: float) -> GossipMessage | None:
        """The oldest whose time isn't over, if there is one."""
        while self._messages:
            message = self.take()
            if now < message.deadline:
                return message
        return None


class Subscription:
    """Messages of one topic, in the order in which they came. `missed` counts those that found the queue full.

    An asynchronous context manager and iterator: at the block's end what waits is ignored.
    """

    def __init__(
        self,
        topic: str,
        limit: int,
        *,
        decides: bool,
        leave: Callable[[Subscription], None],
        max_bytes: int = QUEUE_BYTES,
    ) -> None:
        self.topic = topic
        self.decides = decides
        self.missed = 0
        self._leave = leave
        self._waiting = _Queue(limit, max_bytes)
        self._arrived = trio.lowlevel.ParkingLot()
        self._closed = False

    def offer(self, message: GossipMessage) -> bool:
        """Whether there was room for a message."""
        if self._closed or not self._waiting.put(message, trio.current_time()):
            self.missed += 1
            return False
        self._arrived.unpark()
        return True

    def close(self) -> None:
        """Ends it. What waits undecided is ignored. Idempotent."""
        if not self._closed:
            self._closed = True
            while self._waiting:  # before the topic is left: then they would count as late
                message = self._waiting.take()
                if self.decides and message.verdict is None:
                    message.ignore()
            self._leave(self)
            self._arrived.unpark_all()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> GossipMessage:
        await trio.lowlevel.checkpoint_if_cancelled()
        while (message := self._waiting.next(trio.current_time())) is None:
            if self._closed:
                raise StopAsyncIteration
            await self._arrived.park()
        return message

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Decider(typing.Protocol):
    """Whoever gives a topic's verdicts."""

    def offer(self, message: GossipMessage) -> bool:
        """Whether it takes the message."""


class AcceptAll:
    """For those who relay a topic without looking."""

    def offer(self, message: GossipMessage) -> bool:
        message.accept()
        return True


class ByFunction:
    """A validator: a function that returns the verdict, some of them at once, some waiting."""

    def __init__(
        self,
        validator: Validator,
        *,
        at_once: int,
        limit: int,
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
        failed: Callable[[Exception, GossipMessage], None],
    ) -> None:
        self._validator = validator
        self._at_once = at_once
        self._spawn = spawn
        self._failed = failed
        self._running = 0
        self._waiting = _Queue(limit, QUEUE_BYTES)

    def offer(self, message: GossipMessage) -> bool:
        if not self._waiting.put(message, trio.current_time()):
            return False
        if self._running < self._at_once:
            self._running += 1
            self._spawn(self._work)
        return True

    async def _work(self) -> None:
        try:
            while (message := self._waiting.next(trio.current_time())) is not None:
                await self._decide(message)
        finally:
            self._running -= 1

    async def _decide(self, message: GossipMessage) -> None:
        verdict = None
        try:
            with trio.move_on_at(message.deadline) as scope:
                verdict = await self._validator(message)
            if scope.cancelled_caught:
                return  # it has been ignored
            if not isinstance(verdict, Verdict):
                raise TypeError(f"expected a validator to return a Verdict, got {verdict!r}")
        except Exception as error:  # a fault of ours: nobody else pays
            self._failed(error, message)
            verdict = Verdict.IGNORE
        try:
            if message.verdict is None:
                message._give(verdict, "validator")
        except Exception as error:  # a fault of the router's ends no validator
            self._failed(error, message)
