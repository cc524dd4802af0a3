"""Nodes for tests: on loopback, with an identity of their own, nothing on disk."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from node.config import Config
from node.events import Event
from node.identity import Identity
from node.node import Node
from protocols import Protocol, Stream

NOWHERE = Path(tempfile.gettempdir()) / "vouch-tests-write-nothing-here"

# what a test may change for all its nodes
DEFAULTS: dict[str, Any] = {"dht": "off", "dht_store": "memory", "heartbeat": "off", "pool": "off"}


def echo_protocol(**bounds: Any) -> Protocol:
    """A new echo protocol, `/echo/1.0.0` with frames."""
    protocol = Protocol("/echo/1.0.0", **bounds)

    @protocol.serve
    async def reply(stream: Stream) -> None:
        async for frame in stream:
            await stream.send(frame)

    return protocol


@asynccontextmanager
async def running(
    *, host: str = "127.0.0.1", protocols: Iterable[Protocol] = (), identity: Identity | None = None, **settings: Any
) -> AsyncIterator[Node]:
    """A node on a real socket."""
    settings = {"listen": (f"/ip4/{host}/tcp/0",)} | DEFAULTS | settings
    config = Config(data_dir=NOWHERE, **settings)
    async with Node(config, identity=identity or Identity.generate(), protocols=protocols) as node:
        yield node


class Recorder:
    """Records a node's events, and waits for those that are to come."""

    def __init__(self, node: Node) -> None:
        self.events: list[Event] = []
        self._changed = trio.Event()
        node.events.subscribe(self._record)

    def _record(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()
        self._changed = trio.Event()

    def of(self, kind: type[Event]) -> list[Any]:
        """The events of one kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, condition: Callable[[], object], timeout: float = 15.0) -> None:
        """Waits until `condition` holds; it is looked at after each event."""
        with trio.fail_after(timeout):
            while not condition():
                await self._changed.wait()

    async def next(self, kind: type[Event], count: int = 1, timeout: float = 15.0) -> Any:
        """The `count`-th event of one kind, waiting for it if need be."""
        await self.until(lambda: len(self.of(kind)) >= count, timeout)
        return self.of(kind)[count - 1]


async def eventually(condition: Callable[[], object], timeout: float = 15.0, pause: float = 0.01) -> None:
    """Polls a condition that nothing announces: for what the operating system does, and other processes."""
    with trio.fail_after(timeout):
        while not condition():  # noqa: ASYNC110  nobody sets an event for these
            await trio.sleep(pause)


async def both(first: Callable[[], Awaitable[Any]], second: Callable[[], Awaitable[Any]]) -> None:
    """Runs two async functions at once."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        nursery.start_soon(second)
