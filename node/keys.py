"""Public keys of strangers: refused by their size before anything looks inside.

py-libp2p has RSA keys parsed before it checks how long they are, and parsing costs by the square of the length: 58 KB
in a handshake stopped the event loop for 8 s. All ways to a key (Noise, identify, signed records, Kademlia) end in one
table of py-libp2p's, by kind of key; `bound_keys` puts the bound there. It is the one table of the library that the
node changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libp2p.crypto import serialization

# an RSA key of 8,192 bits has about 1,060 bytes; the other kinds have under 100
MAX_KEY = 1100


def bound_keys() -> None:
    """Makes py-libp2p refuse public keys over MAX_KEY bytes, whoever asks. Idempotent."""
    table: dict[Any, Callable[[bytes], Any]] = serialization.key_type_to_public_key_deserializer
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
