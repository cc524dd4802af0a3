"""Certificates as libp2p's TLS wants them: whose the connection is, proven by the identity key. Rules only, no I/O.

    certificate: self-signed, by a key of its own that lives as long as the node
      extension 1.3.6.1.4.1.53594.1.1: SEQUENCE { OCTET STRING identity key (a PublicKey protobuf),
                                                  OCTET STRING signature over "libp2p-tls-handshake:" + the
                                                               certificate's SubjectPublicKeyInfo }

(https://github.com/libp2p/specs/blob/master/tls/tls.md)

`peer_key` says who a certificate belongs to, or raises ProtocolError. That the other side has the certificate's key is
shown by the TLS handshake, not here.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtensionOID, NameOID
from google.protobuf.message import DecodeError
from libp2p.crypto.exceptions import MissingDeserializerError
from libp2p.crypto.keys import KeyPair, PublicKey
from libp2p.crypto.serialization import deserialize_public_key

from protocols import ProtocolError

EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
SIGNED = b"libp2p-tls-handshake:"
VALID_FOR = datetime.timedelta(days=100 * 365)
CLOCKS_DIFFER = datetime.timedelta(hours=1)
MAX_CERTIFICATE = 8192
MAX_RSA_BITS = 8192
# critical extensions that say nothing which we would have to heed
KNOWN = (ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE, EXTENSION)
SEQUENCE, OCTETS = 0x30, 0x04


@dataclass(frozen=True)
class Credentials:
    """What this side shows: a certificate and its key, both as PEM."""

    certificate: bytes
    key: bytes


def make_credentials(identity: KeyPair, now: datetime.datetime | None = None) -> Credentials:
    """A new key, and the certificate that binds it to the identity."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = now or datetime.datetime.now(datetime.UTC)
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    proof = _der(
        SEQUENCE,
        _der(OCTETS, identity.public_key.serialize()) + _der(OCTETS, identity.private_key.sign(SIGNED + spki)),
    )
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, str(serial))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(now + VALID_FOR)
        .add_extension(x509.UnrecognizedExtension(EXTENSION, proof), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Credentials(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def peer_key(chain: Sequence[bytes], now: datetime.datetime | None = None) -> PublicKey:
    """The identity key that a chain of DER certificates proves. Raises ProtocolError."""
    if len(chain) != 1:
        raise ProtocolError(f"expected one certificate, got {len(chain)}")
    if len(chain[0]) > MAX_CERTIFICATE:
        raise ProtocolError(f"expected a certificate of at most {MAX_CERTIFICATE} bytes, got {len(chain[0])}")
    try:
        return _peer_key(x509.load_der_x509_certificate(chain[0]), now or datetime.datetime.now(datetime.UTC))
    except ProtocolError:
        raise
    except (InvalidSignature, ValueError, TypeError, DecodeError, MissingDeserializerError) as error:
        # the libraries say no in many ways
        raise ProtocolError(f"expected a certificate as libp2p makes them: {error or type(error).__name__}") from None
    except Exception as error:  # x509 has more kinds of errors than it names, and so has protobuf
        raise ProtocolError(f"expected a certificate as libp2p makes them: {error!r}") from None


def _peer_key(certificate: x509.Certificate, now: datetime.datetime) -> PublicKey:
    if not certificate.not_valid_before_utc - CLOCKS_DIFFER <= now <= certificate.not_valid_after_utc:
        raise ProtocolError("expected a certificate that is valid now, got one of another time")
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise ProtocolError(f"expected an EC, Ed25519 or RSA certificate, got {type(key).__name__}")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size > MAX_RSA_BITS:
        raise ProtocolError(f"expected an RSA key of at most {MAX_RSA_BITS} bits, got {key.key_size}")
    proof: bytes | None = None
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in KNOWN:
            raise ProtocolError(f"expected no critical extension but libp2p's, got {extension.oid.dotted_string}")
        if extension.oid == EXTENSION:
            proof = extension.value.public_bytes()
    if proof is None:
        raise ProtocolError("expected the extension with libp2p's signed key, got none")
    certificate.verify_directly_issued_by(certificate)
    body, rest = _undo(SEQUENCE, proof)
    public, body = _undo(OCTETS, body)
    signature, after = _undo(OCTETS, body)
    if rest or after:
        raise ProtocolError("expected a signed key, got bytes behind it")
    identity = deserialize_public_key(public)
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if not identity.verify(SIGNED + spki, signature):
        raise ProtocolError("expected the certificate's key to be signed by the identity, got another signature")
    return identity


def _der(tag: int, body: bytes) -> bytes:
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body


def _undo(tag: int, data: bytes) -> tuple[bytes, bytes]:
    """The body of the element that `data` begins with, and what is behind it."""
    if len(data) < 2 or data[0] != tag:
        raise ProtocolError(f"expected an ASN.1 element with tag {tag:#x}")
    size, at = data[1], 2
    if size & 0x80:
        at += size & 0x7F
        if not 2 < at <= min(len(data), 6):
            raise ProtocolError("expected an ASN.1 element with a length, got a broken one")
        size = int.from_bytes(data[2:at], "big")
    if at + size > len(data):
        raise ProtocolError(f"expected an ASN.1 element of {size} bytes, got {len(data) - at}")
    return data[at : at + size], data[at + size :]
