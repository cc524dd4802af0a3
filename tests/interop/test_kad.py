"""Kademlia among Go, Rust and Python peers: values, providers, finding peers.

They are plain hosts without a handshake, servers of one DHT whose protocol is PREFIX/kad/1.0.0.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from interop.peer import Peer, PeerError
from node.node import parse_peer_id

PREFIX = "/vouch/kad-test"
START = {"go": (Peer.go, "--handshake=false"), "rust": (Peer.rust,)}
VALUE = base64.b64encode(b"lantern").decode()
LATER = base64.b64encode(b"buoy").decode()
MULTIHASH = "1220" + hashlib.sha256(b"lantern").hexdigest()
NOBODY = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"

pytestmark = pytest.mark.interop

pairs = pytest.mark.parametrize(("one", "other"), [("go", "rust"), ("rust", "go"), ("rust", "rust")])


@pytest.fixture
def members(built, eventually):
    """`async with members(kinds) as peers`: of one DHT, all of whom know the first one and are known to it."""

    @asynccontextmanager
    async def start(*kinds):
        for kind in set(kinds):
            built(kind)
        async with AsyncExitStack() as stack:
            peers = []
            for kind in kinds:
                make, *flags = START[kind]
                peers.append(await stack.enter_async_context(make(*flags, "--kad", PREFIX)))
            first, *others = peers
            for peer in others:
                await peer.call("connect", first.addr)
            for peer in others:
                await eventually(knows(peer, first), "it has the first one in its table")
                await eventually(knows(first, peer), "the first one has it in its table")
            yield peers

    return start


def knows(peer, other):
    async def check():
        return other.peer_id in (await peer.call("table"))["peers"]

    return check


def without_peer(addr):
    return addr.partition("/p2p/")[0]


@pairs
async def test_a_value_that_one_puts_the_other_gets(members, one, other):
    async with members("go", one, other) as (_, putting, getting):
        put = await putting.call("put", "/v/harbour", VALUE)
        assert put.get("stored", len(put.get("sent_to", ()))) == 2
        assert (await getting.call("get", "/v/harbour"))["value"] == VALUE
        await getting.call("put", "/v/harbour", LATER)
        assert (await putting.call("get", "/v/harbour"))["value"] == LATER
        with pytest.raises(PeerError, match="not found"):
            await getting.call("get", "/v/unknown")


@pairs
async def test_a_provider_is_found(members, one, other):
    async with members("go", one, other) as (first, providing, asking):
        assert (await asking.call("find-providers", MULTIHASH))["providers"] == []
        await providing.call("provide", MULTIHASH)
        (found,) = (await asking.call("find-providers", MULTIHASH))["providers"]
        assert found["peer"] == providing.peer_id
        # a Rust peer's own table may have it, but it tells no addresses; what it has said to others counts
        (told,) = (await first.call("find-providers", MULTIHASH))["providers"]
        assert told == {"peer": providing.peer_id, "addrs": [without_peer(providing.addr)]}


@pairs
async def test_the_closest_are_the_same_for_both(members, one, other):
    async with members("go", one, other, "go", "rust") as peers:
        first, asking, asked, *_ = peers
        for key in ("00" * 32, MULTIHASH):
            everybody = by_distance(key, peers)
            for peer in (first, asking, asked):
                wanted = [each for each in everybody if each != peer.peer_id]
                assert (await peer.call("closest", key))["peers"] == wanted


async def test_nine_find_each_other(members):
    kinds = ("go", "rust") * 4 + ("go",)
    async with members(*kinds) as peers:
        for one, other in itertools.permutations(peers, 2):
            found = await one.call("find-peer", other.peer_id)
            assert found["found"], (one.name, other.name, found)
            assert without_peer(other.addr) in map(without_peer, found["addrs"])
        for peer in peers[:2]:
            assert not (await peer.call("find-peer", NOBODY))["found"]


@pytest.mark.parametrize("kind", ["go", "rust"])
async def test_no_dht_unless_asked_for(built, kind):
    built(kind)
    make, *flags = START[kind]
    async with make(*flags) as one, make(*flags, "--kad", PREFIX) as other:
        with pytest.raises(PeerError, match="no DHT"):
            await one.call("get", "/v/harbour")
        await one.call("connect", other.addr)
        assert f"{PREFIX}/kad/1.0.0" in (await one.call("identify", other.peer_id))["protocols"]
        assert (await other.call("table"))["peers"] == []


def by_distance(key, peers):
    """Their IDs, the closest to that key first: both are hashed."""
    target = int.from_bytes(hashlib.sha256(bytes.fromhex(key)).digest(), "big")

    def distance(peer_id):
        return int.from_bytes(hashlib.sha256(parse_peer_id(peer_id).to_bytes()).digest(), "big") ^ target

    return sorted((peer.peer_id for peer in peers), key=distance)
