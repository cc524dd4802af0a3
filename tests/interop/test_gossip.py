"""Our gossip in one mesh with go-libp2p-pubsub, rust-libp2p's and js-libp2p's gossipsub, over real sockets.

How the Go and the Rust peer do without us is in test_gossip_peers.py. In networks of ours data is a signed message: Go
makes such ones ("compose"), the others relay them unread, and only our nodes look into them.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from interop.peer import Peer
from protocols.gossip import GossipParams, Verdict
from tests.rawgossip import WireTap

TOPIC = "harbour"
HEARTBEAT = 0.2
QUIET = 5 * HEARTBEAT
LARGE = 900 * 1024
MESSAGES = 200
NINE = ("go", "rust", "python") * 3
FIVE = ("go", "js", "python", "js", "python")
# what a peer's queue has no room for is lost: on a slow machine the usual 32 RPCs are soon there
ROOM = ("--gossip-param", "OutboundQueue=1000")
START = {
    "go": (Peer.go, "--handshake=false", *ROOM),
    "rust": (Peer.rust, "--handshake=false", *ROOM),
    "js": (Peer.js, "--handshake=false"),
}
# of the other peers' pubsub, and what ours calls the same
MODES = {"signed": "strict", "unsigned": "own"}
CONTROL = ("graft", "prune", "ihave", "iwant", "idontwant")

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_traceback")]

both_modes = pytest.mark.parametrize("mode", list(MODES))


@dataclass(frozen=True)
class Quick(GossipParams):
    heartbeat_interval: float = HEARTBEAT
    history_length: int = 25
    prune_backoff: float = 1.0


class Ours:
    """A node in this process, as the other peers are seen."""

    def __init__(self, local) -> None:
        self.node = local.node
        self.peer_id, self.addr = local.peer_id, local.addr
        self.got: dict[str, list[str]] = {}  # SHA-256 of all payloads that were judged, by topic
        self.verdicts: dict[str, Verdict] = {}

    async def call(self, command, *args):
        gossip = self.node.gossip
        match command, *args:
            case "subscribe", topic:
                self.decide(topic)
                return {}
            case "connect", addr:
                await self.node.connect(addr)
                return {}
            case "mesh", topic:
                return {"peers": list(gossip.engine.mesh(topic))}
            case "publish", topic, size:
                data = os.urandom(int(size))
                receipt = await gossip.publish(topic, data)
                return {"id": receipt.message_id.hex(), "sha256": hashlib.sha256(data).hexdigest()}
        raise AssertionError(f"expected a command of ours, got {command}")

    def decide(self, topic, verdict=Verdict.ACCEPT, delay=0.0):
        """What is said to what comes on the topic from now on; `delay` holds from the first time on."""
        joined, self.verdicts[topic] = topic in self.verdicts, verdict
        if joined:
            return
        got = self.got.setdefault(topic, [])

        @self.node.gossip.validator(topic)
        async def check(message):
            await trio.sleep(delay)
            got.append(hashlib.sha256(message.payload).hexdigest())
            return self.verdicts[topic]

    def digests(self, topic):
        return sorted(self.got.get(topic, []))


@pytest.fixture
def mesh(built, here, monkeypatch):
    """`async with mesh(kinds, mode) as peers`: peers that speak pubsub, of those kinds, not connected yet."""
    monkeypatch.setattr("node.gossip.GossipParams", Quick)

    @asynccontextmanager
    async def start(kinds, mode, *params):
        for name in set(START) & set(kinds):
            built(name)
        flags = ["--pubsub", mode]
        for param in (f"HeartbeatInterval={HEARTBEAT * 1000:.0f}", "HistoryLength=25", "PruneBackoff=1000", *params):
            flags += ["--gossip-param", param]
        async with AsyncExitStack() as stack:
            peers = []
            for kind in kinds:
                if kind == "python":
                    settings = {"admission": "open", "heartbeat": "off", "gossip_signing": MODES[mode]}
                    settings |= {"dht": "off", "exchange": "off"}  # no links but the test's
                    peers.append(Ours(await stack.enter_async_context(here(**settings))))
                else:
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
                wanted = {peers[a + b - i].peer_id for a, b in links if i in (a, b)}
                await eventually(in_mesh(peer, topic, wanted), f"peer {i} has its neighbours in the mesh of {topic}")

    return join


class Not(tuple):
    """What is there instead: false, and told by `eventually`."""

    def __bool__(self):
        return False


def in_mesh(peer, topic, wanted):
    async def check():
        there = set((await peer.call("mesh", topic))["peers"])
        return there == wanted or Not(("missing", wanted - there, "too many", there - wanted))

    return check


def came(peer, topic):
    """SHA-256 of the data of all that was delivered, as often as it was."""
    if isinstance(peer, Ours):
        return peer.digests(topic)
    return sorted(event["sha256"] for event in peer.seen("gossip", topic=topic))


def ring(count, *chords):
    return [*((i, (i + 1) % count) for i in range(count)), *chords]


def text(data):
    return base64.b64encode(data).decode()


async def say(peer, composer, payload, topic=TOPIC):
    """Publishes a message of ours. The SHA-256 of its payload, and that of the pubsub data that holds it."""
    if isinstance(peer, Ours):
        receipt = await peer.node.gossip.publish(topic, payload)
        data = peer.node.gossip.engine._cache.get(receipt.message_id).data
    else:
        data = base64.b64decode((await composer.call("compose", "ed25519", topic, text(payload)))["data"])
        await peer.call("publish-bytes", topic, text(data))
    return hashlib.sha256(payload).hexdigest(), hashlib.sha256(data).hexdigest()


async def publish(peer, composer, size, mode, topic=TOPIC):
    """The same two digests; in a foreign network data is the payload."""
    if mode == "signed":
        digest = (await peer.call("publish", topic, str(size)))["sha256"]
        return digest, digest
    return await say(peer, composer, os.urandom(size), topic)


@both_modes
@pytest.mark.parametrize(
    ("kinds", "chords"), [(NINE, ((0, 4), (1, 5), (2, 6), (3, 7), (8, 5))), (FIVE, ((1, 3),))], ids=["nine", "five"]
)
async def test_every_message_reaches_every_one_once(mesh, joined, eventually, mode, kinds, chords):
    count = len(kinds)
    async with mesh(kinds, mode) as peers:
        await joined(peers, ring(count, *chords), TOPIC)
        sent = [(i % count, *await publish(peers[i % count], peers[0], 300, mode)) for i in range(MESSAGES)]
        for i, peer in enumerate(peers):
            wanted = sorted(sent_as[not isinstance(peer, Ours)] for who, *sent_as in sent if who != i)
            await eventually(lambda p=peer, w=wanted: len(came(p, TOPIC)) >= len(w), f"all has come to peer {i}")
        await trio.sleep(QUIET)
        for i, peer in enumerate(peers):
            wanted = sorted(sent_as[not isinstance(peer, Ours)] for who, *sent_as in sent if who != i)
            assert came(peer, TOPIC) == wanted
        for peer in peers:
            if not isinstance(peer, Ours):
                continue
            gossip = peer.node.gossip
            assert gossip.stats.refused.total() == 0
            assert min(gossip.engine.scores.score(other) for other in gossip.engine.peers(TOPIC)) >= 0


@both_modes
@pytest.mark.parametrize(("before", "behind"), [("go", "rust"), ("rust", "go"), ("js", "js")])
async def test_a_python_node_in_the_only_path_decides(mesh, joined, eventually, mode, before, behind):
    topics = ("late", "ignored", "rejected")
    async with mesh((before, "python", behind, "go", "python"), mode) as peers:
        sender, middle, *others = peers
        for topic in topics:
            for peer in (sender, *others):
                await peer.call("subscribe", topic)
        middle.decide("late", delay=2)
        middle.decide("ignored", verdict=Verdict.IGNORE)
        middle.decide("rejected", verdict=Verdict.REJECT)
        for one, other in ((0, 1), (1, 2), (2, 3), (3, 4)):
            await peers[one].call("connect", peers[other].addr)
        for topic in topics:
            await eventually(in_mesh(middle, topic, {sender.peer_id, others[0].peer_id}), "both are in the mesh")
        engine = middle.node.gossip.engine

        started = trio.current_time()
        await publish(sender, others[1], 100, mode, "late")
        await eventually(lambda: engine.pending[0] == 1, "it waits for its verdict")
        while engine.pending[0]:
            assert not [came(peer, "late") for peer in others if came(peer, "late")]
            await trio.sleep(0.05)
        assert trio.current_time() >= started + 2
        for peer in others:
            await eventually(lambda peer=peer: len(came(peer, "late")) == 1, "it travels on")

        await publish(sender, others[1], 100, mode, "ignored")
        await eventually(lambda: middle.digests("ignored"), "it has been judged")
        assert engine.scores.score(sender.peer_id) >= 0
        await publish(sender, others[1], 100, mode, "rejected")
        await eventually(lambda: middle.digests("rejected"), "it has been judged")
        await eventually(lambda: engine.scores.score(sender.peer_id) < -5, "its sender pays")
        assert engine.scores.score(others[0].peer_id) >= 0
        await trio.sleep(QUIET)
        for peer in others:
            assert came(peer, "ignored") == came(peer, "rejected") == []


@both_modes
@pytest.mark.parametrize("kind", START)
async def test_another_in_the_only_path_decides(mesh, joined, eventually, mode, kind):
    topics = ("late", "ignored", "rejected")
    async with mesh(("go", "python", kind, "python"), mode) as peers:
        composer, ours, middle, behind = peers
        await middle.call("validate", "late", "delay", "600")
        await middle.call("validate", "ignored", "ignore")
        await middle.call("validate", "rejected", "reject")
        await joined(peers, [(0, 1), (1, 2), (2, 3)], *topics)

        started = trio.current_time()
        await publish(ours, composer, 100, mode, "late")
        await eventually(lambda: came(behind, "late"), "it travels on")
        assert trio.current_time() >= started + 0.6
        for topic in ("ignored", "rejected"):
            await publish(ours, composer, 100, mode, topic)
            await eventually(lambda topic=topic: came(composer, topic), "it has gone the other way")

        async def pays():
            return (await middle.call("score", ours.peer_id))["score"] < -5

        await eventually(pays, "its sender pays")
        await trio.sleep(QUIET)
        assert came(behind, "ignored") == came(behind, "rejected") == []
        assert came(middle, "ignored") == came(middle, "rejected") == []


@both_modes
async def test_large_messages(mesh, joined, eventually, mode):
    async with mesh(("python", "go", "rust", "python", "js", "go"), mode) as peers:
        await joined(peers, ring(6), TOPIC)
        sent = [(i, *await publish(peers[i], peers[1], LARGE, mode)) for i in (0, 1, 2)]
        for i, peer in enumerate(peers):
            wanted = sorted(sent_as[not isinstance(peer, Ours)] for who, *sent_as in sent if who != i)
            await eventually(lambda p=peer, w=wanted: came(p, TOPIC) == w, f"the large messages have come to peer {i}")


@pytest.mark.parametrize("kind", ["go", "rust"])
async def test_each_control_message_both_ways(mesh, eventually, kind, monkeypatch):
    tap = WireTap(monkeypatch)
    async with mesh(("go", kind, "python", "go"), "signed") as peers:
        beyond, theirs, ours, beside = peers
        out, into = tap.out[theirs.peer_id], tap.into[theirs.peer_id]
        for one, other in ((0, 1), (1, 2), (2, 3)):
            await peers[one].call("connect", peers[other].addr)

        # who joins where the other is already grafts it
        await theirs.call("subscribe", "ours-grafts")
        await trio.sleep(QUIET)
        ours.decide("ours-grafts")
        await eventually(lambda: out["graft"], "we have grafted")

        async def grafted():  # one heartbeat may come between its subscription and its GRAFT, and that is ours
            topic = f"theirs-{next(numbers)}"
            ours.decide(topic)
            await trio.sleep(QUIET)
            await theirs.call("subscribe", topic)
            await eventually(lambda: theirs.peer_id in ours.node.gossip.engine.mesh(topic), "one has grafted")
            return into["graft"]

        numbers = itertools.count()
        await eventually(grafted, "we have been grafted")

        # what is large is told to the mesh as soon as it has come
        for peer in peers:
            await peer.call("subscribe", TOPIC)
        await eventually(in_mesh(theirs, TOPIC, {beyond.peer_id, ours.peer_id}), "it has its neighbours in the mesh")
        await eventually(in_mesh(ours, TOPIC, {theirs.peer_id, beside.peer_id}), "we have our neighbours in the mesh")
        for peer in (beyond, beside):
            await peer.call("publish", TOPIC, "20000")
        await eventually(lambda: out["idontwant"] and into["idontwant"], "each has told that it has a large message")

        # we leave a topic; and they throw us out of all for an invalid message
        ours.node.gossip.leave("theirs-0")
        await eventually(lambda: out["prune"] == 1, "we have pruned")
        await theirs.call("validate", "ours-grafts", "reject")
        await ours.call("publish", "ours-grafts", "100")
        await eventually(in_mesh(ours, TOPIC, {beside.peer_id}), "we have been pruned")
        assert into["prune"]

        # what isn't pushed any more is told of, and asked for
        assert not (out["ihave"] and out["iwant"])
        for peer in (beyond, beside):
            await peer.call("publish", TOPIC, "200")
        for name in ("ihave", "iwant"):
            await eventually(lambda name=name: out[name] and into[name], f"{name} has gone both ways")
        for peer, count in zip(peers, (2, 4, 4, 2), strict=True):
            await eventually(lambda p=peer, n=count: len(came(p, TOPIC)) == n, "all messages of others have come")
        await trio.sleep(QUIET)
        counted = await theirs.call("rpcs")
        for name in CONTROL:
            assert counted["in"][name] >= out[name] > 0
            assert counted["out"][name] >= into[name] > 0


@both_modes
async def test_the_mesh_comes_back_after_a_lost_connection(mesh, joined, eventually, mode):
    async with mesh(("go", "python", "rust"), mode) as peers:
        await joined(peers, [(0, 1), (1, 2)], TOPIC)
        middle = peers[1]
        for other in (peers[0], peers[2]):
            await middle.node.disconnect(other.peer_id)
        await eventually(lambda: not middle.node.connected_peers(), "it is alone")
        for other in (peers[0], peers[2]):
            await middle.node.connect(other.addr)
        for i in range(3):
            around = {peers[j].peer_id for j in (i - 1, i + 1) if 0 <= j < 3}
            await eventually(in_mesh(peers[i], TOPIC, around), f"peer {i} has its neighbours back in the mesh")
        digests = await publish(peers[0], peers[0], 100, mode)
        await eventually(lambda: came(peers[2], TOPIC) == [digests[1]], "it has come through")
