"""What a rendezvous point decides: who may register, who is found, in which order. No I/O; `now` is Unix time.

    REGISTER ---> quotas, TTL, the record's owner --> a row, numbered anew: (peer, namespace, form of its record)
    DISCOVER ---> rows with a higher number than the cookie's, oldest first, at most `limit` and `max_answer` bytes
    time -------> rows end with their TTL

    cookie = number (8 bytes), tag (base64url of 16 bytes of HMAC-SHA256)
             tag: under the point's own key, over the peer that was given the cookie, the namespace it asked, the number

A row that is registered again is found again: its TTL has changed. The first eight bytes of a cookie are free and the
others are text, for rust-libp2p takes no other cookies. A cookie costs the point no memory; in another peer's hands,
for another namespace, or of another point it is refused.

A registration counts with the network that it came from too, its `subnet`: the caller's to say, "" for none. Peer IDs
cost nothing, addresses do.

There are two forms of signed peer records (node.envelopes). A peer's two are two rows, of which a reader of both is
given the standard one.

Every change is told by what the function returns; the caller keeps it (`Row` is what goes to disk) and answers after.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from heapq import heapify, heappop, heappush

from protocols.rate import TokenBucket
from protocols.rendezvous.wire import (
    DEFAULT_TTL,
    MAX_TTL,
    MIN_TTL,
    Discover,
    Discovered,
    Refused,
    Register,
    Registered,
    Status,
)

KEY_BYTES = 32
_TAG = 16
_NUMBER = 8


class Form(StrEnum):
    """How a record is wrapped: as RFC 0003 of libp2p's specification has it, or as rust-libp2p does."""

    STANDARD = "standard"
    LEGACY = "legacy"


BOTH = frozenset(Form)


@dataclass(frozen=True)
class SignedRecord:
    """A signed peer record whose signature was verified. `seq`: the higher, the newer, within a form."""

    peer: str
    seq: int
    addrs: tuple[str, ...]
    form: Form = Form.STANDARD


@dataclass(frozen=True, slots=True)
class Row:
    """One registration. `number` orders them; `expires` is Unix time; `seq` is the record's; `subnet`: where it came
    from."""

    peer: str
    namespace: str
    form: Form
    record: bytes
    seq: int
    number: int
    expires: float
    subnet: str = ""

    @property
    def key(self) -> tuple[str, str, Form]:
        """What there is one row of."""
        return self.peer, self.namespace, self.form

    @property
    def size(self) -> int:
        """Bytes of memory and of an answer, about."""
        return len(self.record) + len(self.namespace) + 32


@dataclass(frozen=True)
class Limits:
    """A point's bounds, all above 0. `max_bytes` holds for all records together; `max_found` and `max_answer` for one
    answer, in registrations and bytes."""

    max_registrations: int = 10_000
    max_per_peer: int = 32
    max_per_namespace: int = 5_000
    max_per_subnet: int = 1_000
    max_bytes: int = 64 << 20
    max_found: int = 1_000
    max_answer: int = 768 * 1024
    min_ttl: int = MIN_TTL
    max_ttl: int = MAX_TTL

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"expected {name} above 0, got {value}")
        if self.min_ttl > self.max_ttl:
            raise ValueError(f"expected min_ttl of at most max_ttl, got {self.min_ttl} and {self.max_ttl}")


