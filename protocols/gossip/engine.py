"""The gossip router: one peer's view of the network. No I/O, no clock; time and randomness come from outside.

    receive(peer, rpc) --first sight--> Deliver ... verdict --ACCEPT--> Send to the mesh, but not to who had it
                       `--duplicate---> one more forwarder   `-REJECT--> P4 for every forwarder
                                                             `-IGNORE--> nothing; so does a verdict that doesn't come

A message is marked seen and waits from first sight on; nobody is sent it, told of it (IHAVE) or given it (IWANT) before
it is accepted. Every call may leave actions, which `take` returns; the caller calls it after each call. The caller also
runs `wake` at `next_wakeup`.

Nothing that a stranger sends raises: what exceeds a limit is ignored, or costs score, and is counted in `counts`. Peers
are opaque; their order of arrival and `rng` decide everything that is drawn by lot.

Sources: libp2p/specs pubsub/gossipsub v1.0, v1.1, v1.2. What they demand, and where it is tested: docs/gossip.md.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from protocols.gossip.actions import Action, Priority, Redial
from protocols.gossip.lazy import Lazy
from protocols.gossip.mcache import MessageCache
from protocols.gossip.mesh import Mesh
from protocols.gossip.messages import Messages, Verdict
from protocols.gossip.params import GossipParams
from protocols.gossip.pending import Pending
from protocols.gossip.promises import Promises
from protocols.gossip.rpc import PubsubMessage, Rpc, Subscription
from protocols.gossip.score import Scores
from protocols.gossip.score_params import PeerScoreParams, PeerScoreThresholds
from protocols.gossip.seen import Fate, Seen
from protocols.gossip.state import MessageId, State, TopicParams, content_id

Peer = Hashable

_BACKOFF_TICKS = 15  # heartbeats between two looks at which backoffs are over


class PublishError(Exception):
    """A message of ours that can't be published: its ID has been seen already, or there is no room for the ID."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a message of ours: its ID, and the peers whose queues it was put in."""

    message_id: bytes
    peers: tuple[Peer, ...]


