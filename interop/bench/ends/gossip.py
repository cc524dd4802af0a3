"""The commands of the benchmark `gossip`, for both kinds of Python hosts: how messages are paced and counted.

    gossip-many NODES RATE COUNT SIZE   NODES hosts of this process, connected all to all, publish COUNT in turn
    gossip-open                         one host, for another process: {"addr"}
    gossip-join ADDR                    one host, connected with that one: {}
    gossip-expect RUN COUNT             so many messages will come: {}
    gossip-publish RUN RATE COUNT SIZE  it publishes: {"seconds"}
    gossip-take                         what came of what was expected, when it is over
    gossip-close                        ends the hosts: {}

The answer of gossip-many and gossip-take: {"delivered", "expected", "p50_ms", "p99_ms", "seconds", "cpu_s"}. A delay is
from the call that publishes to the delivery at a subscriber. `seconds` is from the first publishing until 99 % of the
deliveries expected were made (0 if they weren't), `cpu_s` the CPU time of the whole process meanwhile. A run is over
when everything has arrived, or nothing has for `QUIET` seconds.

A message is RUN (4 bytes), its number (4), the Unix time in ns when it was published (8), all big-endian, and zeros.
"""

from __future__ import annotations

import math
import struct
import time
import typing
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from interop.bench.ends.lines import Command
from interop.peer import Message
from node.tasks import TaskStatus

TOPIC = "bench"
HEADER = struct.Struct(">IIQ")
# nothing is sent again after a heartbeat (a second) and the answers to it
QUIET = 1.5
FIRST = 10.0
READY_TIMEOUT = 20.0
READY_POLL = 0.02
# all messages of a tick are published one after the other
TICK = 0.002
MESH = 5  # links that a mesh stands with: D_low
SHARE = 0.99


class GossipHost(typing.Protocol):
    """One host that gossips, subscribed to the topic."""

    addr: str

    async def connect(self, addr: str) -> None:
        """Connects with another."""

    async def publish(self, payload: bytes) -> None:
        """Publishes to the topic."""

    def mesh(self) -> int:
        """How many peers are in the topic's mesh."""

    def payloads(self) -> AsyncIterator[bytes]:
        """What others publish; each accepted."""


Make = Callable[[], AbstractAsyncContextManager[GossipHost]]


class Trial:
    """What is delivered of one run: `count` messages by `publishers`, to each of `receivers` that isn't its author."""

    def __init__(self, run: int, count: int, receivers: int, publishers: int) -> None:
        self.run = run
        self.over = trio.Event()
        self._count, self._publishers = count, publishers
        self._seen = [bytearray(count) for _ in range(receivers)]
        # of a process that publishes too nobody receives its own messages
        self.expected = count * (receivers - 1) if publishers > 1 else count * receivers
        self._delays = array("d")
        self._arrived = array("Q")
        self._started = 0
        self._cpu = time.process_time()
        self._touched = trio.current_time() + FIRST

    def note(self, receiver: int, payload: bytes) -> None:
        """A message was delivered."""
        run, number, published = HEADER.unpack_from(payload)
        if run != self.run or (self._publishers > 1 and number % self._publishers == receiver):
            return
        if self._seen[receiver][number]:
            raise ValueError(f"expected message {number} once, receiver {receiver} was given it again")
        self._seen[receiver][number] = 1
        now = time.time_ns()
        if not self._started or published < self._started:
            self._started = published
        self._delays.append(now - published)
        self._arrived.append(now)
        self._touched = trio.current_time()
        if len(self._delays) == self.expected:
            self.over.set()

    async def result(self) -> Message:
        """The reply, when it is over."""
        while not self.over.is_set() and trio.current_time() < self._touched + QUIET:
            with trio.move_on_at(self._touched + QUIET):
                await self.over.wait()
        cpu = time.process_time() - self._cpu
        enough = math.ceil(self.expected * SHARE)
        delays, delivered = sorted(self._delays), len(self._delays)
        return {
            "delivered": delivered,
            "expected": self.expected,
            "p50_ms": _percentile(delays, 0.5),
            "p99_ms": _percentile(delays, 0.99),
            "seconds": (self._arrived[enough - 1] - self._started) / 1e9 if delivered >= enough else 0.0,
            "cpu_s": cpu,
        }


