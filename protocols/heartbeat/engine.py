"""The heartbeat's rules: `now` in, beats to send and what they tell out. No I/O, no clock, no chance of its own.

    Monitor     one for each peer, on the side that asks
                      poll(next_at)                                    echoed(sequence)
        waiting ------------------------> a beat is under way ------------------------------> answered
                                                |
                                                +--the next one is due, or its stream failed--> missed

        steady --flaky_at of the last `window` beats missed--> flaky --at most steady_at of them--> steady
        either --nothing came for lost_after intervals--> lost, which is the end

    Echo        one for each stream, on the side that answers

A verdict falls once on each beat: an echo that comes after it shows that the peer lives and how far away it is, and the
beat stays missed. Between `steady_at` and `flaky_at` nothing changes, so that a peer doesn't flap. The round trip is
smoothed as RFC 6298 says; numbered echoes need none of its rules for retransmissions.

The monitor outlives its streams. What ends a stream but silence (a reset, an end, a broken rule) shows that there is
somebody, so only silence makes a peer lost. When the caller is woken over an interval too late, it was we who slept:
what passed meanwhile is held against nobody. The caller moves the bytes, opens streams again, and says what a lost peer
costs.
Source: docs/wire.md, "/vouch/heartbeat/1.0.0".
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from protocols.errors import ProtocolError
from protocols.heartbeat.wire import Beat
from protocols.rate import TokenBucket

# what a receiver takes: so many a second, and so many at once after a pause of the network's
BEATS_A_SECOND = 4.0
BURST = 4.0
# a sender stays well under that, and well within the time after which a receiver takes its stream for forgotten
MIN_INTERVAL, MAX_INTERVAL = 0.5, 300.0
MAX_WINDOW = 1000
# beats without an answer that are remembered; an echo that is so late would be of no use
MAX_UNANSWERED = 64


@dataclass(frozen=True)
class Params:
    """When a peer is what. Valid by construction: ValueError otherwise.

    interval: seconds from one beat to the next, 0.5 to 300.
    window: the last beats that are looked at, at most 1000.
    flaky_at, steady_at: flaky once so many of them were missed, steady again once at most so many were.
    lost_after: intervals without a word from the peer that make it lost; at least 2, so that one beat may fail, and at
        most 3.
    """

    interval: float = 15.0
    window: int = 10
    flaky_at: int = 3
    steady_at: int = 1
    lost_after: float = 3.0

    def __post_init__(self) -> None:
        if not MIN_INTERVAL <= self.interval <= MAX_INTERVAL:
            raise ValueError(
                f"expected an interval of {MIN_INTERVAL:g} to {MAX_INTERVAL:g} seconds, got {self.interval:g}"
            )
        if not 0 <= self.steady_at < self.flaky_at <= self.window <= MAX_WINDOW:
            raise ValueError(
                f"expected 0 <= steady_at < flaky_at <= window <= {MAX_WINDOW}, "
                f"got {self.steady_at}, {self.flaky_at} and {self.window}"
            )
        if not 2 <= self.lost_after <= 3:
            raise ValueError(f"expected lost_after to be 2 to 3 intervals, got {self.lost_after:g}")


class Rtt(NamedTuple):
    """A round trip: RFC 6298's SRTT and RTTVAR, in seconds."""

    smoothed: float
    variance: float

    def updated(self, sample: float) -> Rtt:
        """With one more measurement."""
        variance = 0.75 * self.variance + 0.25 * abs(self.smoothed - sample)
        return Rtt(0.875 * self.smoothed + 0.125 * sample, variance)


@dataclass(frozen=True)
class Flaky:
    """`missed` of the last `window` beats weren't answered in time; there may have been fewer beats so far."""

    missed: int
    window: int


@dataclass(frozen=True)
class Steady:
    """The peer answers again."""


@dataclass(frozen=True)
class Lost:
    """Nothing has come for `silent` seconds."""

    silent: float


Change = Flaky | Steady | Lost


