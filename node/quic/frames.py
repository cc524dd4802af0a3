"""When events may be taken from qh3 though frames of its may not have gone out yet.

qh3 makes frames for up to sixteen streams at a time, or all of them when nothing has been acknowledged for long, and
sends what fits into one datagram; the others wait, for the congestion window perhaps. It drops a stream when its end is
taken from it ("stream_finished"), and fails as a whole ("reserved stream is missing") when a frame of a stream that it
dropped would go out. Such a frame can only be one that isn't needed for the end of the stream: STOP_SENDING,
RESET_STREAM, or data that goes a second time. And it can't make one smaller: nor does it send anything any more once
datagrams have become too small for a frame that waits. So:

    free --stop, reset, loss--> at risk --a datagram is asked for--> held: nothing is taken if a stream may be finished
      ^                             ^----- the window has room ------------'
      '----------- all is acknowledged, or so many full datagrams have gone that the frame was in them
"""

from __future__ import annotations

from qh3._hazmat import QuicConnectionCore

from node.quic.ends import has_window

MARGIN = 8  # full datagrams that hold none of the frames that are waited for
FULL = 600  # bytes; what only acknowledges and gives credit is smaller
QUIET = 1.0  # seconds in which what was said last is acknowledged


class Frames:
    """Of one connection. `behind` says that events are left from before the last datagram."""

    def __init__(self) -> None:
        self.behind = False
        self._speaking: dict[int, float] = {}  # streams on which something may be left to say, and when we last did
        self._ended: tuple[set[int], set[int]] = set(), set()  # streams that we, that the peer has ended
        self._ending: set[int] = set()  # that both have: they may be finished
        self._left = 0  # full datagrams until what was caused has surely gone
        self._asked = False  # a frame may have been made of it
        self._nothing_left = False  # when it was last asked; nothing has come since
        self._now = 0.0
        self._heard_at = 0.0
        self._lost = 0

    def said(self, stream: int) -> None:
        """Something goes out on that stream."""
        self._speaking[stream] = self._now

    def ended(self, stream: int, *, by_peer: bool = False) -> None:
        """One side of it sends no more; ours is finished when all of it is acknowledged."""
        self._ended[by_peer].add(stream)
        if stream in self._ended[not by_peer]:
            self._ending.add(stream)

    def finished(self, stream: int) -> None:
        self._speaking.pop(stream, None)
        for known in (*self._ended, self._ending):
            known.discard(stream)

    def risk(self, stream: int | None = None, *, late: bool = False, frames: int = 1) -> None:
        """So many frames were caused, on that stream or on any, that its end doesn't wait for; `late`: before the last
        datagram.
        """
        if stream is not None:
            self.said(stream)
        self._asked = late or (self._asked and self._left > 0)
        # for each of them all streams may have their turn before, and each may have a frame made already
        self._left = max(self._left, (frames + 1) * len(self._speaking) + MARGIN)

    def look(self, core: QuicConnectionCore) -> None:
        """What was lost goes again. To be called after all that qh3 was told."""
        self._nothing_left = False
        lost = core.loss_total + 2 * core.pto_total  # two packets are sent again at a time
        if lost != self._lost:
            self.risk(frames=lost - self._lost)
            self._lost = lost

    def asked(self, core: QuicConnectionCore, size: int) -> None:
        """qh3 was asked for a datagram, and gave one of that size or had none, 0."""
        self._nothing_left = not size
        if not self._left:
            return
        self._asked = True
        if size:
            self._left -= size >= FULL
        elif has_window(core):
            self._asked = False  # frames that are made go before the pace is looked at
            if not core.bytes_in_flight:
                self._left = 0  # nor can there be others that wait for it

    def hold(self, core: QuicConnectionCore) -> bool:
        """Whether to take no events now."""
        return bool(self._ending) and self._left > 0 and self._asked and core.state == "connected"

    def heard(self, now: float) -> None:
        """Something has come."""
        self._now = self._heard_at = now

    def silence(self, now: float) -> float:
        """Seconds since something has come."""
        self._now = now
        return now - self._heard_at

    def none_wait(self, core: QuicConnectionCore) -> bool:
        """Whether it is sure, after a silence, that all frames that were made have gone out."""
        if self._nothing_left and has_window(core):
            return True
        since = self._heard_at - QUIET
        busy = sum(at > since or core.get_send_buffer_size(stream) > 0 for stream, at in self._speaking.items())
        return busy <= 1  # whose frame goes out when it is made
