"""A Python node that admits anybody and a js-libp2p peer over real sockets: identify, ping, perf, whoever dials.

The JavaScript peer knows no handshake, hence the open mode. Its commands for streams of bytes are tried against a
second one of its kind.
"""

from __future__ import annotations

import pytest

from interop.peer import Peer, PeerError
from node.events import Admitted, Disconnected, Identified
from protocols import Protocol
from protocols.perf import PERF, measure, serve_one

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("js", "no_traceback")]

JS_VERSION = "js-interop/1.0.0"
AMOUNT = 1 << 20

both_ways = pytest.mark.parametrize("dialler", ["python", "js"])


@pytest.fixture(scope="module")
def js(built):
    built("js")


async def join(dialler, local, js):
    """Connects the two."""
    if dialler == "python":
        await local.node.connect(js.addr)
    else:
        assert (await js.call("connect", local.addr))["total_ms"] > 0
    admitted = await local.event(Admitted, peer=js.peer_id)
    assert admitted.client_version == ""
    assert admitted.direction == ("outbound" if dialler == "python" else "inbound")


@both_ways
async def test_identify(here, dialler):
    async with here(admission="open") as local, Peer.js() as js:
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
    async with here(admission="open") as local, Peer.js() as js:
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

    async with here(admission="open", upgrade=upgrade, dht="off") as local, Peer.js() as js:
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
    async with here(admission="open") as local, Peer.js() as js:
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
    async with Peer.js() as one, Peer.js() as other:
        await one.call("connect", other.addr)
        for asking, asked in ((one, other), (other, one)):
            assert (await asking.call("echo", asked.peer_id, str(10 << 20), "2"))["seconds"] > 0
            await asking.call("reset", asked.peer_id)
            await asking.call("was-reset", asked.peer_id)


async def test_a_thousand_streams_between_two():
    async with Peer.js("--timeout", "30s") as one, Peer.js() as other:
        await one.call("connect", other.addr)
        await one.call("echo", other.peer_id, "64", "1000")
        await one.call("perf", other.peer_id, "64", "64", "1000")
