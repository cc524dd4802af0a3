"""The Go and the Rust peer gossip with each other, without a node of ours: what the tests of our gossip stand on."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from interop.peer import Peer, PeerError

TOPIC = "harbour"
HEARTBEAT = 0.2
# long enough that a message which was to travel on has, by gossip too
QUIET = 5 * HEARTBEAT
LARGE = 900 * 1024
MIXED = ("go", "rust", "go", "rust", "go", "rust")
START = {"go": (Peer.go, "--handshake=false"), "rust": (Peer.rust, "--handshake=false")}

pytestmark = pytest.mark.interop

both_modes = pytest.mark.parametrize("mode", ["signed", "unsigned"])


@pytest.fixture
def gossiping(built):
    """`async with gossiping(kinds, mode) as peers`: peers of those kinds that speak pubsub, not connected yet."""

    @asynccontextmanager
    async def start(kinds, mode, *params):
        for name in ("go", "rust"):
            built(name)
        flags = ["--pubsub", mode]
        for param in (f"HeartbeatInterval={HEARTBEAT * 1000:.0f}", "HistoryLength=25", *params):
            flags += ["--gossip-param", param]
        async with AsyncExitStack() as stack:
            peers = []
            for kind in kinds:
                make, *own = START[kind]
                peers.append(await stack.enter_async_context(make(*own, *flags)))
            yield peers

    return start


@pytest.fixture
def joined(eventually):
    """`await joined(peers, links, *topics)`: subscribed and connected, and in the mesh with all whom they know."""

    async def join(peers, links, *topics):
        for topic in topics:
            for peer in peers:
                await peer.call("subscribe", topic)
        for one, other in links:
            await peers[one].call("connect", peers[other].addr)
        for topic in topics:
            for i, peer in enumerate(peers):
                wanted = sorted(peers[a + b - i].peer_id for a, b in links if i in (a, b))
                await eventually(in_mesh(peer, topic, wanted), f"peer {i} has its neighbours in the mesh of {topic}")

    return join


def in_mesh(peer, topic, wanted):
    async def check():
        return sorted((await peer.call("mesh", topic))["peers"]) == wanted

    return check


def has_received(peer, topic, count):
    async def check():
        return (await peer.call("received", topic))["count"] >= count

    return check


def line(count):
    return [(i, i + 1) for i in range(count - 1)]


def ring(count):
    return [(i, (i + 1) % count) for i in range(count)]


async def publish(peer, size, topic=TOPIC):
    """Publishes; ID and SHA-256."""
    sent = await peer.call("publish", topic, str(size))
    return sent["id"], sent["sha256"]


async def total(peers, direction, name):
    return sum([(await peer.call("rpcs"))[direction][name] for peer in peers])


@both_modes
@pytest.mark.parametrize("links", [line, ring])
async def test_every_message_reaches_everyone_once(gossiping, joined, eventually, mode, links):
    # what a peer's queue has no room for is lost: on a slow machine the usual 32 RPCs are soon there
    async with gossiping(MIXED, mode, "OutboundQueue=1000") as peers:
        await joined(peers, links(6), TOPIC)
        # an unsigned message of its own that has come around the ring is a forgery to a Rust peer, which lets go of who
        # brought it: there the Go peers publish
        authors = peers[::2] if (mode, links) == ("unsigned", ring) else peers
        sent = [[await publish(peer, 200) for _ in range(20)] if peer in authors else [] for peer in peers]
        count = [sum(map(len, sent)) - len(own) for own in sent]
        for i, peer in enumerate(peers):
            await eventually(has_received(peer, TOPIC, count[i]), "all of the others' messages have come")
        await trio.sleep(QUIET)
        for i, peer in enumerate(peers):
            reply = await peer.call("received", TOPIC)
            assert (reply["count"], reply["unique"]) == (count[i], count[i])
            assert reply["first_ms"] <= reply["last_ms"]
            events = peer.seen("gossip", topic=TOPIC, size=200)
            others = [message for j, messages in enumerate(sent) if j != i for message in messages]
            assert sorted((event["id"], event["sha256"]) for event in events) == sorted(others)
            neighbours = {peers[a + b - i].peer_id for a, b in links(6) if i in (a, b)}
            assert {event["from"] for event in events} <= neighbours


@both_modes
@pytest.mark.parametrize("middle", ["go", "rust"])
async def test_the_verdict_in_the_middle_counts(gossiping, joined, eventually, mode, middle):
    async with gossiping(("go", "rust", middle, "rust", "go", "rust"), mode) as peers:
        await joined(peers, line(6), "late", "ignored", "rejected")
        first, before, held, *behind = peers

        await held.call("validate", "late", "delay", "600")
        await publish(first, 100, "late")
        for peer in behind:
            event = await peer.event("gossip", topic="late")
            assert event["at_ms"] >= before.seen("gossip", topic="late")[0]["at_ms"] + 550
        assert held.seen("gossip", topic="late")

        await held.call("validate", "ignored", "ignore")
        await publish(first, 100, "ignored")
        await before.event("gossip", topic="ignored")
        await trio.sleep(QUIET)
        assert (await held.call("score", before.peer_id))["score"] == 0

        await held.call("validate", "rejected", "reject")
        await publish(first, 100, "rejected")
        await before.event("gossip", topic="rejected")

        async def pays():
            return (await held.call("score", before.peer_id))["score"] < -5

        await eventually(pays, "the sender of a rejected message pays")
        await trio.sleep(QUIET)
        for peer in (held, *behind):
            for topic in ("ignored", "rejected"):
                assert (await peer.call("received", topic))["count"] == 0
        assert (await before.call("score", first.peer_id))["score"] == 0


@both_modes
async def test_large_messages(gossiping, joined, eventually, mode):
    async with gossiping(MIXED, mode) as peers:
        await joined(peers, ring(6), TOPIC)
        sent = [await publish(peer, LARGE) for peer in peers[:2]]
        for i, peer in enumerate(peers):
            count = 1 if i < 2 else 2
            await eventually(has_received(peer, TOPIC, count), "the large messages have come")
        await trio.sleep(QUIET)
        for i, peer in enumerate(peers):
            events = peer.seen("gossip", topic=TOPIC, size=LARGE)
            assert sorted((e["id"], e["sha256"]) for e in events) == sorted(sent[:i] + sent[i + 1 :])
        for same in (peers[::2], peers[1::2]):  # of each kind: who sits beside the author is told by nobody
            for direction in ("in", "out"):
                assert await total(same, direction, "idontwant") > 0


@both_modes
@pytest.mark.parametrize(("middle", "far"), [("go", "rust"), ("rust", "go")])
async def test_what_the_mesh_does_not_carry_comes_by_gossip(gossiping, joined, eventually, mode, middle, far):
    async with gossiping(("go", middle, far), mode) as peers:
        await joined(peers, line(3), TOPIC)
        first, before, last = peers
        # one invalid message costs its place in the mesh whoever brought it, and no more
        await last.call("validate", TOPIC, "reject")
        await publish(first, 100)
        await eventually(in_mesh(last, TOPIC, []), "it has pruned who brought an invalid message")
        await eventually(in_mesh(before, TOPIC, [first.peer_id]), "that one knows it")

        await last.call("validate", TOPIC, "accept")
        sent = [await publish(first, 300) for _ in range(20)]
        await eventually(has_received(last, TOPIC, 20), "all messages have come")
        await trio.sleep(QUIET)
        events = last.seen("gossip", topic=TOPIC)
        assert sorted((event["id"], event["sha256"]) for event in events) == sorted(sent)
        told, asked = await before.call("rpcs"), await last.call("rpcs")
        assert told["out"]["ihave"] >= asked["in"]["ihave"] > 0
        for name in ("iwant", "prune"):
            assert asked["out"][name] >= told["in"][name] > 0
        # one of two is enough: who has been grafted doesn't graft back
        assert (await total(peers, "out", "graft")) == (await total(peers, "in", "graft")) >= 2
        # the rejected one came through the mesh, the others were asked for
        assert asked["in"]["messages"] == 21


@pytest.mark.parametrize("publisher", ["go", "rust"])
async def test_flood_arrives(gossiping, joined, eventually, publisher):
    async with gossiping((publisher, "go", "rust"), "signed", "OutboundQueue=1000") as peers:
        await joined(peers, line(3), TOPIC)
        seconds = (await peers[0].call("flood", TOPIC, "200", "1000", "500"))["seconds"]
        assert 0.35 < seconds < 2
        for peer in peers[1:]:
            await eventually(has_received(peer, TOPIC, 200), "all of the flood has come")
            assert (await peer.call("received", TOPIC))["unique"] == 200
        sent = await peers[0].call("publish-bytes", TOPIC, "aGVsbG8=")
        assert (await peers[2].event("gossip", size=5))["id"] == sent["id"]
        assert (await peers[0].call("rpcs"))["dropped"] == 0


async def test_gossip_after_admission(built, joined):
    built("go")
    flags = ("--pubsub", "unsigned", "--gossip-param", f"HeartbeatInterval={HEARTBEAT * 1000:.0f}")
    async with Peer.go(*flags) as one, Peer.go(*flags) as other:
        await joined([one, other], line(2), TOPIC)
        sent, _ = await publish(one, 100)
        await other.event("gossip", id=sent, **{"from": one.peer_id})
    async with Peer.go(*flags) as one, Peer.go(*flags, "--network-id", "elsewhere") as other:
        for peer in (one, other):
            await peer.call("subscribe", TOPIC)
        with pytest.raises(PeerError, match="refused"):
            await one.call("connect", other.addr)
        for peer in (one, other):
            assert not (await peer.call("mesh", TOPIC))["peers"]


@pytest.mark.parametrize("kind", ["go", "rust"])
async def test_no_pubsub_unless_asked_for(built, kind):
    built(kind)
    make, *flags = START[kind]
    async with make(*flags) as one, make(*flags) as other:
        with pytest.raises(PeerError, match="no pubsub"):
            await one.call("subscribe", TOPIC)
        await one.call("connect", other.addr)
        protocols = (await one.call("identify", other.peer_id))["protocols"]
        assert not [protocol for protocol in protocols if protocol.startswith("/meshsub/")]
