"""Where things are in Kademlia's space: a key or peer ID is at SHA-256 of its bytes, as a number of 256 bits.

    distance = XOR of two points            common prefix = 256 - bits of the distance

Source: libp2p/specs, kad-dht/README.md ("Kademlia Keyspace").
"""

from __future__ import annotations

import hashlib
import random
from functools import lru_cache

import base58

BITS = 256
# prefixes longer than this take too many hashes to hit by chance, and no table is that deep
MAX_PREFIX = 12

_IDENTITY, _SHA2_256 = 0x00, 0x12
_ED25519 = b"\x00\x24\x08\x01\x12\x20"  # what the IDs of Ed25519 keys begin with


@lru_cache(maxsize=8192)
def point(key: bytes) -> int:
    """Where a key, or a peer's ID in bytes, is."""
    return int.from_bytes(hashlib.sha256(key).digest(), "big")


def common_prefix(one: int, other: int) -> int:
    """The bits that two points share at their beginning: 0 to 256."""
    return BITS - (one ^ other).bit_length()


def is_peer_id(data: bytes) -> bool:
    """Whether bytes are a peer ID: a multihash of SHA-256, or a small key itself."""
    if len(data) < 2 or data[1] != len(data) - 2:
        return False
    return (data[0] == _SHA2_256 and data[1] == 32) or (data[0] == _IDENTITY and 0 < data[1] <= 42)


@lru_cache(maxsize=8192)
def to_text(peer: bytes) -> str:
    """A peer ID in base58."""
    return base58.b58encode(peer).decode()


@lru_cache(maxsize=8192)
def to_bytes(peer: str) -> bytes:
    """A peer ID from base58. Raises ValueError."""
    data = base58.b58decode(peer)
    if not is_peer_id(data):
        raise ValueError(f"expected a peer ID such as 12D3KooW…, got {peer!r}")
    return data


def random_key(rng: random.Random, local: int | None = None, prefix: int = 0) -> bytes:
    """A key in the form of a peer ID, which nobody has: anywhere, or sharing exactly `prefix` bits with `local`.

    A prefix of more than MAX_PREFIX bits counts as that many.
    """
    prefix = min(prefix, MAX_PREFIX)
    while True:
        key = _ED25519 + rng.randbytes(32)
        if local is None or common_prefix(_point(key), local) == prefix:
            return key


def _point(key: bytes) -> int:
    return int.from_bytes(hashlib.sha256(key).digest(), "big")
