"""The pool: whom to dial, whom to drop, and when. Rules only: `now` and chance from the caller, no I/O.

    connected, disconnected, failed ... --> Pool --poll(now)--> Dial, Drop, Low      until `next_wakeup`

Targets. Below `low` the pool hurries, from there to `target` it takes its time, above `high` the worst go
(`node.peers.roster`). `outbound` of them it dials itself, however many others come in: who fills our inbound slots
hasn't chosen our neighbours. Inbound peers may take `high - outbound` places.

Whom to dial, in this order:
    static peers, always, with a backoff of their own
    the address book's candidates: those that worked, last connected first (the anchors of a restart), then the others
    the reserve (bootstrap peers) when nothing else answers: `node.peers.reserve`
Dials under way are at most `max_dials`, those begun at most `dial_rate` a second on average. Below `low`, others begin
beside those that are SLOW: of the machines that are gone each would cost its whole timeout. A subnet has at most
`subnet_share` of the outbound places; a source at most `source_share` of those that were never reached, as long as
others have candidates. Below `low`, when nobody else can be dialled, subnets may have more: those don't count
(`standing.extras`), so that better ones are still looked for, and go when these have come.

Isolation. With nobody connected, failures are more likely ours than everybody's: the best RETRIED peers are dialled
again and again with short waits, whatever their backoff, and once one answers, the others at once.

Feelers. Every `feeler_interval` one address that nobody has tested is dialled, so that the book fills with such as
worked; unless the peer is needed it is dropped at once. Who has dialled us is tested by the address that it names,
without a second connection (`node.peers.probing`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from node.peers.actions import Action, Back, Dial, Drop, Low
from node.peers.backoff import Backoff
from node.peers.book import Entry
from node.peers.budget import DialBudget
from node.peers.choice import Candidates, Choice, Targets, host
from node.peers.probing import Probing
from node.peers.reserve import MAX_RESERVE, Reserve
from node.peers.roster import Roster
from node.peers.standing import Peer, Score
from protocols.rate import TokenBucket

RETRIED = 32
RETRY_LONGEST = 30.0
# seconds after isolation during which those that were tried in vain are tried again at once
RECOVERY = 60.0
# a peer that leaves sooner than this has no place for us
STEADY = 30.0
# how long one that a user has disconnected isn't dialled
UNWANTED = 600.0
# below `low`, a dial that takes longer isn't waited for
SLOW = 1.5
# looking for candidates in vain: again after these seconds
LOOK_FIRST, LOOK_LONGEST_LOW, LOOK_LONGEST = 0.5, 2.0, 10.0
JITTER = 0.25


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
        self.counts: Counter[tuple[str, str]] = Counter()  # dial, failed: and why; drop: and reason; test: ok, failed
        self.roster = Roster(targets, score, self.counts)
        self.peers = self.roster.peers
        self.dialling: dict[str, Dial] = {}
        self.protected: set[str] = set()
        self.budget = budget or DialBudget()
        self.shortage = 0  # how many candidates were missing when last looked
        self._banned = banned
        self._rng = rng or random.Random()
        self._static: dict[str, tuple[str, ...]] = {}
        self._reserve = Reserve(targets, book, now)
        self._kept_retry = Backoff(targets.retry_min, targets.retry_max, capacity=4 * MAX_RESERVE, rng=self._rng)
        self._retry = Backoff(targets.retry_min, RETRY_LONGEST, capacity=4096, rng=self._rng)
        self._left = Backoff(STEADY, 20 * STEADY, capacity=4096, rng=self._rng)
        self._unwanted = Backoff(UNWANTED, UNWANTED, capacity=4096, rng=self._rng)
        self._rate = TokenBucket(targets.dial_rate, max(1, targets.max_dials), now)
        self._rate_at = now
        self._probing = Probing(targets, book, self.budget, banned, now)
        self._look_at = now
        self._look = LOOK_FIRST
        self._feel_at = now + targets.feeler_interval * self._rng.random()
        self._recovering_until = now
        self._back: float | None = None
        self._was_low = True

    # what happens

    def connected(self, now: float, peer: str, addr: str, *, outbound: bool, asked: bool = False, ip: str = "") -> None:
        """A peer is admitted, or which of its connections counts has changed. `ip`: where it is, if that is known."""
        dial = self.dialling.get(peer)
        known = self.peers.get(peer)
        if known is not None:
            if known.outbound != outbound or known.addr != addr:
                self.roster.change(peer, outbound=outbound, addr=addr, ip=ip)
            return
        kept = peer in self._static or peer in self.protected
        chosen = dial if outbound else None
        source = chosen.source if chosen else ""
        self.roster.add(Peer(peer, addr, outbound, now, asked, chosen is not None, kept, source, ip=ip))
        if source:
            self.budget.succeeded(host(addr), now)
        alone_since = self._reserve.alone_since
        if alone_since is not None:
            self._back = now - alone_since
            self.budget.forgive(alone_since)
            self._recovering_until = now + RECOVERY
            self._retry = Backoff(self.targets.retry_min, RETRY_LONGEST, capacity=4096, rng=self._rng)
        self._reserve.came(now)
        self._look_again(now)

    def disconnected(self, now: float, peer: str) -> None:
        """The last connection to a peer has ended."""
        known, reason = self.roster.remove(peer)
        if known is None:
            return
        if peer in self._static or peer in self._reserve.peers:
            if now - known.since >= STEADY:
                self._kept_retry.succeeded(peer)
            self._kept_retry.failed(peer, now)
        if reason == "surplus" or (known.outbound and now - known.since < STEADY and reason != "tested"):
            self._left.failed(peer, now)  # one of us has no place for the other
        elif now - known.since >= STEADY:
            self._left.succeeded(peer)
        self._reserve.went(now, len(self.peers))
        self._look_again(now)

    def failed(self, now: float, peer: str, *, answered: bool = False) -> float:
        """A `Dial` has failed. `answered`: somebody said no (refused, not admitted), so the network is there. For
        static and reserve peers the seconds until the next one.
        """
        dial = self.dialling.pop(peer, None)
        if dial is None:
            return 0.0
        self.counts["failed", dial.why] += 1
        if answered:
            self._reserve.said_no()
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
        if self.roster.wanted(without=peer) > 0:
            return None
        return self.roster.drop(peer, "tested")

    def tested(self, now: float, peer: str, addr: str, *, ok: bool) -> None:
        """A `Probe` has its outcome."""
        self.counts["test", "ok" if ok else "failed"] += 1
        self._probing.tested(now, peer, self.peers.get(peer), addr, ok=ok)

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
        if peer != self.us and self._reserve.add(peer, addrs):
            self._look_again(now)

    def asked(self, peer: str) -> None:
        """A user wants the connection to that peer."""
        self.roster.change(peer, asked=True)

    def leave(self, now: float, peer: str) -> None:
        """A user closes the connections to that peer: it isn't dialled again for a while, unless it is static."""
        self._unwanted.failed(peer, now)

    def _mark(self, peer: str) -> None:
        self.roster.change(peer, kept=peer in self._static or peer in self.protected)

    # what to do

    def poll(self, now: float) -> list[Action]:
        """What is to be done now."""
        actions: list[Action] = []
        if self._back is not None:
            actions.append(Back(self._back))
            self._back = None
        actions += self.roster.trim(now)
        for peer, addrs in self._static.items():
            if self._free(peer) and not self._kept_retry.remaining(peer, now):
                self._dial(now, actions, peer, addrs, "static")
        if now >= self._look_at:
            self._fill(now, actions)
        if now >= self._feel_at:
            self._feel(now, actions)
        if self.targets.target:
            actions += self._probing.due(self.peers.values(), now)
        low = self.is_low()
        if low and not self._was_low:
            actions.append(Low(len(self.peers)))
        self._was_low = low
        return actions

    def next_wakeup(self, now: float) -> float:
        """When `poll` is to be called again, if nothing happens before."""
        times = [self._feel_at]
        if self._missing(now) > 0 or (self.dialling and self.is_low()):
            times.append(max(self._look_at, self._rate_at))
        times += [now + self._kept_retry.remaining(peer, now) for peer in self._static if self._free(peer)]
        if self.targets.target:
            times.append(self._probing.next_at(self.peers.values(), now))
        if self.roster.is_crowded:
            graces = (peer.since + self.targets.grace for peer in self.peers.values())
            times += [at for at in graces if at > now]
        return max(now + 0.01, min(times))

    def wants(self) -> int:
        """How many more candidates sources should find: those that are missing, and what a good stock lacks."""
        stock = self.targets.high - len(self.book)
        return max(self.shortage, stock, 0)

    def is_low(self) -> bool:
        """Whether there are fewer peers than `low`."""
        return self.roster.is_low

    def extras(self) -> set[str]:
        """Who of the outbound peers doesn't count."""
        return self.roster.extras()

    # rules

    def _missing(self, now: float) -> int:
        """How many outbound peers are wanted beside those that are being dialled; feelers don't count, nor what is SLOW
        while we are `low`."""
        begun = now - SLOW if self.is_low() else float("-inf")
        return self.roster.wanted() - sum(
            dial.why != "feeler" and dial.since > begun for dial in self.dialling.values()
        )

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
        if wanted > 0 and self._reserve.due(now, low=low):
            for peer, known in self._reserve.peers.items():
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
        if self._reserve.alone_since is not None or now < self._recovering_until:
            for entry in self._best_known():
                if not self._retry.remaining(entry.peer, now):
                    choice.take(entry, [known.addr for known in entry.addrs if known.last_success])
        if self.is_low() and not choice.found and not self.dialling:
            choice = self._choice(now, min(limit, self.targets.low - len(self.peers)))
            choice.any_subnet = choice.any_source = True
            choice.take_from_book()
        return choice.found

    def _may_dial(self, peer: str, now: float) -> bool:
        """Whether a peer of the book may be dialled, wherever it is."""
        return (
            self._free(peer)
            and peer not in self._reserve.peers
            and peer not in self._static
            and not self._left.remaining(peer, now)
            and not self._unwanted.remaining(peer, now)
        )

    def _choice(self, now: float, limit: int) -> Choice:
        return Choice(
            self.book,
            limit,
            per_subnet=self.roster.places(),
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
