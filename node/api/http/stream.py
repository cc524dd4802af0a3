"""What goes on telling: server-sent events.

    id: 18f2a1-42             of /v1/events: the node's start and a number; who comes back with it as Last-Event-ID gets
    event: admitted           what has happened meanwhile, as far as it is kept
    data: {...}               one line of JSON

A comment goes out every PING seconds, so that a listener who has gone is noticed. A listener costs the node a place
(`max_api_listeners`) and, of /v1/events, a number: what happened is kept once for all, the last KEPT events. Who reads
so slowly that it misses some is told how many (`missed`); who takes nothing for `connection.SEND_TIMEOUT` is dropped.
"""

from __future__ import annotations

import itertools
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from node.api.operate import MissedEvents, happened
from node.events import Event, Events

PING = 15.0
KEPT = 1000
RETRY = 2000  # milliseconds, after which a browser comes back

Send = Callable[[bytes], Any]


def frame(event: str, data: bytes, number: str) -> bytes:
    """One server-sent event. JSON has no line breaks, and names of events are ours."""
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (number.encode(), event.encode(), data)


@asynccontextmanager
async def pinging(send: Send) -> AsyncIterator[None]:
    """Sends the beginning, and a comment now and then until the block ends."""

    async def ping() -> None:
        while True:
            await trio.sleep(PING)
            await send(b": ping\n\n")

    await send(b"retry: %d\n\n" % RETRY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ping)
        yield
        nursery.cancel_scope.cancel()


class Numbered:
    """Sends structs as events with numbers of their own."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._numbers = itertools.count(1)

    async def tell(self, item: msgspec.Struct) -> None:
        data = msgspec.json.encode(item)
        name = msgspec.to_builtins(getattr(item, "event", None)) or _tag(item)
        await self._send(frame(name, data, str(next(self._numbers))))


def _tag(item: msgspec.Struct) -> str:
    return str(item.__struct_config__.tag or "message")


class Feed:
    """What happened in the node, kept once for all who listen."""

    def __init__(self, kept: int = KEPT) -> None:
        self.start = secrets.token_hex(3)  # numbers of an earlier start mean nothing
        self._events: deque[tuple[str, bytes]] = deque(maxlen=kept)
        self._last = 0
        self._changed = trio.Event()
        self._closed = False

    def subscribe(self, events: Events) -> Callable[[], None]:
        """Keeps these events from now on; the returned function ends that."""
        return events.subscribe(self.put)

    def put(self, event: Event) -> None:
        item = happened(event)
        self._events.append((item.event, msgspec.json.encode(item)))
        self._last += 1
        self._wake()

    def close(self) -> None:
        """Ends what listens, once it has been told all."""
        self._closed = True
        self._wake()

    def since(self, last_id: str) -> int:
        """The number behind which to go on: that of an ID of this start, or now."""
        start, _, number = last_id.partition("-")
        if start == self.start and number.isascii() and number.isdigit() and len(number) < 16:
            return min(int(number), self._last)
        return self._last

    async def listen(self, after: int, kinds: Iterable[str], send: Send) -> None:
        """Sends what happened after that number, and goes on until the feed is closed or the caller cancelled."""
        wanted = frozenset(kinds)
        while True:
            changed = self._changed
            first = self._last - len(self._events) + 1  # the number of the oldest that is kept
            if after + 1 < first:
                data = msgspec.json.encode(MissedEvents(first - 1 - after))
                after = first - 1
                await send(frame("missed", data, f"{self.start}-{after}"))
            elif after < self._last:
                kind, data = self._events[after + 1 - first]
                after += 1
                if not wanted or kind in wanted:
                    await send(frame(kind, data, f"{self.start}-{after}"))
                elif not after % KEPT:
                    await trio.lowlevel.checkpoint()
            elif self._closed:
                return
            else:
                await changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()
