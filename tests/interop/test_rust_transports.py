"""A Python node and the Rust peer over each transport and security: signed messages both ways, and perf over QUIC.

Streams are in test_streams.py, test_transports.py and test_quic.py, admission in test_admission.py.
"""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from interop.ends.messages import ECHO, NAME, interop
from interop.peer import Peer
from node.events import Admitted, MessageRejected
from protocols.perf import PERF, measure
from tests.interop.messaging import text

MIB = 1 << 20
TCP = "/ip4/127.0.0.1/tcp/0"
WS = f"{TCP}/ws"
QUIC = "/ip4/127.0.0.1/udp/0/quic-v1"

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("rust", "no_traceback")]

both_ways = pytest.mark.parametrize("dialler", ["python", "rust"])


@pytest.fixture(scope="module")
def rust(built):
    built("rust")


@pytest.fixture
def joined(here):
    """`async with joined(listen, security, dialler) as (local, rust)`: admitted, over just that."""

    @asynccontextmanager
    async def join(listen, security, dialler):
        started = Peer.rust("--timeout=30s", "--listen", listen, "--security", security)
        async with here(listen=(listen,), security=security, dht="off") as local, started as rust:
            if dialler == "python":
                await local.node.connect(rust.addr)
            else:
                await rust.call("connect", local.addr)
            await local.event(Admitted, peer=rust.peer_id)
            yield local, rust

    return join


@both_ways
@pytest.mark.parametrize(
    ("listen", "security"),
    [(TCP, "tls"), (WS, "noise"), (WS, "tls"), (QUIC, "noise")],
    ids=["tcp-tls", "ws-noise", "ws-tls", "quic"],
)
async def test_signed_messages(joined, listen, security, dialler):
    into, got = trio.open_memory_channel(16)
    async with joined(listen, security, dialler) as (local, rust):
        await local.node.serve(interop(into.send_nowait))
        for payload in (b"", b"ahoy", bytes(MIB)):
            answer = await local.node.request(rust.peer_id, NAME, payload, type=ECHO)
            assert answer.payload == payload
            assert (await rust.call("request", local.peer_id, str(ECHO), text(payload)))["type"] == ECHO
        await rust.call("requests-reversed", local.peer_id, "50")
        await rust.call("parts", local.peer_id, "20", "100000")
        await local.node.send(rust.peer_id, NAME, b"ahoy", type=3)
        await rust.event("message", peer=local.peer_id, type=3, payload=text(b"ahoy"))
        await rust.call("send", local.peer_id, "3", text(b"ahoy"))
        with trio.fail_after(10):
            assert (await got.receive()).payload == b"ahoy"
        assert (await rust.call("forge", local.peer_id, "signature"))["outcome"] == "reset"
        assert (await local.event(MessageRejected, peer=rust.peer_id)).reason == "signature"


async def test_perf_over_quic(joined):
    with trio.fail_after(60):
        async with joined(QUIC, "noise", "python") as (local, rust):
            await local.node.serve(PERF)
            await measure(local.node, rust.peer_id, upload=20 * MIB, download=20 * MIB)
            await rust.call("perf", local.peer_id, str(20 * MIB), str(20 * MIB))
