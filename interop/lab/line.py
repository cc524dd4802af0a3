"""What a line does to frames: delay, loss, bandwidth and a queue. Rules without I/O: sizes and `now` in, due times out.

    frame ── queue full? ── waits for its turn at `rate` ── lost? ── travels for `delay` ── due
               dropped                                      dropped

A `Line` is one direction of one link and judges frames; `Held` keeps the frames of all lines until they are due.
Bandwidth is a token bucket: what the line could have sent in a silence of up to BURST seconds passes at once. A lost
frame has taken its turn. A line never reorders. Times are seconds, sizes bytes, rates bits in a second. Chance is
injected.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass

# seconds of a silent line's bandwidth that it may make up for, and the least of bytes: one frame
BURST = 0.001
FRAME = 1514
# the queue where none is told: seconds of the line's bandwidth, but some frames
QUEUE_SECONDS = 0.1
MIN_QUEUE = 32 * FRAME
# bytes that are on the way or wait, of all lines together
MAX_HELD = 256 << 20
# packets that netem may hold beyond those that the figures allow
NETEM_SPARE = 1000
NETEM_RATE = 10e9  # taken for "none is told"


@dataclass(frozen=True)
class Shape:
    """One direction of a link. `loss` is the part of frames that never arrive; `rate` None is no bound; `queue` None is
    QUEUE_SECONDS of the rate. Raises ValueError."""

    delay: float = 0.0
    loss: float = 0.0
    rate: float | None = None
    queue: int | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.delay <= 60):
            raise ValueError(f"expected a delay of 0 to 60 s, got {self.delay}")
        if not (0 <= self.loss <= 1):
            raise ValueError(f"expected a loss from 0 to 1, got {self.loss}")
        if self.rate is not None and not (1000 <= self.rate < math.inf):
            raise ValueError(f"expected a rate of at least 1000 bit/s, got {self.rate}")
        if self.queue is not None and self.queue < FRAME:
            raise ValueError(f"expected a queue of at least one frame of {FRAME} bytes, got {self.queue}")

    @property
    def plain(self) -> bool:
        """Whether it does nothing to frames."""
        return not self.delay and not self.loss and self.rate is None

    @property
    def queue_bytes(self) -> float:
        """What may wait for its turn."""
        if self.queue is not None:
            return self.queue
        return math.inf if self.rate is None else max(MIN_QUEUE, QUEUE_SECONDS * self.rate / 8)

    def netem(self) -> list[str]:
        """The same in the words of `tc qdisc ... netem`. Its queue counts packets, those on the way among them."""
        rate = self.rate or NETEM_RATE
        queue = 0 if self.rate is None else self.queue_bytes
        limit = NETEM_SPARE + math.ceil((self.delay * rate / 8 + queue) / FRAME)
        words = ["limit", str(limit), "delay", f"{self.delay * 1e6:.0f}us"]
        if self.loss:
            words += ["loss", "random", f"{self.loss * 100:.6f}%"]
        if self.rate is not None:
            words += ["rate", f"{self.rate:.0f}bit"]
        return words


class Line:
    """One direction of one link. `passed`, `lost` and `dropped` (the queue was full) count frames."""

    def __init__(self, shape: Shape, rng: random.Random) -> None:
        self.passed = self.lost = self.dropped = 0
        self._rng = rng
        self._free = -math.inf  # when the line has sent all that it took, less what it may make up for
        self._last = -math.inf  # the latest due time
        self.shape = shape

    @property
    def shape(self) -> Shape:
        """Changes count for frames that come from then on; what is on the way isn't overtaken."""
        return self._shape

    @shape.setter
    def shape(self, shape: Shape) -> None:
        self._shape = shape
        self._byte = 0.0 if shape.rate is None else 8 / shape.rate  # seconds for one
        self._burst = max(BURST, FRAME * self._byte)
        self._queue = shape.queue_bytes * self._byte if shape.rate is not None else math.inf

    def take(self, now: float, size: int) -> float | None:
        """A frame of that size comes: when it is due at the other end, None if it never gets there."""
        if self._byte:
            turn = size * self._byte
            free = max(self._free, now - self._burst)
            if free - now + turn > self._queue:
                self.dropped += 1
                return None
            self._free = free + turn
            sent = max(now, self._free)
        else:
            sent = now
        if self._shape.loss and self._rng.random() < self._shape.loss:
            self.lost += 1
            return None
        self.passed += 1
        self._last = max(self._last, sent + self._shape.delay)
        return self._last


class Held:
    """Frames of many lines, until they are due. `refused` counts those that were too much for `max_bytes`."""

    def __init__(self, max_bytes: int = MAX_HELD) -> None:
        self.bytes = 0
        self.refused = 0
        self._max = max_bytes
        self._heap: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def put(self, due: float, to: int, frame: bytes) -> None:
        """Keeps a frame for whoever `to` stands for."""
        if self.bytes + len(frame) > self._max:
            self.refused += 1
            return
        self.bytes += len(frame)
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, to, frame))

    def next_due(self) -> float:
        """When `take` has something next; infinite if there is nothing."""
        return self._heap[0][0] if self._heap else math.inf

    def take(self, now: float) -> tuple[int, bytes] | None:
        """The frame that has been due longest, with where it goes; None if none is due."""
        if not self._heap or self._heap[0][0] > now:
            return None
        _, _, to, frame = heapq.heappop(self._heap)
        self.bytes -= len(frame)
        return to, frame