class _Order:
    """Rows by number, which only grows. What is taken out leaves a gap until gaps are half of it."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._rows: dict[int, Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, row: Row) -> None:
        self._numbers.append(row.number)
        self._rows[row.number] = row

    def remove(self, row: Row) -> None:
        del self._rows[row.number]
        if len(self._numbers) > 2 * len(self._rows) + 16:
            self._numbers = list(self._rows)

    def after(self, number: int) -> Iterator[Row]:
        for index in range(bisect_right(self._numbers, number), len(self._numbers)):
            row = self._rows.get(self._numbers[index])
            if row is not None:
                yield row


class Registrations:
    """The registrations of one point."""

    def __init__(self, limits: Limits, key: bytes, rows: Iterable[Row] = (), next_number: int = 1) -> None:
        """`rows` are those that were kept, and `next_number` was kept with them: numbers are never used twice. Rows
        beyond what the limits now allow stay until they expire."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"expected a key of {KEY_BYTES} bytes, got {len(key)}")
        self.limits = limits
        self.next_number = next_number
        self.bytes = 0
        self.no_room: Counter[str] = Counter()  # by the limit that said no
        self._key = key
        self._rows: dict[tuple[str, str, Form], Row] = {}
        self._all = _Order()
        self._by_namespace: dict[str, _Order] = {}
        self._per_peer: Counter[tuple[str, Form]] = Counter()
        self._per_subnet: Counter[str] = Counter()
        self._ends: list[tuple[float, int, tuple[str, str, Form]]] = []
        for row in sorted(rows, key=lambda row: row.number):
            self._drop(row.key)
            self._keep(row)
            self.next_number = max(self.next_number, row.number + 1)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        """All rows, oldest first."""
        return self.after(0)

    def after(self, number: int, namespace: str | None = None) -> Iterator[Row]:
        """The rows with higher numbers, of all namespaces or one, oldest first."""
        rows = self._all if namespace is None else self._by_namespace.get(namespace, _Order())
        return rows.after(number)

    def forms(self, peer: str) -> frozenset[Form]:
        """The forms of a peer's records that are registered."""
        return frozenset(form for form in Form if (peer, form) in self._per_peer)

    def register(
        self, peer: str, asked: Register, signed: SignedRecord, now: float, subnet: str = ""
    ) -> tuple[Row, Registered]:
        """The row that is to be kept, and the answer. Raises Refused."""
        if signed.peer != peer:
            raise Refused(Status.NOT_AUTHORIZED, f"expected the record of {peer}, who asks, got that of {signed.peer}")
        limits = self.limits
        ttl = DEFAULT_TTL if asked.ttl is None else asked.ttl
        if asked.ttl is None:
            ttl = min(max(ttl, limits.min_ttl), limits.max_ttl)
        if not limits.min_ttl <= ttl <= limits.max_ttl:
            text = f"expected a TTL of {limits.min_ttl} to {limits.max_ttl} seconds, got {ttl}"
            raise Refused(Status.INVALID_TTL, text)
        key = peer, asked.namespace, signed.form
        old = self._rows.get(key)
        if old is not None and signed.seq < old.seq and old.expires > now:
            text = f"expected a record with seq {old.seq} or higher, got {signed.seq}"
            raise Refused(Status.INVALID_SIGNED_PEER_RECORD, text)
        row = Row(peer, asked.namespace, signed.form, asked.record, signed.seq, self.next_number, now + ttl, subnet)
        self._check_room(row, old)
        self._drop(key)
        self.next_number += 1
        self._keep(row)
        return row, Registered(ttl)

    def unregister(self, peer: str, namespace: str) -> list[Row]:
        """The rows that end."""
        return [row for form in Form if (row := self._drop((peer, namespace, form))) is not None]

    def discover(self, peer: str, asked: Discover, now: float, forms: Collection[Form] = BOTH) -> Discovered:
        """The answer to `peer`, which can read records of these forms. Raises Refused."""
        number = self._number(peer, asked)
        limit = min(asked.limit or self.limits.max_found, self.limits.max_found)
        room = self.limits.max_answer
        found: list[Register] = []
        for row in self.after(number, asked.namespace):
            if len(found) >= limit or row.size > room:
                break
            number = row.number
            left = int(row.expires - now)
            twice = row.form is Form.LEGACY and Form.STANDARD in forms
            if left < 1 or row.form not in forms or (twice and (row.peer, row.namespace, Form.STANDARD) in self._rows):
                continue
            found.append(Register(row.namespace, row.record, left))
            room -= row.size
        return Discovered(tuple(found), self._cookie(peer, asked.namespace, number))

    def expire(self, now: float) -> list[Row]:
        """The rows whose time is over."""
        over: list[Row] = []
        while self._ends and self._ends[0][0] <= now:
            _, number, key = heappop(self._ends)
            row = self._rows.get(key)
            if row is not None and row.number == number:
                self._drop(key)
                over.append(row)
        return over

    def most(self) -> tuple[int, int, int]:
        """The registrations of the peer that has most, of the namespace that has most, and of such a subnet."""
        peers: Counter[str] = Counter()
        for (peer, _), count in self._per_peer.items():
            peers[peer] += count
        namespace = max(map(len, self._by_namespace.values()), default=0)
        return max(peers.values(), default=0), namespace, max(self._per_subnet.values(), default=0)

    @property
    def next_expiry(self) -> float | None:
        """When `expire` is worth calling again, at the earliest."""
        return self._ends[0][0] if self._ends else None

    def _check_room(self, row: Row, old: Row | None) -> None:
        limits = self.limits
        if old is None:
            namespace = len(self._by_namespace.get(row.namespace, ()))
            peers = sum(self._per_peer.get((row.peer, form), 0) for form in Form)
            for name, used, most, what in (
                ("max_per_peer", peers, limits.max_per_peer, "registrations of one peer"),
                ("max_per_namespace", namespace, limits.max_per_namespace, "registrations in one namespace"),
                ("max_registrations", len(self._rows), limits.max_registrations, "registrations"),
            ):
                if used >= most:
                    self.no_room[name] += 1
                    raise Refused(Status.UNAVAILABLE, f"this point takes {most} {what}, and has them")
        if (old is None or row.subnet != old.subnet) and self._per_subnet[row.subnet] >= limits.max_per_subnet:
            self.no_room["max_per_subnet"] += 1
            text = f"this point takes {limits.max_per_subnet} registrations from {row.subnet}, and has them"
            raise Refused(Status.UNAVAILABLE, text)
        if self.bytes + row.size - (old.size if old else 0) > limits.max_bytes:
            raise Refused(Status.UNAVAILABLE, f"this point takes {limits.max_bytes} bytes of records, and has them")

    def _keep(self, row: Row) -> None:
        self._rows[row.key] = row
        self._all.append(row)
        self._by_namespace.setdefault(row.namespace, _Order()).append(row)
        self._per_peer[row.peer, row.form] += 1
        if row.subnet:
            self._per_subnet[row.subnet] += 1
        self.bytes += row.size
        heappush(self._ends, (row.expires, row.number, row.key))
        if len(self._ends) > 2 * len(self._rows) + 64:  # of rows that were registered again before their end
            self._ends = [(row.expires, row.number, row.key) for row in self._rows.values()]
            heapify(self._ends)

    def _drop(self, key: tuple[str, str, Form]) -> Row | None:
        row = self._rows.pop(key, None)
        if row is None:
            return None
        self._all.remove(row)
        rows = self._by_namespace[row.namespace]
        rows.remove(row)
        if not rows:
            del self._by_namespace[row.namespace]
        self._per_peer[row.peer, row.form] -= 1
        if not self._per_peer[row.peer, row.form]:
            del self._per_peer[row.peer, row.form]
        if row.subnet:
            self._per_subnet[row.subnet] -= 1
            if not self._per_subnet[row.subnet]:
                del self._per_subnet[row.subnet]
        self.bytes -= row.size
        return row

    # cookies

    def _cookie(self, peer: str, namespace: str | None, number: int) -> bytes:
        head = number.to_bytes(_NUMBER, "big")
        name = b"*" if namespace is None else b"=" + namespace.encode()
        said = b"\x00".join((b"vouch rendezvous cookie", peer.encode(), head, name))
        tag = hmac.digest(self._key, said, hashlib.sha256)[:_TAG]
        return head + base64.urlsafe_b64encode(tag)

    def _number(self, peer: str, asked: Discover) -> int:
        if not asked.cookie:
            return 0
        number = int.from_bytes(asked.cookie[:_NUMBER], "big")
        if not hmac.compare_digest(asked.cookie, self._cookie(peer, asked.namespace, number)):
            text = "expected a cookie that this point gave you for this namespace"
            raise Refused(Status.INVALID_COOKIE, text, discover=True)
        return number


class Rates:
    """How many questions each peer may ask: `rate` a second, `burst` at once. `now` is any clock that goes forward.

    Remembers `capacity` peers, of which those asked longest ago go first; who comes back then has its burst again."""

    def __init__(self, rate: float, burst: float, capacity: int = 4096) -> None:
        self._rate, self._burst, self._capacity = rate, burst, capacity
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def allows(self, peer: str, now: float) -> bool:
        """Whether one more question may be answered now; if not, it costs nothing."""
        bucket = self._buckets.get(peer)
        if bucket is None:
            if len(self._buckets) >= self._capacity:
                self._buckets.popitem(last=False)
            bucket = self._buckets[peer] = TokenBucket(self._rate, self._burst, now)
        self._buckets.move_to_end(peer)
        if bucket.take(now):
            bucket.give_back()
            return False
        return True
