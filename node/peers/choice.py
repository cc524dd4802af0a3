"""Whom of the address book the pool dials next. Rules only, no I/O.

The book's order decides, as far as diversity lets it: a subnet has at most `per_subnet` of the outbound places, and of
the peers that were never reached one source at most `per_source`. The pool lifts either when nobody else is left.
"""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

from node.peers.actions import Dial
from node.peers.book import Entry
from node.peers.standing import Peer, subnet


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The pool's settings; their defaults are `Config`'s. Times in seconds, shares of 1."""

    low: int = 20
    target: int = 40
    high: int = 100
    outbound: int = 20
    max_dials: int = 16
    dial_rate: float = 4.0
    grace: float = 30.0
    subnet_share: float = 0.125
    source_share: float = 0.5
    feeler_interval: float = 60.0
    retry_min: float = 1.0
    retry_max: float = 60.0


class Candidates(typing.Protocol):
    """What the pool needs of the address book."""

    def get(self, peer: str) -> Entry | None: ...
    def entries(self) -> Iterator[Entry]: ...
    def __len__(self) -> int: ...
    def candidates(self, limit: int, *, exclude: Container[str] = ()) -> list[Entry]: ...
    def untested(self, limit: int, *, exclude: Container[str] = ()) -> list[Entry]: ...
    def dialable(self, entry: Entry) -> list[str]: ...


class Choice:
    """Candidates for one look, and what there is of each subnet and source already. As a container: who is out of the
    question. `may_try`: whether an address of a peer that was never reached may be dialled (`DialBudget`).
    """

    def __init__(
        self,
        book: Candidates,
        limit: int,
        *,
        per_subnet: int,
        per_source: int,
        peers: Iterable[Peer],
        dials: Iterable[Dial],
        may_dial: Callable[[str], bool],
        may_try: Callable[[str], bool],
        banned: Callable[[str], bool],
    ) -> None:
        self.found: list[tuple[Entry, list[str]]] = []
        self.any_subnet = False
        self.any_source = False
        self._book = book
        self._limit = limit
        self._per_subnet, self._per_source = per_subnet, per_source
        self._may_dial, self._may_try, self._banned = may_dial, may_try, banned
        self._taken: set[str] = set()
        outbound = [peer for peer in peers if peer.outbound]
        self._subnets = Counter(peer.subnet for peer in outbound)
        self._sources = Counter(peer.source for peer in outbound)
        for dial in dials:
            self._subnets.update({subnet(addr) for addr in dial.addrs})
            self._sources[dial.source] += 1

    def __contains__(self, peer: object) -> bool:
        entry = self._book.get(str(peer))
        if entry is None:
            return True
        usable = self._usable(entry, (known.addr for known in entry.addrs))
        return not usable or set(usable).isdisjoint(self._book.dialable(entry))  # which costs more

    def take_from_book(self) -> None:
        """The book's best, until there are enough."""
        while len(self.found) < self._limit:
            batch = self._book.candidates(self._limit - len(self.found), exclude=self)
            if not [entry for entry in batch if self.take(entry, self._book.dialable(entry))]:
                return

    def take(self, entry: Entry, addrs: Sequence[str]) -> bool:
        """Adds a candidate if it is one, with those of its addresses that may be dialled."""
        usable = self._usable(entry, addrs)
        if not usable or len(self.found) >= self._limit:
            return False
        self.found.append((entry, usable))
        self._taken.add(entry.peer)
        self._subnets.update({subnet(addr) for addr in (usable if entry.worked else usable[:1])})
        self._sources["" if entry.worked else entry.source] += 1
        return True

    def _usable(self, entry: Entry, addrs: Iterable[str]) -> list[str]:
        if entry.peer in self._taken or not self._may_dial(entry.peer):
            return []
        if not entry.worked and not self.any_source and self._sources[entry.source] >= self._per_source:
            return []
        return [addr for addr in addrs if self._has_place(addr) and (entry.worked or self._may_try(addr))]

    def _has_place(self, addr: str) -> bool:
        group = subnet(addr)
        if group is not None and not self.any_subnet and self._subnets[group] >= self._per_subnet:
            return False
        return not self._banned(addr)


def host(addr: str) -> str:
    """The IP address or name in a multiaddr."""
    parts = addr.split("/", 3)
    return parts[2] if len(parts) > 2 else addr
