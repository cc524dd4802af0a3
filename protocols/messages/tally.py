"""What became of requests, ours and those of peers, and how long they took. Plain numbers, for metrics."""

from __future__ import annotations

from collections import Counter

import trio

from protocols.base import NotSupported, ProtocolError, StreamError, StreamTimeout
from protocols.histogram import Histogram
from protocols.messages.errors import RemoteError

_OUTCOMES: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((RemoteError,), "error"),
    ((StreamTimeout,), "timeout"),
    ((NotSupported,), "not_supported"),
    ((StreamError, ProtocolError), "lost"),
    ((trio.Cancelled,), "given_up"),
)


class Tally:
    """By sub-protocol. `outcomes` of our requests: answered, error, timeout, not_supported, lost, given_up, failed;
    `asked` seconds that they took, `served` seconds that handlers took for the requests of peers."""

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.asked: dict[str, Histogram] = {}
        self.served: dict[str, Histogram] = {}

    def ended(self, name: str, seconds: float, error: BaseException | None) -> None:
        """A request of ours has ended, with an answer or an error."""
        self.outcomes[name, "answered" if error is None else _outcome(error)] += 1
        _of(self.asked, name).observe(seconds)

    def handled(self, name: str, seconds: float) -> None:
        """A request of a peer's has been answered."""
        _of(self.served, name).observe(seconds)


def _of(histograms: dict[str, Histogram], name: str) -> Histogram:
    found = histograms.get(name)
    if found is None:
        found = histograms[name] = Histogram()
    return found


def _outcome(error: BaseException) -> str:
    return next((word for kinds, word in _OUTCOMES if isinstance(error, kinds)), "failed")
