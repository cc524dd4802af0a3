"""What happens in a node, as it is told outside: stamped as it happens, and kept once for all who listen.

    node.events --> Feed: the last KEPT, numbered --> `events` of the control socket, /v1/events of HTTP

A listener has a number and nothing else of its own. Who reads so slowly that it misses some, of whatever kinds, is told
how many.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Literal
from weakref import WeakKeyDictionary

import msgspec
import trio

from node.errors import UsageError
from node.events import KINDS, Event, Events, kind_of
from node.node import Node

KEPT = 1000


class Listen(msgspec.Struct, forbid_unknown_fields=True):
    """`kinds`: of events, such as admitted and disconnected; none: all."""

    kinds: list[str] = []


class Happened(msgspec.Struct):
    """An event: its kind, Unix time in seconds, and its fields (docs/operating.md)."""

    event: str
    time: float
    fields: dict[str, Any]


class MissedEvents(msgspec.Struct):
    """So many events were left out here, for the client reads too slowly."""

    count: int
    event: Literal["missed"] = "missed"


class Feed:
    """The last events of a node, for all who listen."""

    def __init__(self, events: Events, kept: int = KEPT) -> None:
        """Keeps events from now on, the last `kept` of them."""
        self.start = secrets.token_hex(3)  # numbers of another feed mean nothing
        self.last = 0
        self._all = events
        self._kept: deque[tuple[float, Event]] = deque(maxlen=kept)
        self._changed = trio.Event()
        events.subscribe(self._put, ended=self._wake)

    def since(self, last_id: str) -> int:
        """The number behind which to go on: that of an ID START-NUMBER of this feed, or now."""
        start, _, number = last_id.partition("-")
        if start == self.start and number.isascii() and number.isdigit() and len(number) < 16:
            return min(int(number), self.last)
        return self.last

    async def listen(
        self,
        after: int,
        kinds: Collection[type[Event]],
        tell: Callable[[int, Happened | MissedEvents], Awaitable[None]],
    ) -> None:
        """Tells what happened after that number, of these kinds (none: all), and goes on until the node has closed."""
        while True:
            changed = self._changed
            first = self.last - len(self._kept) + 1  # the number of the oldest that is kept
            if after + 1 < first:
                missed = first - 1 - after
                after = first - 1
                await tell(after, MissedEvents(missed))
            elif after < self.last:
                at, event = self._kept[after + 1 - first]
                after += 1
                if not kinds or type(event) in kinds:
                    await tell(after, Happened(kind_of(type(event)), at, dataclasses.asdict(event)))
                elif not after % KEPT:
                    await trio.lowlevel.checkpoint()
            elif self._all.closed:
                return
            else:
                await changed.wait()

    def _put(self, event: Event) -> None:
        self._kept.append((time.time(), event))
        self.last += 1
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


_feeds: WeakKeyDictionary[Node, Feed] = WeakKeyDictionary()


def feed_of(node: Node) -> Feed:
    """A node's feed, which begins with the first who asks for it."""
    feed = _feeds.get(node)
    if feed is None:
        feed = _feeds[node] = Feed(node.events)
    return feed


def kinds_of(names: list[str]) -> frozenset[type[Event]]:
    """The classes of these names. Raises UsageError."""
    for name in names:
        if name not in KINDS:
            raise UsageError(f"expected kinds of events among {', '.join(sorted(KINDS))}, got {name[:64]!r}")
    return frozenset(KINDS[name] for name in names)


async def events(node: Node, params: Listen, tell: Callable[[msgspec.Struct], Awaitable[None]]) -> None:
    """Tells what happens until the node has closed; the caller cancels it when the client has gone."""

    async def told(_number: int, item: msgspec.Struct) -> None:
        await tell(item)

    feed = feed_of(node)
    await feed.listen(feed.last, kinds_of(params.kinds), told)
