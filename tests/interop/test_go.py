"""A Python node and go-libp2p peers over real sockets: admission, identify, ping, streams, Kademlia.

The Go side is `interop/go`, a process of its own; the Python side is a `Node` in this process. Where it matters who
dials, both ways are run.
"""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from interop.peer import Peer
from node.errors import BackoffError, RefusedError
from node.events import Admitted, Disconnected, Identified, Refused
from node.identity import Identity
from node.names import parse_peer_addr, parse_peer_id
from protocols import Protocol

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("go", "no_traceback")]

GO_VERSION = "go-interop/1.0.0"
ECHO = Protocol("/vouch/echo/1.0.0", max_frame=64 * 1024)
KAD_PREFIX = f"/vouch/{b'vouch-local'.hex()}"
MULTISTREAM_HEADER = 20  # bytes: all that may be said before admission

both_ways = pytest.mark.parametrize("dialler", ["python", "go"])


@pytest.fixture(scope="module")
def go(built):
    built("go")


async def join(dialler, local, go):
    """Connects the two; the node's event `Admitted`."""
    if dialler == "python":
        await local.node.connect(go.addr)
    else:
        await go.call("connect", local.addr)
    # a recipient sends its Hello before it admits: Go may be a moment ahead
    return await local.event(Admitted, peer=go.peer_id)


async def fail_to_join(dialler, local, go):
    """Connects the two, which is expected to end in a refusal by either."""
    if dialler == "python":
        with pytest.raises(RefusedError):
            await local.node.connect(go.addr)
    else:
        reply = await go.call("connect", local.addr, check=False)
        assert (reply["ok"], reply["stage"]) == (False, "admission")


async def assert_strangers(local, go, eventually):
    """Neither is connected with the other any more, and neither has learnt anything of the other."""
    await go.event("disconnected", peer=local.peer_id)
    await eventually(lambda: local.node.swarm.limits.total == 0, "no connection is left on the Python side")
    assert not local.seen(Admitted)
    assert local.node.connected_peers() == []
    assert go.peer_id not in local.node.identify.known
    assert not (await go.call("identify", local.peer_id, check=False))["ok"]
    assert (await go.call("protocols", local.peer_id))["protocols"] == []
    assert (await go.call("peers"))["peers"] == []


async def assert_works(local, go):
    """Streams work in both directions, on connections that are there."""
    assert len(await local.node.ping(go.peer_id, 2)) == 2
    assert len((await go.call("ping", local.peer_id, "2"))["rtt_us"]) == 2


# admission


@both_ways
async def test_admitted(here, dialler):
    async with here() as local, Peer.go() as go:
        admitted = await join(dialler, local, go)
        assert (admitted.peer, admitted.client_version) == (go.peer_id, GO_VERSION)
        assert admitted.direction == ("outbound" if dialler == "python" else "inbound")
        told = await go.event("admitted", peer=local.peer_id)
        assert told["direction"] == ("inbound" if dialler == "python" else "outbound")
        assert local.node.connected_peers() == [go.peer_id]
        assert [peer["admitted"] for peer in (await go.call("peers"))["peers"]] == [True]
        assert not local.seen(Refused)


@both_ways
async def test_another_network_is_refused(here, eventually, dialler):
    async with here(network_id="harbour") as local, Peer.go("--network-id", "open-sea") as go:
        await fail_to_join(dialler, local, go)
        refused = await local.event(Refused, peer=go.peer_id)
        # a recipient that refuses says nothing, so a refused initiator can't know why
        assert refused.reason in ({"no_hello", "closed_by_peer"} if dialler == "python" else {"network_id"})
        await go.event("refused", peer=local.peer_id)
        await assert_strangers(local, go, eventually)
        assert not go.seen("admitted")
        if dialler == "python":
            with pytest.raises(BackoffError):
                await local.node.connect(go.addr)
            assert len(local.seen(Refused)) == 1


@both_ways
async def test_too_old_a_go_peer_is_refused(here, eventually, dialler):
    async with here(min_versions={"go-interop": "1.0.1"}) as local, Peer.go() as go:
        await fail_to_join(dialler, local, go)
        assert (await local.event(Refused, peer=go.peer_id)).reason == "client_version"
        await assert_strangers(local, go, eventually)
        # as recipient it admits first: the initiator's verdict comes after its own
        assert len(go.seen("admitted")) == (1 if dialler == "python" else 0)
        if dialler == "python":
            with pytest.raises(BackoffError):
                await local.node.connect(go.addr)


