"""Who wrote a message: libp2p's public keys, as far as checking signatures goes, and the key that we sign with.

    PublicKey    protobuf: Type = 1 (varint), Data = 2
    peer ID      base58 of the multihash of that protobuf: identity up to 42 bytes, SHA-256 above

    Type           Data                              a signature
    0 RSA          PKIX DER, 2048 to 8192 bits       PKCS #1 v1.5, SHA-256
    1 Ed25519      32 bytes                          RFC 8032
    2 secp256k1    33 bytes, compressed              ECDSA, SHA-256, DER
    3 ECDSA        PKIX DER, P-256, P-384 or P-521   ECDSA, SHA-256, DER

Source: https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md. py-libp2p can neither load nor check keys of
type 3, and takes RSA keys of any size. Ed25519 goes through libsodium, which checks in half of OpenSSL's time, the
others through `cryptography`. The keys of the last authors are kept.
"""

from __future__ import annotations

import hashlib
import typing
from collections.abc import Callable
from functools import lru_cache

import base58
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from google.protobuf.message import DecodeError
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_PUBLICKEYBYTES, crypto_sign_seed_keypair
from nacl.exceptions import CryptoError

from protocols.framing import encode_uvarint
from protocols.messages import messages_pb2

RSA, ED25519, SECP256K1, ECDSA = range(4)
MAX_KEY_BYTES = 1100  # of an RSA key of 8192 bits, with its envelope
KNOWN_AUTHORS = 4096
SIGNATURE_BYTES = 64  # Ed25519's
# of RSA with 8192 bits
MAX_SIGNATURE_BYTES = 1024

_MIN_RSA_BITS, _MAX_RSA_BITS = 2048, 8192
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_INLINE = 42
_PREFIX = bytes.fromhex("08011220")  # PublicKey{Type: Ed25519, Data: 32 bytes}

Verify = Callable[[bytes, bytes], bool]


class Author(typing.NamedTuple):
    """Somebody who signs. `peer` is its peer ID as text, `verify(signature, data)` tells whether it signed `data`."""

    peer: str
    verify: Verify


class Signer(typing.Protocol):
    """What signs our messages."""

    @property
    def public_key(self) -> bytes:
        """libp2p's PublicKey protobuf."""

    def sign(self, data: bytes) -> bytes:
        """The signature over `data`."""


class Ed25519Signer:
    """Signs with an Ed25519 secret, the 32-byte seed of RFC 8032."""

    __slots__ = ("_secret", "public_key")

    def __init__(self, seed: bytes) -> None:
        key, self._secret = crypto_sign_seed_keypair(seed)
        self.public_key = _PREFIX + key

    def sign(self, data: bytes) -> bytes:
        signed: bytes = crypto_sign(data, self._secret)
        return signed[:SIGNATURE_BYTES]


def encode_key(kind: int, data: bytes) -> bytes:
    """The PublicKey protobuf of a key, in its one form."""
    return bytes((0x08, kind, 0x12)) + encode_uvarint(len(data)) + data


def peer_id_of(public_key: bytes) -> bytes:
    """The peer ID of a PublicKey protobuf, as bytes."""
    if len(public_key) <= _INLINE:
        return bytes((0, len(public_key))) + public_key
    return b"\x12\x20" + hashlib.sha256(public_key).digest()


@lru_cache(maxsize=KNOWN_AUTHORS)
def peer_id_bytes(peer: str) -> bytes:
    """A peer ID as it goes over the wire, from its text in base58. Raises ValueError."""
    return base58.b58decode(peer)


@lru_cache(maxsize=KNOWN_AUTHORS)
def author_of(public_key: bytes) -> Author:
    """The author with that key. Raises ValueError for what is no key that libp2p knows, or one of unusual size."""
    if len(public_key) > MAX_KEY_BYTES:
        raise ValueError(f"a key of at most {MAX_KEY_BYTES} bytes, got one of {len(public_key)}")
    key = messages_pb2.PublicKey()
    try:
        key.ParseFromString(public_key)
    except DecodeError:
        raise ValueError("a libp2p PublicKey, got something else") from None
    if key.type not in _LOADERS:
        raise ValueError(f"a key of type 0 to 3, got {key.type}")
    if encode_key(key.type, key.data) != public_key:
        raise ValueError("a libp2p PublicKey in its one form, got a longer one")  # its owner would have many names
    try:
        verify = _LOADERS[key.type](key.data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"a key of type {key.type}: {error}") from None
    return Author(base58.b58encode(peer_id_of(public_key)).decode("ascii"), verify)


def _ed25519(data: bytes) -> Verify:
    if len(data) != crypto_sign_PUBLICKEYBYTES:
        raise ValueError(f"expected {crypto_sign_PUBLICKEYBYTES} bytes, got {len(data)}")

    def verify(signature: bytes, message: bytes) -> bool:
        if len(signature) != SIGNATURE_BYTES:
            return False
        try:
            crypto_sign_open(signature + message, data)
        except CryptoError:
            return False
        return True

    return verify


def _ecdsa_with(key: ec.EllipticCurvePublicKey) -> Verify:
    algorithm = ec.ECDSA(SHA256())

    def verify(signature: bytes, message: bytes) -> bool:
        try:
            key.verify(signature, message, algorithm)
        except InvalidSignature:
            return False
        return True

    return verify


def _secp256k1(data: bytes) -> Verify:
    if len(data) != 33:
        raise ValueError(f"expected a compressed point of 33 bytes, got {len(data)}")
    return _ecdsa_with(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), data))


def _need_one_form(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, data: bytes) -> None:
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != data:
        raise ValueError("expected it in its one form: a point uncompressed, RSA with parameters of NULL")


def _ecdsa(data: bytes) -> Verify:
    key = load_der_public_key(data)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise ValueError("expected a key on P-256, P-384 or P-521")
    _need_one_form(key, data)
    return _ecdsa_with(key)


def _rsa(data: bytes) -> Verify:
    key = load_der_public_key(data)
    if not isinstance(key, rsa.RSAPublicKey) or not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        raise ValueError(f"expected an RSA key of {_MIN_RSA_BITS} to {_MAX_RSA_BITS} bits")
    _need_one_form(key, data)
    scheme, algorithm = padding.PKCS1v15(), SHA256()

    def verify(signature: bytes, message: bytes) -> bool:
        try:
            key.verify(signature, message, scheme, algorithm)
        except InvalidSignature:
            return False
        return True

    return verify


_LOADERS: dict[int, Callable[[bytes], Verify]] = {RSA: _rsa, ED25519: _ed25519, SECP256K1: _secp256k1, ECDSA: _ecdsa}
