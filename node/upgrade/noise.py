"""Noise as libp2p speaks it: who the other side is, and everything after it encrypted. Rules only, no I/O.

    Noise_XX_25519_ChaChaPoly_SHA256, each message behind its length (2 bytes, big-endian)

    initiator                                          responder
    e                                      -------->
                                           <--------   e, ee, s, es, payload
    s, se, payload                         -------->
    payload = identity key, its signature over "noise-libp2p-static-key:" + static key, extensions (stream muxers)

    afterwards, both ways: messages of at most 65,535 bytes, 16 of them the tag; nonces count from 0

(https://github.com/libp2p/specs/tree/master/noise, http://www.noiseprotocol.org/noise.html)

`Handshake` takes and gives whole messages and ends in a `Session`, or in a ProtocolError; `Session` seals and opens.
A nonce is never used twice: past the last one the session refuses, and the connection is over. With a prologue both
sides must know the same bytes, or they don't understand each other. Framing, sockets and deadlines are the caller's.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from google.protobuf.message import DecodeError
from libp2p.crypto.keys import PublicKey
from libp2p.crypto.serialization import deserialize_public_key
from libp2p.security.noise.pb.noise_pb2 import NoiseHandshakePayload as Payload

from protocols import ProtocolError

NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"
SIGNED = b"noise-libp2p-static-key:"
KEY, TAG = 32, 16
MAX_MESSAGE = 65535
MAX_PLAINTEXT = MAX_MESSAGE - TAG
MAX_MUXERS = 32
LENGTH = struct.Struct(">H")
_NONCE = struct.Struct("<4xQ")
LAST_NONCE = 2**64 - 2  # the specification keeps the last of all for rekeying


class Cipher:
    """One key and its count."""

    __slots__ = ("_aead", "_nonce")

    def __init__(self, key: bytes, nonce: int = 0) -> None:
        self._aead = ChaCha20Poly1305(key)
        self._nonce = nonce

    def _next(self) -> bytes:
        if self._nonce > LAST_NONCE:
            raise ProtocolError("expected fewer messages under one key, got as many as there are nonces")
        nonce = _NONCE.pack(self._nonce)
        self._nonce += 1
        return nonce

    def seal(self, plaintext: bytes, associated: bytes | None = None) -> bytes:
        """The ciphertext, 16 bytes longer."""
        return self._aead.encrypt(self._next(), plaintext, associated)

    def seal_into(self, plaintext: bytes | memoryview, into: memoryview) -> None:
        """As `seal`, into a buffer of just that size."""
        self._aead.encrypt_into(self._next(), plaintext, None, into)

    def open(self, ciphertext: bytes | memoryview, associated: bytes | None = None) -> bytes:
        """The plaintext. Raises ProtocolError for one that isn't the peer's next."""
        try:
            return self._aead.decrypt(self._next(), ciphertext, associated)
        except InvalidTag:
            raise ProtocolError("expected a message of the peer's own, got one that doesn't decrypt") from None


class Session:
    """What a handshake ends in. `remote_key` is the peer's identity, proven; `muxers` what it said it has."""

    def __init__(self, sending: Cipher, receiving: Cipher, remote_key: PublicKey, muxers: Sequence[str]) -> None:
        self.remote_key = remote_key
        self.muxers = tuple(muxers)
        self.ended = False  # Noise has no end of its own
        self._sending = sending
        self._receiving = receiving

    def seal(self, messages: Sequence[bytes | memoryview], into: memoryview) -> int:
        """Writes the messages, each of at most `MAX_PLAINTEXT` bytes, one behind the other; the bytes written."""
        at = 0
        for message in messages:
            start, size = at + LENGTH.size, len(message) + TAG
            LENGTH.pack_into(into, at, size)
            at = start + size
            self._sending.seal_into(message, into[start:at])
        return at

    def open(self, data: memoryview) -> tuple[list[bytes], int]:
        """The plaintexts of the whole messages that `data` starts with, and how many of its bytes they were."""
        messages: list[bytes] = []
        at, end = 0, len(data)
        while end - at >= LENGTH.size:
            start = at + LENGTH.size
            stop: int = start + LENGTH.unpack_from(data, at)[0]
            if stop > end:
                break
            messages.append(self._receiving.open(data[start:stop]))
            at = stop
        return messages, at

    def end(self) -> bytes:
        """Nothing: the connection's end is all there is."""
        return b""


@dataclass(frozen=True)
class Local:
    """What this side brings: its static key, and the payload that proves whose it is. Made once, used for each."""

    static: X25519PrivateKey
    public: bytes
    payload: bytes

    @classmethod
    def of(cls, static: X25519PrivateKey, identity: object, muxers: Sequence[str]) -> Local:
        """`identity` is py-libp2p's private key."""
        public = static.public_key().public_bytes_raw()
        payload = Payload(
            identity_key=identity.get_public_key().serialize(),  # type: ignore[attr-defined]
            identity_sig=identity.sign(SIGNED + public),  # type: ignore[attr-defined]
        )
        payload.extensions.stream_muxers.extend(muxers)
        return cls(static, public, payload.SerializeToString())


