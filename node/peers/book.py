"""What is known of peers, in memory: addresses and how they fared, and who goes when there are too many. No I/O.

Each peer is on one of three shelves, each in the order of `last_seen`:

    heard     others told of it                          it goes first
    seen      it has spoken with us (it dialled us)      at most SEEN_SHARE of the places
    worked    we have reached it by one of its addresses at most WORKED_SHARE of the places

Eviction. A full shelf lets its own last one go. When the book is full a newcomer takes the place of a peer that was
only heard of: of the source that fills most places, one that couldn't be reached, else the one heard of longest ago. So
a flood of new peers pushes out no peer that worked, and one source's flood first of all its own. Peers that are static,
protected or connected (PINNED, `connected`) never go; a newcomer for whom nobody can go is not taken. Each eviction
costs the same, however large the book is.

Of a peer's addresses (MAX_ADDRS) those that never worked, or failed STALE times in a row since, go first: the one with
most failures, then the oldest. A new address never takes the place of one that works.

Backoff, for each address and for the peer as a whole: n failures in a row: `first_wait` * 2^(n-1), at most
`longest_wait`, and up to a quarter more by chance. A success forgets them.

`now` is wall time in seconds, from the caller, and may jump: times to come further than any wait count as past.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from node.peers.record import record_seq
from node.peers.shelves import Heard, Shelf
from protocols import ProtocolError

MAX_PEERS = 10_000
MAX_ADDRS = 16
MAX_ADDR = 512  # bytes of an address in text
MAX_PEER = 128
MAX_SOURCE = 128
MAX_RECORD = 4096  # sixteen addresses, key and signature are less
MAX_PROTOCOLS = 64
MAX_TEXT = 256
MAX_TAGS = 16
STALE = 3
FIRST_WAIT = 5.0
LONGEST_WAIT = 600.0
JITTER = 0.25
WORKED_SHARE = 0.75
SEEN_SHARE = 0.125
PINNED = frozenset({"static", "protected"})

_ADDR = re.compile(r"(/[!-~]+)?")


@dataclass(frozen=True, slots=True)
class KnownAddr:
    """An address of a peer, without /p2p/PEER. Times are wall time in seconds, 0 for never; `failures` are in a row."""

    addr: str
    source: str
    last_success: float = 0.0
    last_failure: float = 0.0
    failures: int = 0
    not_before: float = 0.0

    @property
    def worked(self) -> bool:
        """Whether it worked, and hasn't failed STALE times since."""
        return self.last_success > 0 and self.failures < STALE


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a peer. `last_seen`: when it was last connected or heard of by itself, 0 for never; `failures`
    and `not_before`: dials of the peer as a whole; `added`: when it came into the book.
    """

    peer: str
    addrs: tuple[KnownAddr, ...] = ()
    last_seen: float = 0.0
    record: bytes | None = None
    record_seq: int = -1
    protocols: tuple[str, ...] = ()
    agent: str = ""
    tags: frozenset[str] = frozenset()
    source: str = ""
    failures: int = 0
    not_before: float = 0.0
    added: float = 0.0

    @property
    def last_success(self) -> float:
        """When we last reached it, 0 for never."""
        return max((known.last_success for known in self.addrs), default=0.0)

    @property
    def worked(self) -> bool:
        """Whether we ever reached it by an address that is still known."""
        return any(known.last_success for known in self.addrs)

    def dialable(self, now: float, longest_wait: float = LONGEST_WAIT) -> list[str]:
        """The addresses whose backoff is over, best first; none while the peer's own isn't."""
        if waits(self.not_before, now, longest_wait):
            return []
        ready = [known for known in self.addrs if not waits(known.not_before, now, longest_wait)]
        ready.sort(key=lambda known: (not known.worked, known.failures, -known.last_success))
        return [known.addr for known in ready]


def waits(not_before: float, now: float, longest_wait: float = LONGEST_WAIT) -> bool:
    """Whether a backoff still runs. One that is longer than any is a clock that was set back, and over."""
    return now < not_before <= now + longest_wait * (1 + JITTER)


def plain_addr(addr: str, peer: str) -> str:
    """An address without /p2p/PEER at its end; "" if it isn't one, or another peer's."""
    if len(addr) > MAX_ADDR or not _ADDR.fullmatch(addr):
        return ""
    before, named, last = addr.rpartition("/p2p/")
    if not named or "/" in last:  # none at the end: of a relay, say
        return addr
    return before if last == peer else ""


class Book:
    """Bounded in peers and in what is kept of each. `connected` tells who is never evicted, beside PINNED.

    `changed` is told the ID of each peer that is new, different or gone: what keeps the book on disk.
    """

    def __init__(
        self,
        max_peers: int = MAX_PEERS,
        *,
        rng: random.Random | None = None,
        first_wait: float = FIRST_WAIT,
        longest_wait: float = LONGEST_WAIT,
        changed: Callable[[str], None] = lambda _peer: None,
    ) -> None:
        if max_peers < 1:
            raise ValueError(f"expected room for at least 1 peer, got {max_peers}")
        self.max_peers = max_peers
        self.first_wait = first_wait
        self.longest_wait = longest_wait
        self.connected: Callable[[str], bool] = lambda _peer: False
        self.evicted = 0
        self.refused = 0
        self._rng = rng or random.Random()
        self._changed = changed
        self._entries: dict[str, Entry] = {}
        self._worked = Shelf(max(1, int(max_peers * WORKED_SHARE)))
        self._seen = Shelf(max(1, int(max_peers * SEEN_SHARE)))
        self._heard = Heard()

    # what is learned

    def learn(self, peer: str, addrs: Iterable[str], source: str, now: float, *, record: bytes | None = None) -> bool:
        """Somebody told of a peer. `record`: its signed record, whose signature the caller has checked; one whose
        number isn't higher than what is known changes nothing.

        Whether the peer is in the book now. Raises ProtocolError for a record that isn't one, or another peer's.
        """
        seq = record_seq(record, peer) if record is not None else -1
        entry = self._entries.get(peer)
        if entry is None:
            if not self._make_room(peer):
                self.refused += 1
                return False
            entry = Entry(peer, source=source[:MAX_SOURCE], added=now)
        changed = entry
        if record is not None and seq > entry.record_seq and len(record) <= MAX_RECORD:
            changed = replace(changed, record=record, record_seq=seq)
        changed = replace(changed, addrs=_with(changed, addrs, source[:MAX_SOURCE]))
        self._put(changed)
        return True

    def succeeded(self, peer: str, addr: str, now: float) -> None:
        """We have reached the peer at an address, which is learned if it wasn't known."""
        addr = plain_addr(addr, peer)
        if not addr or not self._known_or_taken(peer, now, "dial"):
            return
        entry = self._entries[peer]
        addrs = {known.addr: known for known in entry.addrs}
        if addr not in addrs:
            keep = sorted(entry.addrs, key=_keep_first)[: MAX_ADDRS - 1]
            addrs = {known.addr: known for known in entry.addrs if known in keep}
        known = addrs.get(addr) or KnownAddr(addr, "dial")
        addrs[addr] = replace(known, last_success=now, failures=0, not_before=0.0)
        self._put(replace(entry, addrs=tuple(addrs.values()), last_seen=now, failures=0, not_before=0.0), touched=True)

    def failed(self, peer: str, addr: str, now: float) -> None:
        """An address didn't answer, or didn't lead to the peer. Without an address: the peer as a whole, because none
        of its addresses answered or it refused us. Nothing of what isn't known is remembered.
        """
        entry = self._entries.get(peer)
        if entry is None:
            return
        if not addr:
            entry = replace(entry, failures=entry.failures + 1, not_before=now + self._wait(entry.failures))
        else:
            addr = plain_addr(addr, peer)
            if not any(known.addr == addr for known in entry.addrs):
                return
            entry = replace(
                entry, addrs=tuple(self._after_failure(a, now) if a.addr == addr else a for a in entry.addrs)
            )
        self._put(entry)
        self._heard.worse(peer)

    def forgive(self, since: float) -> None:
        """Ends the backoffs of what failed at `since` or later: it was our own network that was away."""
        for entry in self.entries():
            if any(known.not_before and known.last_failure >= since for known in entry.addrs):
                addrs = tuple(replace(a, not_before=0.0) if a.last_failure >= since else a for a in entry.addrs)
                self._put(replace(entry, addrs=addrs, not_before=0.0))

    def seen(self, peer: str, now: float, source: str = "inbound") -> None:
        """The peer is connected now, or was heard of by itself."""
        if self._known_or_taken(peer, now, source):
            self._put(replace(self._entries[peer], last_seen=now), touched=True)

    def describe(self, peer: str, *, protocols: Sequence[str] = (), agent: str = "") -> None:
        """What a known peer says of itself."""
        entry = self._entries.get(peer)
        if entry is not None:
            kept = tuple(protocol for protocol in protocols if len(protocol) <= MAX_TEXT)[:MAX_PROTOCOLS]
            self._put(replace(entry, protocols=kept, agent=_text(agent)))

    def tag(self, peer: str, tag: str) -> bool:
        """Marks a known peer, at most MAX_TAGS times; whether it is marked so now."""
        entry = self._entries.get(peer)
        if entry is None or (tag not in entry.tags and len(entry.tags) >= MAX_TAGS) or len(tag) > MAX_TEXT:
            return False
        self._put(replace(entry, tags=entry.tags | {tag}))
        return True

    def untag(self, peer: str, tag: str) -> None:
        """Takes a mark away."""
        entry = self._entries.get(peer)
        if entry is not None:
            self._put(replace(entry, tags=entry.tags - {tag}))

    def remove(self, peer: str) -> bool:
        """Forgets a peer; whether it was known."""
        known = self._entries.pop(peer, None) is not None
        if known:
            for shelf in (self._worked, self._seen, self._heard):
                shelf.remove(peer)
            self._changed(peer)
        return known

    def restore(self, entries: Iterable[Entry], now: float) -> int:
        """Entries of a file, joined with what is known. How many of them are in the book now."""
        taken = 0
        for entry in sorted(entries, key=lambda entry: (entry.last_seen, entry.added)):
            entry = _bounded(entry, now)
            known = self._entries.get(entry.peer)
            if known is not None:
                entry = _joined(known, entry)
            elif not self._make_room(entry.peer):
                self.refused += 1
                continue
            self._put(entry, touched=entry.last_seen > (known.last_seen if known else 0.0))
            taken += 1
        return taken

    # what is known

    def get(self, peer: str) -> Entry | None:
        return self._entries.get(peer)

    def entries(self) -> Iterator[Entry]:
        """All of them; the book may change meanwhile."""
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, peer: object) -> bool:
        return peer in self._entries

    def candidates(self, limit: int, now: float, *, exclude: Container[str] = ()) -> list[Entry]:
        """At most `limit` peers that may be dialled now: those that worked, then those that were seen, the last seen
        first; then those heard of, by turns from each source.
        """
        found: list[Entry] = []
        if limit < 1:
            return found
        for peer in self._best_first():
            entry = self._entries[peer]
            if peer not in exclude and entry.dialable(now, self.longest_wait):
                found.append(entry)
                if len(found) == limit:
                    break
        return found

    def untested(self, limit: int, now: float, *, exclude: Container[str] = ()) -> list[Entry]:
        """As `candidates`, of the peers that we have never reached."""
        found: list[Entry] = []
        for peer in (*reversed(self._seen), *self._heard.by_turns(self._rng)):
            if len(found) >= limit:
                break
            entry = self._entries[peer]
            if peer not in exclude and entry.dialable(now, self.longest_wait):
                found.append(entry)
        return found

    # the rules

    def _best_first(self) -> Iterator[str]:
        yield from reversed(self._worked)
        yield from reversed(self._seen)
        yield from self._heard.by_turns(self._rng)

    def _pinned(self, peer: str) -> bool:
        entry = self._entries.get(peer)
        return entry is not None and (not PINNED.isdisjoint(entry.tags) or self.connected(peer))

    def _known_or_taken(self, peer: str, now: float, source: str) -> bool:
        if peer in self._entries:
            return True
        return self.learn(peer, (), source, now)

    def _make_room(self, peer: str) -> bool:
        """Whether there is a place for a peer that isn't known."""
        if not peer or len(peer) > MAX_PEER:
            return False
        if len(self._entries) < self.max_peers:
            return True
        victim = self._heard.worst(self._pinned)
        if victim is None:
            return False
        self._evict(victim)
        return True

    def _evict(self, peer: str) -> None:
        self.evicted += 1
        self.remove(peer)

    def _put(self, entry: Entry, *, touched: bool = False) -> None:
        """Keeps an entry, on its shelf, at the shelf's end if it is `touched`."""
        peer = entry.peer
        if self._entries.get(peer) == entry:
            return
        self._entries[peer] = entry
        self._changed(peer)
        if entry.worked:
            self._seen.remove(peer)
            self._heard.remove(peer)
            self._onto(self._worked, peer, touched)
        elif entry.last_seen:
            self._worked.remove(peer)
            self._heard.remove(peer)
            self._onto(self._seen, peer, touched)
        else:
            self._worked.remove(peer)
            self._seen.remove(peer)
            self._heard.put(peer, entry.source)

    def _onto(self, shelf: Shelf, peer: str, touched: bool) -> None:
        shelf.put(peer, touched)
        if len(shelf) > shelf.places:
            victim = shelf.worst(lambda other: other == peer or self._pinned(other))
            if victim is not None:
                self._evict(victim)

    def _wait(self, failures: int) -> float:
        wait = min(self.first_wait * 2.0 ** min(failures, 62), self.longest_wait)
        return wait * (1 + JITTER * self._rng.random())

    def _after_failure(self, known: KnownAddr, now: float) -> KnownAddr:
        wait = self._wait(known.failures)
        return replace(known, last_failure=now, failures=known.failures + 1, not_before=now + wait)


