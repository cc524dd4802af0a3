"""The in-memory network: what its tests of other things rely on."""

from __future__ import annotations

import math
import random

import pytest
import trio
import trio.testing
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

from node.errors import DialError
from protocols import NotSupported, Protocol, StreamError, StreamReset, StreamTimeout
from protocols.ping import PING, ping
from tests.memnet import WINDOW, MemNet, MemNode, PipeEnd, mem_node, scheduling

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
LATENCY = 0.02


@pytest.fixture
async def net(autojump_clock):
    async with MemNet(latency=LATENCY) as net:
        yield net


async def receive_all(end: PipeEnd) -> bytes:
    data = bytearray()
    while some := await end.receive_some():
        data += some
    return bytes(data)


def now() -> float:
    return trio.current_time()


async def connected(net: MemNet, a: str = A, b: str = B, port: int = 4001) -> tuple[PipeEnd, PipeEnd]:
    accepted: list[PipeEnd] = []
    net.listen(b, port, accepted.append)
    return await net.connect(a, b, port), accepted[0]


# the pipe


async def test_a_pipe_is_a_stream_as_trio_means_it(net, autojump_clock):
    async def maker():
        return net.pipe(A, B)

    async def clogged():
        a, b = net.pipe(A, B)
        for end in (a, b):
            await end.send_all(b"x" * WINDOW)
        return a, b

    await trio.testing.check_half_closeable_stream(maker, clogged)


async def test_bytes_arrive_after_exactly_the_latency_and_sending_takes_no_time(net, autojump_clock):
    net.set_link(A, B, latency=1.5)
    a, b = net.pipe(A, B)
    await a.send_all(b"first")
    assert now() == 0
    await trio.sleep(1)
    await a.send_all(b"second")
    assert await b.receive_some() == b"first"
    assert now() == pytest.approx(1.5)
    assert await b.receive_some() == b"second"
    assert now() == pytest.approx(2.5)


async def test_the_link_is_the_same_both_ways_and_others_keep_theirs(net, autojump_clock):
    net.set_link(A, B, latency=1)
    for one, other, latency in ((A, B, 1.0), (B, A, 1.0), (A, C, LATENCY)):
        started = now()
        a, b = net.pipe(one, other)
        await a.send_all(b"x")
        await b.receive_some()
        assert now() - started == pytest.approx(latency)


async def test_receive_takes_no_more_than_it_is_asked_for(net, autojump_clock):
    a, b = net.pipe(A, B)
    await a.send_all(b"abcdef")
    assert [await b.receive_some(4), await b.receive_some(4)] == [b"abcd", b"ef"]


async def test_half_close_ends_one_direction_after_what_was_sent(net, autojump_clock):
    a, b = net.pipe(A, B)
    await a.send_all(b"question")
    await a.send_eof()
    assert await receive_all(b) == b"question"
    assert await b.receive_some() == b""
    await b.send_all(b"answer")
    await b.aclose()
    assert await receive_all(a) == b"answer"
    with pytest.raises(trio.ClosedResourceError):
        await a.send_all(b"more")


async def test_a_closed_end_answers_data_with_a_reset_that_overtakes_nothing(net, autojump_clock):
    a, b = net.pipe(A, B)
    await b.send_all(b"last words")
    await a.send_all(b"nobody reads this")
    await trio.sleep(1)
    await b.aclose()
    await trio.sleep(1)
    with pytest.raises(trio.BrokenResourceError, match=B):
        await a.send_all(b"x")
    assert await receive_all(a) == b"last words"


async def test_a_reset_arrives_one_latency_later_and_wakes_reader_and_writer(net, autojump_clock):
    a, b = net.pipe(A, B)
    ended: list[float] = []

    async def read():
        with pytest.raises(trio.BrokenResourceError):
            await b.receive_some()
        ended.append(now())

    async def write():
        with pytest.raises(trio.BrokenResourceError):
            await b.send_all(bytes(2 * WINDOW))
        ended.append(now())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(write)
        await trio.sleep(5)
        a.reset()
    assert ended == pytest.approx([5 + LATENCY] * 2)