class Monitor:
    """What one peer's answers say about it."""

    def __init__(self, params: Params, now: float, first: float = 0.0) -> None:
        """The first beat is due `first` seconds from now, at most an interval: beats of many peers want spreading."""
        if not 0 <= first <= params.interval:
            raise ValueError(f"expected the first beat within the interval of {params.interval:g} s, got {first:g}")
        self.params = params
        self.rtt: Rtt | None = None
        self.flaky = False
        self.lost = False
        self._heard = now
        self._beat_at = now + first
        self._sequence = 0
        self._to_send = False
        self._undecided: int | None = None  # the beat on which no verdict has fallen
        self._sent: dict[int, float] = {}  # when those went out on this stream that have no answer
        self._verdicts: deque[bool] = deque(maxlen=params.window)  # whether missed

    @property
    def lost_at(self) -> float:
        """When the peer is lost if nothing comes before."""
        return math.inf if self.lost else self._heard + self.params.lost_after * self.params.interval

    @property
    def next_at(self) -> float:
        """When `poll` is to be called; never, once the peer is lost."""
        return math.inf if self.lost else min(self._beat_at, self.lost_at)

    @property
    def missed(self) -> int:
        """How many of the last `window` beats were missed."""
        return sum(self._verdicts)

    def poll(self, now: float, late: float = 0.0) -> list[Change]:
        """What the time says. Once a beat is due there is one to `take`. `late`: seconds by which the caller was woken
        later than it had asked for.
        """
        interval = self.params.interval
        if late > interval and not self.lost:
            # an answer may be waiting to be read: the peer has one more interval, and the beat no verdict
            self._heard = max(self._heard + late, now - (self.params.lost_after - 1) * interval)
            self._beat_at = now
            self._undecided = None
        if now >= self.lost_at:
            self.lost = True
            self._to_send = False
            return [Lost(now - self._heard)]
        if self.lost or now < self._beat_at:
            return []
        changes = self._decide(missed=True)
        self._sequence += 1
        self._undecided = self._sequence
        self._to_send = True
        self._beat_at = self._beat_at + interval if self._beat_at + interval > now else now + interval
        return changes

    def take(self, now: float) -> Beat | None:
        """The beat to send now, if one is due. Its round trip begins here."""
        if not self._to_send:
            return None
        self._to_send = False
        if len(self._sent) == MAX_UNANSWERED:
            del self._sent[next(iter(self._sent))]
        self._sent[self._sequence] = now
        return Beat(self._sequence)

    def echoed(self, beat: Beat, now: float) -> list[Change]:
        """A beat came back. Raises ProtocolError for one that wasn't sent on this stream, came back before, or was sent
        more than 64 unanswered beats ago.
        """
        sent = self._sent.pop(beat.sequence, None)
        if sent is None:
            kind = "answered or dropped before" if 0 < beat.sequence <= self._sequence else "never sent"
            raise ProtocolError(f"expected the echo of a beat that is under way, got sequence {beat.sequence}, {kind}")
        sample = now - sent
        self.rtt = Rtt(sample, sample / 2) if self.rtt is None else self.rtt.updated(sample)
        self._heard = now
        return self._decide(missed=False) if beat.sequence == self._undecided else []

    def failed(self, now: float, *, silent: bool) -> list[Change]:
        """The stream is gone, or couldn't be had; `silent` if that is so because nothing came. The next beat, on the
        next stream, is due when it would have been.
        """
        self._to_send = False
        self._sent.clear()
        if not silent:
            self._heard = max(self._heard, now)
        return self._decide(missed=True)

    def _decide(self, *, missed: bool) -> list[Change]:
        """The verdict on the beat that is under way, if there is one."""
        if self._undecided is None:
            return []
        self._undecided = None
        self._verdicts.append(missed)
        count = self.missed
        if not self.flaky and count >= self.params.flaky_at:
            self.flaky = True
            return [Flaky(count, self.params.window)]
        if self.flaky and count <= self.params.steady_at:
            self.flaky = False
            return [Steady()]
        return []


class Echo:
    """What is sent back on one stream. A token bucket of four beats a second and a burst of four."""

    def __init__(self, now: float) -> None:
        self._bucket = TokenBucket(BEATS_A_SECOND, BURST, now)

    def receive(self, frame: bytes, now: float) -> bytes:
        """The answer to a frame: the same bytes. Raises ProtocolError for what is no Beat, or one too many."""
        Beat.decode(frame)
        if self._bucket.take(now):
            raise ProtocolError(f"expected at most {BEATS_A_SECOND:g} beats a second, got more")
        return frame
