"""QUIC between a Python node and the JavaScript peer: connected, echoed, half-closed, admitted and refused, asked.

TCP and WebSocket with it, under Noise and TLS, are in test_transports.py. js-libp2p's QUIC doesn't tell its users of a
reset (interop/js/upstream/quic_reset.js), so only those by the JavaScript peer are tried.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from interop.ends.messages import ECHO, NAME, interop
from interop.peer import Peer
from interop.rawbytes import BYTES, RESET, Pattern, echo_pattern, receive_pattern, send_pattern, was_reset
from node.errors import RefusedError
from node.events import Admitted, Identified, Refused

MIB = 1 << 20
QUIC = "/ip4/127.0.0.1/udp/0/quic-v1"
PREFIX = "/vouch/quic-test"
JS_VERSION = "js-interop/1.0.0"

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_traceback")]

both_ways = pytest.mark.parametrize("dialler", ["python", "js"])


@pytest.fixture
def joined(here, built):
    """`async with joined(dialler, ...) as (local, js)`: connected over QUIC, the only transport of both."""

    @asynccontextmanager
    async def join(dialler, *flags, **settings):
        built("js")
        start = partial(Peer.js, "--listen", QUIC, "--timeout=30s")
        async with here(listen=(QUIC,), **settings) as local, start(*flags) as js:
            for protocol in (BYTES, RESET, interop(lambda message: None)):
                await local.node.serve(protocol)
            if dialler == "python":
                await local.node.connect(js.addr)
            else:
                await js.call("connect", local.addr)
            admitted = await local.event(Admitted, peer=js.peer_id)
            assert admitted.client_version == JS_VERSION
            await js.event("admitted", peer=local.peer_id)
            yield local, js

    return join


@both_ways
async def test_streams(joined, dialler):
    with trio.fail_after(60):
        async with joined(dialler, dht="off") as (local, js):
            assert "quic-v1" in js.addr
            assert len((await js.call("ping", local.peer_id, "3"))["rtt_us"]) == 3
            await local.node.ping(js.peer_id)
            await local.event(Identified, peer=js.peer_id)
            assert "quic-v1" in (await js.call("identify", local.peer_id))["addrs"][0]
            await echo_pattern(local.node, js.peer_id, 20 * MIB)
            await js.call("echo", local.peer_id, str(20 * MIB), "1")
            await js.call("echo", local.peer_id, "1000", "100")
            async with local.node.stream(js.peer_id, BYTES) as stream:
                pattern = Pattern(3, 200_000)
                await send_pattern(stream, pattern)  # and its end, before a byte is read
                await receive_pattern(stream, pattern)
            await was_reset(local.node, js.peer_id)
            await js.call("reset", local.peer_id)


@both_ways
async def test_messages(joined, dialler):
    async with joined(dialler, dht="off") as (local, js):
        assert (await local.node.request(js.peer_id, NAME, b"ahoy", type=ECHO)).payload == b"ahoy"
        await js.call("requests-reversed", local.peer_id, "20")
        await js.call("parts", local.peer_id, "20", "100000")


@both_ways
async def test_refused(here, built, dialler):
    built("js")
    start = partial(Peer.js, "--listen", QUIC, "--network-id", "elsewhere")
    async with here(listen=(QUIC,), dht="off") as local, start() as js:
        if dialler == "python":
            with pytest.raises(RefusedError):
                await local.node.connect(js.addr)
        else:
            assert (await js.call("connect", local.addr, check=False))["stage"] == "admission"
        assert (await local.event(Refused, peer=js.peer_id)).reason
        assert (await js.event("refused", peer=local.peer_id))["reason"]
        await js.event("disconnected", peer=local.peer_id)
        assert not local.seen(Admitted)
        assert not js.seen("identified")


async def test_kademlia(joined, eventually):
    async with joined("js", "--kad", PREFIX, kad_protocol=f"{PREFIX}/kad/1.0.0") as (local, js):

        async def known():
            return local.peer_id in (await js.call("table"))["peers"] and js.peer_id in local.node.dht.table()

        await eventually(known, "each has the other in its table")
        multihash = "1220" + "5a" * 32
        await js.call("provide", multihash)
        assert js.peer_id in [each.peer for each in await local.node.dht.find_providers(bytes.fromhex(multihash))]