async def test_what_arrived_before_a_reset_can_still_be_read(net, autojump_clock):
    a, b = net.pipe(A, B)
    await a.send_all(b"early")
    await trio.sleep(1)
    a.reset()
    await trio.sleep(1)
    assert await b.receive_some() == b"early"
    with pytest.raises(trio.BrokenResourceError):
        await b.receive_some()


async def test_a_cancelled_receive_loses_nothing(net, autojump_clock):
    a, b = net.pipe(A, B)
    with trio.move_on_after(1):
        await b.receive_some()
    await a.send_all(b"kept")
    with trio.move_on_after(LATENCY):
        await b.receive_some()
        pytest.fail("it came too early")
    assert await b.receive_some() == b"kept"


# back-pressure, bandwidth, loss


async def test_no_more_than_a_window_is_under_way(net, autojump_clock):
    a, b = net.pipe(A, B)
    with trio.move_on_after(60) as scope:
        await a.send_all(bytes(WINDOW + 1))
    assert scope.cancelled_caught
    got = 0
    while got < WINDOW:
        got += len(await b.receive_some())
    assert got == WINDOW
    await a.send_all(b"goes on")
    assert await b.receive_some() == b"goes on"


async def test_a_slow_reader_slows_its_writer_down_and_not_the_other_direction(net, autojump_clock):
    a, b = net.pipe(A, B)
    done: list[str] = []

    async def write():
        await a.send_all(bytes(4 * WINDOW))
        done.append("written")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.sleep(60)
        await b.send_all(b"hello")
        assert await a.receive_some() == b"hello"
        assert not done
        got = 0
        while got < 4 * WINDOW:
            got += len(await b.receive_some())
    assert done


async def test_bandwidth_is_shared_by_the_pipes_of_a_link(net, autojump_clock):
    net.set_link(A, B, bandwidth=100_000)
    ends = [net.pipe(A, B) for _ in range(2)]

    async def carry(a, b):
        await a.send_all(bytes(100_000))
        await a.send_eof()
        assert len(await receive_all(b)) == 100_000

    async with trio.open_nursery() as nursery:
        for a, b in ends:
            nursery.start_soon(carry, a, b)
    assert now() == pytest.approx(2 + LATENCY)


async def arrivals(net: MemNet, count: int = 100) -> list[float]:
    a, b = net.pipe(A, B)
    times: list[float] = []
    for number in range(count):
        await a.send_all(bytes([number]))
        assert await b.receive_some() == bytes([number])
        times.append(now())
    return times


def delays(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]


async def test_loss_only_delays_by_doubling_timeouts(autojump_clock):
    async with MemNet(seed=3, latency=LATENCY, loss=0.3) as net:
        found = delays(await arrivals(net))
    expected = [LATENCY + 0.2 * (2**lost - 1) for lost in range(8)]
    for delay in found:
        assert any(delay == pytest.approx(wanted) for wanted in expected)
    assert found.count(pytest.approx(LATENCY)) < 90
    assert max(found) > 0.5


async def test_bytes_keep_their_order_whatever_is_lost(autojump_clock):
    rng = random.Random(1)
    data = rng.randbytes(1_000_000)
    async with MemNet(seed=3, loss=0.3) as net:
        a, b = net.pipe(A, B)

        async def send():
            await a.send_all(data)
            await a.send_eof()

        net.nursery.start_soon(send)
        assert await receive_all(b) == data


async def test_a_seed_makes_the_same_network_again_and_another_seed_another(autojump_clock):
    found = []
    for seed in (1, 1, 2):
        started = now()
        async with MemNet(seed=seed, loss=0.3) as net:
            found.append([time - started for time in await arrivals(net)])
    assert found[0] == pytest.approx(found[1])
    assert found[0] != pytest.approx(found[2])


async def test_chance_on_one_pipe_does_not_depend_on_the_traffic_of_another(autojump_clock):
    found = []
    for others in (0, 3):
        async with MemNet(seed=1, loss=0.3) as net:
            for _ in range(others):
                a, _b = net.pipe(A, C)
                await a.send_all(bytes(WINDOW))
            started = now()
            found.append([time - started for time in await arrivals(net)])
    assert found[0] == pytest.approx(found[1])


