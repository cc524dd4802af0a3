"""QUIC where the path isn't what it was, or isn't much: other ports, narrow paths, several addresses of one host."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from interop.rawbytes import BYTES, echo_pattern
from node.events import Disconnected
from tests.nodes import Recorder, running
from tests.udprelay import relayed

MIB = 1 << 20
QUIC = "/ip4/127.0.0.1/udp/0/quic-v1"
NARROWEST = 1200  # what QUIC asks of a path


def quic(**values):
    return running(**{"listen": (QUIC,), "protocols": (BYTES,), "gossip": "off", **values})


def endpoint(node):
    (listener,) = node.swarm.listeners.values()
    return listener._endpoint


@asynccontextmanager
async def over_a_path(largest=65535):
    """`b` has dialled `a`, over a path that can be changed."""
    async with quic() as a, quic() as b, relayed(endpoint(a).socket.address) as path:
        path.largest = largest
        port = endpoint(a).socket.address[1]
        with trio.fail_after(5):
            await b.connect(a.addrs[0].replace(f"/udp/{port}/", f"/udp/{path.port}/"))
        yield a, b, path


@pytest.mark.parametrize("speaker", ["dialler", "listener", "both"])
async def test_a_client_seen_at_another_port_is_the_same_client(speaker):
    async with over_a_path() as (a, b, path):
        recorder = Recorder(a)
        await echo_pattern(b, a.peer_id, MIB)
        path.leave_from_another_port()
        with trio.fail_after(10):
            if speaker != "listener":
                await echo_pattern(b, a.peer_id, MIB)
            else:
                await b.ping(a.peer_id, 1)  # until it says something, nobody knows where it is
            if speaker != "dialler":
                await echo_pattern(a, b.peer_id, MIB)
        assert not recorder.of(Disconnected)


async def test_a_path_that_carries_no_more_than_quic_asks():
    async with over_a_path(NARROWEST) as (a, b, path):
        with trio.fail_after(10):
            await echo_pattern(b, a.peer_id, MIB)
            await echo_pattern(a, b.peer_id, MIB)
        assert path.lost  # larger ones were tried


async def test_a_path_that_becomes_narrow():
    async with over_a_path() as (a, b, path):
        await echo_pattern(b, a.peer_id, 4 * MIB)
        path.largest = NARROWEST
        with trio.fail_after(15):
            await echo_pattern(b, a.peer_id, MIB)
            await echo_pattern(a, b.peer_id, MIB)
        assert path.lost
