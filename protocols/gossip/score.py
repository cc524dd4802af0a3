"""What we think of each peer: the score of gossipsub v1.1, P1 to P7.

    score = cap(sum over topics of weight * (P1 time in mesh + P2 first deliveries + P3 mesh deliveries
                                             + P3b mesh failures + P4 invalid messages))
            + P5 the program's own + P6 peers of one address + P7 misbehaviour            each with its weight

Counters rise with events and decay with time (`refresh`, at each heartbeat). A score is computed when somebody asks,
and kept until an event or a decay changes it; P5 is therefore asked at most once for each decay and event.

    connected --remove, penalties left--> retained --retain_score over--> forgotten
        ^---------- add --------------------'

What is retained doesn't decay, and holds penalties only: a good score doesn't outlive its connection. Stricter than Go
in two points: penalties stay even if the score was positive at the time, and invalid messages of a peer that is gone
count. P6 counts connected peers only. Source: gossipsub v1.1, "Peer Scoring".
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable

from protocols.gossip.score_params import PeerScoreParams, TopicScoreParams

Peer = Hashable

NO_SCORES = PeerScoreParams(
    default_topic=None, app_specific_weight=0, ip_colocation_factor_weight=0, behaviour_penalty_weight=0
)


class TopicStats:
    """The counters of one peer in one topic."""

    __slots__ = ("active", "failures", "first", "graft_time", "in_mesh", "invalid", "mesh", "mesh_time")

    def __init__(self) -> None:
        self.in_mesh = False
        self.active = False  # whether P3 counts: long enough in the mesh
        self.graft_time = 0.0
        self.mesh_time = 0.0
        self.first = 0.0
        self.mesh = 0.0
        self.failures = 0.0
        self.invalid = 0.0

    def deficit(self, params: TopicScoreParams) -> float:
        """P3: the square of what is missing."""
        if not self.active or self.mesh >= params.mesh_message_deliveries_threshold:
            return 0.0
        return (params.mesh_message_deliveries_threshold - self.mesh) ** 2


class PeerStats:
    """The counters of one peer. `value` is its score, or None if it has to be computed."""

    __slots__ = ("behaviour", "expires", "ip", "peer", "topics", "value")

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.topics: dict[str, TopicStats] = {}
        self.behaviour = 0.0
        self.ip: str | None = None  # the group that P6 counts the peer in
        self.expires = 0.0
        self.value: float | None = None


class Scores:
    """All peers' scores."""

    def __init__(self, params: PeerScoreParams | None = None, now: float = 0.0) -> None:
        self.params = NO_SCORES if params is None else params
        self._peers: dict[Peer, PeerStats] = {}
        self._retained: OrderedDict[Peer, PeerStats] = OrderedDict()
        self._topics: dict[str, TopicScoreParams] = {}
        self._ips: dict[str, list[PeerStats]] = {}
        self._decayed_at = now

    # topics and peers

    def set_topic(self, topic: str, params: TopicScoreParams | None = None) -> None:
        """Scores `topic` from now on, by `params` or those that are set for it. Counters above a lower cap are cut."""
        params = params or self.params.topics.get(topic, self.params.default_topic)
        if params is None or self._topics.get(topic) == params:
            return
        self._topics[topic] = params
        for stats in self._peers.values():
            if counters := stats.topics.get(topic):
                counters.first = min(counters.first, params.first_message_deliveries_cap)
                counters.mesh = min(counters.mesh, params.mesh_message_deliveries_cap)
                stats.value = None

    def add(self, peer: Peer, ip: str | None = None) -> PeerStats:
        """The peer is connected, from `ip`; what was retained of it counts again."""
        stats = self._retained.pop(peer, None) or PeerStats(peer)
        self._peers[peer] = stats
        stats.value = None
        if ip and self.params.ip_colocation_factor_weight:
            stats.ip = self._ip_group(ip)
            if stats.ip is not None:
                group = self._ips.setdefault(stats.ip, [])
                group.append(stats)
                self._forget_values(group)
        return stats

    def remove(self, now: float, peer: Peer) -> None:
        """The peer is no longer connected. Its penalties are retained, nothing else."""
        stats = self._peers.pop(peer, None)
        if stats is None:
            return
        if stats.ip is not None:
            group = self._ips[stats.ip]
            group.remove(stats)
            self._forget_values(group)
            if not group:
                del self._ips[stats.ip]
            stats.ip = None
        for topic, counters in list(stats.topics.items()):
            self._leave_mesh(counters, self._topics[topic])
            counters.first = 0.0
            if not (counters.failures or counters.invalid):
                del stats.topics[topic]
        if stats.topics or stats.behaviour:
            self._retain(now, stats)

    # events

    def graft(self, now: float, stats: PeerStats, topic: str) -> None:
        """The peer has joined our mesh of the topic."""
        counters = self._counters(stats, topic)
        if counters is not None:
            counters.in_mesh, counters.active = True, False
            counters.graft_time, counters.mesh_time = now, 0.0
            stats.value = None

    def prune(self, stats: PeerStats, topic: str) -> None:
        """The peer has left our mesh of the topic, whoever wanted it."""
        counters = stats.topics.get(topic)
        if counters is not None:
            self._leave_mesh(counters, self._topics[topic])
            stats.value = None

    def delivered_first(self, peer: Peer, topic: str) -> None:
        """The peer was the first that brought a message which has been accepted."""
        stats = self._peers.get(peer)
        counters = None if stats is None else self._counters(stats, topic)
        if stats is None or counters is None:
            return
        params = self._topics[topic]
        counters.first = min(counters.first + 1, params.first_message_deliveries_cap)
        if counters.in_mesh:
            counters.mesh = min(counters.mesh + 1, params.mesh_message_deliveries_cap)
        stats.value = None

    def delivered_too(self, peer: Peer, topic: str) -> None:
        """The peer brought the same message before the verdict, or within P3's window of it."""
        stats = self._peers.get(peer)
        counters = None if stats is None else stats.topics.get(topic)
        if stats is not None and counters is not None and counters.in_mesh:
            counters.mesh = min(counters.mesh + 1, self._topics[topic].mesh_message_deliveries_cap)
            stats.value = None

    def window(self, topic: str) -> float:
        """Seconds after a verdict in which another copy still counts for P3."""
        params = self._topics.get(topic)
        return params.mesh_message_deliveries_window if params is not None else 0.0

    def invalid(self, now: float, peer: Peer, topic: str) -> None:
        """The peer brought a message that has been rejected (P4), whether it is still connected or not."""
        stats = self._stats(now, peer)
        counters = self._counters(stats, topic)
        if counters is not None:
            counters.invalid += 1
            stats.value = None

    def penalize(self, now: float, peer: Peer, count: float = 1) -> None:
        """The peer has misbehaved (P7), whether it is still connected or not."""
        stats = self._stats(now, peer)
        stats.behaviour += count
        stats.value = None

    # the score

    def score(self, peer: Peer) -> float:
        """The peer's score, also where it is only retained; 0 for who isn't known."""
        stats = self._peers.get(peer) or self._retained.get(peer)
        return 0.0 if stats is None else self.of(stats)

    def of(self, stats: PeerStats) -> float:
        value = stats.value
        if value is None:
            value = stats.value = self._compute(stats)
        return value

    def _compute(self, stats: PeerStats) -> float:
        params, total = self.params, 0.0
        for topic, counters in stats.topics.items():
            of = self._topics[topic]
            value = counters.first * of.first_message_deliveries_weight
            if counters.in_mesh:
                quanta = counters.mesh_time // of.time_in_mesh_quantum
                value += min(quanta, of.time_in_mesh_cap) * of.time_in_mesh_weight
            if counters.active:
                value += counters.deficit(of) * of.mesh_message_deliveries_weight
            value += counters.failures * of.mesh_failure_penalty_weight
            value += counters.invalid * counters.invalid * of.invalid_message_deliveries_weight
            total += value * of.topic_weight
        if params.topic_score_cap and total > params.topic_score_cap:
            total = params.topic_score_cap
        if params.app_specific_weight:
            total += params.app_specific_score(stats.peer) * params.app_specific_weight
        if stats.ip is not None:
            surplus = len(self._ips[stats.ip]) - params.ip_colocation_factor_threshold
            if surplus > 0:
                total += surplus * surplus * params.ip_colocation_factor_weight
        excess = stats.behaviour - params.behaviour_penalty_threshold
        if excess > 0:
            total += excess * excess * params.behaviour_penalty_weight
        return total

    # time

    def refresh(self, now: float) -> None:
        """Decays the counters by the whole intervals since the last time, and forgets what was retained too long."""
        retained = self._retained
        while retained and next(iter(retained.values())).expires <= now:
            retained.popitem(last=False)
        ticks = int((now - self._decayed_at) / self.params.decay_interval + 1e-6)
        if ticks <= 0:
            return
        self._decayed_at += ticks * self.params.decay_interval
        zero = self.params.decay_to_zero
        behaviour_decay = self.params.behaviour_penalty_decay**ticks
        for stats in self._peers.values():
            stats.value = None
            if stats.behaviour:
                stats.behaviour = _decayed(stats.behaviour, behaviour_decay, zero)
            if stats.topics:
                self._decay_topics(stats, now, ticks, zero)

    def _decay_topics(self, stats: PeerStats, now: float, ticks: int, zero: float) -> None:
        idle = []
        for topic, counters in stats.topics.items():
            of = self._topics[topic]
            if counters.first:
                counters.first = _decayed(counters.first, of.first_message_deliveries_decay**ticks, zero)
            if counters.mesh:
                counters.mesh = _decayed(counters.mesh, of.mesh_message_deliveries_decay**ticks, zero)
            if counters.failures:
                counters.failures = _decayed(counters.failures, of.mesh_failure_penalty_decay**ticks, zero)
            if counters.invalid:
                counters.invalid = _decayed(counters.invalid, of.invalid_message_deliveries_decay**ticks, zero)
            if counters.in_mesh:
                counters.mesh_time = now - counters.graft_time
                if counters.mesh_time > of.mesh_message_deliveries_activation:
                    counters.active = True
            elif not (counters.first or counters.mesh or counters.failures or counters.invalid):
                idle.append(topic)
        for topic in idle:
            del stats.topics[topic]

    # helpers

    def _counters(self, stats: PeerStats, topic: str) -> TopicStats | None:
        """The peer's counters in the topic; None where the topic isn't scored."""
        counters = stats.topics.get(topic)
        if counters is None and topic in self._topics:
            counters = stats.topics[topic] = TopicStats()
        return counters

    def _stats(self, now: float, peer: Peer) -> PeerStats:
        """Of a peer that may be gone: then it becomes a retained one."""
        stats = self._peers.get(peer) or self._retained.get(peer)
        if stats is None:
            stats = PeerStats(peer)
            self._retain(now, stats)
        return stats

    def _retain(self, now: float, stats: PeerStats) -> None:
        stats.expires = now + self.params.retain_score
        stats.value = None
        if self.params.retain_score:
            self._retained[stats.peer] = stats
            if len(self._retained) > self.params.max_retained:
                self._retained.popitem(last=False)

    @staticmethod
    def _leave_mesh(counters: TopicStats, params: TopicScoreParams) -> None:
        if counters.in_mesh:
            counters.failures += counters.deficit(params)  # P3b: sticks when the deficit itself no longer counts
            counters.in_mesh = counters.active = False

    def _ip_group(self, ip: str) -> str | None:
        """An address as P6 counts it: IPv4 by itself, IPv6 by its /64. None for who is exempt or has no address."""
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            return None
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self.params.ip_colocation_factor_whitelist):
            return None
        if isinstance(address, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
        return str(address)

    @staticmethod
    def _forget_values(group: list[PeerStats]) -> None:
        for stats in group:
            stats.value = None


def _decayed(value: float, factor: float, zero: float) -> float:
    value *= factor
    return value if value >= zero else 0.0
