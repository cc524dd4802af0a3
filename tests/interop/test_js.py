"""A Python node and a js-libp2p peer over real sockets: admission, identify and its push, ping, perf, whoever dials.

The JavaScript peer is `interop/js`, a process of its own. Messages, Kademlia and gossip with it are in the tests of
those, which it shares with the other peers; its commands for streams of bytes are tried against its like too.
"""

from __future__ import annotations

from functools import partial

import pytest

from interop.peer import Peer, PeerError
from node.errors import BackoffError, RefusedError
from node.events import Admitted, Disconnected, Identified, Refused
from protocols import Protocol
from protocols.perf import PERF, measure, serve_one

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("js", "no_traceback")]

JS_VERSION = "js-interop/1.0.0"
AMOUNT = 1 << 20

both_ways = pytest.mark.parametrize("dialler", ["python", "js"])
plain = partial(Peer.js, "--handshake=false")


@pytest.fixture(scope="module")
def js(built):
    built("js")


async def join(dialler, local, js, version=""):
    """Connects the two; `version` is told in the handshake, if there is one."""
    if dialler == "python":
        await local.node.connect(js.addr)
    else:
        assert (await js.call("connect", local.addr))["total_ms"] > 0
    admitted = await local.event(Admitted, peer=js.peer_id)
    assert admitted.client_version == version
    assert admitted.direction == ("outbound" if dialler == "python" else "inbound")


async def fail_to_join(dialler, local, js):
    """Connects the two, which is expected to end in a refusal by either."""
    if dialler == "python":
        with pytest.raises(RefusedError):
            await local.node.connect(js.addr)
    else:
        reply = await js.call("connect", local.addr, check=False)
        assert (reply["ok"], reply["stage"]) == (False, "admission")


async def assert_strangers(local, js, eventually):
    """Neither is connected with the other any more, and neither has learnt anything of the other."""
    await js.event("disconnected", peer=local.peer_id)
    await eventually(lambda: local.node.swarm.limits.total == 0, "no connection is left on the Python side")
    assert local.node.connected_peers() == []
    assert js.peer_id not in local.node.identify.known
    # the handshake's own ID is noted with the stream
    assert set((await js.call("protocols", local.peer_id))["protocols"]) <= {"/vouch/handshake/1.0.0"}
    assert (await js.call("peers"))["peers"] == []
    assert not js.seen("identified")


# admission


@both_ways
async def test_admitted(here, dialler):
    async with here() as local, Peer.js() as js:
        await join(dialler, local, js, JS_VERSION)
        told = await js.event("admitted", peer=local.peer_id)
        assert told["direction"] == ("inbound" if dialler == "python" else "outbound")
        assert [peer["admitted"] for peer in (await js.call("peers"))["peers"]] == [True]
        assert len((await js.call("ping", local.peer_id, "2"))["rtt_us"]) == 2
        assert len(await local.node.ping(js.peer_id, 2)) == 2
        assert not local.seen(Refused)


@both_ways
async def test_another_network_is_refused(here, eventually, dialler):
    async with here(network_id="harbour") as local, Peer.js("--network-id", "open-sea") as js:
        await fail_to_join(dialler, local, js)
        refused = await local.event(Refused, peer=js.peer_id)
        # a recipient that refuses says nothing, so a refused initiator can't know why
        assert refused.reason in ({"no_hello", "closed_by_peer"} if dialler == "python" else {"network_id"})
        reason = (await js.event("refused", peer=local.peer_id))["reason"]
        assert dialler == "js" or "network ID mismatch" in reason
        await assert_strangers(local, js, eventually)
        assert not local.seen(Admitted)
        assert not js.seen("admitted")
        if dialler == "python":
            with pytest.raises(BackoffError):
                await local.node.connect(js.addr)


@both_ways
async def test_too_old_a_js_peer_is_refused(here, eventually, dialler):
    async with here(min_versions={"js-interop": "1.0.1"}) as local, Peer.js() as js:
        await fail_to_join(dialler, local, js)
        assert (await local.event(Refused, peer=js.peer_id)).reason == "client_version"
        if dialler == "python":
            # as recipient it admits first: the initiator's verdict comes after its own
            await js.event("admitted", peer=local.peer_id)
        await js.event("disconnected", peer=local.peer_id)
        await eventually(lambda: local.node.swarm.limits.total == 0, "no connection is left on the Python side")
        assert not local.seen(Admitted)


@both_ways
async def test_js_refuses_too_old_a_node(here, dialler):
    async with here(client_version="vouch/0.1.9") as local, Peer.js("--min-version", "vouch=0.1.10") as js:
        await fail_to_join(dialler, local, js)
        assert "version" in (await js.event("refused", peer=local.peer_id))["reason"]
        if dialler == "js":
            # the recipient admits first, and loses the connection then
            await local.event(Admitted, peer=js.peer_id)
            await local.event(Disconnected, peer=js.peer_id)
        assert not js.seen("admitted")
        assert local.node.connected_peers() == []


@both_ways
async def test_without_handshake_is_refused(here, eventually, dialler):
    async with here(handshake_timeout=0.5) as local, plain() as js:
        if dialler == "python":
            await fail_to_join(dialler, local, js)
        else:
            await js.call("connect", local.addr)
        refused = await local.event(Refused, peer=js.peer_id)
        assert refused.reason == ("no_handshake" if dialler == "python" else "deadline")
        await assert_strangers(local, js, eventually)


