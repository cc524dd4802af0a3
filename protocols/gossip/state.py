"""What the parts of the engine share: the peers, the topics, and where actions go.

    Topic     who subscribes to it; our mesh, if we do; our fanout, if we only publish
    PeerState one connected peer, and what it may still ask of us before the next heartbeat

A topic is known while a peer subscribes to it, or we do, or it has a fanout. What a peer can add is bounded:
`max_topics_per_peer`.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from protocols.gossip.actions import Action, Priority, Pruned, Send
from protocols.gossip.backoff import Backoffs
from protocols.gossip.params import GossipParams
from protocols.gossip.rpc import PubsubMessage, Rpc, Subscription
from protocols.gossip.score import PeerStats, Scores
from protocols.gossip.score_params import PeerScoreThresholds, TopicScoreParams

Peer = Hashable

FLOODSUB = "/floodsub/1.0.0"
MESHSUB_11 = "/meshsub/1.1.0"
MESHSUB_12 = "/meshsub/1.2.0"
PROTOCOLS = (MESHSUB_12, MESHSUB_11, FLOODSUB)  # in the order we prefer them

_LEVELS = {FLOODSUB: 0, MESHSUB_11: 1, MESHSUB_12: 2}
V12 = _LEVELS[MESHSUB_12]


def content_id(message: PubsubMessage) -> bytes:
    """Of networks of ours: 20 bytes of SHA-256 over topic, zero byte, data (docs/wire.md)."""
    return hashlib.sha256(message.topic.encode() + b"\0" + message.data).digest()[:20]


def origin_id(message: PubsubMessage) -> bytes:
    """Of foreign networks, whose messages are signed: author and sequence number."""
    return (message.from_ or b"") + (message.seqno or b"")


MessageId = Callable[[PubsubMessage], bytes]


@dataclass(frozen=True, slots=True)
class TopicParams:
    """What is a topic's own.

    message_id: a message's ID; None for the engine's. IDs of all topics share one space: let them depend on the topic.
    check: whether a message may be looked at, asked before its ID is marked seen; False costs the forwarder P4. An ID
        that doesn't depend on the data (`origin_id`) needs the signature checked here, or a forgery would hide the
        original.
    verdict_timeout: seconds; None for the engine's. score: None for what the engine's score parameters say.
    """

    message_id: MessageId | None = None
    check: Callable[[PubsubMessage], bool] | None = None
    verdict_timeout: float | None = None
    score: TopicScoreParams | None = None


class PeerState:
    """A connected peer."""

    __slots__ = (
        *("asked", "direct", "idontwant_ids", "idontwant_rpcs", "ihave_rpcs", "level", "outbound", "peer", "peer_id"),
        *("px_taken", "record", "stats", "topics"),
    )

    def __init__(self, peer: Peer, level: int, stats: PeerStats, outbound: bool, direct: bool, peer_id: bytes) -> None:
        self.peer = peer
        self.peer_id = peer_id  # as the wire has it; empty where the caller doesn't tell
        self.record = b""  # its signed peer record, once known
        self.level = level
        self.outbound, self.direct = outbound, direct
        self.stats = stats
        self.topics: set[str] = set()
        self.reset()

    def reset(self) -> None:
        """A heartbeat has passed: the peer's allowances are whole again."""
        self.ihave_rpcs = self.asked = self.idontwant_rpcs = self.idontwant_ids = self.px_taken = 0


class Topic:
    """One topic. `mesh` is None unless we subscribe, `fanout` unless we have published without subscribing."""

    __slots__ = ("always", "check", "fanout", "last_published", "mesh", "message_id", "name", "subscribers", "timeout")

    def __init__(self, name: str, message_id: MessageId, timeout: float) -> None:
        self.name = name
        self.subscribers: dict[Peer, PeerState] = {}  # dicts, for an order that the seed decides
        self.always: dict[Peer, PeerState] = {}  # those of them that get every message: direct, or floodsub
        self.mesh: dict[Peer, PeerState] | None = None
        self.fanout: dict[Peer, PeerState] | None = None
        self.last_published = 0.0
        self.message_id = message_id
        self.check: Callable[[PubsubMessage], bool] | None = None
        self.timeout = timeout


