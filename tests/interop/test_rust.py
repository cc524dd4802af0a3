"""A Python node and the Rust peer (rust-libp2p, no handshake) over real sockets: connect, identify, ping, perf.

Where it matters who dials, both ways are run. Streams of plain bytes are in `test_streams.py`.
"""

from __future__ import annotations

import pytest

from interop.peer import Peer
from interop.rawbytes import echo_pattern
from node.errors import RefusedError
from node.events import Admitted, Disconnected, Identified, Refused
from protocols import Protocol, StreamError
from protocols.perf import PERF, measure, serve_one

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("rust", "no_traceback")]

RUST_AGENT = "rust-interop/1.0.0"
SERVED = {"/ipfs/ping/1.0.0", "/ipfs/id/1.0.0", "/perf/1.0.0", "/vouch/bytes/1.0.0", "/vouch/reset/1.0.0"}
AMOUNT = 20 << 20

both_ways = pytest.mark.parametrize("dialler", ["python", "rust"])


@pytest.fixture(scope="module")
def rust(built):
    built("rust")


async def join(dialler, local, rust):
    """Connects the two; the node's event `Admitted`."""
    if dialler == "python":
        await local.node.connect(rust.addr)
    else:
        assert (await rust.call("connect", local.addr))["total_ms"] > 0
    return await local.event(Admitted, peer=rust.peer_id)


@both_ways
async def test_connect_and_identify(here, dialler):
    async with here(admission="open") as local, Peer.rust() as rust:
        admitted = await join(dialler, local, rust)
        assert admitted.client_version == ""
        assert admitted.direction == ("outbound" if dialler == "python" else "inbound")
        assert (await local.event(Identified, peer=rust.peer_id)).agent == RUST_AGENT
        known = local.node.identify.known[rust.peer_id]
        assert set(known.protocols) >= SERVED
        assert rust.addr in {f"{addr}/p2p/{rust.peer_id}" for addr in known.addrs}

        said = await rust.call("identify", local.peer_id)
        assert said["agent"] == local.node.config.client_version
        assert {"/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"} <= set(said["protocols"])
        assert [f"{addr}/p2p/{local.peer_id}" for addr in said["addrs"]] == local.node.addrs


@both_ways
async def test_disconnect_and_come_back(here, dialler):
    async with here(admission="open") as local, Peer.rust() as rust:
        for _ in range(2):
            await join(dialler, local, rust)
            await rust.call("disconnect", local.peer_id)
            await local.event(Disconnected, peer=rust.peer_id)
            await rust.event("disconnected", peer=local.peer_id)
        await join(dialler, local, rust)
        await local.node.disconnect(rust.peer_id)
        await rust.event("disconnected", peer=local.peer_id)
        assert not (await rust.call("identify", local.peer_id, check=False))["ok"]


@both_ways
async def test_without_handshake_is_refused(here, dialler):
    async with here(handshake_timeout=0.5) as local, Peer.rust() as rust:
        if dialler == "python":
            with pytest.raises(RefusedError):
                await local.node.connect(rust.addr)
        else:
            await rust.call("connect", local.addr)
        refused = await local.event(Refused, peer=rust.peer_id)
        assert refused.reason == ("no_handshake" if dialler == "python" else "deadline")
        await rust.event("disconnected", peer=local.peer_id)
        assert local.node.connected_peers() == []


@both_ways
async def test_ping(here, dialler):
    async with here(admission="open") as local, Peer.rust() as rust:
        await join(dialler, local, rust)
        rtts_us = (await rust.call("ping", local.peer_id, "5"))["rtt_us"]
        rtts = await local.node.ping(rust.peer_id, 5)
        assert (len(rtts_us), len(rtts)) == (5, 5)
        assert all(0 < rtt < 1e6 for rtt in rtts_us)
        assert all(0 < rtt < 1 for rtt in rtts)


@pytest.mark.parametrize("upgrade", ["fast", "stock"])
@both_ways
async def test_perf(here, eventually, dialler, upgrade):
    served: list[tuple[int, int]] = []
    counting = Protocol(PERF.id, max_frame=None, timeout=PERF.timeout, streams_per_peer=PERF.streams_per_peer)

    @counting.serve
    async def serve(stream):
        served.append(await serve_one(stream))

    async with here(admission="open", upgrade=upgrade, dht="off") as local, Peer.rust() as rust:
        await local.node.serve(counting)
        await join(dialler, local, rust)

        result = await measure(local.node, rust.peer_id, upload=AMOUNT, download=AMOUNT)
        assert result.upload_seconds > 0
        assert result.download_seconds > 0
        await rust.event("perf", peer=local.peer_id, received=AMOUNT, sent=AMOUNT)

        reply = await rust.call("perf", local.peer_id, str(AMOUNT), str(AMOUNT))
        assert reply["upload_s"] > 0
        assert reply["download_s"] > 0
        assert reply["seconds"] >= max(reply["upload_s"], reply["download_s"])
        await eventually(lambda: served, "the Rust peer's stream has ended")
        assert served == [(AMOUNT, AMOUNT)]

        share = str(AMOUNT // 8)
        assert (await rust.call("perf", local.peer_id, share, share, "4"))["seconds"] > 0
        assert (await rust.call("both", local.peer_id, share))["seconds"] > 0
        await eventually(lambda: len(served) == 7, "all its streams have ended")


async def test_peer_that_went_away_at_the_513th_stream_is_reached_again(here):
    async with (
        here(admission="open", dht="off", max_streams=1024, negotiation_timeout=1.0) as local,
        Peer.rust() as rust,
    ):
        await join("python", local, rust)
        with pytest.raises(StreamError):
            await echo_pattern(local.node, rust.peer_id, 64, streams=513)
        # rust-libp2p has sent go-away with an error, and doesn't close
        await local.event(Disconnected, peer=rust.peer_id, timeout=3)
        await local.node.connect(rust.addr)
        await echo_pattern(local.node, rust.peer_id, 64)
