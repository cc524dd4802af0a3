"""What can be read and said without a connection: headers, retry tokens, version negotiation. Rules only, no I/O.

    short header:  0x40 | …, our connection ID (CID_LENGTH bytes), protected from there on
    long header:   0x80 | …, version (4), length and destination ID, length and source ID, …

A token shows that whoever sends an Initial reads what we send to its address: it is an HMAC over the address, the two
connection IDs and the time. (RFC 9000, 8.1.2, 17.2)

A stateless reset ends a connection of which nothing is known any more, after a restart that is: a short header of any
bytes with a token at its end that the client was told in its handshake, an HMAC over the connection ID by a key that
outlives the restart. (10.3)
"""

from __future__ import annotations

import hmac
import os
import struct
from dataclasses import dataclass

from qh3._hazmat import pull_quic_header
from qh3.quic.packet import encode_quic_retry, encode_quic_version_negotiation

VERSION = 1
CID_LENGTH = 8
MAX_CID = 20
MIN_INITIAL = 1200
TOKEN_LIFE = 10.0
INITIAL = 0
_TAG = 16
# a reset looks like the shortest packet there is, is shorter than what it answers, and no longer than it needs to be
MIN_RESET, MAX_RESET = 5 + _TAG, 42
_HEAD = struct.Struct(">dB")
_LONG, _FIXED = 0x80, 0x40


@dataclass(frozen=True)
class Initial:
    """A client's first packet."""

    destination: bytes
    source: bytes
    token: bytes


def destination(data: bytes) -> bytes:
    """The connection ID that a datagram is for, b"" if it can't be one of ours."""
    if not data:
        return b""
    if not data[0] & _LONG:
        return data[1 : 1 + CID_LENGTH] if data[0] & _FIXED and len(data) > CID_LENGTH else b""
    if len(data) < 7 or data[5] > MAX_CID:
        return b""
    return data[6 : 6 + data[5]]


def is_long(data: bytes) -> bool:
    return bool(data) and bool(data[0] & _LONG)


def parse_initial(data: bytes) -> Initial | None:
    """The Initial that a datagram of a new client begins with, None if it is nothing to answer."""
    if len(data) < MIN_INITIAL or not data[0] & _LONG:
        return None
    try:
        version, kind, _, target, source, token, *_ = pull_quic_header(data, 0, CID_LENGTH)
    except (ValueError, OverflowError):
        return None
    if version != VERSION or kind != INITIAL or not 8 <= len(target) <= MAX_CID:
        return None
    return Initial(target, source, token)


def other_version(data: bytes) -> bytes | None:
    """The answer to a client of another version, None if `data` isn't from one."""
    if len(data) < MIN_INITIAL or not data[0] & _LONG:
        return None
    if data[1:5] in (b"\0\0\0\0", VERSION.to_bytes(4, "big")):
        return None
    end = 6 + data[5]
    if data[5] > MAX_CID or data[end] > MAX_CID:
        return None
    return encode_quic_version_negotiation(data[6:end], data[end + 1 : end + 1 + data[end]], [VERSION])


class Tokens:
    """Makes retry tokens and knows them again. `key` is new for each start."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or os.urandom(32)

    def retry(self, initial: Initial, addr: tuple[str, int], now: float) -> bytes:
        """The Retry packet for an Initial that hasn't shown its address."""
        ours = os.urandom(CID_LENGTH)
        head = _HEAD.pack(now, len(initial.destination)) + initial.destination
        token = head + self._tag(head, ours, addr)
        return encode_quic_retry(VERSION, ours, initial.source, initial.destination, token)

    def check(self, initial: Initial, addr: tuple[str, int], now: float) -> bytes | None:
        """The destination ID of the first Initial, if the token is ours and fresh and came from `addr`."""
        token = initial.token
        if len(token) < _HEAD.size + _TAG:
            return None
        head, tag = token[:-_TAG], token[-_TAG:]
        made, size = _HEAD.unpack_from(head)
        if not hmac.compare_digest(tag, self._tag(head, initial.destination, addr)):
            return None
        return head[_HEAD.size : _HEAD.size + size] if 0 <= now - made <= TOKEN_LIFE else None

    def _tag(self, head: bytes, ours: bytes, addr: tuple[str, int]) -> bytes:
        said = b"\0".join((head, ours, f"{addr[0]} {addr[1]}".encode()))
        return hmac.digest(self._key, said, "sha256")[:_TAG]


class Resets:
    """Makes stateless resets. `key` is the same after a restart; `where` is the socket's address: a token that one
    socket tells would end a connection of another's with the same ID.
    """

    def __init__(self, key: bytes, where: str) -> None:
        self._key = hmac.digest(key, b"stateless reset " + where.encode(), "sha256")

    def token(self, cid: bytes) -> bytes:
        """What the client of that connection is told."""
        return hmac.digest(self._key, cid, "sha256")[:_TAG]

    def answer(self, data: bytes) -> bytes | None:
        """The reset for a datagram of a connection that isn't there, None if it is none."""
        cid, size = destination(data), min(len(data) - 1, MAX_RESET)
        if is_long(data) or not cid or size < MIN_RESET:
            return None
        head = bytearray(os.urandom(size - _TAG))
        head[0] = head[0] & 0x3F | _FIXED
        return bytes(head) + self.token(cid)
