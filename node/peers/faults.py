"""What peers have done wrong, forgotten with time. Rules only: `now` comes from the caller.

Each fault costs a point; points halve every `half_life` seconds. At `limit` points a peer has done too much. The table
is bounded: past `capacity` the peer whose last fault is longest ago is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict


class Faults:
    """Counts faults by peer."""

    def __init__(self, *, limit: float = 20.0, half_life: float = 600.0, capacity: int = 4096) -> None:
        self.limit = limit
        self.half_life = half_life
        self.capacity = capacity
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def charge(self, peer: str, now: float, points: float = 1.0) -> bool:
        """Counts a fault; whether it was one too many. The peer begins anew then."""
        total = self.points(peer, now) + points
        if total >= self.limit:
            self._known.pop(peer, None)
            return True
        self._known[peer] = total, now
        self._known.move_to_end(peer)
        if len(self._known) > self.capacity:
            self._known.popitem(last=False)
        return False

    def points(self, peer: str, now: float) -> float:
        """What a peer has on its account."""
        total, at = self._known.get(peer, (0.0, now))
        return total * 0.5 ** (max(0.0, now - at) / self.half_life) if total else 0.0

    def __len__(self) -> int:
        return len(self._known)
