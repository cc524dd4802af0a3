"""An iterative lookup: who is nearest to a point. Rules only, no I/O; `now` comes from the caller.

    ask(now) --> requests to send           each: answered(peer, named) | failed(peer)
    done? closest() : again at wakeup(now), or at the next answer

There are no rounds: as soon as an answer is in, the next request goes out. At most `parallel` requests are under way,
not counting those that take longer than `hurry`, which is twice what this lookup's answers took so far; with them it is
`most_parallel`. It is over when the k nearest peers known have answered, and whoever is slower than `patience` by then,
three times what answers took, isn't waited for. Bounded are the candidates, the requests, the time, and whom one answer
can name (k).

With several paths each peer that is known at the start begins one of them, and what is learned on a path is asked on
that path alone, each peer once: whoever holds one path with answers of its own making doesn't hold the others
(S/Kademlia's disjoint paths). Each path goes on until the k / paths nearest of its own have answered, and the whole
until the k nearest of all have.

Source: libp2p/specs, kad-dht/README.md ("Peer routing"); Maymounkov and Mazières 2002; Baumgart and Mies 2007.
"""

from __future__ import annotations

import enum
import statistics
from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from protocols.kad.keyspace import point
from protocols.kad.wire import Peer


@dataclass(frozen=True, kw_only=True)
class LookupParams:
    """Bounds of one lookup; times in seconds. `timeout`: of one request with the dial; `deadline`: of the whole;
    `hurry` and `patience`: the least of what they are; `max_known`: peers to begin with, more than k, since some of
    those that everybody names may be gone.
    """

    k: int = 20
    parallel: int = 10
    most_parallel: int = 16
    timeout: float = 5.0
    hurry: float = 0.25
    patience: float = 1.0
    deadline: float = 30.0
    max_known: int = 60
    max_candidates: int = 512
    max_requests: int = 160
    max_addrs: int = 16

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"expected {name} above 0, got {value}")


class _State(enum.Enum):
    NEW = enum.auto()
    ASKED = enum.auto()
    ANSWERED = enum.auto()
    FAILED = enum.auto()


@dataclass(slots=True)
class Candidate:
    """A peer that somebody named. `depth`: hops from those that were known at the start."""

    peer: bytes
    distance: int
    addrs: tuple[bytes, ...]
    path: int
    depth: int
    state: _State = _State.NEW
    asked_at: float = 0.0

    def __lt__(self, other: Candidate) -> bool:
        return self.distance < other.distance


@dataclass(slots=True)
class _Path:
    candidates: list[Candidate] = field(default_factory=list)  # by distance


