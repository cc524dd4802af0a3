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
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import replace

from node.peers.entry import (
    JITTER,
    LONGEST_WAIT,
    MAX_ADDRS,
    MAX_PEER,
    MAX_PROTOCOLS,
    MAX_RECORD,
    MAX_SOURCE,
    MAX_TAGS,
    MAX_TEXT,
    Entry,
    KnownAddr,
    bounded,
    bounded_text,
    joined,
    keep_first,
    plain_addr,
    with_addrs,
)
from node.peers.record import record_seq
from node.peers.shelves import Heard, Shelf

__all__ = ["LONGEST_WAIT", "Book", "Entry", "KnownAddr"]

MAX_PEERS = 10_000
FIRST_WAIT = 5.0
WORKED_SHARE = 0.75
SEEN_SHARE = 0.125
PINNED = frozenset({"static", "protected"})


class Book:
    """Bounded in peers and in what is kept of each. `connected` tells who is never evicted, beside PINNED, and `banned`
    who is no candidate.

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
        self.banned: Callable[[str], bool] = lambda _peer: False
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
        source = bounded_text(source)[:MAX_SOURCE]
        seq = record_seq(record, peer) if record is not None else -1
        entry = self._entries.get(peer)
        if entry is None:
            if not self._make_room(peer):
                self.refused += 1
                return False
            entry = Entry(peer, source=source, added=now)
        changed = entry
        if record is not None and seq > entry.record_seq and len(record) <= MAX_RECORD:
            changed = replace(changed, record=record, record_seq=seq)
        changed = replace(changed, addrs=with_addrs(changed, addrs, source))
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
            keep = sorted(entry.addrs, key=keep_first)[: MAX_ADDRS - 1]
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
            kept = tuple(bounded_text(protocol) for protocol in protocols if len(protocol) <= MAX_TEXT)[:MAX_PROTOCOLS]
            self._put(replace(entry, protocols=kept, agent=bounded_text(agent)))

    def tag(self, peer: str, tag: str) -> bool:
        """Marks a known peer, at most MAX_TAGS times; whether it is marked so now."""
        entry, tag = self._entries.get(peer), bounded_text(tag)
        if entry is None or (tag not in entry.tags and len(entry.tags) >= MAX_TAGS):
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
            entry = bounded(entry, now)
            known = self._entries.get(entry.peer)
            if known is not None:
                entry = joined(known, entry)
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

    @property
    def worked(self) -> int:
        """How many of them we have reached once."""
        return len(self._worked)

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
            if self._may_be_dialled(entry, exclude, now):
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
            if self._may_be_dialled(entry, exclude, now):
                found.append(entry)
        return found

    # the rules

    def _may_be_dialled(self, entry: Entry, exclude: Container[str], now: float) -> bool:
        # in this order: with our own network away all of them wait, and what the caller excludes costs it more to say
        return (
            bool(entry.dialable(now, self.longest_wait)) and entry.peer not in exclude and not self.banned(entry.peer)
        )

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
        if not peer or len(peer) > MAX_PEER or not peer.isascii():
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
