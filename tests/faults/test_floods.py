"""Ten thousand streams from one peer, on real sockets: what they cost while they come, and what is left of them.

The node runs in the test's own process, so that its streams and tasks can be counted at every step.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID

from node.config import Config
from node.connection import Connection
from node.identity import Identity
from node.node import Node
from node.tcp_stream import BufferedTcpStream
from node.upgrade import multistream
from node.upgrade.muxer import Muxer
from node.upgrade.secure import BATCH, NoiseTransport, SecureConn
from node.upgrade.yamux_state import Limits
from protocols.handshake.engine import MAX_HELD_STREAMS
from tests.nodes import echo_protocol, eventually, running
from tests.rawpeer import ACK, HEADER, PING, RST, SYN, WINDOW_UPDATE, Frame, RawPeer, open_tcp

COUNT = 10_000
NETWORK = b"vouch-local"
MIB = 1024 * 1024
MAX_STREAMS = Config().max_streams
OTHER_TASKS = 20  # the flooder's muxer and connection, the honest peer's streams
ONE_READ = 512 * 1024 // (12 + 18)  # frames that come at once, each in a message of its own
PONG = Frame(PING, ACK, 0, 77)


class Peaks(trio.abc.Instrument):
    """The most there was at any step of the event loop: tasks, a connection's streams, its answers that wait."""

    def __init__(self, connection: Connection) -> None:
        self.muxer = connection.muxed_conn
        assert isinstance(self.muxer, Muxer)
        self.before = self.tasks = trio.lowlevel.current_statistics().tasks_living
        self.most_tasks = self.most_streams = self.most_answers = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.tasks += 1
        self.most_tasks = max(self.most_tasks, self.tasks - self.before)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.tasks -= 1

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        muxer = self.muxer
        self.most_streams = max(self.most_streams, len(muxer.session.streams), len(muxer._streams))
        self.most_answers = max(self.most_answers, muxer.session.control_pending)


async def dial(node: Node, nursery: trio.Nursery) -> tuple[RawPeer, Connection]:
    """A peer that can send frames fast, and the node's end of its connection."""
    addr, identity = node.addrs[0], Identity.generate()
    known = set(node.swarm._running)
    raw = RawConnection(BufferedTcpStream(await open_tcp(addr)), True)
    await multistream.select(raw, ["/noise"])
    noise = NoiseTransport(identity.key_pair())
    conn = await noise.secure_outbound(raw, ID.from_base58(node.peer_id))
    await multistream.select(conn, ["/yamux/1.0.0"])
    peer = RawPeer(conn, identity)
    nursery.start_soon(peer._read)
    await eventually(lambda: set(node.swarm._running) - known)
    (connection,) = set(node.swarm._running) - known
    return peer, connection


def syns(numbers: range) -> Iterator[bytes]:
    for number in numbers:
        yield HEADER.pack(0, WINDOW_UPDATE, SYN, number, 0)


def rapid_resets(numbers: range) -> Iterator[bytes]:
    for number in numbers:
        yield HEADER.pack(0, WINDOW_UPDATE, SYN, number, 0)
        yield HEADER.pack(0, WINDOW_UPDATE, RST, number, 0)


async def flood(peer: RawPeer, frames: Iterator[bytes]) -> None:
    """Sends each frame in a message of its own, a thousand at once, or until the node has hung up."""
    conn, left = peer.conn, list(frames)
    assert isinstance(conn, SecureConn)
    with suppress(OSError, trio.ClosedResourceError):
        for start in range(0, len(left), BATCH):
            done = conn.send_nowait(left[start : start + BATCH])
            while not done:
                done = await conn.flush()
            if start % 1024 == 0:
                await trio.lowlevel.checkpoint()


@asynccontextmanager
async def served(node: Node) -> AsyncIterator[list[float]]:
    """Another node that asks for echoes all the time; how long each took. It is served before, during and after."""
    took: list[float] = []
    echo = echo_protocol()

    async def keep_asking(other: Node) -> None:
        async with other.stream(node.peer_id, echo) as stream:
            while True:
                started = trio.current_time()
                with trio.fail_after(5):
                    await stream.send(b"honest")
                    assert await stream.receive() == b"honest"
                took.append(trio.current_time() - started)
                await trio.sleep(0.001)

    async def more(count: int) -> None:
        target = len(took) + count
        await eventually(lambda: len(took) >= target)

    async with running(listen=()) as other, trio.open_nursery() as nursery:
        await other.connect(node.addrs[0])
        nursery.start_soon(keep_asking, other)
        await more(3)
        yield took
        await more(3)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def memory_bounded(most: int) -> AsyncIterator[None]:
    """Asserts that Python's memory never was `most` bytes over what it was at first."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        assert tracemalloc.get_traced_memory()[1] - before < most
    finally:
        tracemalloc.stop()


async def attack(frames, admitted: bool) -> Peaks:
    """The whole course: others are served, then the flood, then the flooder goes and nothing of it is left."""
    async with running(protocols=[echo_protocol()]) as node, served(node) as took:
        await trio.sleep(0.1)  # identify is over
        tasks = trio.lowlevel.current_statistics().tasks_living
        async with trio.open_nursery() as nursery:
            peer, connection = await dial(node, nursery)
            if admitted:
                await peer.admitted(await peer.shake(NETWORK))
                await connection.admitted.wait()
            peaks, rounds = Peaks(connection), len(took)
            trio.lowlevel.add_instrument(peaks)
            await flood(peer, frames(range(11, 11 + 2 * COUNT, 2)))
            if not peer.ended.is_set():  # the node has taken it all when it answers what comes last
                await peer.send(PING, SYN, 0, length=77)
                await peer.until(lambda: peer.ended.is_set() or PONG in peer.frames[-1000:])
            trio.lowlevel.remove_instrument(peaks)
            assert len(took) > rounds, "others are served meanwhile"
            assert max(took[rounds:]) < 3
            await peer.close()
            await connection.ended.wait()
            nursery.cancel_scope.cancel()
        muxer = connection.muxed_conn
        assert isinstance(muxer, Muxer)
        assert not muxer._streams
        assert not connection.get_streams()
        assert connection._held == 0
        assert len(node.swarm._running) == 1
        await eventually(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks)
    return peaks


@pytest.mark.parametrize("admitted", [True, False], ids=["admitted", "not admitted"])
async def test_10000_streams_from_one_peer_cost_little_and_leave_nothing(admitted):
    async with memory_bounded(16 * MIB):
        peaks = await attack(syns, admitted)
    assert peaks.most_streams <= Limits().max_streams
    assert peaks.most_answers <= ONE_READ
    assert peaks.most_tasks <= (MAX_STREAMS if admitted else MAX_HELD_STREAMS) + OTHER_TASKS


@pytest.mark.parametrize("admitted", [True, False], ids=["admitted", "not admitted"])
async def test_10000_streams_each_reset_at_once_cost_little_and_leave_nothing(admitted):
    async with memory_bounded(48 * MIB):  # what was opened and reset in one read is handed out all the same
        peaks = await attack(rapid_resets, admitted)
    assert peaks.most_streams <= (MAX_STREAMS if admitted else MAX_HELD_STREAMS)
    assert peaks.most_answers <= ONE_READ
    if not admitted:
        assert peaks.most_tasks <= MAX_HELD_STREAMS + OTHER_TASKS


async def test_streams_that_are_reset_at_once_start_no_more_tasks_than_there_may_be_streams():
    peaks = await attack(rapid_resets, True)
    assert peaks.most_tasks <= MAX_STREAMS + OTHER_TASKS
