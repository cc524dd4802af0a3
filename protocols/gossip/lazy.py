"""Gossip about messages: IHAVE, IWANT, IDONTWANT.

    heartbeat   IHAVE to D_lazy peers outside the mesh, or gossip_factor of them: what was accepted lately
    IHAVE       what hasn't been seen is asked for: IWANT, and one ID of it is a promise
    IWANT       what is in the cache is sent, a few times to each peer; who asks more often misbehaves
    IDONTWANT   who sends it has the message: it isn't sent there

A message that awaits its verdict counts as seen, and isn't in the cache: it is neither asked for nor given. Each peer
has allowances, whole again at each heartbeat; what exceeds them is ignored. Sources: gossipsub v1.0, "Gossip Emission";
v1.1, "Adaptive Gossip Dissemination", "Spam Protection Measures"; v1.2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence

from protocols.gossip.actions import Priority
from protocols.gossip.mcache import MessageCache
from protocols.gossip.pending import Pending
from protocols.gossip.promises import Promises
from protocols.gossip.rpc import Control, IDontWant, IHave, IWant, PubsubMessage, Rpc
from protocols.gossip.seen import Fate, Seen
from protocols.gossip.state import V12, PeerState, State, Topic

Peer = Hashable


class Lazy:
    """Gossip's rules over the engine's shared state."""

    __slots__ = ("_cache", "_promises", "_rounds", "_seen", "_state", "unwanted")

    def __init__(self, state: State, seen: Seen[Pending | Fate], cache: MessageCache, promises: Promises) -> None:
        self._state, self._seen, self._cache, self._promises = state, seen, cache, promises
        # messages we haven't seen, and who doesn't want them; forgotten a few heartbeats after the first said so
        self.unwanted: dict[bytes, set[Peer]] = {}
        self._rounds: deque[list[bytes]] = deque([[]])

    def on_ihave(self, now: float, peer: PeerState, advertised: Iterable[IHave]) -> None:
        shared, params = self._state, self._state.params
        if shared.score(peer) < shared.thresholds.gossip_threshold:
            return
        if not peer.ihave_rpcs:
            shared.touched.append(peer)
        peer.ihave_rpcs += 1
        room = params.max_ihave_length - peer.asked
        if peer.ihave_rpcs > params.max_ihave_messages or room <= 0 or self._seen.full(now):
            shared.counts["ihave_ignored"] += 1
            return
        marks = self._seen.marks
        wanted: dict[bytes, None] = {}
        for have in advertised:
            if have.topic in shared.joined:
                for message_id in have.message_ids[: params.max_ihave_length]:
                    if message_id not in marks:
                        wanted[message_id] = None
        if not wanted:
            return
        ids = list(wanted)
        shared.rng.shuffle(ids)
        del ids[room:]
        peer.asked += len(ids)
        self._promises.add(now, peer.peer, ids[0])
        shared.send((peer.peer,), Rpc(control=Control(iwant=(IWant(tuple(ids)),))))

    def on_iwant(self, now: float, peer: PeerState, wanted: Iterable[IWant]) -> None:
        shared = self._state
        if shared.score(peer) < shared.thresholds.gossip_threshold:
            return
        params, over = shared.params, False
        # we advertise a message in so many heartbeats; who goes on losing it asks once after each
        honest = max(params.gossip_retransmission, params.history_gossip)
        answer: list[PubsubMessage] = []
        for message_id in dict.fromkeys(one for want in wanted for one in want.message_ids):
            message, times = self._cache.ask(message_id, peer.peer)
            if message is None:
                continue
            if times > params.gossip_retransmission:
                shared.counts["iwant_ignored"] += 1
                over = over or times > honest
            elif peer.peer not in self.unwanted.get(message_id, ()):
                answer.append(message)
        if over:
            shared.scores.penalize(now, peer.peer)
        if answer:
            shared.send((peer.peer,), Rpc(publish=tuple(answer)), Priority.ANSWER)

    def on_idontwant(self, peer: PeerState, unwanted: Sequence[IDontWant]) -> None:
        shared, params = self._state, self._state.params
        if not peer.idontwant_rpcs:
            shared.touched.append(peer)
        peer.idontwant_rpcs += 1
        room = min(params.max_idontwant_length, params.max_idontwant_ids - peer.idontwant_ids)
        if peer.idontwant_rpcs > params.max_idontwant_messages or room <= 0:
            shared.counts["idontwant_ignored"] += 1
            return
        ids: Sequence[bytes] = unwanted[0].message_ids
        if len(unwanted) > 1:
            ids = [one for each in unwanted for one in each.message_ids]
        if len(ids) > room:
            ids = ids[:room]
        peer.idontwant_ids += len(ids)
        marks = self._seen.marks
        for message_id in ids:
            mark = marks.get(message_id)
            if mark is None:
                peers = self.unwanted.get(message_id)
                if peers is None:
                    if len(self.unwanted) >= params.max_unwanted:
                        shared.counts["idontwant_ignored"] += 1
                        break  # it costs us a copy, no more
                    peers = self.unwanted[message_id] = set()
                    self._rounds[-1].append(message_id)
                peers.add(peer.peer)
            elif isinstance(mark, Pending) and mark.fate is None:
                if mark.unwanted is None:
                    mark.unwanted = set()
                mark.unwanted.add(peer.peer)

    def tell_unwanted(self, topic: Topic, ids: list[bytes], forwarder: Peer) -> None:
        """IDONTWANT for what has just come from `forwarder`, to the mesh, before any verdict: it says that we have the
        bytes, not that they are good. In portions that others' readers look at."""
        peers = tuple([p for p, one in (topic.mesh or {}).items() if one.level >= V12 and p != forwarder])
        portion = self._state.params.max_idontwant_length
        if peers and portion:
            for start in range(0, len(ids), portion):
                part = IDontWant(tuple(ids[start : start + portion]))
                self._state.send(peers, Rpc(control=Control(idontwant=(part,))))

    def emit(self, topic: Topic, pushed: dict[Peer, PeerState]) -> None:
        """IHAVE to peers of the topic that we don't push messages to."""
        ids = self._cache.gossip_ids(topic.name)
        if not ids:
            return
        shared, params = self._state, self._state.params
        least, score = shared.thresholds.gossip_threshold, shared.score
        peers = [
            one.peer
            for one in topic.subscribers.values()
            if one.level and not one.direct and one.peer not in pushed and score(one) >= least
        ]
        target = max(params.d_lazy, int(params.gossip_factor * len(peers)))
        if target < len(peers):
            peers = shared.rng.sample(peers, target)
        if not peers:
            return
        if len(ids) <= params.max_ihave_length:
            shared.rng.shuffle(ids)
            shared.send(tuple(peers), Rpc(control=Control(ihave=(IHave(topic.name, tuple(ids)),))))
            return
        for peer in peers:  # another part of them for each, so that together they tell everything
            part = tuple(shared.rng.sample(ids, params.max_ihave_length))
            shared.send((peer,), Rpc(control=Control(ihave=(IHave(topic.name, part),))))

    def heartbeat(self, now: float) -> None:
        """Broken promises cost, allowances are whole again, old IDONTWANTs are forgotten."""
        shared = self._state
        if len(self._promises):
            for peer, number in self._promises.broken(now).items():
                shared.counts["promises_broken"] += number
                shared.scores.penalize(now, peer, number)
        for one in shared.touched:
            one.reset()
        shared.touched.clear()
        if self.unwanted or len(self._rounds) > 1:
            self._rounds.append([])
            while len(self._rounds) > max(1, shared.params.idontwant_message_ttl):
                for message_id in self._rounds.popleft():
                    self.unwanted.pop(message_id, None)