class Engine:
    """One router.

    own_peer: our own peer ID as it is on the wire (bytes), or any stand-in. score: None turns scoring off.
    direct: peers that are to be connected always; `Redial` asks for those that aren't.
    message_id: the ID of topics that have none of their own (`TopicParams`).
    """

    def __init__(
        self,
        own_peer: Peer,
        params: GossipParams | None = None,
        *,
        score: PeerScoreParams | None = None,
        thresholds: PeerScoreThresholds | None = None,
        rng: random.Random | None = None,
        now: float = 0.0,
        message_id: MessageId = content_id,
        direct: Iterable[Peer] = (),
    ) -> None:
        self.params = params = params or GossipParams()
        self.scores = Scores(score, now)
        thresholds = thresholds or PeerScoreThresholds()
        self._state = State(own_peer, params, self.scores, thresholds, rng or random.Random(), message_id)
        self._promises = Promises(params.iwant_followup_time)
        self._seen: Seen[Pending | Fate] = Seen(params.seen_ttl, params.max_seen)
        self._cache = MessageCache(params.history_length, params.history_gossip, params.max_cache_bytes)
        self._mesh = Mesh(self._state)
        self._lazy = Lazy(self._state, self._seen, self._cache, self._promises)
        self._messages = Messages(self._state, self._seen, self._cache, self._promises, self._lazy)
        self._direct = tuple(direct)
        self._ticks = 0
        self._next_heartbeat = now + params.heartbeat_initial_delay
        self._graylist = thresholds.graylist_threshold

    # what the caller reads

    def take(self) -> list[Action]:
        """What is to be done since the last call, in order."""
        actions = self._state.waiting_actions
        if actions:
            self._state.waiting_actions = []
        return actions

    @property
    def counts(self) -> Counter[str]:
        """How often things happened that have no action, for metrics."""
        return self._state.counts

    @property
    def pending(self) -> tuple[int, int]:
        """Messages that await their verdict, and the bytes of their data."""
        return self._messages.waiting.count, self._messages.waiting.bytes

    def bounds(self) -> dict[str, tuple[int, int, int]]:
        """By the parameter that bounds it, how much is used, the bound, and how often it has said no, for metrics."""
        params, counts, waiting = self.params, self._state.counts, self._messages.waiting
        messages, size = waiting.busiest()
        no_room = counts["no_room"] + counts["dropped_no_room"]
        return {
            "max_pending_messages": (waiting.count, params.max_pending_messages, no_room),
            "max_pending_bytes": (waiting.bytes, params.max_pending_bytes, no_room),
            "max_pending_messages_per_peer": (messages, params.max_pending_messages_per_peer, no_room),
            "max_pending_bytes_per_peer": (size, params.max_pending_bytes_per_peer, no_room),
            "max_seen": (len(self._seen), params.max_seen, counts["seen_full"]),
            "max_cache_bytes": (self._cache.bytes, params.max_cache_bytes, self._cache.evicted),
            "max_unwanted": (len(self._lazy.unwanted), params.max_unwanted, counts["idontwant_ignored"]),
            "max_topics_per_peer": (
                max((len(peer.topics) for peer in self._state.peers.values()), default=0),
                params.max_topics_per_peer,
                counts["too_many_topics"],
            ),
        }

    def connected(self) -> tuple[Peer, ...]:
        """The connected peers."""
        return tuple(self._state.peers)

    @property
    def thresholds(self) -> PeerScoreThresholds:
        """What a peer's score decides."""
        return self._state.thresholds

    def mesh(self, topic: str) -> tuple[Peer, ...]:
        found = self._state.joined.get(topic)
        return tuple(found.mesh or ()) if found is not None else ()

    @property
    def topics(self) -> tuple[str, ...]:
        """What we subscribe to."""
        return tuple(self._state.joined)

    def topics_of(self, peer: Peer) -> tuple[str, ...]:
        """What a connected peer subscribes to."""
        found = self._state.peers.get(peer)
        return tuple(found.topics) if found is not None else ()

    def peers(self, topic: str) -> tuple[Peer, ...]:
        """Who subscribes to the topic, of the connected peers."""
        found = self._state.topics.get(topic)
        return tuple(found.subscribers) if found is not None else ()

    # peers

    def add_peer(
        self,
        now: float,
        peer: Peer,
        protocol: str,
        *,
        outbound: bool = False,
        ip: str | None = None,
        direct: bool = False,
        peer_id: bytes = b"",
    ) -> None:
        """A peer is connected. outbound: we dialled it. peer_id: its ID on the wire, for peer exchange and origins.

        Raises ValueError for a peer that is connected already, or a protocol that isn't one of `PROTOCOLS`.
        """
        direct = direct or peer in self._direct
        self._state.add_peer(peer, protocol, outbound=outbound, ip=ip, direct=direct, peer_id=peer_id)
        if self._state.joined:
            self._state.send((peer,), Rpc(tuple([Subscription(name, True) for name in self._state.joined])))

    def set_record(self, peer: Peer, record: bytes) -> None:
        """The peer's signed record is known; peer exchange passes it on."""
        state = self._state.peers.get(peer)
        if state is not None:
            state.record = record

    def remove_peer(self, now: float, peer: Peer) -> None:
        """The peer is no longer connected. Without effect for who isn't."""
        self._state.remove_peer(now, peer)

    def penalize(self, now: float, peer: Peer, count: float = 1) -> None:
        """P7, for misbehaviour that the caller sees: RPCs that don't parse, for example."""
        self.scores.penalize(now, peer, count)

    # topics

    @property
    def topic_settings(self) -> Mapping[str, TopicParams]:
        """What was set with `configure`."""
        return self._state.settings

    def configure(self, topic: str, params: TopicParams) -> None:
        """Sets what is the topic's own, also for topics that are only published to. Raises ValueError if its timeout
        isn't shorter than `seen_ttl`."""
        timeout = params.verdict_timeout
        if timeout is not None and not 0 < timeout < self.params.seen_ttl:
            raise ValueError(f"expected a verdict_timeout between 0 and {self.params.seen_ttl:g} s, got {timeout}")
        self._state.settings[topic] = params
        if topic in self._state.topics:
            self._state.configure(self._state.topics[topic])
        self.scores.set_topic(topic, params.score)

    def subscribe(self, now: float, topic: str, params: TopicParams | None = None) -> None:
        """Joins the topic. Without effect on one that is joined already, but for `params`."""
        if params is not None:
            self.configure(topic, params)
        state = self._state
        if topic in state.joined:
            return
        settings = state.settings.get(topic)
        self.scores.set_topic(topic, settings.score if settings is not None else None)
        if state.peers:
            state.send(tuple(state.peers), Rpc((Subscription(topic, True),)))
        self._mesh.join(now, state.topic(topic))

    def unsubscribe(self, now: float, topic: str) -> None:
        """Leaves the topic. Its pending messages are ignored. Without effect on one that isn't joined."""
        state = self._state
        joined = state.joined.get(topic)
        if joined is None:
            return
        self._messages.forget_topic(topic)
        if state.peers:
            state.send(tuple(state.peers), Rpc((Subscription(topic, False),)))
        self._mesh.leave(now, joined)
        state.forget_if_idle(joined)

    # what strangers send

    def receive(self, now: float, peer: Peer, rpc: Rpc) -> None:
        """An RPC of a connected peer; of anybody else, or of one that is graylisted, it isn't looked at."""
        shared = self._state
        state = shared.peers.get(peer)
        if state is None:
            shared.counts["stranger"] += 1
            return
        value = state.stats.value
        if (value if value is not None else self.scores.of(state.stats)) < self._graylist and not state.direct:
            shared.counts["graylisted"] += 1
            return
        if rpc.subscriptions:
            shared.subscriptions(now, state, rpc.subscriptions)
        if rpc.publish:
            self._messages.receive(now, state, rpc.publish)
        control = rpc.control
        if control is not None and state.level:
            if control.ihave:
                self._lazy.on_ihave(now, state, control.ihave)
            if control.iwant:
                self._lazy.on_iwant(now, state, control.iwant)
            if control.graft:
                self._mesh.on_graft(now, state, control.graft)
            if control.prune:
                self._mesh.on_prune(now, state, control.prune)
            if control.idontwant:
                self._lazy.on_idontwant(state, control.idontwant)

    def verdict(self, now: float, message_id: bytes, verdict: Verdict) -> bool:
        """What the program thinks of a delivered message. False if it comes too late (deadline, no room, unsubscribed)
        and has no effect. Raises VerdictError for a second one, or for a message that wasn't delivered."""
        return self._messages.verdict(now, message_id, verdict)

    # our own messages

    def publish(self, now: float, topic: str, message: PubsubMessage) -> Receipt:
        """Sends a message of ours: to every peer of the topic (`flood_publish`), or to mesh or fanout. Nothing is
        delivered to ourselves. Raises PublishError if its ID has been seen or there is no room for it, and ValueError
        for a message of another topic."""
        if message.topic != topic:
            raise ValueError(f"expected a message of topic {topic!r}, got one of {message.topic!r}")
        shared = self._state
        known = shared.topic(topic)
        message_id = known.message_id(message)
        if self._seen.get(message_id) is not None:
            shared.forget_if_idle(known)
            raise PublishError(f"expected a new message, got one whose ID has been seen: {message_id.hex()}")
        if self._seen.full(now):
            shared.forget_if_idle(known)
            raise PublishError(f"expected fewer than {self._seen.limit} IDs to be remembered (max_seen)")
        self._seen.add(now, message_id, Fate.ACCEPTED)
        self._cache.put(message_id, message)
        if self.params.flood_publish:
            least, score = shared.thresholds.publish_threshold, shared.score
            peers = tuple([p for p, one in known.subscribers.items() if one.direct or score(one) >= least])
        else:
            pushed = known.mesh if known.mesh is not None else self._mesh.fanout(now, known)
            peers = tuple(shared.always(known) | pushed)
        if peers:
            shared.send(peers, Rpc(publish=(message,)), Priority.PUBLISH)
        shared.forget_if_idle(known)
        return Receipt(message_id, peers)

    # time

    def next_wakeup(self) -> float:
        """When `wake` next has something to do."""
        deadline = self._messages.waiting.next_deadline()
        return self._next_heartbeat if deadline is None else min(deadline, self._next_heartbeat)

    def wake(self, now: float) -> None:
        """Does what is due: deadlines, and one heartbeat, however many were missed."""
        if now >= self._next_heartbeat:
            self.heartbeat(now)
        else:
            self.expire(now)

    def expire(self, now: float) -> None:
        """Ignores what has waited for its verdict too long."""
        self._messages.expire(now)

    def heartbeat(self, now: float) -> None:
        """Mesh upkeep, gossip, decay, and everything that is forgotten."""
        shared, params = self._state, self.params
        self._next_heartbeat = now + params.heartbeat_interval
        self._ticks += 1
        self.expire(now)
        self.scores.refresh(now)
        self._lazy.heartbeat(now)
        if self._ticks % _BACKOFF_TICKS == 0:
            shared.backoffs.expire(now)
        if self._direct and self._ticks % params.direct_connect_ticks == 0:
            shared.waiting_actions.extend(Redial(peer) for peer in self._direct if peer not in shared.peers)
        look_for_better = self._ticks % params.opportunistic_graft_ticks == 0
        for topic in shared.joined.values():
            self._mesh.maintain(now, topic, look_for_better=look_for_better)
            self._lazy.emit(topic, topic.mesh or {})
        for topic in list(shared.fanouts.values()):
            if self._mesh.maintain_fanout(now, topic):
                self._lazy.emit(topic, topic.fanout or {})
        self._cache.shift()
        self._seen.expire(now)
        self._messages.heartbeat(now)