def _text(text: str) -> str:
    return text[:MAX_TEXT].encode(errors="replace").decode()


def _keep_first(known: KnownAddr) -> tuple[bool, int]:
    """The order of a peer's addresses when some must go; stable, so that of equals the newest is given last."""
    return not known.worked, known.failures


def _with(entry: Entry, addrs: Iterable[str], source: str) -> tuple[KnownAddr, ...]:
    """The addresses of an entry with new ones, of which MAX_ADDRS are looked at."""
    known = {a.addr: a for a in entry.addrs}
    fresh: dict[str, KnownAddr] = {}
    for text in addrs:
        addr = plain_addr(text, entry.peer)
        if addr and addr not in known and addr not in fresh:
            fresh[addr] = KnownAddr(addr, source)
            if len(fresh) == MAX_ADDRS:
                break
    if not fresh:
        return entry.addrs
    # worked ones first, then the newest of those with fewest failures
    kept = sorted((*reversed(fresh.values()), *reversed(entry.addrs)), key=_keep_first)[:MAX_ADDRS]
    names = {a.addr for a in kept}
    return tuple(a for a in (*entry.addrs, *fresh.values()) if a.addr in names)


def _joined(one: Entry, other: Entry) -> Entry:
    """What two entries know of one peer; the later outcome of each address holds."""
    addrs = {a.addr: a for a in one.addrs}
    for a in other.addrs:
        mine = addrs.get(a.addr)
        if mine is None or (a.last_success, a.last_failure) > (mine.last_success, mine.last_failure):
            addrs[a.addr] = a
    newest = max(one, other, key=lambda entry: entry.record_seq)
    kept = sorted(addrs.values(), key=_keep_first)[:MAX_ADDRS]
    return replace(
        one,
        addrs=tuple(a for a in addrs.values() if a in kept),
        last_seen=max(one.last_seen, other.last_seen),
        record=newest.record,
        record_seq=newest.record_seq,
        protocols=one.protocols or other.protocols,
        agent=one.agent or other.agent,
        tags=frozenset(sorted(one.tags | other.tags)[:MAX_TAGS]),
    )


