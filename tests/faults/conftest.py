"""The attacked process and the honest peer, as fixtures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError

from node.errors import VouchError
from node.identity import Identity
from node.node import Node
from node.transport import Tcp
from protocols import Protocol, ProtocolError, StreamError
from tests.faults.target import ECHO
from tests.nodes import NOWHERE

ROOT = Path(__file__).parents[2]
HONEST = "127.0.0.2"


class Target:
    """A process under attack."""

    def __init__(self, stack: str) -> None:
        self.stack = stack
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.target", stack],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if stack == "stock" else None,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        line = self._process.stdout.readline()
        self.addr: str = json.loads(line)["addr"]

    def state(self) -> dict[str, Any]:
        """Slots and memory now."""
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        state: dict[str, Any] = json.loads(self._process.stdout.readline())
        return state

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def vouch_target() -> Iterator[Target]:
    target = Target("vouch")
    yield target
    target.end()


@pytest.fixture
def stock_target() -> Iterator[Target]:
    target = Target("stock")
    yield target
    target.end()


class FromHonest(Tcp):
    """TCP that dials from the honest peer's own address."""

    async def dial(self, maddr: Any) -> RawConnection:
        # not py-libp2p's own dial from a source, which leaves its socket open when it is cancelled
        host, port = str(maddr.value_for_protocol("ip4")), int(maddr.value_for_protocol("tcp"))
        try:
            stream = await trio.open_tcp_stream(host, port, local_address=HONEST)
        except OSError as error:
            raise OpenConnectionError(str(error)) from error
        return RawConnection(TrioTCPStream(stream), True)


async def dial_and_echo(addr: str, text: bytes = b"honest") -> None:
    """A new node at the honest address connects, asks for an echo, and goes. Raises if it isn't served."""
    from node.config import Config

    echo = Protocol(ECHO, max_frame=None)
    config = Config(listen=(), dht="off", data_dir=NOWHERE, admission="open")
    async with Node(config, identity=Identity.generate(), transports=[FromHonest()]) as node:
        connection = await node.connect(addr)
        async with node.stream(connection.peer, echo) as stream:
            await stream.send(text)
            assert await stream.receive_exactly(len(text)) == text


class Honest:
    """A peer that keeps asking for echoes while a target is attacked, on one connection and on new ones."""

    def __init__(self, addr: str) -> None:
        self.addr = addr
        self.served = 0
        self.failures: list[str] = []

    async def keep_asking(self) -> None:
        while True:
            try:
                with trio.fail_after(10):
                    await dial_and_echo(self.addr)
                self.served += 1
            except (VouchError, StreamError, ProtocolError, trio.TooSlowError) as error:
                self.failures.append(repr(error))
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def served_throughout(target: Target, rounds: int = 3) -> AsyncIterator[Honest]:
    """Asserts that an honest peer is served before, during and after the block, at least `rounds` times each."""
    honest = Honest(target.addr)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(honest.keep_asking)
        await at_least(honest, rounds)
        yield honest
        await at_least(honest, honest.served + rounds)
        nursery.cancel_scope.cancel()
    assert target.alive
    assert not honest.failures, honest.failures


async def at_least(honest: Honest, served: int) -> None:
    with trio.fail_after(60):
        while honest.served < served:
            assert not honest.failures, honest.failures
            await trio.sleep(0.01)
