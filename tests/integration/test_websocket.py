"""Nodes over WebSocket and WSS: the same admission and streams as over TCP, and on the same port."""

from __future__ import annotations

import gc
import warnings
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p.transport.upgrader import TransportUpgrader
from libp2p.transport.websocket.transport import WebsocketTransport
from multiaddr import Multiaddr

from interop.rawbytes import BYTES, RESET, echo_pattern, reset_mine, was_reset
from node.config import Config
from node.errors import DialError, RefusedError, UsageError
from node.identity import Identity
from node.node import Node
from node.upgrade.muxer import Muxer
from node.upgrade.secure import SecureConn, _Plain
from tests import certificates
from tests.nodes import NOWHERE, eventually, running

MIB = 1 << 20
TCP = "/ip4/127.0.0.1/tcp/0"
both_secure = pytest.mark.parametrize("security", ["noise", "tls"])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("pem"))


@asynccontextmanager
async def two(listen: str, *, security: str = "noise,tls", here=None, **settings):
    """One that listens and one that has dialled it."""
    settings = {"protocols": [BYTES, RESET], "security": security} | settings
    async with running(listen=(listen,), **settings) as a, running(**settings) as b:
        await b.connect(a.addrs[0])
        yield a, b


async def everything(a: Node, b: Node) -> None:
    for here, there in ((a, b), (b, a)):
        await echo_pattern(here, there.peer_id, 8 * MIB)
        await echo_pattern(here, there.peer_id, 1000, streams=50)
        await reset_mine(here, there.peer_id)
        await was_reset(here, there.peer_id)
    await b.disconnect(a.peer_id)
    await eventually(lambda: not a.connected_peers())


def secured(node: Node) -> SecureConn:
    muxer = node.swarm.admitted_connections()[0].muxed_conn
    assert isinstance(muxer, Muxer)
    return muxer.secured_conn


@both_secure
async def test_bytes_and_resets_go_over_a_websocket_both_ways(security):
    with trio.fail_after(60):
        async with two(f"{TCP}/ws", security=security) as (a, b):
            assert a.addrs[0].split("/p2p/")[0].endswith("/ws")
            assert str(a.swarm.admitted_connections()[0].addr).endswith("/ws")
            assert secured(a).early_muxer == "/yamux/1.0.0"
            assert not isinstance(secured(a)._link, _Plain)
            assert not isinstance(secured(b)._link, _Plain)
            await everything(a, b)


@pytest.mark.parametrize("suffix", ["/tls/ws", "/wss", "/tls/sni/localhost/ws"])
async def test_over_tls_with_an_authority_of_ones_own(files, suffix):
    with trio.fail_after(60):
        async with two(f"{TCP}{suffix}", wss_certificate=files.own, wss_roots=files.roots) as (a, b):
            assert suffix in a.addrs[0]
            await everything(a, b)


async def test_over_tls_by_name(files):
    async with running(listen=(f"{TCP}/wss",), wss_certificate=files.own) as a:
        port = a.addrs[0].split("/")[4]
        async with running(wss_roots=files.roots) as b:
            await b.connect(f"/dns4/localhost/tcp/{port}/wss/p2p/{a.peer_id}")
        async with running() as stranger:
            with pytest.raises(DialError, match="expected TLS, got"):
                await stranger.connect(f"/dns4/localhost/tcp/{port}/wss/p2p/{a.peer_id}")
        async with running(wss_roots=files.roots) as b:
            with pytest.raises(DialError, match="expected TLS, got"):
                await b.connect(f"/ip4/127.0.0.1/tcp/{port}/tls/sni/elsewhere/ws/p2p/{a.peer_id}")


async def test_listening_over_tls_needs_a_certificate(tmp_path):
    with pytest.raises(UsageError, match="wss_certificate"):
        async with running(listen=(f"{TCP}/wss",)):
            pass
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    with pytest.raises(UsageError, match="expected a certificate and its key in PEM"):
        async with running(listen=(f"{TCP}/wss",), wss_certificate=nothing):
            pass


async def test_a_renewed_certificate_is_shown_without_a_new_start(tmp_path):
    old = certificates.make(tmp_path)
    async with running(listen=(f"{TCP}/wss",), wss_certificate=old.own) as a:
        async with running(wss_roots=old.roots) as b:
            await b.connect(a.addrs[0])
        new = certificates.make(tmp_path)
        async with running(wss_roots=new.roots) as b:
            await b.connect(a.addrs[0])
        new.own.write_text("spoiled")
        async with running(wss_roots=new.roots) as b:
            await b.connect(a.addrs[0])


@pytest.mark.parametrize("listen", [f"{TCP}/ws", f"{TCP}/wss"])
async def test_admission_is_the_same(files, listen):
    settings = {"wss_certificate": files.own, "wss_roots": files.roots}
    async with (
        running(listen=(listen,), network_id="harbour", **settings) as a,
        running(network_id="elsewhere", **settings) as b,
    ):
        with pytest.raises(RefusedError, match="another network"):
            await b.connect(a.addrs[0])
        assert not a.connected_peers()


async def test_one_port_for_tcp_and_both_kinds_of_websocket(files):
    settings = {"wss_certificate": files.own, "wss_roots": files.roots, "protocols": [BYTES]}
    async with running(**settings) as a:
        plain = a.addrs[0].split("/p2p/")[0]
        for suffix in ("/ws", "/tls/ws"):
            await a.host.listen(Multiaddr(plain + suffix))
        with pytest.raises(UsageError, match="listens there already"):
            await a.host.listen(Multiaddr(f"{plain}/ws"))
        for suffix in ("/ws", "", "/tls/ws"):
            async with running(**settings) as b:
                await b.connect(f"{plain}{suffix}/p2p/{a.peer_id}")
                assert type(secured(a)._link).__name__ == ("WebSocketStream" if suffix else "BufferedTcpStream")
                await echo_pattern(b, a.peer_id, MIB)
                await b.disconnect(a.peer_id)
            await eventually(lambda: not a.connected_peers())


async def with_stock(stock_listens: bool) -> None:
    # its own upgrader is never asked: the swarm has ours
    stock = WebsocketTransport(TransportUpgrader({}, {}))
    config = Config(listen=(f"{TCP}/ws",), dht="off", pool="off", data_dir=NOWHERE)
    async with (
        Node(config, identity=Identity.generate(), protocols=[BYTES], transports=[stock]) as theirs,
        running(listen=(f"{TCP}/ws",), protocols=[BYTES]) as ours,
    ):
        with trio.fail_after(30):
            await (ours.connect(theirs.addrs[0]) if stock_listens else theirs.connect(ours.addrs[0]))
            await echo_pattern(ours, theirs.peer_id, MIB)
            await ours.disconnect(theirs.peer_id)
            await eventually(lambda: not theirs.connected_peers())


@pytest.mark.parametrize("stock_listens", [True, False])
async def test_stock_speaks_with_ours(stock_listens):
    await with_stock(stock_listens)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # py-libp2p doesn't close what it has dialled
