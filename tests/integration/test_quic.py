"""Nodes over QUIC on loopback: admission, streams, ends, bounds, strangers."""

from __future__ import annotations

import os
import random
import socket
from contextlib import asynccontextmanager, closing
from functools import partial

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interop.rawbytes import (
    BYTES,
    Pattern,
    at_once,
    echo_pattern,
    receive_pattern,
    reset_mine,
    send_pattern,
    was_reset,
)
from node.config import Config
from node.errors import DialError, RefusedError
from node.events import Admitted, Disconnected, Refused
from node.identity import Identity
from node.node import Node, parse_peer_id
from node.quic.transport import Quic
from node.transport import Tcp
from protocols import EndOfStream, Protocol, StreamReset
from tests.nodes import DEFAULTS, NOWHERE, Recorder, eventually, running
from tests.quicnodes import QUIC, SERVING, endpoint, first_datagram, impatient, muxed, quic

MIB = 1 << 20
TCP = "/ip4/127.0.0.1/tcp/0"


@asynccontextmanager
async def two(**values):
    async with quic(**values) as a, quic(**values) as b:
        await b.connect(a.addrs[0])
        yield a, b


# admission


async def test_admitted_by_the_same_handshake():
    async with quic() as a, quic() as b:
        recorder = Recorder(a)
        connection = await b.connect(a.addrs[0])
        assert connection.hello is not None
        assert connection.initiated
        admitted = await recorder.next(Admitted)
        assert "/udp/" in admitted.addr
        assert admitted.addr.endswith("/quic-v1")
        # dialled from the socket that listens: the address that a sees is one where b can be dialled
        assert admitted.addr == b.addrs[0].partition("/p2p/")[0]
        assert a.addrs == [f"{addr}/p2p/{a.peer_id}" for addr in a.host.listen_addrs]


async def test_refused_by_the_same_handshake():
    async with quic(network_id="one") as a, quic(network_id="other") as b:
        recorder = Recorder(a)
        with pytest.raises(RefusedError):
            await b.connect(a.addrs[0])
        assert (await recorder.next(Refused)).reason == "network_id"
        await eventually(lambda: a.swarm.limits.total == b.swarm.limits.total == 0)
        await eventually(lambda: not endpoint(a).connections and not endpoint(b).connections)


async def test_beside_tcp_and_on_ipv6():
    async with running(listen=(TCP, QUIC, "/ip6/::1/udp/0/quic-v1"), protocols=SERVING) as a:
        assert len(a.addrs) == 3
        for addr in a.addrs:
            async with running(listen=(), protocols=SERVING) as b:
                await b.connect(addr)
                await echo_pattern(b, a.peer_id, 100_000)
                await echo_pattern(a, b.peer_id, 100_000)


async def test_the_socket_for_dials_ends_with_its_last_connection():
    async with quic() as a, quic() as c, running(listen=()) as b:
        await b.connect(a.addrs[0])
        await b.connect(c.addrs[0])
        (transport,) = [found for found in b.swarm.transport_manager.get_transports() if isinstance(found, Quic)]
        (dialling,) = transport._dialling.values()
        assert len(dialling.connections) == 2
        dialling.close()
        await b.disconnect(a.peer_id)
        await b.disconnect(c.peer_id)
        await eventually(lambda: not transport._dialling)
        await b.connect(a.addrs[0])


async def test_two_on_one_port_and_bad_addresses():
    async with quic() as a:
        taken = a.addrs[0].partition("/p2p/")[0]
        with pytest.raises(Exception, match="in use"):
            async with running(listen=(taken,)):
                pass
    for addr in ("/ip4/127.0.0.1/udp/0", "/dns4/localhost/udp/0/quic-v1", "/ip4/127.0.0.1/udp/0/quic-v1/webtransport"):
        with pytest.raises(Exception, match="no transport"):
            async with running(listen=(addr,)):
                pass


async def test_another_peer_at_that_address():
    async with quic() as a, quic() as b:
        wrong = a.addrs[0].replace(a.peer_id, Identity.generate().peer_id)
        with pytest.raises(DialError, match="expected peer"):
            await b.connect(wrong)
        await eventually(lambda: not endpoint(b).connections)


