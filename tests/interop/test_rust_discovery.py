"""Rendezvous among Rust peers: that the peer which others are held against does what it says."""

from __future__ import annotations

import pytest

from interop.peer import Peer, PeerError

NAMESPACE = "harbour"
POINT = ("--rendezvous", "server", "--rendezvous-min-ttl", "2")

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("rust")]


@pytest.fixture(scope="module")
def rust(built):
    built("rust")


async def test_registered_discovered_withdrawn():
    async with (
        Peer.rust(*POINT) as point,
        Peer.rust("--rendezvous", "client") as one,
        Peer.rust("--rendezvous", "client") as other,
    ):
        for peer in (one, other):
            await peer.call("connect", point.addr)
        assert (await one.call("register", point.peer_id, NAMESPACE, "600"))["ttl"] == 600
        await point.event("registered", peer=one.peer_id, namespace=NAMESPACE)
        for namespace in (NAMESPACE, "-"):
            found = await other.call("discover", point.peer_id, namespace)
            (registration,) = found["peers"]
            assert (registration["peer"], registration["namespace"]) == (one.peer_id, NAMESPACE)
            assert f"{registration['addrs'][0]}/p2p/{one.peer_id}" in one.addrs
            assert 0 < registration["ttl"] <= 600
        assert (await other.call("discover", point.peer_id, "pier"))["peers"] == []

        first = await other.call("discover", point.peer_id, NAMESPACE)
        await other.call("register", point.peer_id, NAMESPACE, "600")
        since = await one.call("discover", point.peer_id, NAMESPACE, "0", first["cookie"])
        assert [registration["peer"] for registration in since["peers"]] == [other.peer_id]
        assert len((await one.call("discover", point.peer_id, NAMESPACE, "1"))["peers"]) == 1

        await one.call("unregister", point.peer_id, NAMESPACE)
        await point.event("unregistered", peer=one.peer_id)
        left = (await other.call("discover", point.peer_id, NAMESPACE))["peers"]
        assert [registration["peer"] for registration in left] == [other.peer_id]


async def test_what_a_point_refuses_and_forgets():
    async with Peer.rust(*POINT) as point, Peer.rust("--rendezvous", "client") as one, Peer.rust() as plain:
        for peer in (one, plain):
            await peer.call("connect", point.addr)
        with pytest.raises(PeerError, match="InvalidTtl"):
            await one.call("register", point.peer_id, NAMESPACE, "1")
        await point.event("not-registered", peer=one.peer_id)
        with pytest.raises(PeerError, match="no rendezvous"):
            await plain.call("register", point.peer_id, NAMESPACE)
        with pytest.raises(PeerError, match="not connected"):
            await one.call("discover", plain.peer_id, NAMESPACE)
        await one.call("register", point.peer_id, NAMESPACE, "2")
        await point.event("expired", peer=one.peer_id, namespace=NAMESPACE)
        assert (await one.call("discover", point.peer_id, NAMESPACE))["peers"] == []
