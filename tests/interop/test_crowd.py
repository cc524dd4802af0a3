"""`interop.bench.crowd`: many peers of one process, seen from the listener that they join."""

from __future__ import annotations

import pytest

from interop.peer import Peer, PeerError
from node.events import Admitted, Disconnected, Identified

COUNT = 20
WIDTH = 4
ROOM = {
    "max_connections": COUNT,
    "max_inbound": COUNT,
    "max_connections_per_ip": COUNT,
    "max_half_open": WIDTH,
    "max_half_open_per_ip": WIDTH,
    "dht": "off",
}

pytestmark = pytest.mark.usefixtures("no_traceback")


@pytest.fixture
def crowd():
    return Peer.program("interop.bench.crowd")


async def test_all_join_are_identified_and_leave(here, eventually, crowd):
    async with here(**ROOM) as local, crowd:
        reply = await crowd.call("join", local.addr, str(COUNT), str(WIDTH))

        assert (reply["connected"], reply["identified"]) == (COUNT, COUNT)
        assert reply["seconds"] > 0
        peers = local.node.connected_peers()
        assert len(peers) == len(set(peers)) == COUNT
        assert {event.client_version for event in local.seen(Admitted)} == {"vouch-crowd/0.1.0"}
        assert {event.peer for event in local.seen(Identified)} == set(peers)
        known = local.node.identify.known[peers[0]]
        assert known.agent == "vouch-crowd/0.1.0"
        assert known.protocols == ("/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/vouch/handshake/1.0.0")
        assert len(await local.node.ping(peers[0], 3)) == 3

        assert (await crowd.call("leave"))["left"] == COUNT
        await eventually(lambda: local.node.swarm.limits.total == 0, "all connections have ended")
        assert local.node.connected_peers() == []
        assert {event.reason for event in local.seen(Disconnected)} == {"closed_by_peer"}

        again = await crowd.call("join", local.addr, "2", "2")
        assert again["connected"] == 2
        assert not set(peers) & set(local.node.connected_peers())


async def test_those_beyond_the_listeners_limits_are_told_apart(here, crowd):
    async with here(**ROOM) as local, crowd:
        with pytest.raises(PeerError, match=f"{COUNT} of {COUNT + 3} joined; the first that didn't: ") as failed:
            await crowd.call("join", local.addr, str(COUNT + 3), str(WIDTH))
        assert failed.value.reply["connected"] == COUNT

        await local.node.disconnect(local.node.connected_peers()[0])
        reply = await crowd.call("leave")
        assert (
            reply["left"] + reply["lost"] == COUNT
        )  # which of the two the member is that has just been closed is open


async def test_a_crowd_of_another_network_is_refused(here):
    async with here(**ROOM) as local, Peer.program("interop.bench.crowd", "--network-id", "elsewhere") as crowd:
        reply = await crowd.call("join", local.addr, "2", "1", check=False)
        assert (reply["ok"], reply["connected"]) == (False, 0)
        assert "0 of 2 joined" in reply["error"]
        assert local.node.connected_peers() == []


async def test_the_crowd_joins_py_libp2ps_own_host(crowd):
    async with Peer.program("interop.bench.ends", "stock") as stock, crowd:
        reply = await crowd.call("join", stock.addr, str(COUNT), str(WIDTH))
        assert (reply["connected"], reply["identified"]) == (COUNT, COUNT)
        assert (await crowd.call("leave"))["left"] == COUNT


@pytest.mark.interop
@pytest.mark.parametrize("handshake", ["true", "false"])
async def test_the_crowd_joins_a_go_peer(built, crowd, handshake):
    built("go")
    async with Peer.go(f"--handshake={handshake}") as go, crowd:
        reply = await crowd.call("join", go.addr, str(COUNT), str(WIDTH))
        assert (reply["connected"], reply["identified"]) == (COUNT, COUNT)
        assert (await crowd.call("leave"))["left"] == COUNT
