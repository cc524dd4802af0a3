"""`Beat`, the heartbeat's only message, between bytes and values.

    frame = varint length (at most 64), Beat       on /vouch/heartbeat/1.0.0, see docs/wire.md

Decoding gives a `Beat` or a `ProtocolError`; nothing else, whatever the bytes. Whether its sequence was expected is
`engine`'s to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from protocols.errors import ProtocolError
from protocols.heartbeat import heartbeat_pb2

PROTOCOL_ID = "/vouch/heartbeat/1.0.0"
MAX_FRAME = 64


@dataclass(frozen=True)
class Beat:
    """One beat, and its echo. `sequence` is between 0 and 2^64 - 1: ValueError otherwise."""

    sequence: int

    def __post_init__(self) -> None:
        if not 0 <= self.sequence < 1 << 64:
            raise ValueError(f"expected a sequence between 0 and 2^64-1, got {self.sequence}")

    def encode(self) -> bytes:
        """The message's bytes, without the frame's length."""
        return heartbeat_pb2.Beat(sequence=self.sequence).SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, data: bytes) -> Beat:
        """The `Beat` in `data`. Raises ProtocolError if there is none."""
        message = heartbeat_pb2.Beat()
        try:
            message.ParseFromString(data)
        except DecodeError as error:
            raise ProtocolError(f"expected a Beat: {error}") from None
        return cls(message.sequence)
