"""Whom we tell of which peers, and how often anybody may ask. No I/O: `now` and randomness come from the caller.

    a question --> its peer's bucket: `burst` at once, then one each `pause` seconds; else refused, and at last a flood
                --> the window of the asker's group: peers drawn for this interval, by weight
                      --> a random part of the window, in random order: the answer

A group (the asker's subnet, say) may learn of no more peers in an interval than its window holds, however often it asks
and however many peers it is: nobody reads the whole book quickly. A window is filled when it is first asked for, and
filled up while peers become known, up to `share` of them all, `least` at least, `most` at most; who is in it stays
there until the interval ends. Drawing favours the recently seen: the weight halves with each `half_life`, down to
`least_weight`.

A peer is told of only to those for whom it is of use: `Candidate.reach` says how far away its tested addresses can be
dialled from, `Candidate.near` the reach of the nearest address in its record, which isn't for those farther off. Reach
is a number, the greater the further (1 is an own network, 2 the world). All tables are bounded; whoever asked longest
ago is forgotten first.
"""

from __future__ import annotations

import heapq
import math
import random
import typing
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from protocols.exchange.wire import fitting
from protocols.rate import TokenBucket

OWN_NETWORK = 1


@dataclass(frozen=True, kw_only=True)
class ShareParams:
    """The numbers. Seconds, unless the name says otherwise."""

    interval: float = 3600.0
    share: float = 0.25
    least: int = 100
    most: int = 500
    half_life: float = 6 * 3600.0
    least_weight: float = 1 / 64
    pause: float = 10.0
    burst: int = 5
    # refusals between two answers that make a flood
    flood_after: int = 10
    max_groups: int = 256
    max_askers: int = 4096

    def __post_init__(self) -> None:
        least, most = min(self.interval, self.half_life, self.pause), min(self.burst, self.flood_after, self.max_groups)
        if least <= 0 or most < 1 or self.max_askers < 1 or not 1 <= self.least <= self.most:
            raise ValueError(f"expected times and counts above 0, and least <= most, got {self}")
        if not 0 < self.share <= 1 or not 0 < self.least_weight <= 1:
            raise ValueError(f"expected shares above 0, at most 1, got {self.share} and {self.least_weight}")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A peer that could be told of: it is tested, and has a record. `last_seen` by the clock of `now`."""

    peer: str
    record: bytes
    last_seen: float
    reach: int
    near: int

    def useful(self, asker_reach: int) -> bool:
        """Whether it may be told to somebody who is seen at that reach, and helps there."""
        return self.reach >= asker_reach and (asker_reach <= OWN_NETWORK or self.near >= asker_reach)


class Directory(typing.Protocol):
    """Where candidates come from."""

    def candidates(self) -> Iterable[Candidate]:
        """Everybody who could be told of now."""

    def candidate(self, peer: str) -> Candidate | None:
        """One of them; None if it isn't any more."""


class Refusal(typing.NamedTuple):
    """A question that isn't answered. `flood`: told once between two answers, the peer is to pay."""

    wait: float
    flood: bool


@dataclass(slots=True)
class _Asker:
    bucket: TokenBucket
    refused: int = 0


@dataclass(slots=True)
class _Window:
    ends: float
    peers: dict[str, None] = field(default_factory=dict)


class Share:
    """Keeps count of who asks, and draws the answers."""

    def __init__(self, params: ShareParams | None = None, *, rng: random.Random | None = None) -> None:
        self.params = params or ShareParams()
        self.told = 0
        self.refused = 0
        self._rng = rng or random.Random()
        self._askers: OrderedDict[str, _Asker] = OrderedDict()
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def ask(self, peer: str, now: float) -> Refusal | None:
        """Counts a question of a peer's; a refusal if it is one too many. A refused question costs nothing more."""
        params = self.params
        asker = self._askers.get(peer)
        if asker is None:
            asker = _Asker(TokenBucket(1 / params.pause, params.burst, now))
            self._askers[peer] = asker
            if len(self._askers) > params.max_askers:
                self._askers.popitem(last=False)
        self._askers.move_to_end(peer)
        wait = asker.bucket.take(now)
        if not wait:
            asker.refused = 0
            return None
        asker.bucket.give_back()
        self.refused += 1
        asker.refused += 1
        return Refusal(wait, asker.refused == params.flood_after)

    def draw(
        self, limit: int, directory: Directory, *, asker: str, group: str, reach: int, now: float
    ) -> tuple[bytes, ...]:
        """At most `limit` records for an asker seen at `reach`, of `group`; as many as fit into one frame."""
        window = self._window(group, now)
        self._fill(window, directory, asker, reach, now)
        drawn: list[bytes] = []
        for peer in self._rng.sample(list(window.peers), len(window.peers)):
            if len(drawn) >= limit:
                break
            candidate = directory.candidate(peer)
            if candidate is not None and peer != asker and candidate.useful(reach):
                drawn.append(candidate.record)
        answer = fitting(drawn, limit)
        self.told += len(answer)
        return answer

    def _window(self, group: str, now: float) -> _Window:
        window = self._windows.get(group)
        # a clock that was set back begins a new one
        if window is None or not window.ends - self.params.interval <= now < window.ends:
            window = self._windows[group] = _Window(now + self.params.interval)
            if len(self._windows) > self.params.max_groups:
                self._windows.popitem(last=False)
        self._windows.move_to_end(group)
        return window

    def _fill(self, window: _Window, directory: Directory, asker: str, reach: int, now: float) -> None:
        params = self.params
        if len(window.peers) >= params.most:
            return
        useful = [one for one in directory.candidates() if one.peer != asker and one.useful(reach)]
        size = max(params.least, min(params.most, math.ceil(params.share * len(useful))))
        room = size - len(window.peers)
        if room <= 0:
            return
        others = [one for one in useful if one.peer not in window.peers]
        if len(others) <= room:
            window.peers.update((one.peer, None) for one in others)
            return
        # weighted drawing without putting back (Efraimidis and Spirakis): the greatest of chance^(1/weight)
        keyed = ((math.log(1.0 - self._rng.random()) / self._weight(one, now), one.peer) for one in others)
        window.peers.update(dict.fromkeys(peer for _, peer in heapq.nlargest(room, keyed)))

    def _weight(self, candidate: Candidate, now: float) -> float:
        age = max(0.0, now - candidate.last_seen) / self.params.half_life
        return max(self.params.least_weight, math.exp2(-min(age, 64.0)))
