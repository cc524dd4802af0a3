"""`/perf/1.0.0` between a Python node and a Go peer over real sockets: 20 MiB each way, whoever dials, whoever asks."""

from __future__ import annotations

import pytest

from interop.peer import Peer
from node.events import Admitted
from protocols import Protocol
from protocols.perf import PERF, measure, serve_one

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("go", "no_traceback")]

AMOUNT = 20 << 20


@pytest.fixture(scope="module")
def go(built):
    built("go")


@pytest.mark.parametrize("upgrade", ["fast", "stock"])
@pytest.mark.parametrize("dialler", ["python", "go"])
async def test_twenty_mebibytes_each_way(here, eventually, dialler, upgrade):
    served: list[tuple[int, int]] = []
    counting = Protocol(PERF.id, max_frame=None, timeout=PERF.timeout, streams_per_peer=PERF.streams_per_peer)

    @counting.serve
    async def serve(stream):
        served.append(await serve_one(stream))

    async with here(upgrade=upgrade, dht="off") as local, Peer.go() as go:
        await local.node.serve(counting)
        if dialler == "python":
            await local.node.connect(go.addr)
        else:
            await go.call("connect", local.addr)
        await local.event(Admitted, peer=go.peer_id)

        result = await measure(local.node, go.peer_id, upload=AMOUNT, download=AMOUNT)
        assert result.upload_seconds > 0
        assert result.download_seconds > 0
        await go.event("perf", peer=local.peer_id, received=AMOUNT, sent=AMOUNT)

        reply = await go.call("perf", local.peer_id, str(AMOUNT), str(AMOUNT))
        assert reply["upload_s"] > 0
        assert reply["download_s"] > 0
        await eventually(lambda: served, "the Go peer's stream has ended")
        assert served == [(AMOUNT, AMOUNT)]