async def test_go_refuses_too_old_a_node_that_dials(here, eventually):
    async with here(client_version="vouch/0.1.9") as local, Peer.go("--min-version", "vouch=0.1.10") as go:
        await fail_to_join("python", local, go)
        assert (await local.event(Refused)).reason in {"no_hello", "closed_by_peer"}
        assert "version" in (await go.event("refused", peer=local.peer_id))["reason"]
        await assert_strangers(local, go, eventually)
        with pytest.raises(BackoffError):
            await local.node.connect(go.addr)


async def test_go_refuses_too_old_a_node_that_it_dials(here):
    async with here(client_version="vouch/0.1.9") as local, Peer.go("--min-version", "vouch=0.1.10") as go:
        await fail_to_join("go", local, go)
        assert "version" in (await go.event("refused", peer=local.peer_id))["reason"]
        # the recipient admits first, and loses the connection then
        await local.event(Admitted, peer=go.peer_id)
        await local.event(Disconnected, peer=go.peer_id)
        assert not go.seen("admitted")
        assert local.node.connected_peers() == []


@both_ways
async def test_without_handshake_is_refused(here, eventually, dialler):
    async with here(handshake_timeout=0.5) as local, Peer.go("--handshake=false") as go:
        if dialler == "python":
            await fail_to_join(dialler, local, go)
        else:
            await go.call("connect", local.addr)
        refused = await local.event(Refused, peer=go.peer_id)
        assert refused.reason == ("no_handshake" if dialler == "python" else "deadline")
        await assert_strangers(local, go, eventually)


@both_ways
async def test_without_handshake_is_admitted_in_open_mode(here, dialler):
    async with here(admission="open") as local, Peer.go("--handshake=false") as go:
        assert (await join(dialler, local, go)).client_version == ""
        assert (await go.call("identify", local.peer_id))["agent"] == local.node.config.client_version
        assert (await local.event(Identified, peer=go.peer_id)).agent == GO_VERSION
        await assert_works(local, go)


@both_ways
async def test_handshake_decides_in_open_mode_too(here, eventually, dialler):
    async with here(admission="open") as local, Peer.go() as go, Peer.go("--network-id", "open-sea") as stranger:
        assert (await join(dialler, local, go)).client_version == GO_VERSION
        await assert_works(local, go)

        await fail_to_join(dialler, local, stranger)
        await local.event(Refused, peer=stranger.peer_id)
        await stranger.event("disconnected", peer=local.peer_id)
        assert not local.seen(Admitted, peer=stranger.peer_id)
        assert not stranger.seen("admitted")
        assert stranger.peer_id not in local.node.identify.known
        assert (await stranger.call("protocols", local.peer_id))["protocols"] == []
        await eventually(lambda: local.node.swarm.limits.total == 1, "only the admitted connection is left")


@pytest.mark.parametrize("protocol", ["/ipfs/ping/1.0.0", "/ipfs/id/1.0.0", "/nobody/answers/this"])
async def test_nothing_is_said_before_admission(here, eventually, protocol):
    async with here(handshake_timeout=1.5) as local, Peer.go("--handshake=false") as go:
        await go.call("connect", local.addr)
        reply = await go.call("raw-stream", local.peer_id, protocol, check=False)
        assert not reply["ok"]
        assert reply["received"] <= MULTISTREAM_HEADER
        assert (await local.event(Refused, peer=go.peer_id)).reason == "deadline"
        await assert_strangers(local, go, eventually)


# identify, ping, streams


@both_ways
async def test_identify(here, dialler):
    async with here() as local, Peer.go() as go:
        await join(dialler, local, go)
        said = await go.call("identify", local.peer_id)
        assert said["agent"] == local.node.config.client_version
        assert {ECHO.id, "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"} <= set(said["protocols"])
        assert [f"{addr}/p2p/{local.peer_id}" for addr in said["addrs"]] == local.node.addrs
        assert said["signed_record"] is True

        identified = await local.event(Identified, peer=go.peer_id)
        known = local.node.identify.known[go.peer_id]
        assert known.agent == identified.agent == GO_VERSION
        record = local.node.records.verify(known.record)  # and we take theirs
        assert (record.peer, [f"{addr}/p2p/{record.peer}" for addr in record.addrs]) == (go.peer_id, go.addrs)
        assert {ECHO.id, "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"} <= set(known.protocols)
        assert go.addr in {f"{addr}/p2p/{go.peer_id}" for addr in known.addrs}


