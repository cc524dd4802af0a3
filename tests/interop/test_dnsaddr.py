"""`/dnsaddr/` names: our resolver and go-libp2p's have the same addresses from the same server, on loopback."""

from __future__ import annotations

import pytest

from interop.peer import Peer, PeerError
from node.discovery.dnsaddr import MAX_DEPTH, DnsResolver, ResolveError, is_named, resolve
from tests.dnsserver import serving

A = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"
B = "12D3KooWJWEKvSFbben74C7H4YtKjhPMTDxd7gP7zxWSUEeF27st"
CERTIFICATE = "/certhash/uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g"
RECORDS = {
    "plain": [f"/ip4/192.0.2.1/tcp/4001/p2p/{A}", f"/ip6/2001:db8::1/tcp/4001/p2p/{A}", "/ip4/192.0.2.2/tcp/1"],
    "named": [f"/dnsaddr/plain.test/p2p/{A}", f"/dnsaddr/other.test/p2p/{B}", "/dns4/host.test/tcp/4001"],
    "other": [f"/ip4/192.0.2.3/tcp/4001/p2p/{B}", f"/ip4/192.0.2.4/tcp/4001/p2p/{A}"],
    "half": ["/dnsaddr/missing.test", f"/ip4/192.0.2.5/tcp/4001/p2p/{B}"],
    "odd": ["no", "", "/ip4/192.0.2.6", "/ip4/192.0.2.7/tcp/1/p2p/", f"/ip4/192.0.2.8/udp/1/quic-v1/p2p/{A}"],
    "long": ["/ip4/192.0.2.9/udp/1/quic-v1/webtransport" + 4 * CERTIFICATE + f"/p2p/{A}"],
    "loop": ["/dnsaddr/loop.test", "/dnsaddr/back.test", "/ip4/192.0.2.10/tcp/1"],
    "back": ["/dnsaddr/loop.test", "/ip4/192.0.2.11/tcp/1"],
    "round": ["/dnsaddr/round.test"],
    **{f"n{depth}": [f"/dnsaddr/n{depth + 1}.test", f"/ip4/192.0.2.12/tcp/{depth}"] for depth in range(1, 9)},
}

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("go")]


@pytest.fixture(scope="module")
def go(built):
    built("go")


def texts():
    zone = {f"_dnsaddr.{name}.test": [f"dnsaddr={text}" for text in found] for name, found in RECORDS.items()}
    return {**zone, "_dnsaddr.strange.test": ["v=spf1 -all", "/ip4/192.0.2.13/tcp/1", "dnsaddr=/ip4/192.0.2.14/tcp/1"]}


async def ours(addr, server):
    try:
        return set(await resolve(addr, DnsResolver(["127.0.0.1"], server.port), timeout=5))
    except ResolveError:
        return set()


async def theirs(addr, go):
    """What Go has; it gives names that are too deep as they are."""
    reply = await go.call("resolve-dnsaddr", addr, check=False)
    return {found for found in reply.get("addrs", ()) if not is_named(found)}


async def test_both_resolve_to_the_same():
    async with serving(texts()) as server, Peer.go("--dns", f"127.0.0.1:{server.port}") as go:
        assert len(await ours("/dnsaddr/named.test", server)) == 4
        assert len(await ours("/dnsaddr/n1.test", server)) == MAX_DEPTH
        for name in (*RECORDS, "strange", "missing"):
            for suffix in ("", f"/p2p/{A}", f"/p2p/{B}", "/tcp/1"):
                addr = f"/dnsaddr/{name}.test{suffix}"
                assert await ours(addr, server) == await theirs(addr, go), addr
        for name in RECORDS:
            assert f"_dnsaddr.{name}.test" in server.asked


async def test_go_dials_what_we_resolve(here):
    async with here() as local, here() as other:
        zone = {
            "_dnsaddr.harbour.test": ["dnsaddr=/dnsaddr/pier.harbour.test"],
            "_dnsaddr.pier.harbour.test": [f"dnsaddr={each.addr}" for each in (local, other)],
        }
        async with serving(zone) as server, Peer.go("--dns", f"127.0.0.1:{server.port}") as go:
            assert await ours("/dnsaddr/harbour.test", server) == {local.addr, other.addr}
            # what is asked for must stand at the end of each record on the way: a name alone has no peer
            named = f"/dnsaddr/pier.harbour.test/p2p/{local.peer_id}"
            assert await ours(named, server) == await theirs(named, go) == {local.addr}
            reply = await go.call("connect", named)
            assert f"{reply['addr']}/p2p/{local.peer_id}" == local.addr
            await go.event("admitted", peer=local.peer_id)
            with pytest.raises(PeerError):
                await go.call("connect", f"/dnsaddr/pier.harbour.test/p2p/{A}")
