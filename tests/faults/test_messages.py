"""Messages when connections go: a peer that is killed, two dials at once, a peer that comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import base58
import pytest
import trio

from node.identity import Identity
from node.node import Node
from protocols import NotConnected, StreamError, StreamReset
from protocols.messages import Message, SubProtocol
from protocols.messages.channel import Channel
from tests.faults.answering import echo
from tests.memnet import MemNet, mem_node, scheduling
from tests.nodes import running

A, B = "10.0.0.1", "10.0.0.2"
ROOT = Path(__file__).parents[2]


class Answering:
    """The process, and its address."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.faults.answering"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.addr: str = json.loads(self.process.stdout.readline())["addr"]
        self.peer = self.addr.rpartition("/")[2]


@pytest.fixture
def answering() -> Iterator[Answering]:
    target = Answering()
    yield target
    target.process.kill()
    target.process.communicate()


async def test_10000_requests_to_a_peer_that_is_killed_half_way_all_end_in_time(answering):
    ended, slowest = Counter[str](), 0.0

    async def ask(node: Node, worker: int) -> None:
        nonlocal slowest
        for number in range(50):
            payload, started = b"%d/%d" % (worker, number), trio.current_time()
            try:
                answer = await node.request(answering.peer, echo, payload, timeout=10)
                assert answer.payload == payload
                ended["answered"] += 1
            except StreamError as error:
                ended[type(error).__name__] += 1
            slowest = max(slowest, trio.current_time() - started)
            if ended.total() == 5000:
                answering.process.kill()

    with trio.fail_after(30):
        async with running(listen=()) as node:
            await node.connect(answering.addr)
            async with trio.open_nursery() as nursery:
                for worker in range(200):
                    nursery.start_soon(ask, node, worker)
            assert ended.total() == 10_000
            assert 5000 <= ended["answered"] < 6000, ended
            assert set(ended) <= {"answered", StreamReset.__name__, NotConnected.__name__}, ended
            assert 1 <= ended[StreamReset.__name__] <= 300
            assert slowest < 5, "nobody waited for a dead peer until its time was over"
            assert len(node.messages._client) == 0


@pytest.mark.parametrize("seed", range(8))
async def test_two_dials_at_once_fail_no_request(seed, monkeypatch, autojump_clock):
    """One of the two connections is drained: what is asked on it is answered on it, the rest goes on the other."""
    subs, latency, retired = [], 0.02, []
    # of two connections the one that the smaller ID initiated is kept: here the second
    second, first = sorted(
        (Identity(bytes([seed + 1, n]) * 16) for n in (1, 2)), key=lambda one: base58.b58decode(one.peer_id)
    )
    retire = Channel.retire
    monkeypatch.setattr(Channel, "retire", lambda channel: (retired.append(channel), retire(channel)))
    noted: dict[str, list[int]] = {}
    for ip in (A, B):
        sub = SubProtocol("work", rate=None)
        noted[ip] = []

        @sub.on_request
        async def answer(request: Message) -> bytes:
            await trio.sleep(int(request.payload.partition(b":")[0]) / 100)
            return request.payload

        @sub.on_message
        async def note(message: Message, to: list[int] = noted[ip]) -> None:
            await trio.sleep(0.01)
            to.append(int(message.payload))

        @sub.on_parts(type=1)
        async def parts(request: Message) -> AsyncIterator[bytes]:
            for _ in range(10):
                await trio.sleep(0.1)
                yield bytes(10_000)

        subs.append(sub)

    with scheduling(seed):
        async with (
            MemNet(seed=seed, latency=latency) as net,
            mem_node(net, A, dht="off", protocols=[subs[0]], identity=first) as a,
            mem_node(net, B, dht="off", protocols=[subs[1]], identity=second) as b,
        ):
            answered = 0

            async def work(node: Node, other: Node, later: float) -> None:
                nonlocal answered
                await trio.sleep(later)
                await node.connect(other.addrs[0])

                async def ask(number: int) -> None:
                    nonlocal answered
                    for round in range(20):
                        payload = b"%d:%d" % (number * 7 % 30, round)
                        assert (await node.request(other.peer_id, "work", payload)).payload == payload
                        answered += 1

                async def say() -> None:
                    for number in range(200):
                        await node.send(other.peer_id, "work", b"%d" % number)
                        await trio.sleep(0.005)

                async def read() -> None:
                    async with node.request_stream(other.peer_id, "work", b"", type=1) as got:
                        async for _ in got:
                            pass
                    assert got.bytes == 100_000

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(say)
                    nursery.start_soon(read)
                    for number in range(20):
                        nursery.start_soon(ask, number)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(work, a, b, 0)
                nursery.start_soon(work, b, a, latency * (2 + seed % 4))  # in the middle of the first dial
            assert retired, "requests were under way on the connection that was drained"
            assert answered == 2 * 20 * 20
            await trio.sleep(10)
            assert [len(connections) for node in (a, b) for connections in node.swarm.connections.values()] == [1, 1]
            for ip in (A, B):
                assert sorted(noted[ip]) == list(range(200)), "nothing that was sent is lost"
            for node, other in ((a, b), (b, a)):
                await node.request(other.peer_id, "work", b"0:")
                assert node.registry.streams(other.peer_id, "/vouch/msg/work/1.0.0") == 1


async def test_a_peer_that_comes_back_is_asked_again(autojump_clock):
    async with MemNet() as net, mem_node(net, A, dht="off") as a:
        for _ in range(2):
            async with mem_node(net, B, dht="off", protocols=[echo]) as b:
                await a.connect(b.addrs[0])
                for _ in range(3):
                    assert (await a.request(b.peer_id, "echo", b"again")).payload == b"again"
            await trio.sleep(1)
            with pytest.raises(NotConnected):
                await a.request(b.peer_id, "echo", b"")
            assert len(a.messages._client) == 0
