"""Until when a peer and we don't graft each other in a topic, after one of us pruned the other.

A GRAFT that comes before is misbehaviour (`until`). Our own wait is longer by `slack`, because the other's clock and
heartbeat aren't ours (`held`). At most `limit` peers are remembered for each topic; the oldest go first.
Source: gossipsub v1.1, "PRUNE Backoff and Peer Exchange".
"""

from __future__ import annotations

from collections.abc import Hashable

Peer = Hashable


class Backoffs:
    """Ends of backoffs by topic and peer."""

    __slots__ = ("_ends", "_limit", "_slack")

    def __init__(self, slack: float, limit: int) -> None:
        self._slack, self._limit = slack, limit
        self._ends: dict[str, dict[Peer, float]] = {}

    def add(self, topic: str, peer: Peer, end: float) -> None:
        """Backs off until `end`, or until later if that was agreed before."""
        ends = self._ends.setdefault(topic, {})
        if end > ends.get(peer, 0.0):
            ends[peer] = end
            if len(ends) > self._limit:
                del ends[next(iter(ends))]

    def until(self, topic: str, peer: Peer) -> float:
        """When the backoff ends; 0 where there is none."""
        ends = self._ends.get(topic)
        return ends.get(peer, 0.0) if ends else 0.0

    def held(self, topic: str, peer: Peer, now: float) -> bool:
        """Whether we must not graft the peer yet."""
        ends = self._ends.get(topic)
        if not ends:
            return False
        end = ends.get(peer)
        return end is not None and now < end + self._slack

    def expire(self, now: float) -> None:
        """Forgets what is over, slack included."""
        for topic, ends in list(self._ends.items()):
            for peer in [peer for peer, end in ends.items() if end + self._slack <= now]:
                del ends[peer]
            if not ends:
                del self._ends[topic]
