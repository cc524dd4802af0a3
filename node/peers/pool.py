"""The pool: whom to dial, whom to drop, and when. Rules only: `now` and chance from the caller, no I/O.

    connected, disconnected, failed ... --> Pool --poll(now)--> Dial, Drop, Low      until `next_wakeup`

Targets. Below `low` the pool hurries, from there to `target` it takes its time, above `high` the worst go
(`node.peers.standing`). `outbound` of them it dials itself, however many others come in: who fills our inbound slots
hasn't chosen our neighbours. Inbound peers may take `high - outbound` places.

Whom to dial, in this order:
    static peers, always, with a backoff of their own
    the address book's candidates: those that worked, last connected first (the anchors of a restart), then the others
    the reserve (bootstrap peers) when nothing else answers: see `_reserve_due`
Dials under way are at most `max_dials`, those begun at most `dial_rate` a second on average. Below `low`, others begin
beside those that are SLOW: of the machines that are gone each would cost its whole timeout. A subnet has at most
`subnet_share` of the outbound places; a source at most `source_share` of those that were never reached, as long as
others have candidates. Below `low`, when nobody else can be dialled, subnets may have more: those don't count
(`standing.extras`), so that better ones are still looked for, and go when these have come.

Isolation. With nobody connected, failures are more likely ours than everybody's: the best RETRIED peers are dialled
again and again with short waits, whatever their backoff, and once one answers, the others at once.

Feelers. Every `feeler_interval` one address that nobody has tested is dialled, so that the book fills with such as
worked; unless the peer is needed it is dropped at once. Who has dialled us is tested by the address that it names,
without a second connection: only tested addresses are passed on to others, and a bootstrap node dials nobody else.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from node.peers.backoff import Backoff
from node.peers.book import Entry
from node.peers.budget import DialBudget
from node.peers.choice import Candidates, Choice, Dial, Targets, host
from node.peers.standing import Peer, Score, extras, inbound_victim, outbound_victim
from protocols.rate import TokenBucket

RETRIED = 32
RETRY_LONGEST = 30.0
# seconds after isolation during which those that were tried in vain are tried again at once
RECOVERY = 60.0
# with a full book the reserve waits so long for others to answer: when alone, and when somebody is connected
ALONE_PATIENCE = 600.0
PATIENCE = 60.0
# a peer that leaves sooner than this has no place for us
STEADY = 30.0
# how long one that a user has disconnected isn't dialled
UNWANTED = 600.0
# below `low`, a dial that takes longer isn't waited for
SLOW = 1.5
# looking for candidates in vain: again after these seconds
LOOK_FIRST, LOOK_LONGEST_LOW, LOOK_LONGEST = 0.5, 2.0, 10.0
MAX_RESERVE = 256
# so many inbound peers of one subnet are no crowd
LEAST_CROWD = 4
# seconds after which it is looked whether those that dialled us have named an address by now
TEST_PAUSE = 2.0
JITTER = 0.25


@dataclass(frozen=True)
class Drop:
    """Close a peer's connections. `reason`: surplus, tested."""

    peer: str
    reason: str


@dataclass(frozen=True)
class Low:
    """There are fewer peers than `low`, and were not before."""

    peers: int


@dataclass(frozen=True)
class Probe:
    """See whether a connected peer answers at an address, and leave again. The outcome is told by `tested`."""

    peer: str
    addr: str


@dataclass(frozen=True)
class Back:
    """A peer is connected after so many seconds without any: what failed meanwhile says nothing of the others."""

    seconds: float


Action = Dial | Drop | Low | Probe | Back