@both_ways
async def test_handshake_decides_in_open_mode_too(here, dialler):
    async with here(admission="open") as local, Peer.js() as js, Peer.js("--network-id", "open-sea") as stranger:
        await join(dialler, local, js, JS_VERSION)
        await fail_to_join(dialler, local, stranger)
        await local.event(Refused, peer=stranger.peer_id)
        await stranger.event("disconnected", peer=local.peer_id)
        assert not local.seen(Admitted, peer=stranger.peer_id)


# identify, ping, perf


@pytest.mark.parametrize("pusher", ["python", "js"])
async def test_identify_push(here, eventually, pusher):
    async with here() as local, Peer.js() as js:
        await join("python", local, js, JS_VERSION)
        await local.event(Identified, peer=js.peer_id)
        await js.call("identify", local.peer_id)
        if pusher == "js":
            pushed = (await js.call("push-identify"))["protocol"]
            await eventually(lambda: pushed in local.node.identify.known[js.peer_id].protocols, "we have been told")
            return
        added = Protocol("/vouch/pushed/1.0.0")
        added.serve(lambda stream: stream.close())
        await local.node.serve(added)
        pushed = added.id

        async def told():
            return pushed in (await js.call("identify", local.peer_id))["protocols"]

        await eventually(told, "it has been told")
        assert any(pushed in event["protocols"] for event in js.seen("identified", peer=local.peer_id))


@both_ways
async def test_identify(here, dialler):
    async with here(admission="open") as local, plain() as js:
        await join(dialler, local, js)
        said = await js.call("identify", local.peer_id)
        assert said["agent"] == local.node.config.client_version
        assert {"/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"} <= set(said["protocols"])
        assert [f"{addr}/p2p/{local.peer_id}" for addr in said["addrs"]] == local.node.addrs
        assert said["signed_record"] is True

        assert (await local.event(Identified, peer=js.peer_id)).agent == JS_VERSION
        known = local.node.identify.known[js.peer_id]
        assert {"/ipfs/ping/1.0.0", "/ipfs/id/1.0.0", "/perf/1.0.0", "/vouch/bytes/1.0.0"} <= set(known.protocols)
        assert js.addr in {f"{addr}/p2p/{js.peer_id}" for addr in known.addrs}


@both_ways
async def test_ping(here, dialler):
    async with here(admission="open") as local, plain() as js:
        await join(dialler, local, js)
        rtts_us = (await js.call("ping", local.peer_id, "5"))["rtt_us"]
        rtts = await local.node.ping(js.peer_id, 5)
        assert (len(rtts_us), len(rtts)) == (5, 5)
        assert all(0 < rtt < 1e6 for rtt in rtts_us)
        assert all(0 < rtt < 1 for rtt in rtts)


@pytest.mark.parametrize("upgrade", ["fast", "stock"])
@both_ways
async def test_one_mebibyte_each_way(here, eventually, dialler, upgrade):
    served: list[tuple[int, int]] = []
    counting = Protocol(PERF.id, max_frame=None, timeout=PERF.timeout, streams_per_peer=PERF.streams_per_peer)

    @counting.serve
    async def serve(stream):
        served.append(await serve_one(stream))

    async with here(admission="open", upgrade=upgrade, dht="off") as local, plain() as js:
        await local.node.serve(counting)
        await join(dialler, local, js)

        result = await measure(local.node, js.peer_id, upload=AMOUNT, download=AMOUNT)
        assert result.upload_seconds > 0
        assert result.download_seconds > 0
        await js.event("perf", peer=local.peer_id, received=AMOUNT, sent=AMOUNT)

        reply = await js.call("perf", local.peer_id, str(AMOUNT), str(AMOUNT))
        assert reply["upload_s"] > 0
        assert reply["download_s"] > 0
        await eventually(lambda: served, "the JavaScript peer's stream has ended")
        assert served == [(AMOUNT, AMOUNT)]

        streams = await js.call("perf", local.peer_id, str(AMOUNT), str(AMOUNT), "4")
        assert streams["seconds"] >= streams["upload_s"] > 0
        assert (await js.call("both", local.peer_id, str(AMOUNT)))["seconds"] > 0
        await eventually(lambda: len(served) == 7, "all its streams have ended")


@both_ways
@pytest.mark.parametrize("leaver", ["python", "js"])
async def test_disconnect(here, dialler, leaver):
    async with here(admission="open") as local, plain() as js:
        await join(dialler, local, js)
        if leaver == "python":
            await local.node.disconnect(js.peer_id)
        else:
            await js.call("disconnect", local.peer_id)
        await local.event(Disconnected, peer=js.peer_id)
        await js.event("disconnected", peer=local.peer_id)
        with pytest.raises(PeerError, match="not connected"):
            await js.call("ping", local.peer_id, "1")


async def test_bytes_and_resets_between_two():
    async with plain() as one, plain() as other:
        await one.call("connect", other.addr)
        for asking, asked in ((one, other), (other, one)):
            assert (await asking.call("echo", asked.peer_id, str(10 << 20), "2"))["seconds"] > 0
            await asking.call("reset", asked.peer_id)
            await asking.call("was-reset", asked.peer_id)


async def test_a_thousand_streams_between_two():
    async with plain("--timeout", "30s") as one, plain() as other:
        await one.call("connect", other.addr)
        await one.call("echo", other.peer_id, "64", "1000")
        await one.call("perf", other.peer_id, "64", "64", "1000")
