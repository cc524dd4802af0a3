"""WebSocket over TLS between a Python node and the Go peer, whose certificates an authority of the test has signed."""

from __future__ import annotations

import pytest

from interop.peer import Peer
from interop.rawbytes import BYTES, echo_pattern
from node.errors import DialError
from tests import certificates

LISTEN = "/ip4/127.0.0.1/tcp/0/tls/ws"

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_traceback")]


@pytest.mark.parametrize("dialler", ["python", "other"])
@pytest.mark.parametrize("security", ["noise", "tls"])
async def test_go_over_tls(here, built, tmp_path, dialler, security):
    built("go")
    files = certificates.make(tmp_path)
    trusted = ("--wss-certificate", str(files.own), "--wss-roots", str(files.roots))
    started = Peer.go("--timeout=20s", "--listen", LISTEN, "--security", security, *trusted)
    settings = {"listen": (LISTEN,), "wss_certificate": files.own, "dht": "off", "security": security}
    async with here(wss_roots=files.roots, **settings) as local, started as other:
        await local.node.serve(BYTES)
        if dialler == "python":
            await local.node.connect(other.addr)
        else:
            await other.call("connect", local.addr)
        await echo_pattern(local.node, other.peer_id, 1 << 20)
        await other.call("echo", local.peer_id, str(1 << 20), "1")


async def test_neither_trusts_a_stranger_with_a_certificate(here, built, tmp_path):
    built("go")
    files = certificates.make(tmp_path)
    async with (
        here(listen=(LISTEN,), wss_certificate=files.own, dht="off") as local,
        Peer.go("--listen", LISTEN, "--wss-certificate", str(files.own)) as other,
    ):
        with pytest.raises(DialError, match="local issuer certificate"):
            await local.node.connect(other.addr)
        reply = await other.call("connect", local.addr, check=False)
        assert "certificate signed by unknown authority" in reply["error"]
