"""QUIC between a Python node and the JavaScript peer: signed messages and Kademlia.

Streams over it are in test_quic.py, admission in test_admission.py; TCP and WebSocket in test_transports.py.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest

from interop.ends.messages import ECHO, NAME, interop
from interop.peer import Peer
from interop.rawbytes import BYTES, RESET
from node.events import Admitted

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
async def test_messages(joined, dialler):
    async with joined(dialler, dht="off") as (local, js):
        assert (await local.node.request(js.peer_id, NAME, b"ahoy", type=ECHO)).payload == b"ahoy"
        await js.call("requests-reversed", local.peer_id, "20")
        await js.call("parts", local.peer_id, "20", "100000")


async def test_kademlia(joined, eventually):
    async with joined("js", "--kad", PREFIX, kad_protocol=f"{PREFIX}/kad/1.0.0") as (local, js):

        async def known():
            return local.peer_id in (await js.call("table"))["peers"] and js.peer_id in local.node.dht.table()

        await eventually(known, "each has the other in its table")
        multihash = "1220" + "5a" * 32
        await js.call("provide", multihash)
        assert js.peer_id in [each.peer for each in await local.node.dht.find_providers(bytes.fromhex(multihash))]
