"""Kademlia among Go, Rust, JavaScript and Python peers: values, providers, finding peers.

They are servers of one DHT whose protocol is PREFIX/kad/1.0.0, without admission. The other peers are plain
hosts, processes of their own; the Python side is a `Node` in this process, driven by the same commands.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from interop.ends.kad import KadCommands
from interop.peer import Peer, PeerError
from node.errors import NotFoundError, UsageError
from node.identity import Identity
from node.names import parse_peer_id

PREFIX = "/vouch/kad-test"
START = {
    "go": (Peer.go, "--handshake=false"),
    "rust": (Peer.rust, "--handshake=false"),
    "js": (Peer.js, "--handshake=false"),
}
VALUE = base64.b64encode(b"buoy").decode()
BETTER = base64.b64encode(b"lantern").decode()
MULTIHASH = "1220" + hashlib.sha256(b"lantern").hexdigest()
NOBODY = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"

pytestmark = pytest.mark.interop

KEY_PREFIX = bytes.fromhex("08011220")  # an Ed25519 key in protobuf
KINDS = ("go", "rust", "python")
pairs = pytest.mark.parametrize(
    ("one", "other"),
    [*itertools.permutations(KINDS, 2), ("rust", "rust"), ("python", "python"), ("js", "python"), ("python", "js")],
)


class OurPeer:
    """A node in this process that takes the commands of the others."""

    name = "python"

    def __init__(self, local):
        self.peer_id, self.addr = local.peer_id, local.addr
        self._node = local.node
        self._commands = KadCommands(local.node).all() | {"connect": self._connect, "closest": self._closest}

    async def call(self, command, *args):
        try:
            return await self._commands[command](*args)
        except NotFoundError as error:
            raise PeerError(f"not found: {error}") from error

    async def _connect(self, addr):
        await self._node.connect(addr)

    async def _closest(self, key):
        return {"peers": await self._node.dht.closest(bytes.fromhex(key))}


@pytest.fixture
def members(built, here, eventually):
    """`async with members(kinds) as peers`: of one DHT, all of whom know the first one and are known to it."""

    @asynccontextmanager
    async def start(*kinds):
        for kind in {*kinds} - {"python"}:
            built(kind)
        async with AsyncExitStack() as stack:
            peers = []
            for kind in kinds:
                if kind == "python":
                    ours = here(admission="open", kad_protocol=f"{PREFIX}/kad/1.0.0")
                    local = await stack.enter_async_context(ours)
                    peers.append(OurPeer(local))
                    continue
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
async def test_a_value_that_one_puts_the_other_gets(members, eventually, one, other):
    async with members("go", one, other) as (_, putting, getting):
        if one == "js":  # puts to whom it has found before, if the look-up doesn't find others at once
            await putting.call("bootstrap")
            await eventually(knows(putting, getting), "it has the other one in its table")
        put = await putting.call("put", "/v/harbour", VALUE)
        assert put.get("stored", len(put.get("sent_to", ()))) == 2
        assert (await getting.call("get", "/v/harbour"))["value"] == VALUE
        await getting.call("put", "/v/harbour", BETTER)
        assert (await putting.call("get", "/v/harbour"))["value"] == BETTER
        with pytest.raises(PeerError, match="not found"):
            await getting.call("get", "/v/unknown")


@pairs
async def test_a_public_key_is_found(members, one, other):
    owner = Identity.generate()
    encoded = base64.b64encode(KEY_PREFIX + owner.public_key).decode()
    async with members("go", one, other) as (first, putting, getting):
        await putting.call("put", f"/pk/{owner.peer_id}", encoded)
        assert (await getting.call("get", f"/pk/{owner.peer_id}"))["value"] == encoded
        # Rust validates nothing, nor js-libp2p what it puts; who does takes no other value from them, nor gives one
        another = f"/pk/{Identity.generate().peer_id}"
        if one in ("rust", "js"):
            await putting.call("put", another, encoded)
            for peer in (first, *[getting] * (other != "rust")):
                with pytest.raises(PeerError, match="not found"):
                    await peer.call("get", another)
        else:
            with pytest.raises((PeerError, UsageError)):
                await putting.call("put", another, encoded)


@pairs
async def test_a_provider_is_found(members, one, other):
    async with members("go", one, other) as (first, providing, asking):
        assert (await asking.call("find-providers", MULTIHASH))["providers"] == []
        await providing.call("provide", MULTIHASH)
        (found,) = (await asking.call("find-providers", MULTIHASH))["providers"]
        assert found["peer"] == providing.peer_id
        # a Rust peer's own table may have it, but it tells no addresses; what it has said to others counts
        (told,) = (await first.call("find-providers", MULTIHASH))["providers"]
        assert told["peer"] == providing.peer_id
        assert without_peer(providing.addr) in told["addrs"]


@pairs
async def test_the_closest_are_the_same_for_both(members, eventually, one, other):
    async with members("go", one, other, *KINDS) as peers:
        # all know all: else it isn't said that a look-up hears of each, since Go's ends when the three closest have
        # answered and doesn't go on with what slower ones say
        for peer, another in itertools.combinations(peers, 2):
            await peer.call("connect", another.addr)
        for peer, another in itertools.permutations(peers, 2):
            await eventually(knows(peer, another), "all have all others in their tables")
        for key in ("00" * 32, MULTIHASH):
            everybody = by_distance(key, peers)
            for peer in peers[:3]:
                wanted = [each for each in everybody if each != peer.peer_id]
                found = (await peer.call("closest", key))["peers"]
                missing = [each.name for each in peers if each.peer_id in {*wanted} - {*found}]
                assert found == wanted, f"{peer.name} misses {missing}"


async def test_nine_find_each_other(members):
    async with members(*KINDS * 3) as peers:
        for one, other in itertools.permutations(peers, 2):
            found = await one.call("find-peer", other.peer_id)
            assert found["found"], (one.name, other.name, found)
            assert without_peer(other.addr) in map(without_peer, found["addrs"])
        for peer in peers[:3]:
            assert not (await peer.call("find-peer", NOBODY))["found"]


async def test_vouch_run_among_go_peers(built, eventually):
    """With admission, and over the control socket."""
    built("go")
    prefix = f"/vouch/{b'vouch-local'.hex()}"
    owner = Identity.generate()
    key, encoded = f"/pk/{owner.peer_id}", base64.b64encode(KEY_PREFIX + owner.public_key).decode()
    async with Peer.go("--kad", prefix) as first, Peer.go("--kad", prefix) as go, Peer.python() as python:
        for peer in (go, python):
            await peer.call("connect", first.addr)
            await eventually(knows(peer, first), "it has the first one in its table")
            await eventually(knows(first, peer), "the first one has it in its table")
        assert (await python.call("find-peer", go.peer_id))["found"]
        assert (await python.call("put", key, encoded))["stored"] >= 2
        assert (await go.call("get", key))["value"] == (await python.call("get", key))["value"] == encoded
        with pytest.raises(PeerError):
            await python.call("get", f"/pk/{go.peer_id}")
        for providing, asking in ((go, python), (python, go)):
            await providing.call("provide", MULTIHASH)
            found = (await asking.call("find-providers", MULTIHASH))["providers"]
            assert providing.peer_id in [provider["peer"] for provider in found]


@pytest.mark.parametrize("kind", START)
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
