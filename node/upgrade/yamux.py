"""Yamux, one end of a connection: bytes in and events out, calls in and bytes out. No I/O, no clock of its own.

    header, 12 bytes, big-endian:  version 0 | type | flags | stream ID | length
    type     data 0: `length` bytes follow      window update 1: `length` is credit
             ping 2: `length` is its value      go away 3: `length` is the reason
    flags    SYN 1 opens, ACK 2 accepts, FIN 4 ends one side, RST 8 ends both at once

    stream:  OPEN --our FIN--> half closed --their FIN--> gone        (and the other way round)
             any --RST, either way--> gone

(https://github.com/hashicorp/yamux/blob/master/spec.md, https://github.com/libp2p/specs/tree/master/yamux)

Rules:
1. What we say first on a stream carries its SYN (or ACK); no frame goes out for that alone unless `announce` asks.
2. A peer may send what its window allows and not a byte more; more is a ProtocolError. Credit is given back when half
   the window has been read. A window that is emptied within four round trips doubles, up to `max_window`, as long as
   all windows together stay under `max_windows`.
3. Control frames go out before data; data of several streams takes turns, a frame of at most `FRAME` bytes each. Data
   to send is kept, not copied: `has_room` says whether there is room for more, a `Writable` when there is again.
   A frame with more data than a message holds has its header in one message and its data, uncopied, in the next ones.
4. A stream past `max_streams`, or while `accept` is off, is reset. We wait with a stream while `backlogged`.
5. Frames for streams that are gone are dropped; so is the payload, unless one is larger than MAX_STRAY.

The caller moves the bytes: it stops reading while `control_pending` is over MAX_CONTROL, so that a peer that asks and
doesn't read is slowed by its own socket. It measures time, and passes `now` and the round trip where they decide.
"""

from __future__ import annotations

from collections import deque

from node.upgrade.chunks import join, move, take
from node.upgrade.yamux_state import (
    ACK,
    BACKLOG,
    CHUNK,
    DATA,
    FIN,
    FRAME,
    GO_AWAY,
    HEADER,
    LARGE_CHUNK,
    LAST_STREAM,
    MAX_STRAY,
    MESSAGE,
    PING,
    RST,
    SQUEEZE,
    SYN,
    WINDOW_UPDATE,
    Event,
    Limits,
    Opened,
    Pong,
    Readable,
    Stream,
    WasReset,
    WentAway,
    Writable,
)
from protocols import ProtocolError


