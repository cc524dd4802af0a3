"""Public keys of strangers: all kinds that libp2p knows, refused by their size before anything looks inside.

py-libp2p has RSA keys parsed before it checks how long they are, and parsing costs by the square of the length: 58 KB
in a handshake stopped the event loop for 8 s. And it knows no ECDSA keys, so that peers who have one can't connect. All
ways to a key (Noise, identify, signed records, Kademlia) end in one table of py-libp2p's, by kind of key;
`prepare_keys` puts the bound there, and ECDSA. It is the one table of the library that the node changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libp2p.crypto import serialization
from libp2p.crypto.keys import KeyType, PublicKey

from protocols.messages.authors import ECDSA, Author, author_of, encode_key

# an RSA key of 8,192 bits has about 1,060 bytes; the other kinds have under 100
MAX_KEY = 1100


def prepare_keys() -> None:
    """Makes py-libp2p take ECDSA keys, and refuse public keys over MAX_KEY bytes, whoever asks. Idempotent."""
    table: dict[Any, Callable[[bytes], Any]] = serialization.key_type_to_public_key_deserializer
    table.setdefault(KeyType.ECDSA.value, EcdsaPublicKey)
    for kind, deserialize in list(table.items()):
        if not isinstance(deserialize, _Bounded):
            table[kind] = _Bounded(deserialize)


class _Bounded:
    """A deserializer that looks at the length first."""

    def __init__(self, deserialize: Callable[[bytes], Any]) -> None:
        self._deserialize = deserialize

    def __call__(self, data: bytes) -> Any:
        if len(data) > MAX_KEY:
            raise ValueError(f"expected a public key of at most {MAX_KEY} bytes, got one of {len(data)}")
        return self._deserialize(data)


class EcdsaPublicKey(PublicKey):
    """A key on P-256, P-384 or P-521, from its PKIX DER. Raises ValueError for anything else."""

    def __init__(self, der: bytes) -> None:
        self._der = der
        self._author: Author = author_of(encode_key(ECDSA, der))

    def to_bytes(self) -> bytes:
        return self._der

    def get_type(self) -> KeyType:
        return KeyType.ECDSA

    def verify(self, data: bytes, signature: bytes) -> bool:
        return self._author.verify(signature, data)
