"""Messages of others, from first sight to what becomes of them.

    receive --first sight--> waiting (pending.Waiting) --verdict--> ACCEPTED: into the cache, and on to the mesh
       `--duplicate--> one more forwarder                      |--> REJECTED: P4 for every forwarder, later ones too
                                                               `--> IGNORED, or LATE without a verdict

A message's mark in `Seen` is its `Pending` while it waits and until P3's window after an accept is over, then its
`Fate`.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable

from protocols.gossip.actions import Deliver, Dropped, Priority
from protocols.gossip.lazy import Lazy
from protocols.gossip.mcache import MessageCache
from protocols.gossip.pending import Pending, VerdictError, Waiting
from protocols.gossip.promises import Promises
from protocols.gossip.rpc import PubsubMessage, Rpc
from protocols.gossip.seen import Fate, Seen
from protocols.gossip.state import PeerState, State, Topic

Peer = Hashable


class Verdict(enum.Enum):
    ACCEPT = "accept"
    REJECT = "reject"
    IGNORE = "ignore"


class Messages:
    """The verdicts' rules over the engine's shared state."""

    __slots__ = ("_cache", "_lazy", "_promises", "_recent", "_seen", "_state", "waiting")

    def __init__(
        self, state: State, seen: Seen[Pending | Fate], cache: MessageCache, promises: Promises, lazy: Lazy
    ) -> None:
        self._state, self._seen, self._cache, self._promises, self._lazy = state, seen, cache, promises, lazy
        self.waiting = Waiting(state.params)
        self._recent: list[Pending] = []  # accepted, and P3's window may still be open

    def receive(self, now: float, state: PeerState, messages: tuple[PubsubMessage, ...]) -> None:
        large: dict[str, list[bytes]] = {}
        joined, marks, counts = self._state.joined, self._seen.marks, self._state.counts
        threshold = self._state.params.idontwant_message_threshold
        for message in messages:
            topic = joined.get(message.topic)
            if topic is None:
                counts["not_subscribed"] += 1
                continue
            try:
                message_id = topic.message_id(message)
            except Exception:  # a topic's own function meets strangers' messages: what it can't read has no ID
                counts["no_message_id"] += 1
                continue
            mark = marks.get(message_id)
            if mark is None:
                if self._first_sight(now, state, topic, message, message_id) and len(message.data) >= threshold:
                    large.setdefault(topic.name, []).append(message_id)
                continue
            counts["duplicate"] += 1
            if isinstance(mark, Pending):
                if state.peer not in mark.forwarders:
                    mark.forwarders.add(state.peer)
                    if mark.fate is Fate.ACCEPTED and now <= mark.until:
                        self._state.scores.delivered_too(state.peer, topic.name)
            elif mark is Fate.REJECTED:
                self._state.scores.invalid(now, state.peer, topic.name)
        for name, ids in large.items():
            self._lazy.tell_unwanted(joined[name], ids, state.peer)

    def _first_sight(
        self, now: float, state: PeerState, topic: Topic, message: PubsubMessage, message_id: bytes
    ) -> bool:
        """Whether the message is taken in, to await its verdict."""
        shared, peer = self._state, state.peer
        if message.from_ and message.from_ == shared.own_peer:
            shared.counts["own"] += 1
            return False
        if topic.check is not None and not self._passes(now, peer, topic, message):
            return False
        self._promises.kept(message_id)  # it has come, whether or not there is room for it
        if self._seen.full(now):
            shared.counts["seen_full"] += 1
            return False
        one = Pending(message_id, message, peer, now + topic.timeout, topic.timeout)
        taken, gone = self.waiting.add(one)
        for other in gone:
            self._drop(other, "no_room")
        if not taken:
            shared.counts["no_room"] += 1
            return False
        one.unwanted = self._lazy.unwanted.get(message_id)
        self._seen.add(now, message_id, one)
        shared.waiting_actions.append(Deliver(topic.name, message, message_id, peer, now, one.deadline))
        return True

    def _passes(self, now: float, peer: Peer, topic: Topic, message: PubsubMessage) -> bool:
        """Whether the topic's own check lets the message in. One that raises is our fault: nobody pays."""
        assert topic.check is not None
        try:
            passes = topic.check(message)
        except Exception:
            self._state.counts["check_raised"] += 1
            return False
        if not passes:
            self._state.counts["check_failed"] += 1
            self._state.scores.invalid(now, peer, topic.name)
        return passes

    # verdicts

    def verdict(self, now: float, message_id: bytes, verdict: Verdict) -> bool:
        """What the program thinks of a delivered message. False if it comes too late (deadline, no room, unsubscribed)
        and has no effect. Raises VerdictError for a second one, or for a message that wasn't delivered."""
        mark = self._seen.get(message_id)
        if mark is Fate.LATE:
            self._refused(message_id, Fate.IGNORED)
            self._state.counts["verdict_late"] += 1
            return False
        if not isinstance(mark, Pending) or mark.fate is not None:
            given = "no such message" if mark is None else "a verdict on it already"
            raise VerdictError(f"expected a message that awaits its verdict, got {given}: {message_id.hex()}")
        self.waiting.take(mark)
        if verdict is Verdict.ACCEPT:
            self._accept(now, mark)
        elif verdict is Verdict.REJECT:
            self._refused(message_id, Fate.REJECTED)
            for peer in mark.forwarders:
                self._state.scores.invalid(now, peer, mark.message.topic)
        else:
            self._refused(message_id, Fate.IGNORED)
        return True

    def _refused(self, message_id: bytes, fate: Fate) -> None:
        """Remembered, but not at the expense of what is new: a flood of junk would silence the network for a TTL."""
        self._seen.marks[message_id] = fate
        self._seen.give_way(message_id)

    def _accept(self, now: float, one: Pending) -> None:
        message, name = one.message, one.message.topic
        self._cache.put(one.message_id, message)
        self._state.scores.delivered_first(one.forwarder, name)
        for peer in one.forwarders:
            if peer != one.forwarder:
                self._state.scores.delivered_too(peer, name)
        window = self._state.scores.window(name)
        if window:
            one.fate, one.until = Fate.ACCEPTED, now + window
            self._recent.append(one)
        else:
            self._seen.marks[one.message_id] = Fate.ACCEPTED
        topic = self._state.joined[name]
        targets = topic.mesh or {}
        if topic.always:
            targets = self._state.always(topic) | targets
        had = one.forwarders if not one.unwanted else one.forwarders | one.unwanted
        author = message.from_
        peers = tuple([p for p, to in targets.items() if p not in had and (not author or to.peer_id != author)])
        if peers:
            self._state.send(peers, Rpc(publish=(message,)), Priority.RELAY, one.message_id)

    def _drop(self, one: Pending, reason: str) -> None:
        """Ignored without a verdict."""
        self._seen.marks[one.message_id] = Fate.LATE
        self._state.counts[f"dropped_{reason}"] += 1
        self._state.waiting_actions.append(Dropped(one.message.topic, one.message_id, reason))

    # time

    def expire(self, now: float) -> None:
        """Ignores what has waited too long."""
        for one in self.waiting.expired(now):
            self._drop(one, "timeout")

    def forget_topic(self, topic: str) -> None:
        """Ignores what waits in a topic that we leave."""
        for one in self.waiting.of_topic(topic):
            self.waiting.take(one)
            self._drop(one, "unsubscribed")

    def heartbeat(self, now: float) -> None:
        """Closes P3's windows."""
        if self._recent:
            for one in self._recent:
                if one.until <= now:
                    self._seen.marks[one.message_id] = Fate.ACCEPTED
            self._recent = [one for one in self._recent if one.until > now]
