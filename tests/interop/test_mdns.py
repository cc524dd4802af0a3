"""mDNS with go-libp2p's and rust-libp2p's, on one link of two hosts: each finds the other, and says so.

The Rust peer has no handshake, and knows the public service only; the Go peer also meets a network by its own.
"""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from interop.lab.network import Lab
from interop.peer import Peer
from node.discovery.mdns import private_service
from tests.lab import lab_or_skip

pytestmark = pytest.mark.interop

PUBLIC = "_p2p._udp.local"
PRIVATE = private_service(b"harbour")
NODE = ("--mdns", "on", "--network-id", "harbour", "--dht", "off", "--gossip", "off", "--log-level", "debug")
LISTEN = ("--listen", "/ip4/0.0.0.0/tcp/0")
# Go asks again after 4 s, Rust after half a second, one, two
WITHIN = 15.0


@asynccontextmanager
async def together(peer, other):
    """Both on one link, in hosts of their own, the first a while before the other."""
    async with Lab() as lab:
        hosts = [await lab.host() for _ in range(2)]
        async with peer.within(hosts[0].enter) as first, other.within(hosts[1].enter) as second:
            yield first, second


async def find_each_other(ours, theirs):
    """Both have found the other, by an address on the link; they are connected."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(they_find_us, ours, theirs)
        found = await ours.event("mdns_found", peer=theirs.peer_id, timeout=WITHIN)
    assert all(addr.startswith("/ip4/10.77.0.") for addr in found["addrs"])
    await ours.event("admitted", peer=theirs.peer_id, timeout=WITHIN)
    assert (await ours.call("ping", theirs.peer_id, "2"))["rtt_us"]


async def they_find_us(ours, theirs):
    told = await theirs.event("mdns", peer=ours.peer_id, timeout=WITHIN)
    assert told["connected"], told
    assert any("/ip4/10.77.0." in addr for addr in told["addrs"])


@pytest.fixture
def peer(built):
    """A peer of that language with its flags, if it and namespaces can be had."""

    def make(name, *flags):
        lab_or_skip()
        built(name)
        return getattr(Peer, name)(*LISTEN, *flags)

    return make


@pytest.mark.parametrize(
    ("service", "first"), [(PUBLIC, "python"), (PRIVATE, "go")], ids=["public-python", "private-go"]
)
async def test_go(peer, service, first):
    theirs = peer("go", "--network-id", "harbour", f"--mdns={service.removesuffix('.local')}")
    flags = () if service == PRIVATE else ("--mdns-service", PUBLIC)  # a network's own is the default
    ours = Peer.python(*NODE, *LISTEN, *flags)
    async with together(*((ours, theirs) if first == "python" else (theirs, ours))):
        await find_each_other(ours, theirs)


@pytest.mark.parametrize("first", ["python", "rust"])
async def test_rust(peer, first):
    theirs = peer("rust", "--mdns", "--handshake=false")
    ours = Peer.python(*NODE, *LISTEN, "--mdns-service", PUBLIC, "--admission", "open")
    async with together(*((ours, theirs) if first == "python" else (theirs, ours))):
        await find_each_other(ours, theirs)


async def test_a_node_of_a_network_isnt_found_by_the_public_service(peer):
    theirs = peer("go", "--network-id", "harbour", "--mdns")
    ours = Peer.python(*NODE, *LISTEN)
    async with together(theirs, ours):
        await trio.sleep(5)  # Go has asked twice
        assert not ours.seen("mdns_found")
        assert not theirs.seen("mdns")
