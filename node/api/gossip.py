"""What can be asked of a running node's gossip: `publish`, `gossip`, its state, and `subscribe`, which goes on.

Times in nanoseconds are of the machine's monotonic clock, which all its processes share: the time from a `publish` on
one node to a `message` on another of the same machine is their difference.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice

import msgspec
import trio

from node.api.verdicts import undecided
from node.errors import UsageError, VouchError
from node.node import Node
from protocols.gossip import GossipMessage, PublishError, Subscription

# bytes of payloads that wait for one client
MAX_WAITING = 8 << 20
# messages that wait for a client who decides
MAX_UNDECIDED = 256
# delays that a state tells, of those that are kept
MAX_DELAYS = 100

Tell = Callable[[msgspec.Struct], Awaitable[None]]


class Publish(msgspec.Struct, forbid_unknown_fields=True):
    """`payload` in base64; `type` is the program's own number."""

    topic: str
    payload: bytes
    type: int = 0


class Published(msgspec.Struct):
    """A message that was made: its ID in hexadecimal, the peers it was handed to, how many connected peers subscribe to
    the topic, and how many are connected at all.
    """

    message_id: str
    peers: list[str]
    subscribers: int
    connected: int
    published_ns: int


class GossipQuery(msgspec.Struct, forbid_unknown_fields=True):
    """No parameters."""


class TopicState(msgspec.Struct):
    """A joined topic: the peers of its mesh, and how many connected peers subscribe to it."""

    topic: str
    mesh: list[str]
    subscribers: int


class GossipState(msgspec.Struct):
    """The node's gossip since its start. `duplicates`: copies of what was there already; `verdicts`, by kind;
    `cpu_ns`, of the whole process; `delays`: seconds from publication to delivery of the last MAX_DELAYS messages that
    told their time, by their authors' clocks, oldest first.
    """

    topics: list[TopicState]
    published: int
    delivered: int
    duplicates: int
    verdicts: dict[str, int]
    bytes_received: int
    cpu_ns: int
    bytes_sent: int = 0
    delays: list[float] = []


class Subscribe(msgspec.Struct, forbid_unknown_fields=True):
    """Without `payload` messages come without theirs: for those who count. `decide`: the client gives the verdicts, by
    `verdict`, and is told of messages before; nobody else may decide on the topic then.
    """

    topic: str
    payload: bool = True
    decide: bool = False


class Subscribed(msgspec.Struct, tag_field="event", tag="subscribed"):
    """The topic is joined; what is published from now on comes. `relays`: nobody decides on the topic, so what is
    signed properly is accepted as long as somebody listens.
    """

    topic: str
    relays: bool


class Received(msgspec.Struct, tag_field="event", tag="message"):
    """An accepted message; `payload` in base64, `size` its bytes, `timestamp_ms` Unix time of its author's clock.
    `verdict_id`: it isn't accepted yet, and this is what to give its verdict by, within `verdict_within` seconds.
    """

    topic: str
    message_id: str
    author: str
    forwarder: str
    type: int
    timestamp_ms: int | None
    received_ns: int
    size: int
    payload: bytes
    verdict_id: str | msgspec.UnsetType = msgspec.UNSET
    verdict_within: float | msgspec.UnsetType = msgspec.UNSET


class Missed(msgspec.Struct, tag_field="event", tag="missed"):
    """So many messages were left out here, for the client reads too slowly."""

    count: int


async def publish(node: Node, params: Publish) -> Published:
    """Signs a message and hands it to the topic's peers. Nobody to hand it to is no error here."""
    gossip = node.gossip
    published_ns = time.monotonic_ns()
    try:
        receipt = await gossip.publish(params.topic, params.payload, type=params.type)
    except ValueError as error:
        raise UsageError(str(error)) from None
    except PublishError as error:
        raise VouchError(str(error)) from None
    return Published(
        message_id=receipt.message_id.hex(),
        peers=[str(peer) for peer in receipt.peers],
        subscribers=len(gossip.engine.peers(params.topic)),
        connected=len(node.connected_peers()),
        published_ns=published_ns,
    )


