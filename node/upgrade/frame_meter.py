"""Reads the headers of inbound Yamux frames as they pass, and ends the connection of a peer that sends too much.

    frame header, 12 bytes: version 1 | type 1 | flags 2 | stream 4 | length 4        (big-endian)
    type 0 is data: `length` bytes follow; the other types have nothing behind the header

py-libp2p's Yamux only warns when a peer overruns its window, and doesn't know that a peer isn't admitted yet. The meter
stands between it and the connection: rules only, bytes in, `ProtocolError` out. It says what is too much, by a header,
before the payload has been read:

- until `admitted`: more than `MAX_HELD_BYTES` of payload on all streams together (docs/wire.md, rule 6);
- always: more payload than the stream's window has left, which the muxer tells through `window`.

It goes when the project's own muxer, which knows both, replaces py-libp2p's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from protocols import ProtocolError
from protocols.handshake.engine import MAX_HELD_BYTES

HEADER = struct.Struct(">BBHLL")
TYPE_DATA = 0
# frames for a stream that we have reset may be under way still: taken and thrown away, up to this size each
MAX_STRAY_FRAME = 1024 * 1024
# headers alone cost work too: so many before admission, and the peer isn't negotiating but flooding
MAX_HELD_FRAMES = 512


class FrameMeter:
    """Follows one direction of one connection."""

    def __init__(self, window: Callable[[int], int | None]) -> None:
        """`window` gives the bytes that a stream's window has left, None for a stream that isn't open."""
        self.admitted = False
        self.held_bytes = 0
        self.held_frames = 0
        self._window = window
        self._header = bytearray()
        self._payload_left = 0

    def feed(self, data: bytes) -> None:
        """Takes the next bytes, in any split. Raises ProtocolError when the peer has sent too much."""
        position = 0
        while position < len(data):
            if self._payload_left:
                take = min(self._payload_left, len(data) - position)
                self._payload_left -= take
                position += take
                continue
            take = min(HEADER.size - len(self._header), len(data) - position)
            self._header += data[position : position + take]
            position += take
            if len(self._header) == HEADER.size:
                version, kind, _flags, stream, length = HEADER.unpack(self._header)
                self._header.clear()
                if version != 0:
                    raise ProtocolError(f"expected Yamux version 0, got {version}")
                self._frame(kind, stream, length)

    def _frame(self, kind: int, stream: int, length: int) -> None:
        size = length if kind == TYPE_DATA else 0
        if not self.admitted:
            self.held_bytes += size
            self.held_frames += 1
            if self.held_bytes > MAX_HELD_BYTES or self.held_frames > MAX_HELD_FRAMES:
                raise ProtocolError(
                    f"expected at most {MAX_HELD_BYTES} bytes in {MAX_HELD_FRAMES} frames before admission, "
                    f"got {self.held_bytes} in {self.held_frames}"
                )
        if size:
            window = self._window(stream)
            if size > (MAX_STRAY_FRAME if window is None else window):
                raise ProtocolError(f"expected at most the window's {window} bytes on stream {stream}, got {size}")
        self._payload_left = size
