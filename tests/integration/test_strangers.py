"""What peers of the network may tell and do, and what it may cost: keys, addresses, answers, dials."""

from __future__ import annotations

import logging

import pytest
import trio
from libp2p.crypto.pb import crypto_pb2
from libp2p.crypto.serialization import deserialize_public_key
from libp2p.identity.identify.pb.identify_pb2 import Identify
from multiaddr import Multiaddr

from node.errors import DialError, UsageError
from node.events import Admitted, Disconnected, Identified
from node.identify import IDENTIFY_ID, PUSH_ID
from node.keys import MAX_KEY, prepare_keys
from node.node import Node
from node.upgrade.multistream import select
from protocols import Protocol, StreamError
from tests.faults.test_simulated import silent
from tests.memnet import MemNet, mem_node
from tests.nodes import Recorder, echo_protocol, eventually, running

NOT_ADDRESSES = [b"\xff\xff\xff\xff\x01", Multiaddr("/dns4/x/tcp/1").to_bytes().replace(b"x", b"\xff"), b""]
A, B = "10.0.0.1", "10.0.0.2"


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_keys_are_refused_by_their_size_before_anything_looks_inside(kind):
    prepare_keys()
    prepare_keys()
    key = crypto_pb2.PublicKey(key_type=kind, data=bytes(MAX_KEY + 1)).SerializeToString()
    with pytest.raises(ValueError, match="expected a public key of at most"):
        deserialize_public_key(key)


def telling(node: Node, **fields) -> bytes:
    return Identify(
        public_key=node.host.get_public_key().serialize(), agent_version="odd", **fields
    ).SerializeToString()


async def test_addresses_that_are_none_are_dropped_and_the_node_goes_on():
    async with running() as a, running() as b:
        a.identify._message = lambda _peer: telling(a, listen_addrs=NOT_ADDRESSES)
        recorder = Recorder(b)
        await b.connect(a.addrs[0])
        told = await recorder.next(Identified)
        assert told.agent == "odd"
        assert b.identify.known[a.peer_id].addrs == ()
        assert len(await b.ping(a.peer_id)) == 1


@pytest.mark.parametrize(
    ("ip", "kept"), [("93.184.0.1", ["93.184.0.7"]), ("10.0.0.6", ["93.184.0.7", "10.0.0.7"]), ("127.0.0.6", None)]
)
async def test_nobody_names_addresses_that_are_nearer_than_itself(ip, kept, autojump_clock):
    every = ["93.184.0.7", "10.0.0.7", "127.0.0.7"]
    addrs = [f"/ip4/{host}/tcp/22" for host in every]
    async with MemNet() as net, mem_node(net, ip, dht="off") as a, mem_node(net, "10.0.0.1", dht="off") as b:
        a.identify._message = lambda _peer: telling(a, listen_addrs=[Multiaddr(addr).to_bytes() for addr in addrs])
        await a.connect(b.addrs[0])
        await trio.sleep(1.0)
        assert [addr.split("/")[2] for addr in b.identify.known[a.peer_id].addrs] == (kept or every)
        booked = {known.addr.split("/")[2] for known in b.addressbook.get(a.peer_id).addrs}
        assert booked & set(every) == set(kept or every)


async def test_who_was_dialled_by_name_is_where_its_socket_is():
    async with running() as a, running() as b:
        port = a.addrs[0].split("/")[4]
        await b.connect(f"/dns4/localhost/tcp/{port}/p2p/{a.peer_id}")
        connection = b.swarm.connection(a.host.get_id())
        assert str(connection.addr).startswith("/dns4/localhost/")
        assert connection.ip == "127.0.0.1"
        await eventually(lambda: a.peer_id in b.identify.known)
        assert f"/ip4/127.0.0.1/tcp/{port}" in b.identify.known[a.peer_id].addrs


