"""Which values may be stored under which keys: a validator for each namespace. Rules only, no I/O.

    /pk/PEER-ID-IN-BYTES      the peer's public key, which its ID is the hash of: built in
    /NAMESPACE/…              what a program registers

A value whose namespace has no validator is neither stored nor believed: nobody keeps what nothing checks. The node has
no namespace of its own.
"""

from __future__ import annotations

import hashlib
import re
import typing
from collections.abc import Sequence

from protocols.kad.wire import MAX_KEY, MAX_VALUE


class InvalidValueError(ValueError):
    """A key or value that the namespace's rules refuse. The text says what was expected."""


class Validator(typing.Protocol):
    """The rules of one namespace. Both are called with strangers' bytes, and must be quick."""

    def validate(self, key: bytes, value: bytes) -> None:
        """Raises ValueError if the value may not be under the key."""

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        """Which of valid values is the best: its index."""


class PublicKeys:
    """The rules of /pk/."""

    def validate(self, key: bytes, value: bytes) -> None:
        peer = key[len(b"/pk/") :]
        digest = hashlib.sha256(value).digest()
        if peer not in (b"\x12\x20" + digest, b"\x00" + bytes([min(len(value), 255)]) + value):
            raise InvalidValueError("expected under /pk/PEER the public key whose hash the peer ID is")

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        return 0


class Validators:
    """Validators by namespace. `/pk/` is there from the start."""

    def __init__(self) -> None:
        self._by_namespace: dict[str, Validator] = {"pk": PublicKeys()}

    def register(self, namespace: str, validator: Validator) -> None:
        """Takes values under /NAMESPACE/… from now on. Raises ValueError for a bad name, or one that is taken."""
        namespace = namespace.strip("/")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", namespace):
            raise ValueError(f"expected a namespace of letters, digits, '.', '_' and '-', got {namespace!r}")
        if namespace in self._by_namespace:
            raise ValueError(f"the namespace /{namespace}/ has a validator already")
        self._by_namespace[namespace] = validator

    def namespaces(self) -> list[str]:
        """Those that have a validator."""
        return sorted(self._by_namespace)

    def check_key(self, key: bytes) -> Validator:
        """The validator of a key. Raises InvalidValueError."""
        _, slash, rest = key.partition(b"/")
        namespace, _, name = rest.partition(b"/")
        validator = self._by_namespace.get(namespace.decode("ascii", "replace")) if key[:1] == slash == b"/" else None
        if validator is None or not name or len(key) > MAX_KEY:
            known = ", ".join(f"/{name}/…" for name in self.namespaces())
            raise InvalidValueError(f"expected a key of at most {MAX_KEY} bytes under {known}, got {key[:64]!r}")
        return validator

    def validate(self, key: bytes, value: bytes) -> None:
        """Raises InvalidValueError, whatever the namespace's own validator raises."""
        validator = self.check_key(key)
        if len(value) > MAX_VALUE:
            raise InvalidValueError(f"expected a value of at most {MAX_VALUE} bytes, got {len(value)}")
        try:
            validator.validate(key, value)
        except InvalidValueError:
            raise
        except Exception as error:  # a program's code on a stranger's bytes: whatever it raises, the value isn't valid
            raise InvalidValueError(f"{key[:64]!r}: {error or type(error).__name__}") from error

    def best(self, key: bytes, values: Sequence[bytes]) -> bytes:
        """The best of one or more valid values."""
        try:
            index = self.check_key(key).select(key, values)
            return values[index]
        except (ValueError, IndexError):
            return values[0]
