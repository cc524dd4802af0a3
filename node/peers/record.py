"""The number of a signed peer record, read without libp2p, which takes a second to import. Rules only.

    envelope   1 public key   2 payload type   3 payload   5 signature     (libp2p RFC 0002)
    payload    1 peer ID      2 number (uint64)            3 addresses      (libp2p RFC 0003)

The signature isn't looked at: that is for whoever the record came to.
"""

from __future__ import annotations

from collections.abc import Iterator

import base58

from protocols import ProtocolError

_PAYLOAD, _PEER, _SEQ = 3, 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def record_seq(record: bytes, peer: str = "") -> int:
    """The record's number. Raises ProtocolError if it is no record, or not `peer`'s."""
    payload = dict(_fields(record)).get(_PAYLOAD)
    if not isinstance(payload, bytes):
        raise ProtocolError("expected a signed peer record, got no payload")
    fields = dict(_fields(payload))
    seq, owner = fields.get(_SEQ, 0), fields.get(_PEER)
    if not isinstance(seq, int) or not isinstance(owner, bytes):
        raise ProtocolError("expected a peer ID and a number in a signed peer record, got others")
    if peer and base58.b58encode(owner[:64]).decode() != peer:
        raise ProtocolError(f"expected a signed record of {peer}, got one of another peer")
    return seq


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message, in their order."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            number, at = _varint(data, at)
            yield key >> 3, number
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if kind == _BYTES:
            size, at = _varint(data, at)
        if size is None or at + size > len(data):
            raise ProtocolError("expected a protobuf message, got one that is broken")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count in range(10):
        if at + count >= len(data):
            break
        byte = data[at + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80 and value < 1 << 64:
            return value, at + count + 1
    raise ProtocolError("expected a varint of 64 bits, got none")