def test_scheduling_makes_trio_run_its_tasks_in_the_same_order_again():
    async def order() -> list[int]:
        seen: list[int] = []

        async def task(number):
            for _ in range(5):
                await trio.lowlevel.checkpoint()
                seen.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(task, number)
        return seen

    def run(seed):
        with scheduling(seed):
            return trio.run(order)

    assert run(1) == run(1)
    assert len({tuple(run(seed)) for seed in range(10)}) > 1


@pytest.mark.parametrize("bad", [{"latency": -1}, {"loss": 1.0}, {"loss": -0.1}, {"bandwidth": 0}])
def test_links_have_sensible_values(bad):
    with pytest.raises(ValueError, match="expected latency"):
        MemNet(**bad)


# partitions


async def test_bytes_stall_in_a_partition_and_come_after_healing(net, autojump_clock):
    a, b = net.pipe(A, B)
    await a.send_all(b"under way, ")
    net.partition({A}, {B, C})
    await a.send_all(b"and sent into it")
    await trio.sleep(10)
    assert net.cut(A, B)
    assert not net.cut(B, C)
    with trio.move_on_after(10) as scope:
        await b.receive_some()
    assert scope.cancelled_caught
    net.heal()
    assert await b.receive_some() == b"under way, and sent into it"
    assert now() == pytest.approx(20 + LATENCY)


async def test_a_partition_that_lasts_breaks_both_ends_even_idle_ones(net, autojump_clock):
    a, b = net.pipe(A, B)
    near, far = net.pipe(A, C)
    await trio.sleep(5)
    net.partition({A, C}, {B})
    for end in (a, b):
        with pytest.raises(trio.BrokenResourceError, match="couldn't be reached for 30 s"):
            await end.receive_some()
        assert now() == pytest.approx(35)
        with pytest.raises(trio.BrokenResourceError):
            await end.send_all(b"x")
    await near.send_all(b"still here")
    assert await far.receive_some() == b"still here"
    assert net.ends == 2


async def test_bytes_that_had_arrived_are_read_before_the_break(net, autojump_clock):
    a, b = net.pipe(A, B)
    await a.send_all(b"in time")
    await trio.sleep(1)
    net.partition({A}, {B})
    await trio.sleep(60)
    net.heal()
    assert await b.receive_some() == b"in time"
    with pytest.raises(trio.BrokenResourceError):
        await b.receive_some()


async def test_healing_in_time_starts_the_patience_anew(net, autojump_clock):
    a, b = net.pipe(A, B)
    for _ in range(3):
        net.partition({A}, {B})
        await trio.sleep(29)
        net.heal()
        await trio.sleep(1)
    await a.send_all(b"x")
    assert await b.receive_some() == b"x"


async def test_a_reset_into_a_partition_comes_after_healing(net, autojump_clock):
    a, b = net.pipe(A, B)
    net.partition({A}, {B})
    a.reset()
    await trio.sleep(10)
    net.heal()
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await b.receive_some()
    assert now() == pytest.approx(10 + LATENCY)


async def test_a_pipe_made_within_a_partition_stalls_too(net, autojump_clock):
    net.partition({A}, {B})
    a, b = net.pipe(A, B)
    await a.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await b.receive_some()
    assert now() == pytest.approx(30)


async def test_a_host_is_in_one_group_only(net, autojump_clock):
    with pytest.raises(ValueError, match="one group"):
        net.partition({A, B}, {B, C})


# connecting


async def test_connecting_takes_a_round_trip_and_both_ends_know_each_other(net, autojump_clock):
    a, b = await connected(net)
    assert now() == pytest.approx(2 * LATENCY)
    assert a.remote == b.local == (B, 4001)
    assert b.remote == a.local
    assert a.local[0] == A


async def test_a_port_where_nobody_listens_refuses_after_a_round_trip(net, autojump_clock):
    with pytest.raises(ConnectionRefusedError):
        await net.connect(A, B, 4001)
    assert now() == pytest.approx(2 * LATENCY)


async def test_connecting_hangs_in_a_partition_until_healing(net, autojump_clock):
    net.listen(B, 4001, lambda _end: None)
    net.partition({A}, {B})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(net.connect, A, B, 4001)
        await trio.sleep(12)
        net.heal()
    assert now() == pytest.approx(12 + 2 * LATENCY)


