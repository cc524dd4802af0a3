"""Who a node is: an Ed25519 key, the peer ID that follows from it, and the file that keeps it.

    secret       32 bytes, the seed of RFC 8032
    public key   32 bytes
    peer ID      base58btc of 00 24 | 08 01 12 20 | public key
                 (identity multihash of 36 bytes; protobuf PublicKey: Type = Ed25519, Data = 32 bytes),
                 libp2p's peer-ids specification; it always begins with 12D3KooW
    key file     the secret as 64 hex digits without a newline, which is what `subkey generate-node-key --file`
                 writes; read with a 0x prefix and white space around it too, or as the 32 bytes themselves (`--bin`)

A key file is never overwritten. Left to the caller: where it lies, and what to do about a file that others can read
(`key_file_warning` has the sentence). libp2p isn't imported before `key_pair` needs it: it takes a second, and
commands that only look at a key shouldn't wait for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import base58
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.errors import UsageError, VouchError

if TYPE_CHECKING:
    from libp2p.crypto.keys import KeyPair

SECRET_SIZE = 32
MAX_KEY_FILE = 4096  # bytes; anything longer isn't a key and isn't read to its end

_PEER_ID_PREFIX = bytes.fromhex("002408011220")
_HEX_SECRET = re.compile(rb"\s*(?:0[xX])?([0-9a-fA-F]{64})\s*")
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True)
class Identity:
    """A secret with the public key and peer ID that follow from it. Its repr doesn't show the secret."""

    secret: bytes = field(repr=False)
    public_key: bytes = field(init=False, repr=False, compare=False)
    peer_id: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.secret) != SECRET_SIZE:
            raise UsageError(f"expected an Ed25519 secret of {SECRET_SIZE} bytes, got {len(self.secret)}")
        public_key = Ed25519PrivateKey.from_private_bytes(self.secret).public_key().public_bytes_raw()
        object.__setattr__(self, "public_key", public_key)
        object.__setattr__(self, "peer_id", base58.b58encode(_PEER_ID_PREFIX + public_key).decode("ascii"))

    @classmethod
    def generate(cls) -> Identity:
        """A new identity from the operating system's randomness."""
        return cls(secrets.token_bytes(SECRET_SIZE))

    @classmethod
    def from_secret(cls, secret: bytes) -> Identity:
        """The identity of a 32-byte seed; UsageError for any other length."""
        return cls(bytes(secret))

    def key_pair(self) -> KeyPair:
        """The same key as libp2p holds it. VouchError if libp2p derives another peer ID from it than we do."""
        from libp2p.crypto.ed25519 import create_new_key_pair
        from libp2p.peer.id import ID

        pair = create_new_key_pair(self.secret)
        theirs = str(ID.from_pubkey(pair.public_key))
        if theirs != self.peer_id:
            raise VouchError(f"expected libp2p to derive the peer ID {self.peer_id} from our key, got {theirs}")
        return pair


def write_key(path: Path, identity: Identity) -> None:
    """Write the secret to a new file that only its owner can read. It is there whole or not at all.

    UsageError if the file exists, its folder doesn't, or the file system refuses.
    """
    with _usage_errors(path):
        try:
            _create(path, identity)
        except FileExistsError:
            raise UsageError(f"key file {path}: expected a new file, got one that exists; it stays as it is") from None


def load_key(path: Path) -> Identity:
    """Read a key file in any of the forms in the module's docstring; UsageError for all else."""
    with _usage_errors(path), path.open("rb") as file:
        content = file.read(MAX_KEY_FILE + 1)
    if len(content) == SECRET_SIZE:
        return Identity(content)
    if len(content) <= MAX_KEY_FILE and (match := _HEX_SECRET.fullmatch(content)):
        return Identity(bytes.fromhex(match[1].decode("ascii")))
    # What came is only counted: a file that is almost a key is almost a secret.
    came = f"{len(content)} bytes" if len(content) <= MAX_KEY_FILE else f"more than {MAX_KEY_FILE} bytes"
    raise UsageError(f"key file {path}: expected 64 hex digits or {SECRET_SIZE} raw bytes, got {came} of another form")


def load_or_make_key(path: Path) -> tuple[Identity, bool]:
    """The identity in the file, and whether it was made just now because there was none.

    Makes the file's folder too, for its owner only. Nodes that start at the same time on one folder agree on one key.
    """
    with _usage_errors(path):
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            identity = Identity.generate()
            # FileExistsError: another process was faster, and its key is as good as ours.
            with contextlib.suppress(FileExistsError):
                _create(path, identity)
                return identity, True
    return load_key(path), False


def key_file_warning(path: Path) -> str | None:
    """One line for the operator if others than the file's owner can get at it, else None."""
    with _usage_errors(path):
        mode = path.stat().st_mode & 0o777
    if os.name == "nt" or not mode & 0o077:
        return None
    return f"key file {path}: expected mode 0600, got {mode:04o}; others than its owner can use this secret"


@contextlib.contextmanager
def _usage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one line that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        if not path.parent.is_dir():
            raise UsageError(f"key file {path}: expected the folder {path.parent} to exist, got none") from error
        raise UsageError(f"key file {path}: expected a key file, got none") from error
    except OSError as error:
        raise UsageError(f"key file {path}: expected to read or write it, got: {error.strerror}") from error


def _create(path: Path, identity: Identity) -> None:
    """Put the whole file in place under its name, or raise FileExistsError. A crash leaves no half of a key there."""
    temporary = path.parent / f".key-{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(identity.secret.hex().encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike rename, it refuses to replace
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            # A file system without hard links (FAT, some shared folders): claim the name first, then replace our claim.
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut. Not every file system can, and the key is in place either way."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