class Session:
    """One end of a connection."""

    def __init__(self, *, initiator: bool, limits: Limits | None = None, held: int | None = None) -> None:
        """`held`: payload bytes that the peer may send in all until `admitted` is called; None is no such limit."""
        self.limits = limits or Limits()
        self.streams: dict[int, Stream] = {}
        self.accept = True
        self.went_away = False
        self.held = held
        self.refused = 0
        self.frames = 0  # received; the caller may set it back
        self.unacknowledged = 0
        self._next = 1 if initiator else 2
        self._theirs = 0 if initiator else 1
        self._windows = 0
        self._unread = 0
        self._unsent = 0
        self._control: deque[bytes] = deque()
        self._turns: deque[Stream] = deque()
        self._body: deque[bytes | memoryview] = deque()  # data whose header has gone out
        self._header = bytearray()
        self._payload_left = 0
        self._payload_of: Stream | None = None

    # calls in

    @property
    def waiting(self) -> tuple[int, int]:
        """Bytes received that nobody has read, and bytes that wait to be sent, on all streams."""
        return self._unread, self._unsent

    @property
    def exhausted(self) -> bool:
        """Whether there are no stream numbers left; a new connection has some."""
        return self._next > LAST_STREAM

    @property
    def backlogged(self) -> bool:
        """Whether `open` should wait until the peer has answered what we have opened."""
        return self.unacknowledged >= BACKLOG

    def open(self) -> Stream:
        """A new stream of ours. It becomes known to the peer with its first frame, or by `announce`."""
        stream = Stream(self._next, SYN)
        self._next += 2
        self._add(stream)
        return stream

    def announce(self, stream: Stream) -> None:
        """Makes the stream known to the peer, if nothing has yet."""
        if not stream.announced and not stream.gone:
            self._say(stream, WINDOW_UPDATE, 0, 0)

    def has_room(self, stream: Stream) -> bool:
        """Whether `send` should be called now; one that must wait sets `stream.wanted` for a `Writable`.

        A stream with nothing unsent always has room, so that none starves of the others.
        """
        limits = self.limits
        size = stream.unsent_size
        return not size or (size < limits.max_unsent and self._unsent < limits.max_all_unsent)

    def send(self, stream: Stream, data: bytes) -> None:
        """Takes `data` for sending, all of it; it must not change any more."""
        if not data or stream.number not in self.streams:
            return
        stream.unsent.append(data)
        stream.unsent_size += len(data)
        self._unsent += len(data)
        if stream.send_window > 0 and not stream.in_turn:
            stream.in_turn = True
            self._turns.append(stream)

    def end(self, stream: Stream) -> None:
        """Says that we send no more, once what is unsent is out."""
        if stream.end_wanted or stream.reset:
            return
        stream.end_wanted = True
        if not stream.unsent_size:
            self._end(stream)

    def abandon(self, stream: Stream) -> None:
        """Nobody reads the stream any more: what the peer still sends is dropped, and credited."""
        stream.abandoned = True
        self._discard(stream)

    def reset(self, stream: Stream) -> None:
        """Ends the stream at once, both ways."""
        if stream.gone or stream.number not in self.streams:
            self._drop(stream)
            return
        if stream.announced or stream.first == ACK:
            self._say(stream, WINDOW_UPDATE, RST, 0)
        stream.reset = True
        self._remove(stream)

    def take(self, stream: Stream, count: int) -> bytes:
        """Up to `count` received bytes, one at least if there are any. Then the peer may be owed `credit`."""
        received = stream.received
        if not received or count <= 0:
            return b""
        chunk = received[0]
        if LARGE_CHUNK <= len(chunk) <= count and not stream.at:
            received.popleft()  # alone and as it came: it needn't be copied
            data = chunk if isinstance(chunk, bytes) else bytes(chunk)
        else:
            data, stream.at = join(received, stream.at, min(count, stream.size))
        stream.size -= len(data)
        self._unread -= len(data)
        return data

    def owes(self, stream: Stream) -> bool:
        """Whether half the window has been read, so that the peer should have it back by `credit`."""
        return 2 * (stream.window - stream.credit - stream.size) >= stream.window

    def credit(self, stream: Stream, now: float, round_trip: float) -> None:
        """Gives back what has been read, and grows a window that is too small for its path."""
        if stream.ended or stream.reset or stream.number not in self.streams or not self.owes(stream):
            return
        owed = stream.window - stream.credit - stream.size
        if now and stream.updated and now - stream.updated < 4 * round_trip:
            grown = min(2 * stream.window, self.limits.max_window)
            if self._windows + grown - stream.window <= self.limits.max_windows:
                owed += grown - stream.window
                self._windows += grown - stream.window
                stream.window = grown
        stream.updated = now
        stream.credit += owed
        self._say(stream, WINDOW_UPDATE, 0, owed)

    def ping(self, value: int) -> None:
        """Asks for a `Pong`."""
        self._control.append(HEADER.pack(0, PING, SYN, 0, value))

    def go_away(self, reason: int = 0) -> None:
        """Tells the peer that the connection ends."""
        self._control.append(HEADER.pack(0, GO_AWAY, 0, 0, reason))

    def admitted(self) -> None:
        """The peer is admitted: the limit on what it may send before no longer holds."""
        self.held = None

    # bytes out

    @property
    def control_pending(self) -> int:
        """Control frames that aren't out yet."""
        return len(self._control)

    @property
    def ready(self) -> bool:
        """Whether `output` has something to give."""
        return bool(self._body or self._control or self._turns)

    def output(self) -> tuple[bytes | memoryview, list[Event]]:
        """What goes out next, at most one message's worth, and what that finishes; b"" if nothing can."""
        if self._body:
            return take(self._body, MESSAGE), []
        parts: list[bytes | memoryview] = []
        events: list[Event] = []
        room = self._output_control(parts, MESSAGE)
        while self._turns and not self._body and (room > SQUEEZE or not parts):
            stream = self._turns.popleft()
            stream.in_turn = False
            size = min(stream.unsent_size, stream.send_window, FRAME)
            if size <= 0:
                continue
            if size >= MESSAGE:
                size -= size % MESSAGE
            else:
                size = min(size, room - HEADER.size)
            parts.append(HEADER.pack(0, DATA, self._flags(stream), stream.number, size))
            move(stream.unsent, size, self._body if size >= MESSAGE else parts)
            room -= HEADER.size + size
            self._sent(stream, size, events)
        if not self._body:
            self._output_control(parts, room)  # the ends of what has just gone out
        return parts[0] if len(parts) == 1 else b"".join(parts), events

    def _sent(self, stream: Stream, size: int, events: list[Event]) -> None:
        stream.send_window -= size
        stream.unsent_size -= size
        self._unsent -= size
        if stream.wanted and self.has_room(stream):
            stream.wanted = False
            events.append(Writable(stream.number))
        if not stream.unsent_size:
            if stream.end_wanted:
                self._end(stream)
        elif stream.send_window > 0:
            stream.in_turn = True
            self._turns.append(stream)

    def _output_control(self, parts: list[bytes | memoryview], room: int) -> int:
        while self._control and room >= HEADER.size:
            parts.append(self._control.popleft())
            room -= HEADER.size
        return room

    # bytes in

    def receive(self, data: bytes) -> list[Event]:
        """Takes the next bytes, in any split. Raises ProtocolError when the peer breaks the rules, which is the end.

        Large payloads are kept as views of `data`, not copied.
        """
        events: list[Event] = []
        position, end = 0, len(data)
        while position < end:
            if self._payload_left:
                take = min(self._payload_left, end - position)
                if take < CHUNK or 2 * take < end:  # a view would hold the rest, too
                    chunk: bytes | memoryview = data[position : position + take]
                else:
                    chunk = data if take == end else memoryview(data)[position : position + take]
                position += take
                self._payload_left -= take
                self._payload(chunk, events)
                continue
            if not self._header and end - position >= HEADER.size:
                fields = HEADER.unpack_from(data, position)
                position += HEADER.size
            else:
                take = min(HEADER.size - len(self._header), end - position)
                self._header += data[position : position + take]
                position += take
                if len(self._header) < HEADER.size:
                    break
                fields = HEADER.unpack(self._header)
                self._header.clear()
            self._frame(fields, events)
        return events

    def _frame(self, fields: tuple[int, ...], events: list[Event]) -> None:
        version, kind, flags, number, length = fields
        self.frames += 1
        if version != 0:
            raise ProtocolError(f"expected Yamux version 0, got {version}")
        if kind == PING:
            if flags & SYN:
                self._control.append(HEADER.pack(0, PING, ACK, 0, length))
            elif flags & ACK:
                events.append(Pong(length))
        elif kind == GO_AWAY:
            self.went_away = True
            events.append(WentAway(length))
        elif kind in (DATA, WINDOW_UPDATE):
            self._stream_frame(kind, flags, number, length, events)
        else:
            raise ProtocolError(f"expected a Yamux frame of type 0 to 3, got {kind}")

    def _stream_frame(self, kind: int, flags: int, number: int, length: int, events: list[Event]) -> None:
        if flags & SYN:
            self._opened(number, events)
        stream = self.streams.get(number)
        if stream is not None and not stream.acknowledged:
            stream.acknowledged = True
            self.unacknowledged -= 1
        if kind == DATA:
            self._expect_payload(stream, number, length)
        elif stream is not None and length:
            stream.send_window += length
            if stream.send_window > 1 << 32:
                raise ProtocolError(f"expected a window under 4 GiB on stream {number}, got more")
            if stream.unsent_size and not stream.in_turn:
                stream.in_turn = True
                self._turns.append(stream)
        if stream is None:
            return
        if flags & RST:
            stream.reset = True
            self._remove(stream)
            events.append(WasReset(number))
        elif flags & FIN and not stream.ended:
            # with a payload still to come, the end is behind it
            stream.ended = True
            if not self._payload_left:
                self._peer_ended(stream, events)

    def _opened(self, number: int, events: list[Event]) -> None:
        if number == 0 or number % 2 != self._theirs:
            raise ProtocolError(f"expected the peer to open streams of its own numbers, got {number}")
        if number in self.streams:
            raise ProtocolError(f"expected a new stream, got stream {number} a second time")
        if not self.accept or len(self.streams) >= self.limits.max_streams:
            self.refused += 1
            self._control.append(HEADER.pack(0, WINDOW_UPDATE, RST, number, 0))
            return
        stream = Stream(number, ACK)
        self._add(stream)
        events.append(Opened(number))

    def _expect_payload(self, stream: Stream | None, number: int, length: int) -> None:
        allowed = MAX_STRAY if stream is None else stream.credit
        if length > allowed:
            raise ProtocolError(f"expected at most the window's {allowed} bytes on stream {number}, got {length}")
        if self.held is not None:
            self.held -= length
            if self.held < 0:
                raise ProtocolError("expected less before admission, got more bytes than are held")
        if stream is not None:
            if stream.ended and length:
                raise ProtocolError(f"expected nothing behind the end of stream {number}, got {length} bytes")
            stream.credit -= length
        self._payload_left = length
        self._payload_of = stream

    def _payload(self, chunk: bytes | memoryview, events: list[Event]) -> None:
        stream = self._payload_of
        if stream is None:
            return
        if not stream.reset:
            self._keep(stream, chunk)
            if stream.abandoned:
                self._discard(stream)
            elif stream.size == len(chunk):
                events.append(Readable(stream.number))  # once for each time that there was nothing before
        if not self._payload_left and stream.ended:
            self._peer_ended(stream, events)

    def _keep(self, stream: Stream, chunk: bytes | memoryview) -> None:
        last = stream.received[-1] if stream.received else None
        if len(chunk) >= CHUNK:
            stream.received.append(chunk)
        elif isinstance(last, bytearray) and len(last) < CHUNK:
            last += chunk
        else:
            stream.received.append(bytearray(chunk))
        stream.size += len(chunk)
        self._unread += len(chunk)
        # never less than the windows allow; what is over on both sides and not read has none
        allowed = max(self.limits.max_unread, self._windows)
        if self._unread > allowed:
            raise ProtocolError(f"expected at most {allowed} bytes that nobody has read yet, got more")

    def _discard(self, stream: Stream) -> None:
        self._unread -= stream.size
        stream.received.clear()
        stream.size = stream.at = 0
        self.credit(stream, 0.0, 0.0)

    def _peer_ended(self, stream: Stream, events: list[Event]) -> None:
        events.append(Readable(stream.number))
        if stream.gone:
            self._remove(stream)

    # the rest

    def _add(self, stream: Stream) -> None:
        self.streams[stream.number] = stream
        self._windows += stream.window
        self.unacknowledged += not stream.acknowledged

    def _remove(self, stream: Stream) -> None:
        if self.streams.pop(stream.number, None) is not None:
            self._windows -= stream.window
            self.unacknowledged -= not stream.acknowledged
        if stream.reset:
            self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        """Forgets what was received and not read, and what isn't sent."""
        self._unread -= stream.size
        stream.received.clear()
        stream.size = stream.at = 0
        self._unsent -= stream.unsent_size
        stream.unsent.clear()
        stream.unsent_size = 0

    def _flags(self, stream: Stream) -> int:
        if stream.announced:
            return 0
        stream.announced = True
        return stream.first

    def _say(self, stream: Stream, kind: int, flags: int, length: int) -> None:
        self._control.append(HEADER.pack(0, kind, flags | self._flags(stream), stream.number, length))

    def _end(self, stream: Stream) -> None:
        stream.end_sent = True
        # an empty data frame: rust's yamux 0.12 doesn't wake its reader for the end in a window update
        self._say(stream, DATA, FIN, 0)
        if stream.gone:
            self._remove(stream)
