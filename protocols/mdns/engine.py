"""When to ask and when to tell on one link, and which peers are known there. Rules only: no sockets, no clock.

    start --20 to 120 ms--> ask, tell --+--1, 3, 9, 27 ... seconds, at most `interval`, with jitter--> ask again
                                        +--1 s--> tell once more (RFC 6762, 8.3)
    somebody asks --20 to 120 ms, at least 1 s after the last time--> tell, unless they know (7.1)
    somebody asks what we would --> our own question waits for its next turn, all hear the answers (7.4)

    received(bytes, now) -> peers that are new, or have other addresses than before
    wake(now)            -> packets to send;  next_wakeup: when to call it again

Bounds: one question and two answers a second out; `packets_per_second` in, of those that look like ours, a quarter of
them of one sender; `max_peers` remembered, each until its time to live is over. Who sends more isn't heard.
"""

from __future__ import annotations

import math
import random
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from protocols.mdns import wire
from protocols.mdns.wire import Found, Known
from protocols.rate import TokenBucket

NEVER = math.inf
# seconds: answers that many would give at once are spread (RFC 6762, 6); nothing is told twice within MIN_PAUSE
SPREAD = 0.02, 0.12
MIN_PAUSE = 1.0
# between questions, times GROWTH each, until they are `interval` apart
FIRST_PAUSE = 1.0
GROWTH = 3.0
JITTER = 0.2
# questions that are asked whoever else asks: at the start somebody's answers may be lost
OWN_QUESTIONS = 2
ANNOUNCEMENTS = 2
# a peer stays known for no longer than this, whatever it says
MAX_TTL = 3600.0
# of what is heard a second, what one sender may take; of how many senders that is known
SENDERS_SHARE = 0.25
MAX_SENDERS = 64


def _all(found: Found) -> Sequence[str]:
    return found.addrs


@dataclass(frozen=True)
class Params:
    """What an operator may change. Seconds, and counts."""

    interval: float = 60.0
    ttl: float = 120.0
    max_peers: int = 256
    packets_per_second: float = 50.0
    burst: float = 100.0


@dataclass
class _Peer:
    addrs: tuple[str, ...]
    name: str
    expires: float
    ttl: float


class _Turn:
    """When something is said next, and when it was last: at least MIN_PAUSE lies between."""

    def __init__(self) -> None:
        self.due = NEVER
        self.last = -NEVER

    def at(self, when: float) -> None:
        self.due = min(self.due, max(when, self.last + MIN_PAUSE))

    def take(self, now: float) -> bool:
        if now < self.due:
            return False
        self.due, self.last = NEVER, now
        return True