@pytest.mark.parametrize("message", [b"\xff\xff", bytes(60_000)])
async def test_a_message_that_is_none_is_the_senders_fault_and_no_error_of_ours(message, caplog):
    caplog.set_level(logging.INFO)
    async with running() as a, running() as b:
        recorder = Recorder(a)
        await b.connect(a.addrs[0])
        await recorder.next(Identified)
        async with b.stream(a.peer_id, Protocol(PUSH_ID)) as stream:
            await stream.send(message)
            with pytest.raises(StreamError):
                await stream.receive()
        assert a.registry.failed == {}
        assert len(await b.ping(a.peer_id)) == 1
    assert not [record for record in caplog.records if record.exc_info]


async def test_asking_often_leaves_nothing_behind():
    """Streams that the answering side has closed, and the asking side fills and never ends."""
    async with running(gossip="off") as a, running(gossip="off") as b:
        await b.connect(a.addrs[0])
        (connection,) = a.swarm.admitted_connections()
        await eventually(lambda: not connection.get_streams())
        raw = b.swarm.admitted_connections()[0].muxed_conn
        for _ in range(30):
            stream = await raw.open_stream()
            await select(stream, [IDENTIFY_ID])
            await stream.write(bytes(200_000))
        await eventually(lambda: not connection.get_streams())
        assert connection.muxed_conn.session._unread == 0


async def test_a_cancelled_open_leaves_no_stream_behind(autojump_clock):
    async with (
        MemNet(latency=0.01) as net,
        mem_node(net, A, dht="off", gossip="off", protocols=[echo_protocol()]) as a,
        mem_node(net, B, dht="off", gossip="off") as b,
    ):
        connection = await b.connect(a.addrs[0])
        echo = echo_protocol()
        await trio.sleep(1)
        for step in range(100):
            with trio.move_on_after(0.0005 * step):
                async with b.stream(a.peer_id, echo):
                    pass
        await trio.sleep(70)
        assert not connection.get_streams()
        assert not connection.muxed_conn.session.streams
        (there,) = a.swarm.admitted_connections()
        assert not there.muxed_conn.session.streams


async def test_the_connection_that_was_to_go_serves_again_when_the_other_one_is_lost(autojump_clock):
    async with MemNet() as net, mem_node(net, A, dht="off") as a, mem_node(net, B, dht="off") as b:
        recorder = Recorder(b)
        first = await a.connect(b.addrs[0])
        await recorder.next(Admitted)
        second = await a.swarm.dial_address(Multiaddr(b.addrs[0]), first.peer_id)
        await trio.sleep(0.1)
        assert first.draining
        await second.close()
        await trio.sleep(10)
        assert a.connected_peers() == [b.peer_id]
        assert b.connected_peers() == [a.peer_id]
        assert len(await a.ping(b.peer_id)) == 1
        assert not recorder.of(Disconnected)


async def test_the_deadline_of_a_dial_counts_its_wait_for_a_turn(autojump_clock):
    async with MemNet() as net, mem_node(net, A, dht="off", max_dials=1, dial_timeout=1.0) as node:
        addr, _ = silent(net, B)
        other, _ = silent(net, "10.0.0.3")
        took = []

        async def dial(target: str) -> None:
            started = trio.current_time()
            with pytest.raises(DialError, match="no answer within 1 s"):
                await node.connect(target)
            took.append(trio.current_time() - started)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial, addr)
            nursery.start_soon(dial, other)
        assert all(seconds == pytest.approx(1, abs=0.01) for seconds in took)


@pytest.mark.parametrize(
    "addr", ["/dns4/localhost/tcp/0", "/dns/example.com/tcp/0", "/ip4/127.0.0.1/udp/0/webrtc-direct"]
)
async def test_a_name_or_a_transport_that_is_not_there_is_no_address_to_listen_on(addr):
    with pytest.raises(UsageError, match="can't listen on"):
        async with running(listen=(addr,)):
            pass


@pytest.mark.parametrize("middle", ["", "/ip4/127.0.0.1", "/ip4/127.0.0.1/udp/1/webrtc-direct"])
async def test_a_bootstrap_that_cannot_be_dialled_is_refused_at_the_start(middle):
    peer = "12D3KooWGRUaX4zv4AtF6nKcqhmWXQnHpHZu8s6eYAzDxZ3zYxyy"
    with pytest.raises(UsageError, match="bootstrap: expected an address like"):
        async with running(bootstrap=(f"{middle}/p2p/{peer}",)):
            pass
