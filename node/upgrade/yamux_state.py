"""What a Yamux session is made of: the header's constants, its events, its limits, the state of one stream.

The rules that move them are `yamux.Session`.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

HEADER = struct.Struct(">BBHLL")
DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8

INITIAL_WINDOW = 256 * 1024
# a Noise message holds 65,519 bytes; small frames share one, the data of large ones fills several
MESSAGE = 65519
FRAME = 4 * MESSAGE  # just under the first window
MAX_STRAY = 1024 * 1024
MAX_CONTROL = 1024
# streams of ours that the peer hasn't answered yet: the others of the field reset what is beyond that
BACKLOG = 256
# payloads are gathered up to this size: a chunk for each byte would cost forty times what it holds
CHUNK = 4096
# and from this size on they are read as they came: joining them would cost more than a call
LARGE_CHUNK = 16 * 1024
# a frame for less than this isn't squeezed into what is left of a message, unless it is all that there is to say
SQUEEZE = 512
LAST_STREAM = 2**32 - 1


class Opened(NamedTuple):
    """The peer has opened a stream."""

    stream: int


class Readable(NamedTuple):
    """Bytes, or the end, can be read on a stream."""

    stream: int


class Writable(NamedTuple):
    """A stream that was asked about takes more: little of what `send` was given is left."""

    stream: int


class WasReset(NamedTuple):
    """The peer has given a stream up."""

    stream: int


class Pong(NamedTuple):
    """The answer to our ping of that value."""

    value: int


class WentAway(NamedTuple):
    """The peer takes no new streams; `reason` 0 is a proper end."""

    reason: int


Event = Opened | Readable | Writable | WasReset | Pong | WentAway


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one connection, in bytes but for `max_streams`.

    max_window, max_windows: what the window of one stream, of all streams together, may grow to.
    max_unread: received on all streams and not yet read.
    max_unsent, max_all_unsent: taken for sending on one stream, on all streams, and not on its way yet.
    """

    max_streams: int = 1024
    max_window: int = 16 * 1024 * 1024
    max_windows: int = 64 * 1024 * 1024
    max_unread: int = 64 * 1024 * 1024
    max_unsent: int = 1024 * 1024
    max_all_unsent: int = 8 * 1024 * 1024


class Stream:
    """The state of one stream. Its owner reads `received`, `ended`, `reset`; all else is the session's."""

    __slots__ = (
        "abandoned",
        "acknowledged",
        "announced",
        "at",
        "credit",
        "end_sent",
        "end_wanted",
        "ended",
        "first",
        "in_turn",
        "number",
        "received",
        "reset",
        "send_window",
        "size",
        "unsent",
        "unsent_size",
        "updated",
        "wanted",
        "window",
    )

    def __init__(self, number: int, first: int) -> None:
        self.number = number
        self.first = first  # the flag that our first frame carries: SYN or ACK
        self.announced = False
        self.acknowledged = first == ACK  # whether the peer knows that it is open
        self.received: deque[bytes | bytearray | memoryview] = deque()
        self.at = 0  # how much of the first chunk has been read
        self.size = 0  # bytes received and not yet read
        self.ended = False  # the peer's FIN has come
        self.reset = False
        self.abandoned = False  # nobody reads any more: what comes is dropped
        self.unsent: deque[bytes | memoryview] = deque()
        self.unsent_size = 0
        self.in_turn = False  # whether it is among those that take turns to send
        self.wanted = False  # whether a `Writable` is asked for
        self.end_wanted = False
        self.end_sent = False
        self.send_window = INITIAL_WINDOW
        self.window = INITIAL_WINDOW  # what the peer's window may grow to
        self.credit = INITIAL_WINDOW  # what the peer may send now
        self.updated = 0.0

    @property
    def gone(self) -> bool:
        return self.reset or (self.ended and self.end_sent)