async def test_dialling_ourselves():
    async with quic() as a:
        with pytest.raises(DialError, match="itself"):
            await a.connect(a.addrs[0])


async def test_a_dial_to_nobody_ends_in_time_and_a_cancelled_one_at_once():
    async with quic(dial_timeout=1.0) as a:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as silent:
            silent.bind(("127.0.0.1", 0))
            addr = f"/ip4/127.0.0.1/udp/{silent.getsockname()[1]}/quic-v1/p2p/{Identity.generate().peer_id}"
            with trio.fail_after(3), pytest.raises(DialError, match="no answer"):
                await a.connect(addr)
            other = addr.rpartition("/")[0] + "/" + Identity.generate().peer_id
            with trio.move_on_after(0.05) as scope:
                await a.connect(other)
            assert scope.cancelled_caught
        await eventually(lambda: not endpoint(a).connections and a.swarm.limits.total == 0)


async def test_dialled_by_a_name():
    async with quic() as a, quic() as b:
        await b.connect(a.addrs[0].replace("/ip4/127.0.0.1/", "/dns4/localhost/"))
        await echo_pattern(b, a.peer_id, 1000)


# bytes and streams


async def test_a_hundred_mebibytes_each_way_in_bounded_memory():
    async with two() as (a, b):
        most = 0

        async def watch():
            nonlocal most
            while True:
                for one, other in ((a, b), (b, a)):
                    most = max(most, sum(stream.size for stream in muxed(one, other).streams.values()))
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await at_once([partial(echo_pattern, a, b.peer_id, 100 * MIB), partial(echo_pattern, b, a.peer_id, MIB)])
            nursery.cancel_scope.cancel()
        assert most < 32 * MIB


async def test_a_thousand_streams():
    async with two(max_streams=1024) as (a, b):
        await echo_pattern(a, b.peer_id, 64, 1000)
        await echo_pattern(b, a.peer_id, 64, 1000)
        await eventually(lambda: not muxed(a, b).streams and not muxed(b, a).streams)


async def test_more_streams_than_may_be_open_wait_or_are_reset():
    async with two(max_streams=16) as (a, b):

        async def one(k):
            try:
                async with b.stream(a.peer_id, BYTES) as stream:
                    await send_pattern(stream, Pattern(k, 64))
                    await receive_pattern(stream, Pattern(k, 64))
            except StreamReset:
                return

        await at_once(partial(one, k) for k in range(100))
        await echo_pattern(b, a.peer_id, 1000)


async def test_half_close_reset_and_close():
    async with two() as (a, b):
        for here, there in ((a, b), (b, a)):
            async with here.stream(there.peer_id, BYTES) as stream:
                await send_pattern(stream, Pattern(1, 200_000))
                await receive_pattern(stream, Pattern(1, 200_000))
                with pytest.raises(EndOfStream):
                    await stream.receive_some(1)
            await reset_mine(here, there.peer_id)
            await was_reset(here, there.peer_id)
        await eventually(lambda: not muxed(a, b).streams and not muxed(b, a).streams)


async def test_an_end_goes_with_what_was_sent_before_it():
    """By itself it would wait until that is acknowledged, a round trip."""
    waited = 0
    async with two() as (a, b):
        for _ in range(20):  # the order of tasks in one turn of the event loop is a matter of chance
            async with b.stream(a.peer_id, BYTES) as stream:
                await stream.send(bytes(32 * 1024))
                await stream.send_eof()
                waited += muxed(b, a)._native.ends_wait
                await stream.receive_exactly(32 * 1024)
    assert waited < 5  # where the window was full, the last bytes had gone before