class Lookup:
    """One lookup of one point."""

    def __init__(
        self,
        target: int,
        local: bytes,
        known: Iterable[Peer],
        now: float,
        params: LookupParams | None = None,
        *,
        paths: int = 1,
    ) -> None:
        """`known`: where to begin, nearest first. More paths than there are such peers make as many as there are."""
        self.params = params or LookupParams()
        self.target = target
        self.requests = 0
        self.stopped = False
        self._local = local
        self._began = now
        self._candidates: dict[bytes, Candidate] = {}
        self._asked: dict[bytes, Candidate] = {}
        self._answers: list[int] = []  # distances of those that answered, in order
        self._times: list[float] = []
        known = list(known)[: self.params.max_known]
        self._paths = [_Path() for _ in range(max(1, min(paths, len(known))))]
        for index, peer in enumerate(known):
            self._learn(peer, index % len(self._paths), 0)

    # what is told

    def answered(self, peer: bytes, named: Sequence[Peer], now: float) -> None:
        """The peer's answer has come, with the peers it names; those past the first k don't count."""
        candidate = self._asked.pop(peer, None)
        if candidate is None:
            return
        candidate.state = _State.ANSWERED
        self._times.append(now - candidate.asked_at)
        insort(self._answers, candidate.distance)
        for other in named[: self.params.k]:
            self._learn(other, candidate.path, candidate.depth + 1)

    def failed(self, peer: bytes) -> None:
        """The peer didn't answer in time, can't be reached, or broke the rules."""
        candidate = self._asked.pop(peer, None)
        if candidate is not None:
            candidate.state = _State.FAILED

    def stop(self) -> None:
        """What was looked for is there."""
        self.stopped = True

    # what is to be done

    def ask(self, now: float) -> list[Candidate]:
        """Whom to ask now. The caller tells of each, within `timeout`, that it answered or failed."""
        found: list[Candidate] = []
        hurry = self._slower_than(self.params.hurry, 2)
        if self.stopped or now - self._began >= self.params.deadline:
            return found
        while self._room(now, hurry) and (candidate := self._next()) is not None:
            candidate.state, candidate.asked_at = _State.ASKED, now
            self._asked[candidate.peer] = candidate
            self.requests += 1
            found.append(candidate)
        return found

    def done(self, now: float) -> bool:
        """Whether nothing is left to ask or wait for."""
        if self.stopped or now - self._began >= self.params.deadline:
            return True
        if self.requests < self.params.max_requests and self._next() is not None:
            return False
        patience = self._patience() if self._times else self.params.timeout
        return not any(
            now - candidate.asked_at < patience and self._matters(candidate) for candidate in self._waiting()
        )

    def wakeup(self, now: float) -> float:
        """When to call `ask` and `done` again if nothing happens before."""
        times = [self._began + self.params.deadline]
        for wait in {self._slower_than(self.params.hurry, 2), self._patience(), self.params.timeout}:
            times += [at for candidate in self._waiting() if (at := candidate.asked_at + wait) > now]
        return min(times)

    # what came of it

    def closest(self) -> list[Candidate]:
        """The k nearest that answered, nearest first."""
        answered = sorted(c for c in self._candidates.values() if c.state is _State.ANSWERED)
        return answered[: self.params.k]

    def closest_of_paths(self) -> list[Candidate]:
        """Those, and each path's own nearest: where to put what must be found again in spite of a held path."""
        chosen = {candidate.peer: candidate for candidate in self.closest()}
        for path in self._paths:
            own = [c for c in path.candidates if c.state is _State.ANSWERED][: self._share]
            chosen.update((candidate.peer, candidate) for candidate in own)
        return sorted(chosen.values())

    def silent(self, now: float) -> list[bytes]:
        """Who was asked, and hasn't answered for longer than the patience."""
        patience = self._patience()
        return [candidate.peer for candidate in self._waiting() if now - candidate.asked_at >= patience]

    def get(self, peer: bytes) -> Candidate | None:
        """What is known of a peer."""
        return self._candidates.get(peer)

    @property
    def hops(self) -> int:
        """How far from us, in hops, the nearest that answered was found."""
        closest = self.closest()
        return closest[0].depth + 1 if closest else 0

    # inside

    @property
    def _share(self) -> int:
        return -(-self.params.k // len(self._paths))

    def _learn(self, peer: Peer, path: int, depth: int) -> None:
        if peer.id == self._local:
            return
        known = self._candidates.get(peer.id)
        if known is not None:
            if known.state is _State.NEW:  # more addresses to try, not others in their place
                merged = dict.fromkeys((*known.addrs, *peer.addrs))
                known.addrs = tuple(merged)[: self.params.max_addrs]
            return
        candidate = Candidate(peer.id, point(peer.id) ^ self.target, peer.addrs[: self.params.max_addrs], path, depth)
        if len(self._candidates) >= self.params.max_candidates and not self._make_room(candidate):
            return
        self._candidates[peer.id] = candidate
        insort(self._paths[path].candidates, candidate)

    def _make_room(self, candidate: Candidate) -> bool:
        """Forgets the farthest of the path that has most candidates, if the new one is nearer or on another path."""
        largest = max(self._paths, key=lambda path: len(path.candidates))
        for index in range(len(largest.candidates) - 1, -1, -1):
            farthest = largest.candidates[index]
            if farthest.state is _State.NEW:
                if farthest.path == candidate.path and farthest < candidate:
                    return False
                del largest.candidates[index], self._candidates[farthest.peer]
                return True
        return False

    def _room(self, now: float, hurry: float) -> bool:
        if self.requests >= self.params.max_requests or len(self._asked) >= self.params.most_parallel:
            return False
        return sum(now - candidate.asked_at < hurry for candidate in self._waiting()) < self.params.parallel

    def _waiting(self) -> Iterable[Candidate]:
        return self._asked.values()

    def _patience(self) -> float:
        """How long an answer may take before nobody waits for it, if there is nothing else to do."""
        return self._slower_than(self.params.patience, 3)

    def _slower_than(self, least: float, times: float) -> float:
        """So many times what an answer takes."""
        usual = statistics.median(self._times) if self._times else 0.0
        return min(self.params.timeout, max(least, times * usual))

    def _next(self) -> Candidate | None:
        """The next to ask: of the path that has fewest requests under way, its nearest that matters."""
        wanted: list[tuple[int, Candidate]] = []
        bound = self._bound()
        for path in self._paths:
            candidate = self._next_of(path, bound)
            if candidate is not None:
                busy = sum(waiting.path == candidate.path for waiting in self._waiting())
                wanted.append((busy, candidate))
        return min(wanted)[1] if wanted else None

    def _next_of(self, path: _Path, bound: int | None) -> Candidate | None:
        answered = 0
        for candidate in path.candidates:
            if candidate.state is _State.ANSWERED:
                answered += 1
            elif candidate.state is _State.NEW:
                near = bound is None or candidate.distance < bound
                return candidate if answered < self._share or near else None
        return None

    def _matters(self, waiting: Candidate) -> bool:
        """Whether an answer of the peer could still change something."""
        bound = self._bound()
        if bound is None or waiting.distance < bound:
            return True
        answered = 0
        for candidate in self._paths[waiting.path].candidates:
            if candidate is waiting:
                return True
            answered += candidate.state is _State.ANSWERED
            if answered >= self._share:
                return False
        return False

    def _bound(self) -> int | None:
        """The distance of the k-th nearest of all that answered; None as long as there are fewer."""
        return self._answers[self.params.k - 1] if len(self._answers) >= self.params.k else None