async def paced(publish: Callable[[int, bytes], typing.Awaitable[None]], trial: tuple[int, float, int, int]) -> float:
    """Publishes a run (its number, messages/s, how many, their size) by timetable; what is late is sent at once. The
    seconds that it took."""
    run, rate, count, size = trial
    filler = bytes(size - HEADER.size)
    started = trio.current_time()
    number = 0
    while number < count:
        due = min(count, 1 + int((trio.current_time() - started) * rate))
        for number in range(number, due):  # noqa: B020 - from where the last tick ended
            await publish(number, HEADER.pack(run, number, time.time_ns()) + filler)
        number = due
        if number < count:
            await trio.sleep_until(max(started + number / rate, trio.current_time() + TICK))
    return trio.current_time() - started


class GossipCommands:
    """The hosts of a process, made when they are asked for, and what they are told."""

    def __init__(self, nursery: trio.Nursery, make: Make) -> None:
        self._nursery = nursery
        self._make = make
        self._hosts: list[GossipHost] = []
        self._trial: Trial | None = None
        self._close = trio.Event()
        self._closed = trio.Event()
        self._runs = 0

    def commands(self) -> dict[str, Command]:
        return {
            "gossip-many": self.many,
            "gossip-open": self.open,
            "gossip-join": self.join,
            "gossip-expect": self.expect,
            "gossip-publish": self.publish,
            "gossip-take": self.take,
            "gossip-close": self.close,
        }

    async def many(self, nodes: str, rate: str, count: str, size: str) -> Message:
        if len(self._hosts) != int(nodes):
            await self.close()
            await self._open(int(nodes))
        self._runs += 1
        trial = self._trial = Trial(self._runs, int(count), int(nodes), int(nodes))
        hosts = self._hosts

        async def publish(number: int, payload: bytes) -> None:
            await hosts[number % len(hosts)].publish(payload)

        await paced(publish, (self._runs, float(rate), int(count), int(size)))
        return await trial.result()

    async def open(self) -> Message:
        await self._open(1)
        return {"addr": self._hosts[0].addr}

    async def join(self, addr: str) -> Message:
        await self._open(1)
        await self._hosts[0].connect(addr)
        await self._ready(1)
        return {}

    async def publish(self, run: str, rate: str, count: str, size: str) -> Message:
        async def publish(_: int, payload: bytes) -> None:
            await self._hosts[0].publish(payload)

        return {"seconds": await paced(publish, (int(run), float(rate), int(count), int(size)))}

    async def expect(self, run: str, count: str) -> Message:
        self._trial = Trial(int(run), int(count), 1, 1)
        return {}

    async def take(self) -> Message:
        if self._trial is None:
            raise ValueError("expected gossip-expect before")
        return await self._trial.result()

    async def close(self) -> Message:
        if self._hosts:
            self._close.set()
            await self._closed.wait()
        return {}

    async def _open(self, nodes: int) -> None:
        await self.close()
        self._close, self._closed, self._trial, self._hosts = trio.Event(), trio.Event(), None, []
        await self._nursery.start(self._live, nodes)
        for number, host in enumerate(self._hosts):
            for other in self._hosts[:number]:
                await host.connect(other.addr)
        if nodes > 1:
            await self._ready(min(MESH, nodes - 1))

    async def _ready(self, links: int) -> None:
        with trio.fail_after(READY_TIMEOUT):
            while any(host.mesh() < links for host in self._hosts):  # noqa: ASYNC110 - the routers tell nobody
                await trio.sleep(READY_POLL)

    async def _live(self, nodes: int, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            # each in a task of its own: py-libp2p's cost grows with how deep a task is
            for number in range(nodes):
                await nursery.start(self._live_one, number)
            task_status.started()
        self._hosts = []
        self._closed.set()

    async def _live_one(self, number: int, *, task_status: TaskStatus) -> None:
        async with self._make() as host, trio.open_nursery() as nursery:
            self._hosts.append(host)
            nursery.start_soon(self._receive, number, host)
            task_status.started()
            await self._close.wait()
            nursery.cancel_scope.cancel()

    async def _receive(self, number: int, host: GossipHost) -> None:
        async for payload in host.payloads():
            if self._trial is not None:
                self._trial.note(number, payload)


@asynccontextmanager
async def gossip_commands(make: Make) -> AsyncIterator[dict[str, Command]]:
    """The commands, as long as the block lasts."""
    async with trio.open_nursery() as nursery:
        commands = GossipCommands(nursery, make)
        yield commands.commands()
        await commands.close()
        nursery.cancel_scope.cancel()


def _percentile(delays: list[float], share: float) -> float:
    return delays[math.ceil(share * len(delays)) - 1] / 1e6 if delays else 0.0
