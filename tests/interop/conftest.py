"""What the interop tests share: the peers built on demand, and a node in this process beside them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from interop.build import RECIPES, MissingToolchainError
from node.config import Config
from node.events import Event
from node.identity import Identity
from node.node import Node
from protocols import Protocol
from tests import required
from tests.interop import messaging

TIMEOUT = 45.0
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
ECHO = Protocol("/vouch/echo/1.0.0", max_frame=64 * 1024)


@ECHO.serve
async def _echo(stream):
    async for frame in stream:
        await stream.send(frame)


@pytest.fixture(scope="session")
def built() -> Callable[[str], None]:
    """Makes sure that a peer of that name is built. One that can't be, or takes long to build and isn't there, ends
    the test, see tests/required.py."""

    def build(name: str) -> None:
        recipe = RECIPES[name]
        if not recipe.quick and not recipe.binary.is_file():
            required.missing(f"the {name} peer isn't built: make peers PEERS={name}")
        try:
            recipe.build()
        except MissingToolchainError as error:
            if recipe.binary.is_file():
                return  # made elsewhere and brought here: its time of change tells nothing
            required.missing(str(error))

    return build


class Local:
    """A node in this process, with all that happened to it. `event` works as `Peer.event` does."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.peer_id = node.peer_id
        self.events: list[Event] = []
        self._fresh: list[Event] = []
        self._changed = trio.Event()
        node.events.subscribe(self._take)

    @property
    def addr(self) -> str:
        return self.node.addrs[0]

    async def event(self, kind, *, timeout=TIMEOUT, **fields):
        """The oldest event of that kind and those fields that no call has returned yet, else the next one to come."""
        with trio.move_on_after(timeout):
            while True:
                for event in self._fresh:
                    if _fits(event, kind, fields):
                        self._fresh.remove(event)
                        return event
                await self._changed.wait()
        raise AssertionError(f"expected {kind.__name__} {fields} within {timeout:g} s, got {self.events}")

    def seen(self, kind, **fields):
        return [event for event in self.events if _fits(event, kind, fields)]

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self._fresh.append(event)
        self._changed.set()
        self._changed = trio.Event()


def _fits(event, kind, fields) -> bool:
    return isinstance(event, kind) and all(getattr(event, name) == value for name, value in fields.items())


@pytest.fixture
def here():
    """`async with here(network_id=...) as local`: a node in this process, listening on loopback, answering echo.

    Without the pool, which tests the addresses of who dials us and dials who was lost, whenever it likes: the others
    see connections that end before a Hello, and count them. test_pool is about that.
    """

    @asynccontextmanager
    async def start(*, identity: Identity | None = None, **settings):
        config = Config(**{"listen": (LOOPBACK,), "pool": "off", **settings})
        local = Local(Node(config, identity=identity or Identity.generate(), protocols=[ECHO]))
        async with local.node:
            yield local

    return start


@pytest.fixture
def eventually():
    """`await eventually(check)`: until it returns something true, for what no event tells of. `check` may be async."""

    async def wait(check, what: str, timeout=TIMEOUT):
        result = None
        with trio.move_on_after(timeout):
            while True:
                found = check()
                result = await found if hasattr(found, "__await__") else found
                if result:
                    return result
                await trio.sleep(0.05)
        raise AssertionError(f"expected within {timeout:g} s: {what}; at last it was {result!r}")

    return wait


@pytest.fixture
def no_traceback(caplog):
    """Fails the test if anything was logged with a traceback. Our loggers render it into the event itself."""
    caplog.set_level("INFO")
    yield
    for record in caplog.get_records("call"):
        assert not record.exc_info, record.getMessage()
        assert "Traceback" not in record.getMessage()


@pytest.fixture(params=sorted(messaging.START))
def speaker(request, built):
    """The name of each peer that speaks the handshake and signed messages, which is built."""
    built(request.param)
    return request.param


@pytest.fixture
def connected(speaker, here):
    """`async with connected(...) as (local, other, got)`: a node in this process, and that peer; see messaging."""
    return partial(messaging.connected, messaging.START[speaker], here)
