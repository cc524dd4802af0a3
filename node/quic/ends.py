"""When qh3 is given a stream's end that goes by itself.

qh3 sends a lost end again only if it went with data, or after all data before it had been acknowledged; else the peer
waits for it for ever. And a stream whose end is acknowledged before its data is never finished. So an end that can't
go with the last of the data waits:

    wanted --nothing of the stream is unsent, nothing lost is unsent--> fenced --all sent before is acknowledged--> due
                                     ^--------------- something is lost -----'        (or PATIENCE is over)

Losses aren't known by stream, so on a connection that is full and loses packets all the time only PATIENCE helps: by
then the stream's data has come, or has been lost over and over.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

from qh3._hazmat import QuicConnectionCore

PATIENCE = 0.5  # seconds, but at least so many round trips:
ROUND_TRIPS = 8


@dataclass(slots=True)
class _Wait:
    losses: int = -1  # packets that had been lost when it was fenced
    newest: int = -1  # packets up to that number had been sent by then
    latest: float = math.inf


class Ends:
    """The ends that wait on one connection, by stream."""

    def __init__(self) -> None:
        self._waits: dict[int, _Wait] = {}
        self._sent_again = 0  # lost packets of which all has been sent again

    def __bool__(self) -> bool:
        return bool(self._waits)

    @property
    def deadline(self) -> float:
        """When one of them has waited long enough."""
        return min((wait.latest for wait in self._waits.values()), default=math.inf)

    def takes(self, core: QuicConnectionCore, stream: int) -> bool:
        """Whether that stream's end has to wait, because it may be lost for good if it is sent now."""
        unsent = core.get_send_buffer_size(stream)
        if unsent >= datagram_size(core):
            return False  # more of it is left than the one packet that is under way, and the end goes with the last
        if not (unsent or core.bytes_in_flight or core.loss_total != self._sent_again):
            return False
        self._waits[stream] = _Wait()
        return True

    def forget(self, stream: int) -> None:
        self._waits.pop(stream, None)

    def follow(self, core: QuicConnectionCore, now: float) -> bool:
        """To be called when qh3 has had nothing to send, or might not send. Whether it may have something now."""
        losses = core.loss_total
        if losses != self._sent_again and may_send(core):
            self._sent_again = losses
        if self._waits and core.state != "connected":
            self._waits.clear()  # nothing more is sent
        if not self._waits:
            return False
        packets = [packet[0] for packet in core.outstanding_application_packets]
        fenced = False
        due = []
        for stream, wait in self._waits.items():
            if wait.latest == math.inf:
                wait.latest = now + max(PATIENCE, ROUND_TRIPS * (core.smoothed_rtt or 0.0))
            if wait.losses != losses == self._sent_again and not core.get_send_buffer_size(stream):
                wait.losses, wait.newest = losses, packets[-1] if packets else -1
                fenced |= bool(packets)
            if now >= wait.latest or (wait.losses == losses and (not packets or packets[0] > wait.newest)):
                due.append(stream)
        for stream in due:
            del self._waits[stream]
            with suppress(ValueError, RuntimeError):  # it is over
                core.send_stream(stream, b"", True)
        if fenced:
            core.send_ping(0)  # a second packet is acknowledged at once
        return bool(due) or fenced


def datagram_size(core: QuicConnectionCore) -> int:
    """What one datagram holds now, in bytes."""
    return int(core.active_path[5])


def has_window(core: QuicConnectionCore) -> bool:
    """Whether the congestion window has room for one more datagram."""
    return bool(core.congestion_window - core.bytes_in_flight >= datagram_size(core))


def may_send(core: QuicConnectionCore) -> bool:
    """Whether it is for want of data, and not of permission, that nothing is sent."""
    timer = core.get_timer()
    return has_window(core) and (timer is None or timer[0] != "pacing")