@both_ways
async def test_ping(here, dialler):
    async with here() as local, Peer.go() as go:
        await join(dialler, local, go)
        rtts_us = (await go.call("ping", local.peer_id, "5"))["rtt_us"]
        rtts = await local.node.ping(go.peer_id, 5)
        assert (len(rtts_us), len(rtts)) == (5, 5)
        assert all(0 < rtt < 1e6 for rtt in rtts_us)
        assert all(0 < rtt < 1 for rtt in rtts)


@both_ways
async def test_echo(here, dialler):
    frames = [b"", b"ahoy", bytes(range(256)) * 256]  # up to the protocol's bound
    async with here() as local, Peer.go() as go:
        await join(dialler, local, go)
        async with local.node.stream(go.peer_id, ECHO) as stream:
            for frame in frames:
                await stream.send(frame)
                assert await stream.receive() == frame
        for frame in frames:
            reply = await go.call("stream", local.peer_id, ECHO.id, *([frame.hex()] if frame else []))
            assert bytes.fromhex(reply["frame"]) == frame
        assert not (await go.call("stream", local.peer_id, "/nobody/answers/this", check=False))["ok"]


# Kademlia


async def table_of(member):
    if isinstance(member, Peer):
        return set((await member.call("table"))["peers"])
    return set(member.node.dht.table())


@pytest.fixture
def network(here, eventually, monkeypatch):
    """`async with network(root) as (bootstrap, gos, locals)`: two Go peers and three nodes that know the one."""
    # nobody looks around unasked, so that it is known who knows whom
    monkeypatch.setattr("node.discovery.dht.FIRST_REFRESH", 3600.0)

    async def in_the_table(member, of):
        async def there():
            return member.peer_id in await table_of(of)

        await eventually(there, "one has the other in its table")

    @asynccontextmanager
    async def start(root):
        async with Peer.go("--kad", KAD_PREFIX) as go_1, Peer.go("--kad", KAD_PREFIX) as go_2, here() as local_1:
            bootstrap = go_1 if root == "go" else local_1
            # go-libp2p looks around when it starts: then there are no others yet
            for go in {go_1, go_2} - {bootstrap}:
                await go.call("connect", bootstrap.addr)
                await in_the_table(go, bootstrap)
            if bootstrap is not local_1:
                await local_1.node.connect(bootstrap.addr)
                await in_the_table(local_1, bootstrap)
            async with here(bootstrap=(bootstrap.addr,)) as local_2, here(bootstrap=(bootstrap.addr,)) as local_3:
                for local in (local_2, local_3):
                    await in_the_table(local, bootstrap)
                    await in_the_table(bootstrap, local)
                yield bootstrap, (go_1, go_2), (local_1, local_2, local_3)

    return start


@pytest.mark.parametrize("root", ["go", "python"])
async def test_python_finds_a_go_peer(network, root):
    async with network(root) as (bootstrap, (_, target), (_, local, _)):
        peer_id, addr = parse_peer_addr(target.addr)
        assert local.node.connected_peers() == [bootstrap.peer_id]
        assert peer_id not in local.node.host.get_peerstore().peer_ids()
        with trio.fail_after(30):
            found = await local.node.dht.find_peer(peer_id)
        assert str(addr).partition("/p2p/")[0] in found


@pytest.mark.parametrize("root", ["go", "python"])
async def test_go_finds_a_python_peer(network, root):
    async with network(root) as (bootstrap, (_, go), (_, _, target)):
        assert target.peer_id not in {peer["peer"] for peer in (await go.call("peers"))["peers"]}
        assert (await go.call("protocols", target.peer_id))["protocols"] == []
        found = await go.call("find-peer", target.peer_id)
        assert (found["found"], found["connected"]) == (True, False)
        assert target.addr.partition("/p2p/")[0] in found["addrs"]
        assert bootstrap.peer_id in found["named_by"]


@pytest.mark.parametrize("root", ["go", "python"])
async def test_routing_tables_fill(here, eventually, root):
    async with Peer.go("--kad", KAD_PREFIX) as go_1, Peer.go("--kad", KAD_PREFIX) as go_2, here() as local_1:
        bootstrap = go_1 if root == "go" else local_1
        async with here(bootstrap=(bootstrap.addr,)) as local_2, here(bootstrap=(bootstrap.addr,)) as local_3:
            members = [go_1, go_2, local_1, local_2, local_3]
            for go in (go_1, go_2):
                if go is not bootstrap:
                    await go.call("connect", bootstrap.addr)
            if bootstrap is not local_1:
                await local_1.node.connect(bootstrap.addr)
            everybody = {member.peer_id for member in members}

            async def full():
                missing = {member.peer_id: everybody - {member.peer_id} - await table_of(member) for member in members}
                return not any(missing.values())

            await eventually(full, "each has all others in its table", timeout=60)


