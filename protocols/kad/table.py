"""The routing table: buckets of peers by the length of the prefix that they share with us. Rules only, no I/O.

    add(peer) --room, subnet not crowded--> bucket (at most k)
              \\--full--> the place of a peer that fails or was silent for long, else a spare's (at most k a bucket)
    failed(peer) --third time in a row--> out, the newest spare in

Who was good for long stays: a newcomer takes nobody's place who answers, so an attacker can't push anyone out by being
many. Of one subnet (as the caller names it, None for those that don't count) at most a few are in a bucket and in the
whole table. A peer that failed is named to nobody, but kept for three failures: when our own network fails, everybody
does.

The caller adds only peers that are admitted and serve Kademlia.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass

from protocols.kad.keyspace import BITS, common_prefix, point


@dataclass(frozen=True, kw_only=True)
class TableParams:
    """Bounds of the table. `stale`: seconds of silence after which a newcomer may take a peer's place."""

    k: int = 20
    per_bucket_subnet: int = 2
    per_table_subnet: int = 10
    stale: float = 3600.0
    max_failures: int = 3


@dataclass(slots=True)
class Entry:
    """A peer in the table. `seen`: when it last answered or was connected."""

    peer: bytes
    point: int
    subnet: str | None
    added: float
    seen: float
    failures: int = 0


class _Bucket:
    __slots__ = ("entries", "refreshed", "spares")

    def __init__(self, now: float) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.spares: dict[bytes, Entry] = {}
        self.refreshed = now


class Table:
    """The peers that we know to serve, the near ones in detail. At most `k` in each of 256 buckets."""

    def __init__(self, local: bytes, params: TableParams | None = None) -> None:
        self.local = local
        self.point = point(local)
        self.params = params or TableParams()
        self._buckets: dict[int, _Bucket] = {}
        self._where: dict[bytes, Entry] = {}
        self._subnets: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, peer: bytes) -> bool:
        return peer in self._where

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._where.values())

    def get(self, peer: bytes) -> Entry | None:
        """The peer's entry."""
        return self._where.get(peer)

    def add(self, peer: bytes, now: float, subnet: str | None = None) -> bool:
        """Takes a peer that is known to serve; whether it is in the table now."""
        if peer == self.local:
            return False
        known = self._where.get(peer)
        if known is not None:
            known.seen, known.failures = now, 0
            return True
        entry = Entry(peer, point(peer), subnet, now, now)
        bucket = self._buckets.setdefault(self._index(entry), _Bucket(now))
        if self._put(bucket, entry, now):
            bucket.spares.pop(peer, None)
            return True
        bucket.spares.pop(peer, None)
        bucket.spares[peer] = entry
        if len(bucket.spares) > self.params.k:
            del bucket.spares[next(iter(bucket.spares))]
        return False

    def seen(self, peer: bytes, now: float) -> None:
        """The peer has answered, or is connected."""
        entry = self._where.get(peer)
        if entry is not None:
            entry.seen, entry.failures = now, 0

    def failed(self, peer: bytes, now: float) -> bool:
        """The peer didn't answer; whether that was once too often, and it is out."""
        entry = self._where.get(peer)
        if entry is None:
            bucket = self._buckets.get(min(common_prefix(self.point, point(peer)), BITS - 1))
            if bucket is not None:
                bucket.spares.pop(peer, None)
            return False
        entry.failures += 1
        if entry.failures < self.params.max_failures:
            return False
        self.remove(peer, now)
        return True

    def remove(self, peer: bytes, now: float) -> None:
        """Takes the peer out (it says that it serves no more, is banned, …); a spare may come in."""
        entry = self._where.get(peer)
        if entry is None:
            return
        bucket = self._buckets[self._index(entry)]
        self._drop(bucket, entry)
        for spare in reversed(list(bucket.spares.values())):
            if self._put(bucket, spare, now):
                del bucket.spares[spare.peer]
                return

    def closest(self, target: int, count: int, *, exclude: Container[bytes] = (), failing: bool = False) -> list[bytes]:
        """The peers nearest to a point, nearest first. With `failing`, those that failed lately come after the rest."""
        entries = [entry for entry in self._where.values() if entry.peer not in exclude]
        good = heapq.nsmallest(
            count, (entry for entry in entries if not entry.failures), key=lambda entry: entry.point ^ target
        )
        if failing and len(good) < count:
            rest = (entry for entry in entries if entry.failures)
            good += heapq.nsmallest(count - len(good), rest, key=lambda entry: entry.point ^ target)
        return [entry.peer for entry in good]

    def depth(self) -> int:
        """The longest prefix that a peer in the table shares with us, and 0 if there is none."""
        return max((index for index, bucket in self._buckets.items() if bucket.entries), default=0)

    def due(self, now: float, interval: float, most: int) -> list[int]:
        """The buckets, up to the deepest with a peer but `most`, that weren't refreshed for `interval` seconds."""
        indices = range(min(self.depth(), most) + 1) if self._where else range(0)
        found = []
        for index in indices:
            bucket = self._buckets.get(index)
            if bucket is None or now - bucket.refreshed >= interval:
                found.append(index)
        return found

    def refreshed(self, index: int, now: float) -> None:
        """A bucket has been refreshed."""
        self._buckets.setdefault(index, _Bucket(now)).refreshed = now

    def _index(self, entry: Entry) -> int:
        return min(common_prefix(self.point, entry.point), BITS - 1)

    def _put(self, bucket: _Bucket, entry: Entry, now: float) -> bool:
        victim = self._victim(bucket, now) if len(bucket.entries) >= self.params.k else None
        if len(bucket.entries) >= self.params.k and victim is None:
            return False
        if entry.subnet is not None and self._crowded(bucket, entry.subnet, victim):
            return False
        if victim is not None:
            self._drop(bucket, victim)
        bucket.entries[entry.peer] = self._where[entry.peer] = entry
        if entry.subnet is not None:
            self._subnets[entry.subnet] += 1
        return True

    def _crowded(self, bucket: _Bucket, subnet: str, victim: Entry | None) -> bool:
        less = int(victim is not None and victim.subnet == subnet)
        here = sum(entry.subnet == subnet for entry in bucket.entries.values()) - less
        return here >= self.params.per_bucket_subnet or self._subnets[subnet] - less >= self.params.per_table_subnet

    def _victim(self, bucket: _Bucket, now: float) -> Entry | None:
        worst = max(bucket.entries.values(), key=lambda entry: (entry.failures, -entry.seen))
        return worst if worst.failures or now - worst.seen >= self.params.stale else None

    def _drop(self, bucket: _Bucket, entry: Entry) -> None:
        del bucket.entries[entry.peer], self._where[entry.peer]
        if entry.subnet is not None:
            self._subnets[entry.subnet] -= 1
            if not self._subnets[entry.subnet]:
                del self._subnets[entry.subnet]