async def test_connecting_gives_up_after_a_while(net, autojump_clock):
    net.partition({A}, {B})
    with pytest.raises(TimeoutError):
        await net.connect(A, B, 4001)
    assert now() == pytest.approx(30)


async def test_kill_resets_all_connections_of_a_host_and_no_other(net, autojump_clock):
    a, b = net.pipe(A, B)
    c, d = net.pipe(C, A)
    e, f = net.pipe(B, C)
    net.kill(A)
    for end in (a, d):
        with pytest.raises(trio.BrokenResourceError, match="was killed"):
            await end.send_all(b"x")
    assert now() == 0
    for end in (b, c):
        with pytest.raises(trio.BrokenResourceError, match=r"reset by 10\.0\.0\.1"):
            await end.receive_some()
        assert now() == pytest.approx(LATENCY)
    await e.send_all(b"alive")
    assert await f.receive_some() == b"alive"


async def test_closed_ends_are_forgotten(net, autojump_clock):
    for _ in range(3):
        a, b = net.pipe(A, B)
        await a.aclose()
        await b.aclose()
    assert net.ends == 0


# the transport


async def listening(net: MemNet, ip: str, addr: str, handler, nursery: trio.Nursery):
    listener = net.transport(ip).create_listener(handler)
    listener.background_nursery = nursery
    await listener.listen(Multiaddr(addr))
    return listener


async def test_the_transport_carries_bytes_and_says_who_is_there(net, autojump_clock):
    remotes: list[tuple[str, int] | None] = []

    async def echo(stream):
        remotes.append(stream.get_remote_address())
        while data := await stream.read(2):
            assert len(data) <= 2
            await stream.write(data)
        await stream.close()

    await listening(net, B, f"/ip4/{B}/tcp/4001", echo, net.nursery)
    transport = net.transport(A)
    addr = Multiaddr(f"/ip4/{B}/tcp/4001/p2p/{MemNode(net, A).peer_id}")
    assert transport.can_dial(addr)
    raw = await transport.dial(addr)
    assert raw.is_initiator
    assert raw.get_remote_address() == (B, 4001)
    await raw.write(b"hello")
    got = b""
    while len(got) < 5:
        got += await raw.read(64)
    assert got == b"hello"
    assert [remote[0] for remote in remotes] == [A]
    await raw.close()
    assert await raw.read(1) == b""


async def test_a_broken_connection_raises_as_a_tcp_stream_does(net, autojump_clock):
    async def hold(stream):
        await trio.sleep_forever()

    await listening(net, B, f"/ip4/{B}/tcp/4001", hold, net.nursery)
    raw = await net.transport(A).dial(Multiaddr(f"/ip4/{B}/tcp/4001"))
    net.kill(B)
    await trio.sleep(1)
    with pytest.raises(ConnectionClosedError):
        await raw.write(b"x")
    with pytest.raises(ConnectionClosedError):
        await raw.read(1)


async def test_ports_are_free_in_use_and_free_again(net, autojump_clock):
    async def ignore(stream):
        await stream.close()

    free = await listening(net, B, f"/ip4/{B}/tcp/0", ignore, net.nursery)
    port = int(free.get_addrs()[0].value_for_protocol("tcp"))
    assert port > 0
    with pytest.raises(OpenConnectionError, match="in use"):
        await listening(net, B, f"/ip4/{B}/tcp/{port}", ignore, net.nursery)
    await listening(net, A, f"/ip4/{A}/tcp/{port}", ignore, net.nursery)
    for _ in range(2):
        await free.close()
    assert free.get_addrs() == ()
    with pytest.raises(OpenConnectionError, match="refused"):
        await net.transport(A).dial(Multiaddr(f"/ip4/{B}/tcp/{port}"))
    await listening(net, B, f"/ip4/{B}/tcp/{port}", ignore, net.nursery)


async def test_a_host_listens_on_its_own_address_only(net, autojump_clock):
    async def ignore(stream):
        pass

    with pytest.raises(OpenConnectionError, match="assign"):
        await listening(net, B, f"/ip4/{A}/tcp/1", ignore, net.nursery)
    wildcard = await listening(net, B, "/ip4/0.0.0.0/tcp/1", ignore, net.nursery)
    assert str(wildcard.get_addrs()[0]) == f"/ip4/{B}/tcp/1"


