"""`Hello`, the handshake's only message, between bytes and values.

    frame = varint length (at most 256), Hello       on /vouch/handshake/1.0.0, see docs/wire.md

Decoding gives a `Hello` whose fields are valid, or a `ProtocolError`; nothing else, whatever the bytes. Whether a valid
`Hello` is one of our network is `engine`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from protocols.errors import ProtocolError
from protocols.handshake import handshake_pb2

PROTOCOL_ID = "/vouch/handshake/1.0.0"
MAX_FRAME = 256
MAX_NETWORK_ID = 64

_NUMBER = r"(0|[1-9][0-9]*)"
_CLIENT_VERSION = re.compile(rf"([A-Za-z0-9._-]{{1,32}})/{_NUMBER}\.{_NUMBER}\.{_NUMBER}", re.ASCII)
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}", re.ASCII)

Version = tuple[int, int, int]


def parse_version(text: str) -> Version:
    """`N.N.N` as numbers. Raises ValueError for anything else."""
    match = _VERSION.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a version such as 1.2.3, numbers without leading zeros, got {text!r}")
    major, minor, patch = match.groups()
    return int(major), int(minor), int(patch)


def parse_client_version(text: str) -> tuple[str, Version]:
    """`NAME/N.N.N` as name and numbers. Raises ValueError for anything else."""
    match = _CLIENT_VERSION.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a client version such as vouch/1.2.3, got {text!r}")
    name, major, minor, patch = match.groups()
    return name, (int(major), int(minor), int(patch))


@dataclass(frozen=True)
class Hello:
    """Who speaks, and for which network. Valid by construction: ValueError otherwise."""

    client_version: str
    network_id: bytes

    def __post_init__(self) -> None:
        parse_client_version(self.client_version)
        if not 1 <= len(self.network_id) <= MAX_NETWORK_ID:
            raise ValueError(f"expected a network ID of 1 to {MAX_NETWORK_ID} bytes, got {len(self.network_id)}")
        if len(self.encode()) > MAX_FRAME:
            raise ValueError(f"expected a Hello of at most {MAX_FRAME} bytes, got {len(self.encode())}")

    def encode(self) -> bytes:
        """The message's bytes, without the frame's length."""
        return handshake_pb2.Hello(client_version=self.client_version, network_id=self.network_id).SerializeToString(
            deterministic=True
        )

    @classmethod
    def decode(cls, data: bytes) -> Hello:
        """The `Hello` in `data`. Raises ProtocolError if there is none."""
        message = handshake_pb2.Hello()
        try:
            message.ParseFromString(data)
            return cls(message.client_version, message.network_id)
        except (DecodeError, ValueError) as error:
            raise ProtocolError(f"expected a Hello: {error}") from None