async def test_networks_do_not_mix(here, eventually):
    other_prefix = f"/vouch/{b'open-sea'.hex()}"
    async with (
        Peer.go("--kad", KAD_PREFIX) as go,
        Peer.go("--network-id", "open-sea", "--kad", other_prefix) as other_go,
        here(network_id="open-sea") as other_local,
    ):
        await other_local.node.connect(other_go.addr)
        # an operator's slip: a bootstrap of another network
        async with here(bootstrap=(go.addr, other_go.addr)) as local:
            await local.event(Admitted, peer=go.peer_id)
            await local.event(Refused, peer=other_go.peer_id)
            await eventually(lambda: local.node.dht.table() == [go.peer_id], "the table has the one peer")
            await eventually(lambda: other_local.node.dht.table() == [other_go.peer_id], "the same of the others")
            with trio.fail_after(30):
                assert await local.node.dht.find_peer(parse_peer_id(other_local.peer_id)) == []
            assert (await go.call("find-peer", other_local.peer_id))["named_by"] == []
            # last, since to be told an address is to know it
            assert not (await go.call("connect", other_local.addr, check=False))["ok"]
            assert not (await other_go.call("connect", local.addr, check=False))["ok"]
            assert local.node.connected_peers() == [go.peer_id]
            assert other_local.node.connected_peers() == [other_go.peer_id]
            assert await table_of(go) == {local.peer_id}
            assert await table_of(other_go) == {other_local.peer_id}


# one connection for each peer


def identity_beside(peer_id, *, smaller):
    """An identity whose peer ID, as bytes, is smaller than that one or larger."""
    while True:
        identity = Identity.generate()
        if (parse_peer_id(identity.peer_id).to_bytes() < parse_peer_id(peer_id).to_bytes()) == smaller:
            return identity


async def one_connection(local, go, eventually):
    def one():
        return len(local.node.swarm.connections.get(parse_peer_id(go.peer_id), [])) == 1

    await eventually(one, "one connection is left on the Python side", timeout=20)
    return local.node.swarm.connection(parse_peer_id(go.peer_id))


@pytest.mark.parametrize("smaller", [True, False], ids=["we_are_smaller", "go_is_smaller"])
async def test_of_two_connections_one_is_kept(here, eventually, smaller):
    async with Peer.go() as go, here(identity=identity_beside(go.peer_id, smaller=smaller)) as local:
        await join("go", local, go)
        peer_id, addr = parse_peer_addr(go.addr)
        await local.node.swarm.dial_address(addr, peer_id)  # past the dialler, which would find the first one
        kept = await one_connection(local, go, eventually)
        assert kept.initiated == smaller

        async def one_there():
            return [peer["connections"] for peer in (await go.call("peers"))["peers"]] == [1]

        await go.event("disconnected", peer=local.peer_id)
        await eventually(one_there, "one connection is left on Go's side", timeout=20)
        await assert_works(local, go)
        assert not local.seen(Disconnected)


async def test_simultaneous_dial(here, eventually):
    async with here() as local, Peer.go() as go:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(local.node.connect, go.addr)
            nursery.start_soon(go.call, "connect", local.addr)
        await local.event(Admitted, peer=go.peer_id)
        await one_connection(local, go, eventually)
        await assert_works(local, go)
        assert not local.seen(Disconnected)


# the same with the command line's node, in a process of its own


async def test_vouch_run():
    async with Peer.python() as python, Peer.go() as go:
        assert (await python.call("connect", go.addr))["already"] is False
        assert (await python.event("admitted"))["client_version"] == GO_VERSION
        await go.event("admitted", peer=python.peer_id)
        assert len((await python.call("ping", go.peer_id, "3"))["rtt_us"]) == 3
        assert len((await go.call("ping", python.peer_id, "3"))["rtt_us"]) == 3
        assert [peer["peer"] for peer in (await python.call("peers"))["peers"]] == [go.peer_id]
        reply = await python.call("connect", "/ip4/127.0.0.1/tcp/1", check=False)
        assert (reply["ok"], reply["kind"]) == (False, "UsageError")
        await python.call("disconnect", go.peer_id)
        await go.event("disconnected", peer=python.peer_id)