# whole nodes


async def test_whole_nodes_meet_in_simulated_time(net, autojump_clock):
    async with mem_node(net, A, dht="off") as a, mem_node(net, B, dht="off") as b:
        started = now()
        await a.connect(b.addrs[0])
        # TCP 1 round trip, multistream and Noise, multistream and Yamux, the handshake: latency is all that it takes
        assert 4 * 2 * LATENCY <= now() - started <= 9 * 2 * LATENCY
        assert a.connected_peers() == [b.peer_id]
        rtts = await a.ping(b.peer_id, count=3)
        assert rtts == pytest.approx([2 * LATENCY] * 3)
        net.partition({A}, {B})
        await trio.sleep(60)
        assert a.connected_peers() == b.connected_peers() == []
    assert net.ends == 0


# light nodes


async def test_light_nodes_speak_protocols_through_the_real_registry(net, autojump_clock):
    echo = Protocol("/echo/1.0.0")

    @echo.serve
    async def reply(stream):
        async for frame in stream:
            await stream.send(stream.peer.encode() + frame)

    a, b = net.node(A), net.node(B, [echo, PING])
    await a.connect(b)
    assert now() == pytest.approx(2 * LATENCY)
    assert a.connected_peers() == [b.peer_id]
    assert b.connected_peers() == [a.peer_id]
    async with a.stream(b.peer_id, echo) as stream:
        assert now() == pytest.approx(4 * LATENCY)
        await stream.send(b"!")
        assert await stream.receive() == a.peer_id.encode() + b"!"
        assert b.registry.streams(a.peer_id, echo.id) == 1
    await trio.sleep(1)
    assert b.registry.streams(a.peer_id, echo.id) == 0
    assert await ping(a, b.peer_id) == pytest.approx([2 * LATENCY])


async def test_light_nodes_refuse_what_the_registry_refuses(net, autojump_clock):
    held = Protocol("/held/1.0.0", streams_per_peer=1)

    @held.serve
    async def hold(stream):
        await trio.sleep_forever()

    a, b = net.node(A), net.node(B, [held])
    with pytest.raises(StreamError, match="no connection"):
        await a._open(b.peer_id, held)
    await a.connect(b)
    with pytest.raises(NotSupported, match=PING.id):
        await a._open(b.peer_id, PING)
    async with a.stream(b.peer_id, held):
        with pytest.raises(StreamReset):
            await a._open(b.peer_id, held)
    assert b.registry.refused[held.id] == 1


async def test_light_nodes_lose_each_other_and_meet_again(net, autojump_clock):
    a, b = net.node(A), net.node(B, [PING])
    with pytest.raises(ValueError, match="already"):
        net.node(A)
    await a.connect(b)
    async with a.stream(b.peer_id, PING) as stream:
        a.disconnect(b)
        assert a.connected_peers() == []
        with pytest.raises(StreamReset):
            await stream.receive()
    await trio.sleep(1)
    assert b.connected_peers() == []
    await b.connect(a)
    net.partition({A}, {B})
    with pytest.raises(StreamTimeout):
        await b._open(a.peer_id, PING)
    await trio.sleep(30)
    assert a.connected_peers() == b.connected_peers() == []
    with pytest.raises(DialError, match="timed out"):
        await a.connect(b)


async def test_many_light_nodes_are_cheap(net, autojump_clock):
    nodes = [net.node(f"10.1.{number // 250}.{number % 250}", [PING]) for number in range(200)]
    async with trio.open_nursery() as nursery:
        for one, other in zip(nodes, nodes[1:] + nodes[:1], strict=True):
            nursery.start_soon(one.connect, other)
    assert {len(node.connected_peers()) for node in nodes} == {2}
    times: list[float] = []

    async def measure(node):
        for peer in node.connected_peers():
            times.extend(await ping(node, peer))

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(measure, node)
    assert times == pytest.approx([2 * LATENCY] * 400)


def test_a_latency_is_finite_everywhere_else():
    assert math.isfinite(MemNet().link(A, B).latency)
