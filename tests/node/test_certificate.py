"""Certificates: ours are taken, spoiled ones are refused with one kind of error; what needs no connection."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from node.identity import Identity
from node.quic.packets import Tokens, destination, other_version, parse_initial
from node.upgrade.certificate import EXTENSION, SIGNED, Credentials, make_credentials, peer_key
from protocols import ProtocolError

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
IDENTITY = Identity.from_secret(bytes(range(32)))
ADDR = ("192.0.2.1", 4001)


def der(credentials: Credentials) -> bytes:
    return x509.load_pem_x509_certificate(credentials.certificate).public_bytes(serialization.Encoding.DER)


OURS = der(make_credentials(IDENTITY.key_pair(), NOW))


def made(*, key=None, signer=None, extension=True, critical=None, before=NOW - DAY, after=NOW + DAY, said=None):
    """A certificate as others might make it."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    pair = IDENTITY.key_pair()
    public, signature = pair.public_key.serialize(), pair.private_key.sign(said or SIGNED + spki)
    proof = b"\x30" + bytes([len(public) + len(signature) + 4])
    proof += b"\x04" + bytes([len(public)]) + public + b"\x04" + bytes([len(signature)]) + signature
    name = x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(before).not_valid_after(after)
    if extension:
        builder = builder.add_extension(x509.UnrecognizedExtension(EXTENSION, proof), critical=True)
    if critical:
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(critical), b"\x05\0"), True)
    algorithm = None if isinstance(signer or key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signer or key, algorithm).public_bytes(serialization.Encoding.DER)


def test_our_certificate_proves_our_identity():
    assert peer_key([OURS], NOW).serialize() == IDENTITY.key_pair().public_key.serialize()


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()])
def test_other_kinds_of_certificates(key):
    assert peer_key([made(key=key)], NOW).serialize() == IDENTITY.key_pair().public_key.serialize()


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        ([], "one certificate, got 0"),
        ([OURS, OURS], "one certificate, got 2"),
        ([b"\0" * 9000], "at most"),
        ([b"nonsense"], "as libp2p makes them"),
        ([made(extension=False)], "got none"),
        ([made(critical="1.2.3.4")], "no critical extension"),
        ([made(before=NOW + 2 * DAY, after=NOW + 3 * DAY)], "valid now"),
        ([made(before=NOW - 3 * DAY, after=NOW - DAY)], "valid now"),
        ([made(signer=ec.generate_private_key(ec.SECP256R1()))], "as libp2p makes them"),
        ([made(said=b"libp2p-tls-handshake:another key")], "another signature"),
    ],
)
def test_others_are_refused(chain, reason):
    with pytest.raises(ProtocolError, match=reason):
        peer_key(chain, NOW)


@given(st.integers(0, len(OURS) - 1), st.integers(1, 255))
def test_a_spoiled_certificate_proves_nobody_else(at, by):
    spoiled = OURS[:at] + bytes([OURS[at] ^ by]) + OURS[at + 1 :]
    try:
        key = peer_key([spoiled], NOW)
    except ProtocolError:
        return
    assert key.serialize() == IDENTITY.key_pair().public_key.serialize()


@given(st.binary(max_size=300))
def test_any_bytes_are_no_certificate(data):
    with pytest.raises(ProtocolError):
        peer_key([data], NOW)


# what needs no connection


def initial(token: bytes = b"", version: int = 1, size: int = 1200) -> bytes:
    head = b"\xc0" + version.to_bytes(4, "big") + b"\x08" + b"D" * 8 + b"\x08" + b"S" * 8
    head += bytes([0x40 | len(token) >> 8, len(token) & 0xFF]) + token
    rest = size - len(head) - 2
    return head + (0x4000 | rest).to_bytes(2, "big") + bytes(rest)


@given(st.binary(max_size=1300))
def test_any_bytes_are_read_without_an_error(data):
    destination(data)
    parse_initial(data)
    parse_initial(data + bytes(1200))
    other_version(data + bytes(1200))


def test_an_initial_is_known():
    found = parse_initial(initial())
    assert found is not None
    assert (found.destination, found.source, found.token) == (b"D" * 8, b"S" * 8, b"")
    assert destination(initial()) == b"D" * 8
    assert parse_initial(initial(size=1199)) is None
    assert parse_initial(initial(version=2)) is None


def test_another_version_is_told_ours():
    answer = other_version(initial(version=0x6B3343CF))
    assert answer is not None
    assert answer.endswith((1).to_bytes(4, "big"))
    assert answer[1:5] == bytes(4)
    assert other_version(initial()) is None
    assert other_version(initial(version=0)) is None  # or two servers would go on for ever


def test_a_token_is_good_for_its_address_and_time():
    tokens = Tokens(b"k" * 32)
    first = parse_initial(initial())
    assert first is not None
    retry = tokens.retry(first, ADDR, 100.0)
    ours = retry[15:23]  # behind the first byte, the version and the client's ID
    assert retry[6:14] == first.source
    token = retry[23:-16]
    again = parse_initial(initial(token).replace(b"D" * 8, ours, 1))
    assert again is not None
    assert again.token == token
    assert tokens.check(again, ADDR, 105.0) == first.destination
    assert tokens.check(again, (ADDR[0], 4002), 105.0) is None
    assert tokens.check(again, ADDR, 111.0) is None
    assert Tokens().check(again, ADDR, 105.0) is None
    other = parse_initial(initial(token))
    assert other is not None
    assert tokens.check(other, ADDR, 105.0) is None
    for at in range(len(token)):
        spoiled = parse_initial(
            initial(token[:at] + bytes([token[at] ^ 1]) + token[at + 1 :]).replace(b"D" * 8, ours, 1)
        )
        assert spoiled is not None
        assert tokens.check(spoiled, ADDR, 105.0) is None