async def test_an_answer_can_be_read_by_one_that_reads_no_more_of_ours():
    """As Go closes: its end, and no more reading, at once."""
    seen = []

    async def ask(stream):
        await stream.send(b"question")
        seen.append(await stream.receive_exactly(6))

    asking = Protocol("/ask/1.0.0", max_frame=None)
    asking.serve(ask)
    async with running(listen=(QUIC,), protocols=[asking]) as a, quic() as b:
        await b.connect(a.addrs[0])
        raw = await muxed(b, a).open_stream()
        from node.streams import ConnStream
        from node.upgrade.multistream import select

        connection = b.swarm.connection(parse_peer_id(a.peer_id))
        stream = ConnStream(raw, connection.streams, connection)
        await select(stream, ["/ask/1.0.0"])
        await raw.write(b"answer")
        await raw.close()
        await eventually(lambda: seen == [b"answer"])


async def test_what_nobody_reads_is_bounded():
    async with two(max_connection_window=24 * MIB) as (a, b), b.stream(a.peer_id, BYTES) as stream:
        pattern = Pattern(0, 64 * MIB)

        async def stall_and_receive():
            await trio.sleep(1.5)
            for here, there in ((a, b), (b, a)):
                assert sum(stream.size for stream in muxed(here, there).streams.values()) <= 24 * MIB
            await receive_pattern(stream, pattern)

        await at_once([partial(send_pattern, stream, pattern), stall_and_receive])


async def test_others_go_on_while_one_does_not_read():
    async with two() as (a, b), b.stream(a.peer_id, BYTES) as stream:
        pattern = Pattern(0, 24 * MIB)

        async def stall_and_receive():
            await trio.sleep(0.2)
            with trio.fail_after(5):
                await echo_pattern(b, a.peer_id, 100_000)
                await echo_pattern(a, b.peer_id, 100_000)
            await receive_pattern(stream, pattern)

        await at_once([partial(send_pattern, stream, pattern), stall_and_receive])


async def test_cancelled_reads_and_writes_harm_nothing_else():
    rng = random.Random(7)
    async with two() as (a, b):

        async def one(k):
            with trio.move_on_after(rng.random() * 0.1):
                await echo_pattern(b, a.peer_id, 2 * MIB)

        for _ in range(3):
            await at_once(partial(one, k) for k in range(16))
        await echo_pattern(b, a.peer_id, MIB)
        await eventually(lambda: len(muxed(b, a).streams) == 0 and len(muxed(a, b).streams) == 0)


async def test_a_cancelled_read_loses_nothing():
    async with two() as (a, b), b.stream(a.peer_id, BYTES) as stream:
        pattern = Pattern(0, MIB)
        received = bytearray()

        async def receive():
            while len(received) < pattern.length:
                with trio.move_on_after(0.0003):
                    while len(received) < pattern.length:
                        received.extend(await stream.receive_some(1000))

        await at_once([partial(send_pattern, stream, pattern), receive])
        assert bytes(received) == b"".join(pattern.at(at) for at in range(0, MIB, 256 * 1024))


# ends of connections


async def test_closing_is_noticed_at_once():
    async with two() as (a, b):
        recorder = Recorder(a)
        async with a.stream(b.peer_id, BYTES) as stream:
            await b.disconnect(a.peer_id)
            with trio.fail_after(3):
                await recorder.next(Disconnected)
                with pytest.raises(StreamReset):
                    await stream.receive_some(1)
        await eventually(lambda: not endpoint(a).connections and not endpoint(b).connections)
        assert a.swarm.limits.total == b.swarm.limits.total == 0


async def test_idle_connections_stay():
    async with impatient(1.0) as a, impatient(1.0) as b:
        await b.connect(a.addrs[0])
        recorder = Recorder(a)
        await trio.sleep(4)
        assert not recorder.of(Disconnected)
        await echo_pattern(a, b.peer_id, 1000)


async def test_a_lost_peer_is_noticed_within_the_idle_timeout():
    async with impatient(1.0) as a, impatient(1.0) as b:
        await b.connect(a.addrs[0])
        recorder = Recorder(a)
        endpoint(b).socket.send = lambda run, addr, local: True  # nothing of it arrives any more
        with trio.fail_after(5):
            await recorder.next(Disconnected)
        await eventually(lambda: not endpoint(a).connections)


