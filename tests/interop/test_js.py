"""A Python node and a js-libp2p peer over real sockets: identify and its push, ping, perf, whoever dials.

The JavaScript peer is `interop/js`, a process of its own. Admission, messages, Kademlia and gossip with it are in the
tests of those, which it shares with the other peers; its commands for streams of bytes are tried against its like too.
"""

from __future__ import annotations

from functools import partial

import pytest

from interop.peer import Peer, PeerError
from node.events import Disconnected, Identified
from protocols import Protocol
from protocols.perf import PERF, measure, serve_one
from tests.interop.admission import join

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("js", "no_traceback")]

JS_VERSION = "js-interop/1.0.0"
AMOUNT = 1 << 20

both_ways = pytest.mark.parametrize("dialler", ["python", "js"])
plain = partial(Peer.js, "--handshake=false")


@pytest.fixture(scope="module")
def js(built):
    built("js")


# admission


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
