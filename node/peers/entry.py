"""An entry of the address book: what is known of one peer, within its bounds. Rules only, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from node.peers.record import record_seq
from protocols import ProtocolError

MAX_ADDRS = 16
MAX_ADDR = 512  # bytes of an address in text
MAX_PEER = 128
MAX_SOURCE = 128
MAX_RECORD = 4096  # sixteen addresses, key and signature are less
MAX_PROTOCOLS = 64
MAX_TEXT = 256
MAX_TAGS = 16
STALE = 3
LONGEST_WAIT = 600.0
JITTER = 0.25

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
        for known in self.addrs:  # noqa: SIM110  asked of many peers at a time: a generator takes three times as long
            if known.last_success:
                return True
        return False

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


def bounded_text(text: str) -> str:
    return text[:MAX_TEXT].encode(errors="replace").decode()


def keep_first(known: KnownAddr) -> tuple[bool, int]:
    """The order of a peer's addresses when some must go; stable, so that of equals the newest is given last."""
    return not known.worked, known.failures


def with_addrs(entry: Entry, addrs: Iterable[str], source: str) -> tuple[KnownAddr, ...]:
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
    kept = sorted((*reversed(fresh.values()), *reversed(entry.addrs)), key=keep_first)[:MAX_ADDRS]
    names = {a.addr for a in kept}
    return tuple(a for a in (*entry.addrs, *fresh.values()) if a.addr in names)


def joined(one: Entry, other: Entry) -> Entry:
    """What two entries know of one peer; the later outcome of each address holds."""
    addrs = {a.addr: a for a in one.addrs}
    for a in other.addrs:
        mine = addrs.get(a.addr)
        if mine is None or (a.last_success, a.last_failure) > (mine.last_success, mine.last_failure):
            addrs[a.addr] = a
    newest = max(one, other, key=lambda entry: entry.record_seq)
    kept = sorted(addrs.values(), key=keep_first)[:MAX_ADDRS]
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


def bounded(entry: Entry, now: float) -> Entry:
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
        addrs=tuple(sorted(addrs.values(), key=keep_first)[:MAX_ADDRS]),
        last_seen=min(entry.last_seen, now),
        added=min(entry.added, now) or now,
        record=record,
        record_seq=seq,
        protocols=tuple(p for p in entry.protocols if len(p) <= MAX_TEXT)[:MAX_PROTOCOLS],
        agent=bounded_text(entry.agent),
        tags=frozenset(sorted(tag for tag in entry.tags if len(tag) <= MAX_TEXT)[:MAX_TAGS]),
        source=entry.source[:MAX_SOURCE],
    )
