"""The connected peers: how many count, how many more are wanted, and whom to drop. Rules only: `now` from the caller.

Above `high` peers, or `high - outbound` inbound ones, the worst go; of the outbound ones that don't count, those whose
grace is over go once there are enough others. Who is the worst is `node.peers.standing`'s to say.
"""

from __future__ import annotations

from collections import Counter

from node.peers.actions import Drop
from node.peers.choice import Targets
from node.peers.standing import Peer, Score, extras, inbound_victim, outbound_victim

# so many inbound peers of one subnet are no crowd
LEAST_CROWD = 4


class Roster:
    """`peers` by their IDs. `score`: what a peer is worth, below 0 who misbehaves; `counts`: "drop" and the reason."""

    def __init__(self, targets: Targets, score: Score, counts: Counter[tuple[str, str]]) -> None:
        self.targets = targets
        self.peers: dict[str, Peer] = {}
        self._score = score
        self._counts = counts
        self._dropping: dict[str, str] = {}
        self._surplus: set[str] | None = None  # None: who is connected has changed
        self._inbound = 0  # counted with it

    def add(self, peer: Peer) -> None:
        """The peer is connected."""
        self.peers[peer.peer] = peer
        self._surplus = None

    def remove(self, peer: str) -> tuple[Peer | None, str]:
        """The peer is gone: what was known of it, and why it was dropped, "" if it wasn't."""
        self._surplus = None
        return self.peers.pop(peer, None), self._dropping.pop(peer, "")

    def change(
        self,
        peer: str,
        *,
        addr: str | None = None,
        ip: str | None = None,
        outbound: bool | None = None,
        asked: bool | None = None,
        kept: bool | None = None,
    ) -> None:
        """Something is different about the peer, if it is connected."""
        known = self.peers.get(peer)
        if known is None:
            return
        known.addr = known.addr if addr is None else addr
        known.ip = known.ip if ip is None else ip
        known.outbound = known.outbound if outbound is None else outbound
        known.asked = known.asked if asked is None else asked
        known.kept = known.kept if kept is None else kept
        if known.asked or known.kept:
            self._dropping.pop(peer, None)
        self._surplus = None

    def drop(self, peer: str, reason: str) -> Drop:
        """It is to be dropped."""
        self._dropping[peer] = reason
        self._counts["drop", reason] += 1
        return Drop(peer, reason)

    def is_dropping(self, peer: str) -> bool:
        """Whether it is still to be dropped: somebody may have come to want it."""
        return peer in self._dropping

    # how many

    @property
    def is_low(self) -> bool:
        """Whether there are fewer peers than `low`."""
        return len(self.peers) < self.targets.low

    @property
    def is_crowded(self) -> bool:
        """Whether somebody may have to go."""
        targets, surplus = self.targets, self.extras()
        return len(self.peers) > targets.high or self._inbound > targets.high - targets.outbound or bool(surplus)

    def extras(self) -> set[str]:
        """Who of the outbound peers doesn't count."""
        if self._surplus is None:
            self._inbound = sum(not peer.outbound for peer in self.peers.values())
            self._surplus = extras(self.peers.values(), self.places(), self.targets.target or self.targets.high)
        return self._surplus

    def places(self) -> int:
        """How many outbound peers one subnet may have."""
        return max(1, int(self.targets.subnet_share * (self.targets.outbound or self.targets.high)))

    def wanted(self, *, without: str = "") -> int:
        """How many more outbound peers are wanted; `without` isn't counted."""
        targets, surplus = self.targets, self.extras()
        counted = len(self.peers) - len(surplus)
        outbound = counted - self._inbound  # extras are all outbound
        if without in self.peers and without not in surplus:
            counted -= 1
            outbound -= self.peers[without].outbound
        return max(targets.target - counted, targets.outbound - outbound, 0)

    # who goes

    def trim(self, now: float) -> list[Drop]:
        """Who is to go now."""
        if not self.is_crowded:
            return []
        targets, drops = self.targets, list[Drop]()
        gone = {peer for peer in self._dropping if peer in self.peers}  # on their way out

        def left() -> list[Peer]:
            return [peer for peer in self.peers.values() if peer.peer not in gone]

        def drop(peer: Peer | None) -> bool:
            if peer is not None:
                gone.add(peer.peer)
                drops.append(self.drop(peer.peer, "surplus"))
            return peer is not None

        most = targets.high - targets.outbound
        crowd = max(LEAST_CROWD, int(targets.subnet_share * most))
        for number in range(sum(not peer.outbound for peer in left()), most, -1):
            # newcomers alone may be a quarter more than there are places for
            hard = number > most + targets.high // 4
            if not drop(inbound_victim(left(), self._score, now, targets.grace, crowd, hard=hard)):
                break
        surplus = self.extras()
        enough = len(self.peers) - len(surplus) >= targets.low
        for peer in left():
            if peer.peer in surplus and enough and now - peer.since >= targets.grace:
                drop(peer)
        for _ in range(len(left()) - targets.high):
            if not drop(outbound_victim(left(), surplus, self._score, now, targets.grace, self.places())):
                break
        return drops
