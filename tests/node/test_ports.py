"""TCP ports: what happens to connections when the port is closed."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing
from multiaddr import Multiaddr

from node.node import parse_peer_id
from node.ports import Ports, TcpListener, no_opening
from tests.nodes import eventually, running

TCP = Multiaddr("/ip4/127.0.0.1/tcp/0")
DIALLERS = 6


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_that_comes_while_the_port_closes_is_closed_or_served(turns):
    """The order of tasks in one turn of the event loop is a matter of chance, so each is tried a few times."""
    for _ in range(4):
        served = []

        async def handler(stream, served=served):
            served.append(stream)

        async with trio.open_nursery() as nursery:
            listener = TcpListener(Ports(), lambda kind: no_opening, handler)
            listener.background_nursery = nursery
            await listener.listen(TCP)
            await trio.testing.wait_all_tasks_blocked()
            (addr,) = listener.get_addrs()
            with socket.create_connection(("127.0.0.1", int(addr.value_for_protocol("tcp")))) as client:
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                await listener.close()
                await trio.testing.wait_all_tasks_blocked()
                client.settimeout(0)
                try:
                    assert client.recv(1) == b""
                except ConnectionResetError:
                    assert not served


async def test_connections_outlive_the_listener_that_accepted_them():
    async with running(gossip="off") as a, running(listen=(), gossip="off") as b:
        connection = await b.connect(a.addrs[0])
        (listener,) = a.swarm.listeners.values()
        await listener.close()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not connection.muxed_conn.lost
        assert not a.swarm.connection(parse_peer_id(b.peer_id)).muxed_conn.lost


async def test_a_node_that_stops_says_so_to_those_who_dialled_it():
    muxers = []
    async with trio.open_nursery() as nursery:
        stopped = trio.Event()

        async def dialler(addr):
            async with running(listen=(), gossip="off") as b:
                muxers.append((await b.connect(addr)).muxed_conn)
                await stopped.wait()
                await eventually(lambda: all(muxer.lost for muxer in muxers))

        async with running(gossip="off") as a:
            for _ in range(DIALLERS):
                nursery.start_soon(dialler, a.addrs[0])
            await eventually(lambda: len(muxers) == DIALLERS)
        stopped.set()
    assert [muxer.session.went_away for muxer in muxers] == [True] * DIALLERS