def _bounded(entry: Entry, now: float) -> Entry:
    """An entry of a file, within the book's bounds: nothing was later than now, and a record is one."""
    addrs: dict[str, KnownAddr] = {}
    for a in entry.addrs:
        addr = plain_addr(a.addr, entry.peer)
        if addr and addr not in addrs:
            success, failure = min(a.last_success, now), min(a.last_failure, now)
            addrs[addr] = replace(
                a, addr=addr, source=a.source[:MAX_SOURCE], last_success=success, last_failure=failure
            )
    record, seq = entry.record, -1
    if record is not None:
        try:
            seq = record_seq(record, entry.peer)
        except ProtocolError:
            record = None
    if record is not None and len(record) > MAX_RECORD:
        record, seq = None, -1
    return replace(
        entry,
        addrs=tuple(sorted(addrs.values(), key=_keep_first)[:MAX_ADDRS]),
        last_seen=min(entry.last_seen, now),
        added=min(entry.added, now) or now,
        record=record,
        record_seq=seq,
        protocols=tuple(p for p in entry.protocols if len(p) <= MAX_TEXT)[:MAX_PROTOCOLS],
        agent=_text(entry.agent),
        tags=frozenset(sorted(tag for tag in entry.tags if len(tag) <= MAX_TEXT)[:MAX_TAGS]),
        source=entry.source[:MAX_SOURCE],
    )
