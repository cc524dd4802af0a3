"""What the tests of messages are made of: keys of every kind, rules of several nodes, keys' encodings by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import base58
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocols.framing import encode_uvarint
from protocols.messages.authors import ECDSA, ED25519, RSA, SECP256K1, Ed25519Signer, peer_id_of
from protocols.messages.rules import Rules
from protocols.messages.wire import ONE_WAY, Kind, encode_signed

NETWORK = b"harbour"
VERSION = "vouch/1.2.3"
NOW = 1_700_000_000_000


def rules(number: int = 1, **more: Any) -> Rules:
    """The rules of node `number`, whose key follows from it."""
    settings: dict[str, Any] = {"network_id": NETWORK, "client_version": VERSION, **more}
    return Rules(signer=Ed25519Signer(bytes([number]) * 32), **settings)


def name(of: Rules) -> str:
    """Its peer ID as text."""
    return base58.b58encode(of.peer_id).decode()


def direct(
    sender: Rules, to: Rules | None, payload: bytes = b"payload", protocol: str = "sync", **more: Any
) -> tuple[bytes, bytes]:
    """A message of `sender`, to another or to everybody: the Message and the whole SignedMessage."""
    fields: dict[str, Any] = {"type": 0, "kind": ONE_WAY, "request_id": 0, "timestamp_ms": NOW, **more}
    message = sender.template(protocol, "" if to is None else name(to)).encode(payload, **fields)
    return message, encode_signed(message, sender.sign(message))


def result(call: Callable[[], Any], *errors: type[Exception]) -> Any:
    """What `call` gives, or the error of one of these kinds that it raises."""
    try:
        return call()
    except errors as error:
        return error


REQUEST_1 = {"kind": Kind.REQUEST, "request_id": 1, "type": 7}


# keys


class Key(NamedTuple):
    """A private key of `cryptography`'s: how its public half goes over the wire, and how it signs."""

    public_key: bytes
    sign: Callable[[bytes], bytes]

    @property
    def peer(self) -> str:
        return base58.b58encode(peer_id_of(self.public_key)).decode()


def public_key(kind: int, data: bytes) -> bytes:
    """libp2p's PublicKey, in its one form."""
    return b"\x08" + bytes([kind]) + b"\x12" + encode_uvarint(len(data)) + data


def pkix(key: Any) -> bytes:
    """A public key as PKIX DER."""
    der: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def _elliptic(curve: ec.EllipticCurve) -> Key:
    key = ec.generate_private_key(curve)
    return Key(public_key(ECDSA, pkix(key)), lambda data: key.sign(data, ec.ECDSA(SHA256())))


def _rsa(bits: int) -> Key:
    key = rsa.generate_private_key(65537, bits)
    return Key(public_key(RSA, pkix(key)), lambda data: key.sign(data, padding.PKCS1v15(), SHA256()))


def _secp256k1() -> Key:
    key = ec.generate_private_key(ec.SECP256K1())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return Key(public_key(SECP256K1, point), lambda data: key.sign(data, ec.ECDSA(SHA256())))


def _ed25519() -> Key:
    key = ed25519.Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return Key(public_key(ED25519, raw), key.sign)


KINDS: dict[str, Callable[[], Key]] = {
    "ed25519": _ed25519,
    "secp256k1": _secp256k1,
    "rsa 2048": lambda: _rsa(2048),
    "rsa 3072": lambda: _rsa(3072),
    "p-256": lambda: _elliptic(ec.SECP256R1()),
    "p-384": lambda: _elliptic(ec.SECP384R1()),
    "p-521": lambda: _elliptic(ec.SECP521R1()),
}


@cache
def key_of(kind: str) -> Key:
    """One key of each kind, made once."""
    return KINDS[kind]()


# DER by hand, for keys that no library writes


def der(tag: int, *parts: bytes) -> bytes:
    """One DER element."""
    body = b"".join(parts)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def der_int(value: int) -> bytes:
    """A DER INTEGER of 0 or more."""
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def rsa_pkix(modulus: int, exponent: int, algorithm: str = "06092a864886f70d0101010500") -> bytes:
    """An RSA key as PKIX DER, whatever its numbers; by default with the usual NULL parameters."""
    numbers = der(0x30, der_int(modulus), der_int(exponent))
    return der(0x30, der(0x30, bytes.fromhex(algorithm)), der(0x03, b"\0", numbers))


def p256_pkix(point: bytes) -> bytes:
    """A point of P-256 as PKIX DER, in whatever form it is."""
    algorithm = bytes.fromhex("06072a8648ce3d020106082a8648ce3d030107")
    return der(0x30, der(0x30, algorithm), der(0x03, b"\0", point))