async def state(node: Node, _params: GossipQuery) -> GossipState:
    """How the node's gossip is."""
    gossip = node.gossip
    engine, stats = gossip.engine, gossip.stats
    return GossipState(
        topics=[
            TopicState(topic, [str(peer) for peer in engine.mesh(topic)], len(engine.peers(topic)))
            for topic in sorted(engine.topics)
        ],
        published=stats.published,
        delivered=stats.delivered_messages,
        duplicates=engine.counts["duplicate"],
        verdicts={verdict.value: count for verdict, count in stats.verdicts.items()},
        bytes_received=stats.bytes_received,
        cpu_ns=time.process_time_ns(),
        bytes_sent=gossip.peers.bytes_sent if hasattr(gossip, "peers") else 0,  # py-libp2p's router doesn't count
        delays=[round(delay, 6) for delay in islice(reversed(stats.delays), MAX_DELAYS)][::-1],
    )


async def subscribe(node: Node, params: Subscribe, tell: Tell, *, max_waiting: int = MAX_WAITING) -> None:
    """Tells the messages of a topic until the node stops; the caller cancels it when the client has gone.
    `max_waiting`: bytes that wait for the client.
    """
    if params.decide:
        await _decide(node, params, tell)
        return
    with node.topics.listening(params.topic) as (subscription, relays):
        await tell(Subscribed(params.topic, relays))
        queue = _Queue(max_waiting)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_fill, queue, subscription, params.payload)
            while (item := await queue.next()) is not None:
                await tell(item)


async def _fill(queue: _Queue, subscription: Subscription, payload: bool) -> None:
    async for message in subscription:
        queue.put(_received(message, payload))
    queue.end()


async def _decide(node: Node, params: Subscribe, tell: Tell) -> None:
    """What waits for this client waits in the router's own queue, which ignores what has no room or no time left."""
    try:
        subscription = node.gossip.subscribe(params.topic, limit=MAX_UNDECIDED)
    except ValueError as error:
        raise UsageError(f"topic: {error}") from None
    missed = 0
    async with subscription:
        with undecided(node).client() as client:
            await tell(Subscribed(params.topic, False))
            async for message in subscription:
                if subscription.missed > missed:
                    await tell(Missed(subscription.missed - missed))
                    missed = subscription.missed
                item = _received(message, params.payload)
                item.verdict_id = client.add(message)
                item.verdict_within = round(max(0.0, message.deadline - trio.current_time()), 3)
                await tell(item)


def _received(message: GossipMessage, payload: bool) -> Received:
    age = trio.current_time() - message.received_at
    return Received(
        topic=message.topic,
        message_id=message.message_id.hex(),
        author=message.author,
        forwarder=message.forwarder,
        type=message.type,
        timestamp_ms=message.timestamp_ms,
        received_ns=time.monotonic_ns() - round(age * 1e9),
        size=len(message.payload),
        payload=message.payload if payload else b"",
    )


class _Queue:
    """What waits for one client, bounded in bytes; what is left out is counted, and told in its place."""

    ENTRY = 512  # bytes of a message beside its payload

    def __init__(self, max_bytes: int = MAX_WAITING) -> None:
        self._max_bytes = max_bytes
        self._items: deque[Received | Missed] = deque()
        self._bytes = 0
        self._ended = False
        self._changed = trio.Event()

    def put(self, item: Received) -> None:
        size = len(item.payload) + self.ENTRY
        if self._bytes + size <= self._max_bytes:
            self._items.append(item)
            self._bytes += size
        elif self._items and isinstance(self._items[-1], Missed):
            self._items[-1].count += 1
        else:
            self._items.append(Missed(1))
        self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def next(self) -> Received | Missed | None:
        """The next item; None at the end."""
        while not self._items:
            if self._ended:
                return None
            self._changed = trio.Event()
            await self._changed.wait()
        item = self._items.popleft()
        if isinstance(item, Received):
            self._bytes -= len(item.payload) + self.ENTRY
        return item
