"""Rendezvous between a Python node and the Rust peer (rust-libp2p, no handshake), each of them as point and as client.

rust-libp2p reads records in its own form alone (node.envelopes), and fails on an answer with any other.
"""

from __future__ import annotations

import pytest
import trio

from interop.peer import Peer, PeerError
from node.envelopes import open_record, seal_record
from node.events import Identified, Registered, Unregistered
from protocols.rendezvous import service
from protocols.rendezvous.rules import Form
from protocols.rendezvous.wire import HOUR, Refused, Status

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("rust", "no_traceback")]

NAMESPACE = "rendezvous-tests"
OPEN = {"admission": "open", "dht": "off", "gossip": "off", "rendezvous_namespace": NAMESPACE}


@pytest.fixture(scope="module")
def rust(built):
    built("rust")


class Pool:
    """A feed that always wants more."""

    def __init__(self) -> None:
        self.peers: dict[str, tuple[str, ...]] = {}

    def found(self, peer, addrs, *, record=None, told_by=""):
        self.peers[peer] = tuple(addrs)

    async def wanted(self) -> int:
        await trio.lowlevel.checkpoint()
        return 10


async def test_rust_registers_and_discovers_at_a_python_point(here, tmp_path):
    async with (
        here(**OPEN, rendezvous_point="on", data_dir=tmp_path) as point,
        Peer.rust("--rendezvous", "client") as first,
        Peer.rust("--rendezvous", "client") as second,
    ):
        for rust in (first, second):
            await rust.call("connect", point.addr)
            await point.event(Identified, peer=rust.peer_id)
        assert (await first.call("register", point.peer_id, NAMESPACE))["ttl"] == 2 * HOUR
        assert (await point.event(Registered, peer=first.peer_id)).namespace == NAMESPACE
        found = await second.call("discover", point.peer_id, NAMESPACE)
        assert [peer["peer"] for peer in found["peers"]] == [first.peer_id]
        assert found["peers"][0]["namespace"] == NAMESPACE
        assert 2 * HOUR - 60 < found["peers"][0]["ttl"] <= 2 * HOUR
        assert [addr.partition("/p2p/")[0] for addr in found["peers"][0]["addrs"]] == [
            addr.partition("/p2p/")[0] for addr in first.addrs
        ]

        # the cookie asks for what is new, and the next one for nothing
        assert (await second.call("register", point.peer_id, NAMESPACE, str(72 * HOUR)))["ttl"] == 72 * HOUR
        again = await second.call("discover", point.peer_id, NAMESPACE, "10", found["cookie"])
        assert [peer["peer"] for peer in again["peers"]] == [second.peer_id]
        assert (await second.call("discover", point.peer_id, NAMESPACE, "10", again["cookie"]))["peers"] == []
        every = await first.call("discover", point.peer_id, "-", "1")
        rest = await first.call("discover", point.peer_id, "-", "0", every["cookie"])
        assert [peer["peer"] for peer in every["peers"] + rest["peers"]] == [first.peer_id, second.peer_id]

        await first.call("unregister", point.peer_id, NAMESPACE)
        assert (await point.event(Unregistered, peer=first.peer_id)).reason == "unregistered"
        left = await second.call("discover", point.peer_id, NAMESPACE)
        assert [peer["peer"] for peer in left["peers"]] == [second.peer_id]


async def test_a_python_point_refuses_rust_as_it_would_be_refused(here, tmp_path):
    async with (
        here(**OPEN, rendezvous_point="on", data_dir=tmp_path, max_registrations_per_peer=1) as point,
        Peer.rust("--rendezvous", "client") as rust,
        Peer.rust("--rendezvous", "client") as other,
    ):
        for peer in (rust, other):
            await peer.call("connect", point.addr)
            await point.event(Identified, peer=peer.peer_id)
        for ttl in (2 * HOUR - 1, 72 * HOUR + 1):
            with pytest.raises(PeerError, match="InvalidTtl"):
                await rust.call("register", point.peer_id, NAMESPACE, str(ttl))
        await rust.call("register", point.peer_id, NAMESPACE)
        with pytest.raises(PeerError, match="Unavailable"):
            await rust.call("register", point.peer_id, "another")
        cookie = (await rust.call("discover", point.peer_id, NAMESPACE))["cookie"]
        forged = "00" * 8 + cookie[16:]
        for asker, namespace, bad in ((rust, "another", cookie), (other, NAMESPACE, cookie), (rust, NAMESPACE, forged)):
            with pytest.raises(PeerError, match="InvalidCookie"):
                await asker.call("discover", point.peer_id, namespace, "10", bad)


async def test_python_registers_and_discovers_at_a_rust_point(here, eventually):
    async with (
        Peer.rust("--rendezvous", "server") as point,
        Peer.rust("--rendezvous", "client") as other,
        here(**OPEN, rendezvous=(point.addr,)) as local,
        trio.open_nursery() as nursery,
    ):
        assert (await point.event("registered", peer=local.peer_id))["namespace"] == NAMESPACE
        await other.call("connect", point.addr)
        (found,) = (await other.call("discover", point.peer_id, NAMESPACE))["peers"]
        assert found["peer"] == local.peer_id
        assert [addr.partition("/p2p/")[0] for addr in found["addrs"]] == [
            addr.partition("/p2p/")[0] for addr in local.node.addrs
        ]
        await other.call("register", point.peer_id, NAMESPACE)
        pool = Pool()
        nursery.start_soon(local.node.rendezvous.run, pool)
        await eventually(lambda: other.peer_id in pool.peers, "the other peer is found")
        assert list(pool.peers) == [other.peer_id]

        page = await service.discover(local.node, point.peer_id, NAMESPACE, limit=1)
        rest = await service.discover(local.node, point.peer_id, NAMESPACE, cookie=page.cookie)
        records = [open_record(found.record) for found in page.registrations + rest.registrations]
        assert {signed.peer for signed in records} == {local.peer_id, other.peer_id}
        assert all(signed.form is Form.LEGACY for signed in records)
        with pytest.raises(Refused) as refused:
            await service.discover(local.node, point.peer_id, "elsewhere", cookie=page.cookie)
        assert refused.value.status == Status.INVALID_COOKIE

        record = seal_record(local.node.identity.key_pair(), local.node.host.listen_addrs, 1, Form.LEGACY)
        with pytest.raises(Refused) as refused:
            await service.register(local.node, point.peer_id, NAMESPACE, record, 60)
        assert refused.value.status == Status.INVALID_TTL
        await service.unregister(local.node, point.peer_id, NAMESPACE)
        await point.event("unregistered", peer=local.peer_id)
        nursery.cancel_scope.cancel()


async def test_rust_finds_python_nodes_at_a_python_point(here, tmp_path, eventually):
    async with (
        here(**OPEN, rendezvous_point="on", data_dir=tmp_path) as point,
        here(**OPEN, rendezvous=(point.addr,)) as local,
        Peer.rust("--rendezvous", "client") as rust,
    ):
        await point.event(Registered, peer=local.peer_id)
        await rust.call("connect", point.addr)
        await point.event(Identified, peer=rust.peer_id)
        await eventually(lambda: len(point.node.point.registrations) == 2, "both forms are registered")
        (found,) = (await rust.call("discover", point.peer_id, NAMESPACE))["peers"]
        assert found["peer"] == local.peer_id
        await rust.call("connect", f"{found['addrs'][0].partition('/p2p/')[0]}/p2p/{found['peer']}")
