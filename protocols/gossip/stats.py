"""What a node's gossip has done, in numbers: for metrics, and for measuring how messages spread."""

from __future__ import annotations

import time
from collections import Counter, deque

from protocols.gossip.link import Link
from protocols.gossip.messages import Verdict
from protocols.histogram import Gathered, Histogram

# durations that are kept, the last ones
KEPT = 4096


class Stats:
    """Counters since the start; `delays` (publish to delivery, by the authors' clocks) and `verdict_times` are the last
    4,096, in seconds, and in `delay_seconds` and `verdict_seconds` are all of them."""

    def __init__(self) -> None:
        self.published = 0
        self.delivered_messages = 0
        self.verdicts: Counter[Verdict] = Counter()
        self.reasons: Counter[str] = Counter()  # of rejections, as programs gave them; the first 256
        self.refused: Counter[str] = Counter()  # by the policy, by reason
        self.dropped: Counter[str] = Counter()  # by the engine, without a verdict
        self.no_room = 0  # in a decider's queue
        self.late = 0
        self.failed = 0  # validators that raised
        self.slow_heartbeats = 0
        self.grafted = 0
        self.pruned: Counter[str] = Counter()
        self.bytes_received = 0
        self.bytes_sent = 0  # on links that have ended
        self.rpcs_sent = 0
        self.lost: Counter[str] = Counter()  # in full queues, on links that have ended
        self.delays: deque[float] = deque(maxlen=KEPT)
        self.verdict_times: deque[float] = deque(maxlen=KEPT)
        self.delay_seconds = Gathered()  # read after `fold`
        self.verdict_seconds = Gathered()
        self.heartbeat_seconds = Histogram()

    def delivered(self, timestamp_ms: int | None) -> None:
        """A message was handed to whoever decides."""
        self.delivered_messages += 1
        if timestamp_ms is not None:
            delay = time.time() - timestamp_ms / 1000
            self.delays.append(delay)
            self.delay_seconds.add(delay)

    def decided(self, verdict: Verdict, seconds: float, reason: str) -> None:
        """A verdict that counted came so long after the delivery."""
        self.verdicts[verdict] += 1
        self.verdict_times.append(seconds)
        self.verdict_seconds.add(seconds)
        if verdict is Verdict.REJECT and (len(self.reasons) < 256 or reason in self.reasons):
            self.reasons[reason] += 1

    def fold(self) -> None:
        """Counts what waits in the histograms."""
        self.delay_seconds.fold()
        self.verdict_seconds.fold()

    def link_ended(self, link: Link) -> None:
        """Adds up what a link has done."""
        self.bytes_sent += link.bytes_sent
        self.rpcs_sent += link.rpcs_sent
        self.lost += link.queue.dropped
