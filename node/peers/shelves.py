"""The orders in which the address book lets peers go. Rules only; each operation costs the same however many there are.

Shelf   by when they were last touched
Heard   the same for each source, and which source has most
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator

Kept = Callable[[str], bool]


class Shelf:
    """Peers in the order in which they were last touched; it has `places`, which its owner sees to."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._peers: OrderedDict[str, None] = OrderedDict()

    def put(self, peer: str, touched: bool = True) -> None:
        """At the end if it is new, or `touched`."""
        self._peers[peer] = None
        if touched:
            self._peers.move_to_end(peer)

    def remove(self, peer: str) -> None:
        self._peers.pop(peer, None)

    def worst(self, kept: Kept) -> str | None:
        """The peer touched longest ago that isn't kept; those that are go to the end, and aren't asked again soon."""
        return _first(self._peers, kept)

    def __len__(self) -> int:
        return len(self._peers)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._peers)


class Heard:
    """Peers by the source that told of them first."""

    def __init__(self) -> None:
        self._source: dict[str, str] = {}
        self._peers: dict[str, OrderedDict[str, None]] = {}
        # the sources that have so many peers, and the largest such number
        self._having: dict[int, dict[str, None]] = {}
        self._most = 0

    def put(self, peer: str, source: str) -> None:
        """At the end of its source's, if it is new."""
        if peer not in self._source:
            self._source[peer] = source
            peers = self._peers.setdefault(source, OrderedDict())
            peers[peer] = None
            self._counted(source, len(peers) - 1, len(peers))

    def worse(self, peer: str) -> None:
        """It goes first of its source's."""
        source = self._source.get(peer)
        if source is not None:
            self._peers[source].move_to_end(peer, last=False)

    def remove(self, peer: str) -> None:
        source = self._source.pop(peer, None)
        if source is not None:
            peers = self._peers[source]
            del peers[peer]
            self._counted(source, len(peers) + 1, len(peers))
            if not peers:
                del self._peers[source]

    def worst(self, kept: Kept) -> str | None:
        """Who goes next: of the source that has most. None if all are kept."""
        most = next(iter(self._having[self._most])) if self._most else None
        if most is not None and (found := _first(self._peers[most], kept)) is not None:
            return found
        for peers in self._peers.values():  # all of the largest source are kept: seldom, and then few others
            if (found := _first(peers, kept)) is not None:
                return found
        return None

    def by_turns(self, rng: random.Random) -> Iterator[str]:
        """All of them, one of each source by turns, each source's newest first."""
        turns = [reversed(peers) for peers in self._peers.values()]
        rng.shuffle(turns)
        while turns:
            left = []
            for turn in turns:
                peer = next(turn, None)
                if peer is not None:
                    left.append(turn)
                    yield peer
            turns = left

    def __len__(self) -> int:
        return len(self._source)

    def _counted(self, source: str, before: int, after: int) -> None:
        if before:
            having = self._having[before]
            del having[source]
            if not having:
                del self._having[before]
        if after:
            self._having.setdefault(after, {})[source] = None
        # counts change by one, so the largest does as well
        self._most = after if after > self._most or self._most not in self._having else self._most


def _first(peers: OrderedDict[str, None], kept: Kept) -> str | None:
    """The first that isn't kept."""
    for _ in range(len(peers)):
        peer = next(iter(peers))
        if not kept(peer):
            return peer
        peers.move_to_end(peer)
    return None
