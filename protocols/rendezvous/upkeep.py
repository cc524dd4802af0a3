"""What a client decides about one point: when to register, in which form, when to ask, with which cookie. No I/O.

    never --register--> registered --after about half of its TTL--> due --register--> registered
              |             |
              |             +-- the connection is lost: due within minutes, for the point may have forgotten
              +-- failed: due again after `retry_min`, doubling to `retry_max`, with jitter

    ask: with the last cookie, for what is new; from the beginning if that was nothing and peers are still wanted

A point that doesn't take a record as RFC 0003 has it is offered rust-libp2p's form, and the other way round
(node.envelopes). The clock is any that goes forward.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from protocols.rendezvous.rules import Form
from protocols.rendezvous.wire import DEFAULT_TTL, MAX_TTL, Refused, Status

# a point that has forgotten us should hear of it, yet not from everybody at once
LOST_MIN, LOST_MAX = 60.0, 600.0


@dataclass(frozen=True)
class Pace:
    """Seconds. `ttl` is what we ask for. Questions of a hungry node are `first` apart at the start, `interval` after
    one that found somebody, and twice as far each time, up to `longest`, while nothing new comes. `retry_*` are the
    pauses after a registration that failed."""

    ttl: int = DEFAULT_TTL
    first: float = 2.0
    interval: float = 30.0
    longest: float = 300.0
    retry_min: float = 5.0
    retry_max: float = 600.0

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.interval <= self.longest or not 0 < self.retry_min <= self.retry_max:
            raise ValueError(f"expected pauses above 0 that don't shrink, got {self}")
        if not 0 < self.ttl <= MAX_TTL:
            raise ValueError(f"expected a TTL of 1 to {MAX_TTL} seconds, got {self.ttl}")


class Upkeep:
    """Our registration at one point."""

    def __init__(self, pace: Pace, rng: random.Random, now: float, *, every_form: bool = False) -> None:
        """`every_form`: register with each form that the point takes, since readers of either may look there."""
        self.pace = pace
        self.due_at = now
        self.expires_at = -math.inf
        self.failures = 0
        self._rng = rng
        self._every = every_form
        self._ttl = pace.ttl
        self._taken: tuple[Form, ...] = ()

    def forms(self) -> Sequence[Form]:
        """The forms to register with, in this order; if not every one is wanted, until the point takes one."""
        if self._taken:
            return self._taken
        return list(Form)

    def wants_more(self, taken: Collection[Form]) -> bool:
        """Whether to go on with the next form, now that the point has taken these."""
        return self._every or not taken

    @property
    def ttl(self) -> int:
        """What to ask for."""
        return self._ttl

    def registered(self, taken: Sequence[Form], ttl: int, now: float) -> None:
        """The point has taken us for `ttl` seconds; what it says is believed within a minute and three days."""
        ttl = min(max(ttl, 60), MAX_TTL)
        self._taken = tuple(taken)
        self.failures = 0
        self.expires_at = now + ttl
        self.due_at = now + ttl * self._rng.uniform(0.4, 0.6)

    def failed(self, now: float, refused: Refused | None = None) -> float:
        """It didn't; the seconds until the next try."""
        if refused is not None and refused.status == Status.INVALID_TTL:
            self._ttl = DEFAULT_TTL  # what every point has to take
        self._taken = ()
        pause = min(self.pace.retry_max, self.pace.retry_min * 2.0 ** min(self.failures, 32))
        self.failures += 1
        pause *= self._rng.uniform(0.75, 1.25)
        self.due_at = now + pause
        return pause

    def changed(self, now: float) -> None:
        """Our record has changed: it is due now."""
        self.due_at = min(self.due_at, now)

    def lost(self, now: float) -> None:
        """The connection to the point has ended."""
        self.due_at = min(self.due_at, now + self._rng.uniform(LOST_MIN, LOST_MAX))


class Asking:
    """Our questions to one point."""

    def __init__(self, pace: Pace, rng: random.Random, now: float) -> None:
        self.cookie = b""
        self.next_at = now
        self._pace = pace
        self._rng = rng
        self._pause = pace.first

    def found(self, new: int, cookie: bytes, now: float) -> None:
        """So many registrations came with this cookie."""
        if new:
            self._pause = self._pace.interval
        self.cookie = cookie if new else b""
        self._wait(now)

    def failed(self, now: float) -> None:
        """No answer, or none that helps; a cookie may be the reason."""
        self.cookie = b""
        self._wait(now)

    def _wait(self, now: float) -> None:
        self.next_at = now + self._pause * self._rng.uniform(0.75, 1.25)
        self._pause = min(2 * self._pause, self._pace.longest)
