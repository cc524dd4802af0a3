"""What became of requests, ours and those of peers, and how long they took. Plain numbers, for metrics."""

from __future__ import annotations

from collections import Counter

import trio

from protocols.base import NotSupported, ProtocolError, StreamError, StreamTimeout
from protocols.histogram import Gathered
from protocols.messages.errors import RemoteError

_OUTCOMES: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((RemoteError,), "error"),
    ((StreamTimeout,), "timeout"),
    ((NotSupported,), "not_supported"),
    ((StreamError, ProtocolError), "lost"),
    ((trio.Cancelled,), "given_up"),
)


# values that wait to be counted, at most, of each histogram
WAITING = 4096


class Tally:
    """By sub-protocol. `failures` of our requests: error, timeout, not_supported, lost, given_up, failed. `asked`: the
    seconds of all of them, `served`: those that handlers took for requests of peers; both are read after `fold`."""

    def __init__(self) -> None:
        self.failures: Counter[tuple[str, str]] = Counter()
        self.asked: dict[str, Gathered] = {}
        self.served: dict[str, Gathered] = {}

    def ended(self, name: str, seconds: float, outcome: str) -> None:
        """A request of ours has ended: "answered", or as `outcome_of` has it."""
        if outcome != "answered":
            self.failures[name, outcome] += 1
        _add(self.asked, name, seconds)

    def handled(self, name: str, seconds: float) -> None:
        """A request of a peer's has been answered."""
        _add(self.served, name, seconds)

    def fold(self) -> None:
        """Counts what waits in the histograms."""
        for histogram in (*self.asked.values(), *self.served.values()):
            histogram.fold()

    def outcomes(self) -> Counter[tuple[str, str]]:
        """What became of our requests: `failures`, and all others as answered. After `fold`."""
        outcomes = Counter({(name, "answered"): histogram.count for name, histogram in self.asked.items()})
        for (name, outcome), count in self.failures.items():
            outcomes[name, outcome] += count
            outcomes[name, "answered"] -= count
        return outcomes


def _add(histograms: dict[str, Gathered], name: str, value: float) -> None:
    histogram = histograms.get(name)
    if histogram is None:
        histogram = histograms[name] = Gathered()
    histogram.waiting.append(value)
    if len(histogram.waiting) >= WAITING:
        histogram.fold()


def outcome_of(error: BaseException) -> str:
    """The word for what a request has ended with."""
    return next((word for kinds, word in _OUTCOMES if isinstance(error, kinds)), "failed")
