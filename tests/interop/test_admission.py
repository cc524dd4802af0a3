"""Admission between a Python node and the Rust and JavaScript peers, whoever dials, over each transport.

Go's is in test_go.py: that peer tells more of what it held.
"""

from __future__ import annotations

from functools import partial

import pytest

from interop.peer import Peer
from interop.rawbytes import echo_pattern
from node.errors import BackoffError
from node.events import Admitted, Disconnected, Refused
from tests.interop.admission import assert_strangers, fail_to_join, join

OTHERS = {"rust": Peer.rust, "js": Peer.js}
TRANSPORTS = {
    "tcp": "/ip4/127.0.0.1/tcp/0",
    "ws": "/ip4/127.0.0.1/tcp/0/ws",
    "quic": "/ip4/127.0.0.1/udp/0/quic-v1",
}

pytestmark = [
    pytest.mark.interop,
    pytest.mark.usefixtures("no_traceback"),
    pytest.mark.parametrize("name", OTHERS),
    pytest.mark.parametrize("dialler", ["python", "other"]),
]

over_each = pytest.mark.parametrize("listen", TRANSPORTS.values(), ids=TRANSPORTS)


@pytest.fixture
def start(built, name):
    built(name)
    return OTHERS[name]


@over_each
async def test_admitted(here, start, listen, dialler, name):
    async with here(listen=(listen,), dht="off") as local, start("--listen", listen) as other:
        await join(dialler, local, other, f"{name}-interop/1.0.0")
        told = await other.event("admitted", peer=local.peer_id)
        assert told["direction"] == ("inbound" if dialler == "python" else "outbound")
        assert [peer["admitted"] for peer in (await other.call("peers"))["peers"]] == [True]
        assert len((await other.call("ping", local.peer_id, "2"))["rtt_us"]) == 2
        assert len(await local.node.ping(other.peer_id, 2)) == 2
        await echo_pattern(local.node, other.peer_id, 1 << 20, streams=4)
        assert not local.seen(Refused)


@over_each
async def test_another_network_is_refused(here, start, eventually, listen, dialler):
    stranger = start("--listen", listen, "--network-id", "open-sea")
    async with here(listen=(listen,), network_id="harbour", dht="off") as local, stranger as other:
        await fail_to_join(dialler, local, other)
        refused = await local.event(Refused, peer=other.peer_id)
        # a recipient that refuses says nothing, so a refused initiator can't know why
        assert refused.reason in ({"no_hello", "closed_by_peer"} if dialler == "python" else {"network_id"})
        reason = (await other.event("refused", peer=local.peer_id))["reason"]
        assert dialler == "other" or "network ID mismatch" in reason
        await assert_strangers(local, other, eventually)
        assert not local.seen(Admitted)
        assert not other.seen("admitted")
        if dialler == "python":
            with pytest.raises(BackoffError):
                await local.node.connect(other.addr)


async def test_too_old_a_peer_is_refused(here, start, eventually, dialler, name):
    async with here(min_versions={f"{name}-interop": "1.0.1"}) as local, start() as other:
        await fail_to_join(dialler, local, other)
        assert (await local.event(Refused, peer=other.peer_id)).reason == "client_version"
        if dialler == "python":
            # as recipient it admits first: the initiator's verdict comes after its own
            await other.event("admitted", peer=local.peer_id)
        await other.event("disconnected", peer=local.peer_id)
        await eventually(lambda: local.node.swarm.limits.total == 0, "no connection is left on the Python side")
        assert not local.seen(Admitted)


async def test_too_old_a_node_is_refused(here, start, dialler):
    async with here(client_version="vouch/0.1.9") as local, start("--min-version", "vouch=0.1.10") as other:
        await fail_to_join(dialler, local, other)
        assert "version" in (await other.event("refused", peer=local.peer_id))["reason"]
        if dialler == "other":
            # the recipient admits first, and loses the connection then
            await local.event(Admitted, peer=other.peer_id)
            await local.event(Disconnected, peer=other.peer_id)
        assert not other.seen("admitted")
        assert local.node.connected_peers() == []


async def test_without_handshake_is_refused(here, start, eventually, dialler):
    plain = partial(start, "--handshake=false")
    async with here(handshake_timeout=0.5) as local, plain() as other:
        if dialler == "python":
            await fail_to_join(dialler, local, other)
        else:
            await other.call("connect", local.addr)
        refused = await local.event(Refused, peer=other.peer_id)
        assert refused.reason == ("no_handshake" if dialler == "python" else "deadline")
        await assert_strangers(local, other, eventually)


async def test_handshake_decides_in_open_mode_too(here, start, dialler, name):
    async with here(admission="open") as local, start() as other, start("--network-id", "open-sea") as stranger:
        await join(dialler, local, other, f"{name}-interop/1.0.0")
        await fail_to_join(dialler, local, stranger)
        await local.event(Refused, peer=stranger.peer_id)
        await stranger.event("disconnected", peer=local.peer_id)
        assert not local.seen(Admitted, peer=stranger.peer_id)
        assert not stranger.seen("admitted")
