"""What goes on telling: server-sent events.

    id: 18f2a1-42             of /v1/events: the feed's start and a number; who comes back with it as Last-Event-ID gets
    event: admitted           what has happened meanwhile, as far as it is kept
    data: {...}               one line of JSON

A comment goes out every PING seconds, so that a listener who has gone is noticed. A listener costs the node a place
(`max_api_listeners`); who takes nothing for `connection.SEND_TIMEOUT` is dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from node.api.feed import Feed, Happened, MissedEvents
from node.events import Event

PING = 15.0
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


async def happenings(feed: Feed, after: int, kinds: Collection[type[Event]], send: Send) -> None:
    """Sends what happened after that number, until the node has closed."""

    async def tell(number: int, item: Happened | MissedEvents) -> None:
        await send(frame(item.event, msgspec.json.encode(item), f"{feed.start}-{number}"))

    await feed.listen(after, kinds, tell)


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