class Handshake:
    """One side's handshake: call `write` and `read` in turn, the initiator writing first, until `session` is there."""

    def __init__(self, *, initiator: bool, local: Local, prologue: bytes = b"") -> None:
        self.initiator = initiator
        self.session: Session | None = None
        self.remote_key: PublicKey | None = None  # the peer's identity, once it is proven
        self._local = local
        self._ephemeral = X25519PrivateKey.generate()
        self._remote_ephemeral: X25519PublicKey | None = None
        self._remote_static: X25519PublicKey | None = None
        self._muxers: list[str] = []
        self._chaining = self._hash = NAME  # 32 bytes: exactly one hash long
        self._cipher: Cipher | None = None
        self._step = 0
        self._mix_hash(prologue)

    def write(self) -> bytes:
        """Our next message, without its length."""
        self._step += 1
        ephemeral = self._ephemeral.public_key().public_bytes_raw()
        if self._step == 1:
            self._mix_hash(ephemeral)
            return ephemeral + self._seal(b"")
        if self._step == 2:
            self._mix_hash(ephemeral)
            self._mix_key(self._exchange(self._ephemeral, self._remote_ephemeral))
            static = self._seal(self._local.public)
            self._mix_key(self._exchange(self._local.static, self._remote_ephemeral))
            return ephemeral + static + self._seal(self._local.payload)
        static = self._seal(self._local.public)
        self._mix_key(self._exchange(self._local.static, self._remote_ephemeral))
        message = static + self._seal(self._local.payload)
        self._finish()
        return message

    def read(self, message: bytes) -> None:
        """Takes the peer's next message. Raises ProtocolError."""
        self._step += 1
        if self._step < 3:
            if len(message) < KEY:
                raise ProtocolError(f"expected a Noise message of at least {KEY} bytes, got {len(message)}")
            self._remote_ephemeral = X25519PublicKey.from_public_bytes(message[:KEY])
            self._mix_hash(message[:KEY])
            message = message[KEY:]
        if self._step == 1:
            self._open(message)
            return
        if len(message) < KEY + 2 * TAG:
            raise ProtocolError(f"expected a Noise message of at least {KEY + 2 * TAG} bytes, got {len(message)}")
        if self._step == 2:
            self._mix_key(self._exchange(self._ephemeral, self._remote_ephemeral))
        self._remote_static = X25519PublicKey.from_public_bytes(self._open(message[: KEY + TAG]))
        self._mix_key(self._exchange(self._ephemeral, self._remote_static))
        payload = Payload()
        try:
            payload.ParseFromString(self._open(message[KEY + TAG :]))
        except DecodeError as error:
            raise ProtocolError(f"expected a Noise payload: {error}") from None
        self.remote_key = self._proven(payload)
        self._muxers = [name for name in payload.extensions.stream_muxers if len(name) < 256][:MAX_MUXERS]
        if self._step == 3:
            self._finish()

    def _finish(self) -> None:
        assert self.remote_key is not None
        first, second = _hkdf(self._chaining, b"")
        ours, theirs = (first, second) if self.initiator else (second, first)
        self.session = Session(Cipher(ours), Cipher(theirs), self.remote_key, self._muxers)

    def _proven(self, payload: Payload) -> PublicKey:
        """The identity key, if its signature over the static key holds."""
        assert self._remote_static is not None
        try:
            key: PublicKey = deserialize_public_key(payload.identity_key)
            proven = key.verify(SIGNED + self._remote_static.public_bytes_raw(), payload.identity_sig)
        except Exception as error:  # py-libp2p's keys raise whatever their libraries raise for bad bytes
            raise ProtocolError(f"expected an identity key and its signature: {error!r}") from None
        if not proven:
            raise ProtocolError("expected the identity's signature over its static key, got another one")
        return key

    def _exchange(self, ours: X25519PrivateKey, theirs: X25519PublicKey | None) -> bytes:
        assert theirs is not None
        try:
            return ours.exchange(theirs)
        except ValueError:
            raise ProtocolError("expected a key that leads to a shared secret, got one that doesn't") from None

    def _mix_hash(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def _mix_key(self, secret: bytes) -> None:
        self._chaining, key = _hkdf(self._chaining, secret)
        self._cipher = Cipher(key)

    def _seal(self, plaintext: bytes) -> bytes:
        sealed = plaintext if self._cipher is None else self._cipher.seal(plaintext, self._hash)
        self._mix_hash(sealed)
        return sealed

    def _open(self, sealed: bytes) -> bytes:
        plaintext = sealed if self._cipher is None else self._cipher.open(sealed, self._hash)
        self._mix_hash(sealed)
        return plaintext


def _hkdf(chaining: bytes, secret: bytes) -> tuple[bytes, bytes]:
    temporary = hmac.digest(chaining, secret, "sha256")
    first = hmac.digest(temporary, b"\x01", "sha256")
    return first, hmac.digest(temporary, first + b"\x02", "sha256")