async def test_stopping_a_node_tells_its_peers():
    async with quic() as a:
        async with quic() as b:
            await b.connect(a.addrs[0])
            recorder = Recorder(a)
        with trio.fail_after(3):
            await recorder.next(Disconnected)


# strangers


async def send_from_many_ports(node, datagrams, ports=64):
    """Sends each from a port of its own, as far as there are."""
    port = endpoint(node).socket.address[1]
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(ports)]
    try:
        for index, data in enumerate(datagrams):
            sockets[index % ports].sendto(data, ("127.0.0.1", port))
            if index % 32 == 31:
                await trio.sleep(0.001)
    finally:
        for one in sockets:
            one.close()


async def test_a_flood_of_first_datagrams_takes_no_place_from_others():
    async with quic() as a, quic() as b:
        await send_from_many_ports(a, [first_datagram() for _ in range(400)])
        assert len(endpoint(a).connections) <= 8
        assert a.swarm.limits.half_open <= 2
        assert endpoint(a).retries >= 300
        with trio.fail_after(5):
            await b.connect(a.addrs[0])  # it is asked whether it is there, and it is
        await echo_pattern(b, a.peer_id, 1000)


async def test_strangers_who_say_no_more_are_forgotten():
    async with quic(upgrade_timeout=0.5) as a:
        await send_from_many_ports(a, [first_datagram() for _ in range(20)])
        await eventually(lambda: a.swarm.limits.half_open == 0, timeout=3)
        await eventually(lambda: not endpoint(a).connections and not endpoint(a)._by_cid, timeout=5)


async def test_no_place_no_work():
    async with quic(max_inbound=1) as a, quic() as b, quic() as c:
        await b.connect(a.addrs[0])
        with trio.fail_after(3), pytest.raises(DialError, match="2"):  # CONNECTION_REFUSED
            await c.connect(a.addrs[0])
        await eventually(lambda: len(endpoint(a).connections) == 1)
        await echo_pattern(b, a.peer_id, 1000)


async def test_garbage_harms_nobody():
    rng = random.Random(11)
    async with two() as (a, b):
        ours = list(endpoint(a)._by_cid)
        garbage = [rng.randbytes(rng.randrange(1, 1500)) for _ in range(200)]
        for cid in ours * 20:
            garbage.append(bytes([0x40 | rng.randrange(64)]) + cid + rng.randbytes(rng.randrange(1300)))
            garbage.append(b"\xe0\0\0\0\1\x08" + cid + rng.randbytes(rng.randrange(1300)))
        await send_from_many_ports(a, garbage)
        await echo_pattern(b, a.peer_id, MIB)
        assert a.connected_peers() == [b.peer_id]


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(datagrams=st.lists(st.binary(max_size=1400), max_size=20), cut=st.integers(0, 1280))
def test_any_datagrams_at_an_endpoint(datagrams, cut):
    async def main():
        async with quic() as a:
            found = endpoint(a)
            first = first_datagram()
            for data in [*datagrams, first[:cut] + os.urandom(1280 - cut), first[:cut], first, first]:
                touched = {}
                found._deliver(data, max(1, len(data)), ("127.0.0.1", 9), None, trio.current_time(), touched)
                for conn in touched:
                    conn.flush()
            await trio.sleep(0.001)

    trio.run(main)


async def test_datagrams_for_several_connections_in_one_read():
    async with quic() as a, quic() as b:
        await b.connect(a.addrs[0])
        (conn,) = endpoint(a).connections
        data = b"".join(b"\x40" + cid + bytes(20) for cid in [*endpoint(a)._by_cid, bytes(8)])
        touched = {}
        endpoint(a)._deliver(data, 29, ("127.0.0.1", 9), None, trio.current_time(), touched)
        assert list(touched) == [conn]


async def test_tcp_alone_still_can_be_had():
    identity = Identity.generate()
    config = Config(data_dir=NOWHERE, listen=(TCP,), **DEFAULTS)
    async with Node(config, identity=identity, transports=[Tcp()]) as node, quic() as other:
        with pytest.raises(DialError, match="that this node can dial, got /ip4/127"):
            await node.connect(other.addrs[0])