class Engine:
    """One link: an interface, and one of IPv4 and IPv6."""

    def __init__(
        self,
        service: str,
        peer: str,
        addrs: Callable[[], Sequence[str]],
        *,
        now: float,
        params: Params | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`addrs` are ours on this link at any time, without /p2p/PEER; with none, we only ask."""
        self.service = service
        self.peer = peer
        self.params = params or Params()
        self._addrs = addrs
        self._rng = rng or random.Random()
        self.name = "".join(self._rng.choices(string.ascii_lowercase + string.digits, k=self._rng.randint(32, 63)))
        self._bucket = TokenBucket(self.params.packets_per_second, self.params.burst, now)
        self._senders: dict[str, TokenBucket] = {}
        self._ask, self._tell, self._list = _Turn(), _Turn(), _Turn()
        self._pause = FIRST_PAUSE
        self._asked = 0
        self._announcements = ANNOUNCEMENTS
        self._told: tuple[str, ...] = ()
        self._peers: dict[str, _Peer] = {}
        self.ignored = 0
        self._ask.at(now + self._spread())
        self._tell.at(now + self._spread())

    @property
    def next_wakeup(self) -> float:
        """When `wake` has something to say next."""
        return min(self._ask.due, self._tell.due, self._list.due)

    def wake(self, now: float) -> list[bytes]:
        """The packets that are due."""
        packets: list[bytes] = []
        if self._ask.take(now):
            packets += wire.query(self.service, self._known_answers(now))
            self._asked += 1
            self._ask_later(now)
        if self._tell.take(now):
            packets += self._answer(self.params.ttl)
            self._announcements -= 1
            if self._announcements > 0:
                self._tell.at(now)
        if self._list.take(now) and self._addrs():
            packets.append(wire.services(self.service, self.params.ttl))
        return packets

    def received(
        self, data: bytes, now: float, sender: str = "", usable: Callable[[Found], Sequence[str]] = _all
    ) -> list[Found]:
        """The peers that a packet tells of, if they are new or have moved. Takes any bytes.

        `sender` is the address that it came from. `usable` says which of a peer's addresses are worth remembering;
        without any it isn't.
        """
        if not wire.concerns(data, self.service):
            return []
        if not self._is_heard(sender, now):
            self.ignored += 1
            return []
        packet = wire.decode(data, self.service)
        if isinstance(packet, wire.Query):
            self._asked_by_other(packet, now)
            return []
        peers = (found for found in packet or () if found.peer != self.peer)
        told = (replace(found, addrs=tuple(usable(found))) for found in peers)
        return [found for found in told if self._learn(found, now)]

    @property
    def peers(self) -> int:
        """How many are remembered."""
        return len(self._peers)

    def known(self, now: float) -> list[Found]:
        """The peers whose answers still hold."""
        self._expire(now)
        return [Found(peer, known.addrs, known.expires - now, known.name) for peer, known in self._peers.items()]

    def ask_now(self, now: float) -> None:
        """More peers are wanted: asks soon, and often again for a while."""
        self._pause = FIRST_PAUSE
        self._ask.at(now + self._spread())

    def check_addrs(self, now: float) -> None:
        """Tells our addresses unasked if they are others than those that were told last."""
        if tuple(self._addrs()) != self._told:
            self._announcements = ANNOUNCEMENTS
            self._tell.at(now + self._spread())

    def goodbye(self) -> list[bytes]:
        """The last packets: we are going."""
        return self._answer(0.0) if self._told else []

    def _answer(self, ttl: float) -> list[bytes]:
        self._told = tuple(self._addrs())
        return [wire.answer(self.service, self.name, self.peer, self._told, ttl)] if self._told else []

    def _is_heard(self, sender: str, now: float) -> bool:
        """Whether there is room for one more packet of a sender, in its own share and in all."""
        own = self._senders.pop(sender, None)
        if own is None:
            share = self.params.packets_per_second * SENDERS_SHARE
            own = TokenBucket(share, max(1.0, self.params.burst * SENDERS_SHARE), now)
            if len(self._senders) >= MAX_SENDERS:
                del self._senders[next(iter(self._senders))]
        self._senders[sender] = own  # last, as the one that was heard of last
        for bucket in (own, self._bucket):
            if bucket.take(now):
                bucket.give_back()
                return False
        return True

    def _asked_by_other(self, query: wire.Query, now: float) -> None:
        if query.services:
            self._list.at(now + self._spread())
        if not query.peers:
            return
        mine = f"{self.name}.{self.service}.".lower()
        if not any(known.name.lower() == mine and known.ttl >= self.params.ttl / 2 for known in query.known):
            self._tell.at(now + self._spread())
        names = {known.name for known in self._peers.values()} | {mine}
        if self._asked >= OWN_QUESTIONS and all(known.name in names for known in query.known):
            self._ask.due = NEVER
            self._ask_later(now)

    def _ask_later(self, now: float) -> None:
        self._ask.at(now + self._pause * self._rng.uniform(1 - JITTER, 1 + JITTER))
        self._pause = min(self._pause * GROWTH, self.params.interval)

    def _known_answers(self, now: float) -> Iterable[Known]:
        self._expire(now)
        for peer in self._peers.values():
            left = peer.expires - now
            if left > peer.ttl / 2:
                yield Known(peer.name, left)

    def _learn(self, found: Found, now: float) -> bool:
        if not found.ttl:
            self._peers.pop(found.peer, None)
            return False
        if not found.addrs:
            return False
        known = self._peers.pop(found.peer, None)
        if known is None and len(self._peers) >= self.params.max_peers:
            self._expire(now)
            if len(self._peers) >= self.params.max_peers:
                self.ignored += 1
                return False
        ttl = min(found.ttl, MAX_TTL)
        self._peers[found.peer] = _Peer(found.addrs, found.name, now + ttl, ttl)  # last, as the freshest
        return known is None or known.addrs != found.addrs or known.expires <= now

    def _expire(self, now: float) -> None:
        for peer in [peer for peer, known in self._peers.items() if known.expires <= now]:
            del self._peers[peer]

    def _spread(self) -> float:
        return self._rng.uniform(*SPREAD)