class Pool:
    """One node's pool. `score`: what a connected peer is worth, below 0 who misbehaves; `banned`: addresses
    that are never dialled; the book itself gives no peer that is."""

    def __init__(
        self,
        targets: Targets,
        book: Candidates,
        *,
        us: str,
        now: float,
        score: Score = lambda _peer: 0.0,
        banned: Callable[[str], bool] = lambda _addr: False,
        budget: DialBudget | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.targets = targets
        self.book = book
        self.us = us
        self.peers: dict[str, Peer] = {}
        self.dialling: dict[str, Dial] = {}
        self.protected: set[str] = set()
        self.budget = budget or DialBudget()
        self.counts: Counter[tuple[str, str]] = Counter()  # dial, failed: and why; drop: and reason; test: ok, failed
        self.shortage = 0  # how many candidates were missing when last looked
        self._score = score
        self._banned = banned
        self._rng = rng or random.Random()
        self._static: dict[str, tuple[str, ...]] = {}
        self._reserve: dict[str, tuple[str, ...]] = {}
        self._kept_retry = Backoff(targets.retry_min, targets.retry_max, capacity=4 * MAX_RESERVE, rng=self._rng)
        self._retry = Backoff(targets.retry_min, RETRY_LONGEST, capacity=4096, rng=self._rng)
        self._left = Backoff(STEADY, 20 * STEADY, capacity=4096, rng=self._rng)
        self._unwanted = Backoff(UNWANTED, UNWANTED, capacity=4096, rng=self._rng)
        self._dropping: dict[str, str] = {}
        self._surplus: set[str] | None = None  # None: who is connected has changed
        self._inbound = 0  # counted with it
        self._rate = TokenBucket(targets.dial_rate, max(1, targets.max_dials), now)
        self._rate_at = now
        self._test_rate = TokenBucket(targets.dial_rate, max(1, targets.max_dials), now)
        self._test_at = now
        self._testing: set[str] = set()
        self._look_at = now
        self._look = LOOK_FIRST
        self._feel_at = now + targets.feeler_interval * self._rng.random()
        self._alone_since: float | None = now
        self._recovering_until = now
        self._back: float | None = None
        self._progress = now
        self._answered = 0  # peers that said no since we were alone: the network is there
        self._was_low = True
        self._filled, self._filled_at = False, float("-inf")

    # what happens

    def connected(self, now: float, peer: str, addr: str, *, outbound: bool, asked: bool = False) -> None:
        """A peer is admitted, or which of its connections counts has changed."""
        dial = self.dialling.get(peer)
        known = self.peers.get(peer)
        if known is not None:
            if known.outbound != outbound or known.addr != addr:
                known.outbound, known.addr = outbound, addr
                self._surplus = None
            return
        self._surplus = None
        kept = peer in self._static or peer in self.protected
        chosen = dial if outbound else None
        source = chosen.source if chosen else ""
        self.peers[peer] = Peer(peer, addr, outbound, now, asked, chosen is not None, kept, source)
        if source:
            self.budget.succeeded(host(addr), now)
        if self._alone_since is not None:
            self._back = now - self._alone_since
            self.budget.forgive(self._alone_since)
            self._alone_since = None
            self._recovering_until = now + RECOVERY
            self._retry = Backoff(self.targets.retry_min, RETRY_LONGEST, capacity=4096, rng=self._rng)
        self._progress = now
        self._look_again(now)

    def disconnected(self, now: float, peer: str) -> None:
        """The last connection to a peer has ended."""
        known = self.peers.pop(peer, None)
        reason = self._dropping.pop(peer, "")
        if known is None:
            return
        self._surplus = None
        if peer in self._static or peer in self._reserve:
            if now - known.since >= STEADY:
                self._kept_retry.succeeded(peer)
            self._kept_retry.failed(peer, now)
        if reason == "surplus" or (known.outbound and now - known.since < STEADY and reason != "tested"):
            self._left.failed(peer, now)  # one of us has no place for the other
        elif now - known.since >= STEADY:
            self._left.succeeded(peer)
        if not self.peers:
            self._alone_since, self._answered = now, 0
        if len(self.peers) + 1 == self.targets.low:
            self._progress = now
        self._look_again(now)

    def failed(self, now: float, peer: str, *, answered: bool = False) -> float:
        """A `Dial` has failed. `answered`: somebody said no (refused, not admitted), so the network is there. For
        static and reserve peers the seconds until the next one.
        """
        dial = self.dialling.pop(peer, None)
        if dial is None:
            return 0.0
        self.counts["failed", dial.why] += 1
        self._answered += answered
        self._retry.failed(peer, now)
        if dial.source and dial.addrs:
            self.budget.failed(host(dial.addrs[0]), now)
        self._look_again(now)
        return self._kept_retry.failed(peer, now) if dial.why in ("static", "reserve") else 0.0

    def done(self, now: float, peer: str) -> Drop | None:
        """A `Dial` has succeeded. A feeler's peer that isn't needed is to be dropped."""
        dial = self.dialling.pop(peer, None)
        known = self.peers.get(peer)
        self._look_again(now)
        if dial is None or dial.why != "feeler" or known is None or not known.outbound or known.kept or known.asked:
            return None
        if self._wanted_outbound(without=peer) > 0:
            return None
        self._dropping[peer] = "tested"
        self.counts["drop", "tested"] += 1
        return Drop(peer, "tested")

    def tested(self, now: float, peer: str, addr: str, *, ok: bool) -> None:
        """A `Probe` has its outcome."""
        self._testing.discard(peer)
        self.counts["test", "ok" if ok else "failed"] += 1
        (self.budget.succeeded if ok else self.budget.failed)(host(addr), now)
        known = self.peers.get(peer)
        if known is not None:
            known.tests_left = 0 if ok else known.tests_left - 1

    def learned(self, now: float) -> None:
        """There are new candidates."""
        if self.shortage:
            self._look = LOOK_FIRST
            self._look_at = min(self._look_at, now + 0.05)  # a whole answer comes at once

    # what the operator says

    def add_static(self, now: float, peer: str, addrs: Sequence[str]) -> None:
        """Keeps connected with a peer from now on."""
        self._static[peer] = tuple(dict.fromkeys((*addrs, *self._static.get(peer, ()))))[:8]
        self._mark(peer)
        self._look_again(now)

    def remove_static(self, peer: str) -> bool:
        """Whether it was one."""
        known = self._static.pop(peer, None) is not None
        self._mark(peer)
        return known

    def protect(self, peer: str, *, on: bool) -> None:
        """Whether the peer is never dropped."""
        (self.protected.add if on else self.protected.discard)(peer)
        self._mark(peer)

    def add_reserve(self, now: float, peer: str, addrs: Sequence[str]) -> None:
        """Names a peer to be dialled when nothing else answers. Past MAX_RESERVE it is left out."""
        if peer != self.us and (peer in self._reserve or len(self._reserve) < MAX_RESERVE):
            self._reserve[peer] = tuple(dict.fromkeys(addrs))[:8]
            self._look_again(now)

    def is_static(self, peer: str) -> bool:
        return peer in self._static

    def is_reserve(self, peer: str) -> bool:
        return peer in self._reserve

    def asked(self, peer: str) -> None:
        """A user wants the connection to that peer."""
        if peer in self.peers:
            self.peers[peer].asked = True
            self._surplus = None

    def leave(self, now: float, peer: str) -> None:
        """A user closes the connections to that peer: it isn't dialled again for a while, unless it is static."""
        self._unwanted.failed(peer, now)

    def _mark(self, peer: str) -> None:
        self._surplus = None
        if peer in self.peers:
            self.peers[peer].kept = peer in self._static or peer in self.protected

    # what to do

    def poll(self, now: float) -> list[Action]:
        """What is to be done now. Each Drop is followed by `disconnected`, each Dial by `done` or `failed`."""
        actions: list[Action] = []
        if self._back is not None:
            actions.append(Back(self._back))
            self._back = None
        self._trim(now, actions)
        for peer, addrs in self._static.items():
            if self._free(peer) and not self._kept_retry.remaining(peer, now):
                self._dial(now, actions, peer, addrs, "static")
        if now >= self._look_at:
            self._fill(now, actions)
        if now >= self._feel_at:
            self._feel(now, actions)
        if now >= self._test_at and self.targets.target:
            self._test(now, actions)
        low = self._count() < self.targets.low
        if low and not self._was_low:
            actions.append(Low(self._count()))
        self._was_low = low
        return actions

    def next_wakeup(self, now: float) -> float:
        """When `poll` is to be called again, if nothing happens before."""
        times = [self._feel_at]
        if self._missing(now) > 0 or (self.dialling and self.is_low()):
            times.append(max(self._look_at, self._rate_at))
        times += [now + self._kept_retry.remaining(peer, now) for peer in self._static if self._free(peer)]
        if self.targets.target and any(not peer.outbound and peer.tests_left for peer in self.peers.values()):
            times.append(max(self._test_at, now + TEST_PAUSE))
        if self._crowded():
            graces = (peer.since + self.targets.grace for peer in self.peers.values())
            times += [at for at in graces if at > now]
        return max(now + 0.01, min(times))

    def wants(self) -> int:
        """How many more candidates sources should find: those that are missing, and what a good stock lacks."""
        stock = self.targets.high - len(self.book)
        return max(self.shortage, stock, 0)

    def is_low(self) -> bool:
        """Whether there are fewer peers than `low`."""
        return self._count() < self.targets.low

    # rules

    def extras(self) -> set[str]:
        """Who of the outbound peers doesn't count."""
        if self._surplus is None:
            self._inbound = sum(not peer.outbound for peer in self.peers.values())
            self._surplus = extras(self.peers.values(), self.places(), self.targets.target or self.targets.high)
        return self._surplus

    def places(self) -> int:
        """How many outbound peers one subnet may have."""
        return max(1, int(self.targets.subnet_share * (self.targets.outbound or self.targets.high)))

    def _count(self) -> int:
        return len(self.peers)

    def _crowded(self) -> bool:
        targets, surplus = self.targets, self.extras()
        return len(self.peers) > targets.high or self._inbound > targets.high - targets.outbound or bool(surplus)

    def _wanted_outbound(self, *, without: str = "") -> int:
        """How many more peers the pool wants to dial; `without` isn't counted."""
        targets, surplus = self.targets, self.extras()
        counted = len(self.peers) - len(surplus)
        outbound = counted - self._inbound  # extras are all outbound
        if without in self.peers and without not in surplus:
            counted -= 1
            outbound -= self.peers[without].outbound
        return max(targets.target - counted, targets.outbound - outbound, 0)

    def _missing(self, now: float) -> int:
        """The same without those that are being dialled; feelers don't count, nor what is SLOW while we are `low`."""
        begun = now - SLOW if self.is_low() else float("-inf")
        return self._wanted_outbound() - sum(
            dial.why != "feeler" and dial.since > begun for dial in self.dialling.values()
        )

    def _trim(self, now: float, actions: list[Action]) -> None:
        if not self._crowded():
            return
        targets, gone = self.targets, set[str]()

        def drop(peer: Peer | None) -> bool:
            if peer is not None:
                gone.add(peer.peer)
                self._dropping[peer.peer] = "surplus"
                self.counts["drop", "surplus"] += 1
                actions.append(Drop(peer.peer, "surplus"))
            return peer is not None

        if any(peer in self._dropping for peer in self.peers):
            gone.update(self._dropping)  # on their way out

        def left() -> list[Peer]:
            return [peer for peer in self.peers.values() if peer.peer not in gone]

        most = targets.high - targets.outbound
        inbound = [peer for peer in left() if not peer.outbound]
        crowd = max(LEAST_CROWD, int(targets.subnet_share * most))
        for number in range(len(inbound), most, -1):
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

    def _fill(self, now: float, actions: list[Action]) -> None:
        missing = self._missing(now)
        low = self.is_low()
        if missing <= 0:
            self.shortage = 0
            slow_at = min((d.since + SLOW for d in self.dialling.values() if d.since + SLOW > now), default=now + SLOW)
            self._look_at, self._look = slow_at if low else now + LOOK_LONGEST, LOOK_FIRST
            return
        room = (self.targets.max_dials if low else max(1, self.targets.max_dials // 4)) - len(self.dialling)
        wanted = min(missing, room)
        if wanted <= 0 or now < self._rate_at:
            self._look_at = self._rate_at if wanted > 0 else now + LOOK_LONGEST  # a dial that ends brings us back
            return
        found = self._candidates(now, wanted)
        for entry, addrs in found:
            if now < self._rate_at:
                break
            self._dial_tested(now, actions, entry, addrs, "pool")
        wanted -= len(found)
        if wanted > 0 and self._reserve_due(now):
            for peer, known in self._reserve.items():
                if wanted > 0 and self._free(peer) and not self._kept_retry.remaining(peer, now):
                    self._dial(now, actions, peer, known, "reserve")
                    wanted -= 1
        self.shortage = max(0, wanted)
        longest = LOOK_LONGEST_LOW if low else LOOK_LONGEST
        self._look = LOOK_FIRST if wanted <= 0 else min(2 * self._look, longest)
        self._look_at = max(now + self._look, self._rate_at)

    def _candidates(self, now: float, limit: int) -> list[tuple[Entry, list[str]]]:
        """Whom to dial now: those that the book gives, in its order, as far as diversity lets them."""
        choice = self._choice(now, limit)
        choice.take_from_book()
        choice.any_source = True
        choice.take_from_book()
        if self._alone_since is not None or now < self._recovering_until:
            for entry in self._best_known():
                if not self._retry.remaining(entry.peer, now):
                    choice.take(entry, [known.addr for known in entry.addrs if known.last_success])
        if self.is_low() and not choice.found and not self.dialling:
            choice = self._choice(now, min(limit, self.targets.low - self._count()))
            choice.any_subnet = choice.any_source = True
            choice.take_from_book()
        return choice.found

    def _may_dial(self, peer: str, now: float) -> bool:
        """Whether a peer of the book may be dialled, wherever it is."""
        return (
            self._free(peer)
            and peer not in self._reserve
            and peer not in self._static
            and not self._left.remaining(peer, now)
            and not self._unwanted.remaining(peer, now)
        )

    def _choice(self, now: float, limit: int) -> Choice:
        return Choice(
            self.book,
            limit,
            per_subnet=self.places(),
            per_source=max(1, int(self.targets.source_share * self.targets.outbound)),
            peers=self.peers.values(),
            dials=self.dialling.values(),
            may_dial=lambda peer: self._may_dial(peer, now),
            may_try=lambda addr: not self.budget.wait(host(addr), now),
            banned=self._banned,
        )

    def _best_known(self) -> list[Entry]:
        worked = [entry for entry in self.book.entries() if entry.worked]
        worked.sort(key=lambda entry: -entry.last_seen)
        return worked[:RETRIED]

    def _reserve_due(self, now: float) -> bool:
        """Whether the reserve may be dialled, nobody else being left to dial now. With few peers known: at once. With
        as many as `low` that have worked, only when these don't answer for a while; longer when there is no answer
        from anybody at all, for then it is us who are cut off, and the others will be there when we are back.
        """
        if not self._reserve:
            return False
        if now - self._filled_at >= RECOVERY or not self._filled:
            worked = sum(entry.worked and entry.peer not in self._reserve for entry in self.book.entries())
            self._filled, self._filled_at = worked >= self.targets.low, now
        if not self._filled:
            return True
        if not self.is_low():
            return False
        cut_off = self._alone_since is not None and self._answered < min(3, self.targets.low)
        return now - self._progress >= (ALONE_PATIENCE if cut_off else PATIENCE)

    def _feel(self, now: float, actions: list[Action]) -> None:
        self._feel_at = now + self.targets.feeler_interval * (1 + JITTER * (2 * self._rng.random() - 1))
        if (self.is_low() and not self.shortage) or now < self._rate_at:
            return  # there are dials enough
        choice = self._choice(now, 1)
        choice.any_subnet = choice.any_source = True
        for entry in self.book.untested(1, exclude=choice):
            choice.take(entry, self.book.dialable(entry))
        for entry, addrs in choice.found:
            self._dial_tested(now, actions, entry, addrs, "feeler")

    def _test(self, now: float, actions: list[Action]) -> None:
        for known in self.peers.values():
            if known.outbound or known.tests_left <= 0 or known.peer in self._testing or now < self._test_at:
                continue
            entry = self.book.get(known.peer)
            if entry is not None and any(addr.worked for addr in entry.addrs):
                known.tests_left = 0
            elif entry is not None and len(self._testing) < self.targets.max_dials:
                addrs = [addr for addr in self.book.dialable(entry) if not self._banned(addr)]
                # where it comes from first: that it can be dialled there is most likely
                addrs.sort(key=lambda addr: host(addr) != host(known.addr))
                if addrs and self.budget.take(host(addrs[0]), now):
                    self._testing.add(known.peer)
                    self._test_at = now + self._test_rate.take(now)
                    actions.append(Probe(known.peer, addrs[0]))

    def _free(self, peer: str) -> bool:
        return peer != self.us and peer not in self.peers and peer not in self.dialling

    def _dial(
        self, now: float, actions: list[Action], peer: str, addrs: Sequence[str], why: str, source: str = ""
    ) -> None:
        self.counts["dial", why] += 1
        self.dialling[peer] = dial = Dial(peer, tuple(addrs), why, source, now)
        actions.append(dial)

    def _dial_tested(self, now: float, actions: list[Action], entry: Entry, addrs: list[str], why: str) -> None:
        """Within the rate; of a peer that was never reached one address at a time, within the budget of its IP."""
        if not entry.worked:
            addrs = addrs[:1]
            if not self.budget.take(host(addrs[0]), now):
                return
        self._dial(now, actions, entry.peer, addrs, why, "" if entry.worked else entry.source)
        self._rate_at = now + self._rate.take(now)

    def _look_again(self, now: float) -> None:
        self._look = LOOK_FIRST
        self._look_at = now
