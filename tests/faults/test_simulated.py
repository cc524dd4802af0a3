"""Faults in simulated time: deadlines to the second, simultaneous dials in any order, cancellation at every await."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
from libp2p import new_host
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from node.errors import BackoffError, DialError, RefusedError
from node.events import Admitted, Disconnected, Refused
from node.identity import Identity
from node.names import parse_peer_addr
from node.node import Node
from node.upgrade import multistream
from protocols.ping import PING, ping
from tests.cancelling import cancelled_at
from tests.memnet import MemNet, PipeEnd, mem_node, scheduling
from tests.nodes import Recorder, echo_protocol

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
STRANGER = "12D3KooWGRUaX4zv4AtF6nKcqhmWXQnHpHZu8s6eYAzDxZ3zYxyy"


def silent(net: MemNet, ip: str, says: bytes = b"") -> tuple[str, list[PipeEnd]]:
    """A listener that accepts, says `says`, and then nothing ever; its address, and its ends of the connections."""
    ends: list[PipeEnd] = []

    def accept(end: PipeEnd) -> None:
        ends.append(end)
        if says:
            net.nursery.start_soon(end.send_all, says)

    net.listen(ip, 4001, accept)
    return f"/ip4/{ip}/tcp/4001/p2p/{Identity.generate().peer_id}", ends


# deadlines


@pytest.mark.parametrize(
    "says",
    [
        b"",
        multistream.encode_line(multistream.HEADER),
        multistream.encode_line(multistream.HEADER) + multistream.encode_line("/noise"),
        b"\x20",
    ],
    ids=["nothing", "the header", "noise and no more", "half a line"],
)
async def test_dialling_a_listener_that_stays_silent_ends_at_the_deadline(says, autojump_clock):
    async with MemNet() as net, mem_node(net, A, dht="off") as node:
        addr, ends = silent(net, B, says)
        started = trio.current_time()
        with pytest.raises(DialError, match="no answer within 10 s"):
            await node.connect(addr)
        assert trio.current_time() - started == pytest.approx(10, abs=0.1)
        assert node.swarm.limits.total == 0
        assert await ends[0].receive_some(1024)
        while await ends[0].receive_some(1024):
            pass  # the dialler has closed its end


async def test_stock_dials_a_silent_listener_for_as_long_as_it_stays_silent(autojump_clock):
    async with MemNet() as net:
        addr, _ = silent(net, B)
        host = new_host(key_pair=Identity.generate().key_pair(), transports=[net.transport(A)])
        async with host.run([]):
            peer_id, multiaddr = parse_peer_addr(addr)
            with trio.move_on_after(100) as patience:
                await host.get_network().dial_addr(multiaddr, peer_id)
            assert patience.cancelled_caught


async def test_a_connection_that_says_nothing_is_closed_after_ten_seconds_and_frees_its_slot(autojump_clock):
    async with MemNet() as net, mem_node(net, A, dht="off") as node:
        started = trio.current_time()
        end = await net.connect(B, A, 4001)
        while await end.receive_some(1024):
            assert node.swarm.limits.half_open == 1
        assert trio.current_time() - started == pytest.approx(10, abs=0.2)
        assert node.swarm.limits.total == 0
        await end.aclose()


async def test_a_peer_without_handshake_is_closed_after_five_seconds(autojump_clock):
    """A node whose handshake never comes, since it thinks that the other one has to speak first."""
    async with MemNet() as net, mem_node(net, A, dht="off") as node:
        recorder = Recorder(node)
        started = trio.current_time()
        host = new_host(key_pair=Identity.generate().key_pair(), transports=[net.transport(B)])
        async with host.run([]):
            peer_id, multiaddr = parse_peer_addr(node.addrs[0])
            await host.get_network().dial_addr(multiaddr, peer_id)
            refused = await recorder.next(Refused)
            assert refused.reason == "deadline"
            assert trio.current_time() - started == pytest.approx(5, abs=0.5)
        assert node.swarm.limits.total == 0


# dials


async def test_a_node_does_not_dial_itself(autojump_clock):
    async with MemNet() as net, mem_node(net, A, dht="off") as node:
        with pytest.raises(DialError, match="this node itself"):
            await node.connect(node.addrs[0])
        # and not under another name
        with pytest.raises(DialError, match=r"expected peer|itself"):
            await node.connect(node.addrs[0].replace(node.peer_id, Identity.generate().peer_id))
        await trio.sleep(1)
        assert node.swarm.limits.total == 0


@pytest.mark.parametrize("seed", range(25))
async def test_of_a_simultaneous_dial_one_connection_remains_and_no_stream_is_lost(seed, autojump_clock):
    with scheduling(seed):
        async with (
            MemNet(seed=seed, latency=0.001 + 0.01 * (seed % 5)) as net,
            mem_node(net, A, dht="off", protocols=[echo_protocol()]) as a,
            mem_node(net, B, dht="off", protocols=[echo_protocol()]) as b,
        ):
            echo = a.registry.get("/echo/1.0.0")
            assert echo is not None

            async def dial_and_ask(node: Node, other: Node) -> None:
                await node.connect(other.addrs[0])
                async with node.stream(other.peer_id, echo) as stream:
                    for number in range(20):
                        await stream.send(b"%d" % number)
                        assert await stream.receive() == b"%d" % number
                        await trio.sleep(0.05)

            recorders = Recorder(a), Recorder(b)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dial_and_ask, a, b)
                nursery.start_soon(dial_and_ask, b, a)
            await trio.sleep(6)
            for node, other in ((a, b), (b, a)):
                (connections,) = node.swarm.connections.values()
                assert len(connections) == 1, "one connection remains"
                assert node.swarm.limits.total == 1
                assert len(await ping(node, other.peer_id, 2)) == 2
            # the same one on both sides, initiated by the smaller ID where both had been admitted
            kept = [next(iter(node.swarm.connections.values()))[0] for node in (a, b)]
            assert kept[0].initiated != kept[1].initiated
            assert [len(recorder.of(Admitted)) for recorder in recorders] == [1, 1]
            assert not [recorder.of(Disconnected) for recorder in recorders if recorder.of(Disconnected)]


async def test_stock_keeps_both_connections_of_a_simultaneous_dial(autojump_clock):
    async with MemNet() as net:
        hosts = [new_host(key_pair=Identity.generate().key_pair(), transports=[net.transport(ip)]) for ip in (A, B)]
        addrs = [Multiaddr(f"/ip4/{ip}/tcp/4001") for ip in (A, B)]
        async with hosts[0].run([addrs[0]]), hosts[1].run([addrs[1]]):
            async with trio.open_nursery() as nursery:
                for here, there in ((0, 1), (1, 0)):
                    nursery.start_soon(hosts[here].connect, PeerInfo(hosts[there].get_id(), [addrs[there]]))
            await trio.sleep(10)
            assert [len(host.get_network().get_connections()) for host in hosts] == [2, 2]


async def test_two_dials_at_once_share_one_connection(autojump_clock):
    async with MemNet() as net, mem_node(net, A, dht="off") as a, mem_node(net, B, dht="off") as b:
        found = []

        async def dial() -> None:
            found.append(await a.connect(b.addrs[0]))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(dial)
        assert len(set(map(id, found))) == 1
        assert b.swarm.limits.total == 1


async def test_a_dial_takes_no_longer_than_the_network_does(autojump_clock):
    """TCP 1 round trip, /noise 1, Noise 1.5, /yamux 1, the handshake 2: no fixed waits on top."""
    async with MemNet(latency=0.05) as net, mem_node(net, A, dht="off") as a, mem_node(net, B, dht="off") as b:
        started = trio.current_time()
        await a.connect(b.addrs[0])
        assert trio.current_time() - started < 0.1 * 7


async def test_a_refusing_peer_is_left_alone_for_five_seconds_and_then_for_longer_and_longer(autojump_clock):
    async with (
        MemNet() as net,
        mem_node(net, A, dht="off", network_id="one") as a,
        mem_node(net, B, dht="off", network_id="two") as b,
    ):
        for expected in (5, 10, 20, 40, 80, 160, 320, 600, 600):
            with pytest.raises(RefusedError):
                await a.connect(b.addrs[0])
            wait = a.dialer.refused.remaining(b.peer_id, trio.current_time())
            assert expected <= wait <= expected * 1.25
            await trio.sleep(wait - 0.01)
            with pytest.raises(BackoffError):
                await a.connect(b.addrs[0])
            await trio.sleep(0.02)
        assert b.swarm.limits.total == 0


async def test_an_unreachable_bootstrap_is_retried_with_growing_delays_while_the_node_serves(caplog, autojump_clock):
    async with MemNet() as net:
        addr = f"/ip4/{B}/tcp/4001/p2p/{STRANGER}"
        async with mem_node(net, A, dht="off", pool="on", bootstrap=(addr,)) as a, mem_node(net, C, dht="off") as c:
            await c.connect(a.addrs[0])
            await trio.sleep(100)
            assert len(await ping(c, a.peer_id)) == 1
        delays = [record.msg["retry_in"] for record in caplog.records if record.msg["event"] == "bootstrap_unreachable"]
        assert len(delays) >= 5
        assert all(1.5 <= later / earlier <= 2.6 for earlier, later in pairwise(delays[:5]))
        assert not [record for record in caplog.records if record.exc_info]


async def test_a_bootstrap_that_is_lost_is_dialled_again(autojump_clock):
    async with (
        MemNet() as net,
        mem_node(net, B, dht="off") as b,
        mem_node(net, A, dht="off", pool="on", bootstrap=(b.addrs[0],)) as a,
    ):
        recorder = Recorder(a)
        await recorder.next(Admitted)
        await b.disconnect(a.peer_id)
        await recorder.next(Disconnected)
        await recorder.next(Admitted, 2)


# cancellation


@asynccontextmanager
async def pair(net: MemNet) -> AsyncIterator[tuple[Node, Node]]:
    async with (
        mem_node(net, A, dht="off", protocols=[echo_protocol(streams_per_peer=8)]) as a,
        mem_node(net, B, dht="off", protocols=[echo_protocol(streams_per_peer=8)]) as b,
    ):
        yield a, b


async def healthy(a: Node, b: Node) -> None:
    """Both serve each other, and nothing is left of what was cut off."""
    await a.connect(b.addrs[0])
    echo = a.registry.get("/echo/1.0.0")
    assert echo is not None
    for here, there in ((a, b), (b, a)):
        assert len(await ping(here, there.peer_id)) == 1
        async with here.stream(there.peer_id, echo) as stream:
            await stream.send(b"whole")
            assert await stream.receive() == b"whole"
    await trio.sleep(12)  # past every deadline that a half-made thing could have
    for node, other in ((a, b), (b, a)):
        assert node.swarm.limits.total == 1
        assert node.swarm.limits.half_open == 0
        assert len(node.swarm._running) == 1
        assert not node.dialer._under_way
        assert node.registry._open == {(str(other.peer_id), "/meshsub/1.2.0"): 1}, "the stream that gossip keeps"


async def connect(a: Node, b: Node) -> None:
    await a.connect(b.addrs[0])


async def connect_and_disconnect(a: Node, b: Node) -> None:
    await a.connect(b.addrs[0])
    await a.disconnect(b.peer_id)


async def ask(a: Node, b: Node) -> None:
    echo = a.registry.get("/echo/1.0.0")
    assert echo is not None
    async with a.stream(b.peer_id, echo) as stream:
        for text in (b"one", bytes(30_000)):
            await stream.send(text)
            assert await stream.receive() == text
        await stream.send_eof()


async def pings(a: Node, b: Node) -> None:
    await a.ping(b.peer_id, 2)


async def serve_more(a: Node, b: Node) -> None:
    try:
        await a.serve(PING.__class__("/more/1.0.0", handler=PING.handler))
    finally:
        a.registry.remove("/more/1.0.0")


@pytest.mark.parametrize("call", [connect, connect_and_disconnect, ask, pings, serve_more])
async def test_any_public_call_can_be_cancelled_at_any_await(call, autojump_clock):
    async with MemNet(latency=0.001) as net, pair(net) as (a, b):
        await healthy(a, b)
        steps, cut = 1, True
        while cut:
            if call in (connect, connect_and_disconnect) and b.peer_id in a.connected_peers():
                await a.disconnect(b.peer_id)
                await trio.sleep(1)
            cut = await cancelled_at(steps, lambda: call(a, b))
            await healthy(a, b)
            steps += 1
        assert steps > 3, "there was something to cancel"


async def test_closing_a_node_can_be_cancelled_and_still_closes(autojump_clock):
    async with MemNet(latency=0.001) as net, mem_node(net, B, dht="off") as b:
        for steps in range(1, 40):
            node = mem_node(net, A, dht="off")

            async def live(node: Node = node) -> None:
                async with node:
                    await node.connect(b.addrs[0])

            await cancelled_at(steps, live)
            await trio.sleep(12)
            assert node.swarm.limits.total == 0
            assert b.swarm.limits.total == 0
            assert not node.swarm._running