class State:
    """The shared state of one engine."""

    __slots__ = (
        *(
            "backoffs",
            "counts",
            "fanouts",
            "joined",
            "message_id",
            "own_peer",
            "params",
            "peers",
            "rng",
            "scores",
            "settings",
        ),
        *("thresholds", "topics", "touched", "waiting_actions"),
    )

    def __init__(
        self,
        own_peer: Peer,
        params: GossipParams,
        scores: Scores,
        thresholds: PeerScoreThresholds,
        rng: random.Random,
        message_id: MessageId,
    ) -> None:
        self.own_peer, self.params, self.scores, self.thresholds = own_peer, params, scores, thresholds
        self.rng, self.message_id = rng, message_id
        self.peers: dict[Peer, PeerState] = {}
        self.topics: dict[str, Topic] = {}
        self.joined: dict[str, Topic] = {}  # those that have a mesh
        self.fanouts: dict[str, Topic] = {}
        self.settings: dict[str, TopicParams] = {}
        self.touched: list[PeerState] = []  # peers whose allowances aren't whole
        self.backoffs = Backoffs(2 * params.heartbeat_interval, params.max_backoffs_per_topic)
        self.waiting_actions: list[Action] = []
        self.counts: Counter[str] = Counter()

    # actions

    def send(
        self, peers: tuple[Peer, ...], rpc: Rpc, priority: Priority = Priority.CONTROL, message_id: bytes = b""
    ) -> None:
        self.waiting_actions.append(Send(peers, rpc, priority, message_id))

    def score(self, state: PeerState) -> float:
        return self.scores.of(state.stats)

    # topics

    def topic(self, name: str) -> Topic:
        """The topic, made if it wasn't known."""
        topic = self.topics.get(name)
        if topic is None:
            topic = self.topics[name] = Topic(name, self.message_id, self.params.verdict_timeout)
            self.configure(topic)
        return topic

    def configure(self, topic: Topic) -> None:
        """Applies what was set for the topic."""
        params = self.settings.get(topic.name)
        if params is not None:
            topic.message_id = params.message_id or self.message_id
            topic.check = params.check
            topic.timeout = params.verdict_timeout or self.params.verdict_timeout

    def forget_if_idle(self, topic: Topic) -> None:
        if not topic.subscribers and topic.mesh is None and topic.fanout is None:
            self.topics.pop(topic.name, None)

    def always(self, topic: Topic) -> dict[Peer, PeerState]:
        """Who gets every message of the topic, mesh or not: direct peers, and those with floodsub that score enough."""
        least, score = self.thresholds.publish_threshold, self.score
        return {peer: one for peer, one in topic.always.items() if one.direct or score(one) >= least}

    # peers

    def add_peer(
        self, peer: Peer, protocol: str, *, outbound: bool, ip: str | None, direct: bool, peer_id: bytes
    ) -> PeerState:
        level = _LEVELS.get(protocol)
        if level is None:
            raise ValueError(f"expected one of {', '.join(PROTOCOLS)}, got {protocol!r}")
        if peer in self.peers:
            raise ValueError(f"expected a peer that isn't there yet, got {peer!r} again")
        state = PeerState(peer, level, self.scores.add(peer, ip), outbound, direct, peer_id)
        self.peers[peer] = state
        return state

    def remove_peer(self, now: float, peer: Peer) -> None:
        state = self.peers.pop(peer, None)
        if state is not None:
            # a mesh may have it without its subscription: it grafted us, and had said nothing, or too many topics
            for name in {*state.topics, *self.joined}:
                self.unsubscribed(state, name, "gone")
            self.scores.remove(now, peer)

    def subscriptions(self, now: float, state: PeerState, changes: tuple[Subscription, ...]) -> None:
        """The peer has told what it subscribes to, or no longer does."""
        for change in changes:
            name = change.topic
            if not change.subscribe:
                if self.unsubscribed(state, name, "unsubscribed"):
                    # as the PRUNE would that should come with it, or the mesh could be entered and left at will
                    self.backoffs.add(name, state.peer, now + self.params.unsubscribe_backoff)
            elif name not in state.topics:
                if len(state.topics) >= self.params.max_topics_per_peer:
                    self.counts["too_many_topics"] += 1
                    continue
                state.topics.add(name)
                topic = self.topic(name)
                topic.subscribers[state.peer] = state
                if state.direct or not state.level:
                    topic.always[state.peer] = state

    def unsubscribed(self, state: PeerState, name: str, reason: str) -> bool:
        """Whether the peer was in our mesh."""
        topic, peer = self.topics.get(name), state.peer
        state.topics.discard(name)
        if topic is None:
            return False
        topic.subscribers.pop(peer, None)
        topic.always.pop(peer, None)
        meshed = topic.mesh is not None and topic.mesh.pop(peer, None) is not None
        if meshed:
            self.scores.prune(state.stats, name)
            self.waiting_actions.append(Pruned(peer, name, reason))
        if topic.fanout:
            topic.fanout.pop(peer, None)
        self.forget_if_idle(topic)
        return meshed
