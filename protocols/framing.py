"""Frames: an unsigned-varint length, then that many bytes. Rules only, no I/O.

    frame = length payload            length: 7 bits a byte, least significant first, the high bit says "more follows"

The length is checked against the protocol's bound as soon as it is known, before a byte of the payload is kept. The
shortest form is the only valid one and 63 bits are the most (https://github.com/multiformats/unsigned-varint).
After a `ProtocolError` the decoder takes nothing more; what becomes of the stream is the caller's.
"""

from __future__ import annotations

from protocols.errors import FrameTooLargeError, ProtocolError

MAX_VARINT_BYTES = 9


def encode_uvarint(value: int) -> bytes:
    """The shortest varint of `value`, which is between 0 and 2^63 - 1."""
    if not 0 <= value < 1 << 63:
        raise ValueError(f"a varint holds 0 to 2^63-1, not {value}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class VarintDecoder:
    """Takes a varint byte by byte: for readers that may not read past it."""

    __slots__ = ("_count", "_value")

    def __init__(self) -> None:
        self._value = 0
        self._count = 0

    def feed(self, byte: int) -> int | None:
        """The value once `byte` completes it, else None. Raises ProtocolError if it is no valid varint."""
        self._value |= (byte & 0x7F) << (7 * self._count)
        self._count += 1
        if byte & 0x80:
            if self._count == MAX_VARINT_BYTES:
                raise ProtocolError(f"expected a varint of at most {MAX_VARINT_BYTES} bytes, got a longer one")
            return None
        if byte == 0 and self._count > 1:
            raise ProtocolError("expected the shortest form of a varint, got a padded one")
        value, self._value, self._count = self._value, 0, 0
        return value

    @property
    def started(self) -> bool:
        """Whether some bytes of a varint have come but not its end."""
        return self._count > 0


def encode_frame(payload: bytes, max_frame: int) -> bytes:
    """`payload` as one frame. Raises ValueError if it is over `max_frame` bytes: that is the sender's own mistake."""
    if len(payload) > max_frame:
        raise ValueError(f"a frame of this protocol holds at most {max_frame} bytes, not {len(payload)}")
    return encode_uvarint(len(payload)) + payload


class FrameDecoder:
    """Cuts a byte stream into frames. Holds at most one incomplete frame, of at most `max_frame` bytes."""

    def __init__(self, max_frame: int) -> None:
        self.max_frame = max_frame
        self._varint = VarintDecoder()
        self._wanted: int | None = None
        self._buffer = bytearray()
        self._error: ProtocolError | None = None

    def check(self) -> None:
        """Raises what `feed` found behind the last frames."""
        if self._error is not None:
            raise self._error

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes, in order. Raises ProtocolError for a bad or too large length.

        Frames before the fault are given first: the next call, or `check`, raises.
        """
        self.check()
        frames: list[bytes] = []
        try:
            self._cut(data, frames)
        except ProtocolError as error:
            self._error = error
            if not frames:
                raise
        return frames

    def _cut(self, data: bytes, frames: list[bytes]) -> None:
        position, end = 0, len(data)
        while position < end:
            if self._wanted is None:
                length = self._varint.feed(data[position])
                position += 1
                if length is None:
                    continue
                if length > self.max_frame:
                    raise FrameTooLargeError(f"expected a frame of at most {self.max_frame} bytes, got one of {length}")
                self._wanted = length
            wanted = self._wanted
            if not self._buffer and end - position >= wanted:
                frames.append(data[position : position + wanted])  # whole, as most are: copied once
                position += wanted
            else:
                take = min(wanted - len(self._buffer), end - position)
                self._buffer += data[position : position + take]
                position += take
                if len(self._buffer) < wanted:
                    return
                frames.append(bytes(self._buffer))
                self._buffer.clear()
            self._wanted = None

    @property
    def incomplete(self) -> bool:
        """Whether the bytes so far end inside a frame, or in what is none."""
        return self._wanted is not None or self._varint.started or self._error is not None
