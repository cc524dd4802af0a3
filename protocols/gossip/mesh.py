"""The mesh: who we exchange whole messages with, for each topic that we subscribe to; and the fanout of those we don't.

    join    graft up to D          GRAFT received   taken in, or answered with a PRUNE
    leave   prune all              PRUNE received   taken out, backed off
    heartbeat, each topic:  negative scores out -> below D_low, graft up to D -> above D_high, prune down to D (the best
                            D_score stay, and D_out that we dialled) -> graft up to D_out -> now and then, graft peers
                            above the median score

Who is negative, direct, backed off or without a mesh (floodsub) is never grafted. Sources: gossipsub v1.0, "Mesh
Maintenance" and "Fanout Maintenance"; v1.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable

from protocols.gossip.actions import Connect, Grafted, Pruned
from protocols.gossip.rpc import Control, Graft, PeerInfo, Prune, Rpc
from protocols.gossip.state import PeerState, State, Topic

Peer = Hashable


class Mesh:
    """The mesh's rules over the engine's shared state."""

    __slots__ = ("_state",)

    def __init__(self, state: State) -> None:
        self._state = state

    # joining and leaving

    def join(self, now: float, topic: Topic) -> None:
        """We subscribe: the fanout's peers first, then others, up to D."""
        state, params = self._state, self._state.params
        topic.mesh = {}
        state.joined[topic.name] = topic
        old, topic.fanout = topic.fanout or {}, None
        state.fanouts.pop(topic.name, None)
        chosen = [one for one in old.values() if self._graftable(now, topic, one)][: params.d]
        if len(chosen) < params.d:
            chosen += self._choose(
                topic, params.d - len(chosen), lambda one: one not in chosen and self._graftable(now, topic, one)
            )
        self._graft(now, topic, chosen)

    def leave(self, now: float, topic: Topic) -> None:
        """We unsubscribe: everybody is pruned, with the short backoff."""
        self._prune(now, topic, list((topic.mesh or {}).values()), "left", self._state.params.unsubscribe_backoff)
        topic.mesh = None
        del self._state.joined[topic.name]

    # control messages

    def on_graft(self, now: float, state: PeerState, grafts: Iterable[Graft]) -> None:
        """The peer takes us into its mesh. A refusal is a PRUNE; unknown topics get no answer, for v1.1's reasons."""
        refused: list[Prune] = []
        for name in dict.fromkeys(graft.topic for graft in grafts):
            topic = self._state.joined.get(name)
            if topic is None or topic.mesh is None or not state.level:
                self._state.counts["graft_ignored"] += 1
            elif state.peer not in topic.mesh:
                refusal = self._refusal(now, topic, state)
                if refusal is None:
                    self._add(now, topic, state)
                else:
                    refused.append(refusal)
        if refused:
            self._state.send((state.peer,), Rpc(control=Control(prune=tuple(refused))))

    def _refusal(self, now: float, topic: Topic, state: PeerState) -> Prune | None:
        """The PRUNE that answers a GRAFT, or None if the peer may come in."""
        shared, params = self._state, self._state.params
        if state.direct:
            return self._make_prune(topic, state, params.prune_backoff, px=False)
        end = shared.backoffs.until(topic.name, state.peer)
        if now < end:
            shared.counts["graft_early"] += 1
            early = 2 if now < end + params.graft_flood_threshold - params.prune_backoff else 1
            shared.scores.penalize(now, state.peer, early)
            px = False
        elif shared.score(state) < 0:
            px = False
        elif len(topic.mesh or ()) >= params.d_hi and not state.outbound:
            px = True
        else:
            return None
        shared.backoffs.add(topic.name, state.peer, now + params.prune_backoff)
        return self._make_prune(topic, state, params.prune_backoff, px=px)

    def on_prune(self, now: float, state: PeerState, prunes: Iterable[Prune]) -> None:
        """The peer takes us out of its mesh, and may name others instead."""
        shared, params = self._state, self._state.params
        for prune in prunes:
            topic = shared.joined.get(prune.topic)
            if topic is None or topic.mesh is None:
                continue
            if topic.mesh.pop(state.peer, None) is not None:
                shared.scores.prune(state.stats, topic.name)
                shared.waiting_actions.append(Pruned(state.peer, topic.name, "theirs"))
            backoff = min(prune.backoff or params.prune_backoff, params.max_prune_backoff)
            shared.backoffs.add(topic.name, state.peer, now + backoff)
            if prune.peers:
                self._exchange(state, prune.peers)

    def _exchange(self, state: PeerState, peers: tuple[PeerInfo, ...]) -> None:
        """Peer exchange, from those who have earned that trust only, and one PRUNE's worth for each heartbeat."""
        shared = self._state
        if shared.score(state) < shared.thresholds.accept_px_threshold:
            shared.counts["px_ignored"] += 1
            return
        room = shared.params.prune_peers - state.px_taken
        if room <= 0:
            shared.counts["px_ignored"] += 1
            return
        known = {one.peer_id for one in shared.peers.values()}
        offered = [info for info in peers if info.peer_id and info.peer_id not in known]
        shared.rng.shuffle(offered)
        for info in offered[:room]:
            shared.waiting_actions.append(Connect(info, state.peer))
        if offered:
            shared.touched.append(state)
            state.px_taken += min(len(offered), room)

    # heartbeat

    def maintain(self, now: float, topic: Topic, *, look_for_better: bool) -> None:
        """The mesh of one topic, brought back within its bounds."""
        shared, params, mesh = self._state, self._state.params, topic.mesh
        assert mesh is not None
        score = shared.score
        bad = [one for one in mesh.values() if score(one) < 0]
        if bad:
            self._prune(now, topic, bad, "score", params.prune_backoff, px=False)
        if len(mesh) < params.d_lo:
            self._graft(now, topic, self._candidates(now, topic, params.d - len(mesh)))
        if len(mesh) > params.d_hi:
            self._prune(now, topic, self._excess(mesh), "excess", params.prune_backoff)
        if len(mesh) >= params.d_lo:
            missing = params.d_out - sum(one.outbound for one in mesh.values())
            if missing > 0:
                self._graft(now, topic, self._candidates(now, topic, missing, lambda one: one.outbound))
        if look_for_better and len(mesh) > 1:
            ranked = sorted(map(score, mesh.values()))
            median = ranked[len(ranked) // 2]
            if median < shared.thresholds.opportunistic_graft_threshold:
                number = params.opportunistic_graft_peers
                self._graft(now, topic, self._candidates(now, topic, number, lambda one: score(one) > median))

    def _excess(self, mesh: dict[Peer, PeerState]) -> list[PeerState]:
        """Who has to go: all but the best D_score and some others by lot, D_out of them dialled by us."""
        shared, params = self._state, self._state.params
        ranked = list(mesh.values())
        shared.rng.shuffle(ranked)  # so that equals aren't in an order that somebody chose
        ranked.sort(key=shared.score, reverse=True)
        others = ranked[params.d_score :]
        shared.rng.shuffle(others)
        stay = ranked[: params.d_score] + others[: params.d - params.d_score]
        go = others[params.d - params.d_score :]
        missing = params.d_out - sum(one.outbound for one in stay)
        place = len(stay) - 1
        for position, one in enumerate(go):
            if missing <= 0:
                break
            if one.outbound:
                while place >= 0 and stay[place].outbound:
                    place -= 1
                if place < 0:
                    break
                stay[place], go[position] = one, stay[place]
                missing -= 1
        return go

    # fanout

    def fanout(self, now: float, topic: Topic) -> dict[Peer, PeerState]:
        """Who gets what we publish without subscribing (and without flood publishing)."""
        if not topic.fanout:
            topic.fanout = {one.peer: one for one in self._choose(topic, self._state.params.d, self._publishable)}
            self._state.fanouts[topic.name] = topic
        topic.last_published = now
        return topic.fanout

    def maintain_fanout(self, now: float, topic: Topic) -> bool:
        """The fanout, filled up to D; False if it is forgotten because nothing was published for `fanout_ttl`."""
        params, fanout = self._state.params, topic.fanout
        assert fanout is not None
        if topic.last_published + params.fanout_ttl < now:
            topic.fanout = None
            del self._state.fanouts[topic.name]
            self._state.forget_if_idle(topic)
            return False
        for one in [one for one in fanout.values() if not self._publishable(one)]:
            del fanout[one.peer]
        if len(fanout) < params.d:
            more = self._choose(
                topic, params.d - len(fanout), lambda one: one.peer not in fanout and self._publishable(one)
            )
            fanout.update((one.peer, one) for one in more)
        return True

    def _publishable(self, one: PeerState) -> bool:
        return self._state.score(one) >= self._state.thresholds.publish_threshold

    # helpers

    def _graftable(self, now: float, topic: Topic, one: PeerState) -> bool:
        return self._state.score(one) >= 0 and not self._state.backoffs.held(topic.name, one.peer, now)

    def _candidates(
        self, now: float, topic: Topic, count: int, more: Callable[[PeerState], bool] = lambda one: True
    ) -> list[PeerState]:
        """At most `count` subscribers outside the mesh that may be grafted, drawn by lot."""
        mesh = topic.mesh or {}
        return self._choose(
            topic, count, lambda one: one.peer not in mesh and more(one) and self._graftable(now, topic, one)
        )

    def _choose(self, topic: Topic, count: int, fits: Callable[[PeerState], bool]) -> list[PeerState]:
        """At most `count` subscribers that have a mesh, aren't direct, and fit."""
        found = [one for one in topic.subscribers.values() if one.level and not one.direct and fits(one)]
        return found if len(found) <= count else self._state.rng.sample(found, count)

    def _add(self, now: float, topic: Topic, one: PeerState) -> None:
        assert topic.mesh is not None
        topic.mesh[one.peer] = one
        self._state.scores.graft(now, one.stats, topic.name)
        self._state.waiting_actions.append(Grafted(one.peer, topic.name))

    def _graft(self, now: float, topic: Topic, chosen: list[PeerState]) -> None:
        for one in chosen:
            self._add(now, topic, one)
        if chosen:
            self._state.send(tuple([one.peer for one in chosen]), Rpc(control=Control(graft=(Graft(topic.name),))))

    def _prune(
        self, now: float, topic: Topic, chosen: list[PeerState], reason: str, backoff: float, *, px: bool = True
    ) -> None:
        """Takes peers out of the mesh and tells them."""
        shared, mesh = self._state, topic.mesh
        assert mesh is not None
        for one in chosen:
            del mesh[one.peer]
            shared.scores.prune(one.stats, topic.name)
            shared.backoffs.add(topic.name, one.peer, now + backoff)
            shared.waiting_actions.append(Pruned(one.peer, topic.name, reason))
        for one in chosen:
            shared.send((one.peer,), Rpc(control=Control(prune=(self._make_prune(topic, one, backoff, px=px),))))

    def _make_prune(self, topic: Topic, to: PeerState, backoff: float, *, px: bool) -> Prune:
        shared = self._state
        peers: tuple[PeerInfo, ...] = ()
        if px and shared.params.do_px and shared.score(to) >= 0:
            named = self._choose(
                topic,
                shared.params.prune_peers,
                lambda one: one is not to and one.peer_id != b"" and shared.score(one) >= 0,
            )
            peers = tuple([PeerInfo(one.peer_id, one.record) for one in named])
        return Prune(topic.name, peers, math.ceil(backoff))
