"""Authors: keys of every kind, of `cryptography` and of py-libp2p; keys that are refused; one name for each key."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto import ed25519 as libp2p_ed25519
from libp2p.crypto import rsa as libp2p_rsa
from libp2p.crypto import secp256k1 as libp2p_secp256k1
from libp2p.peer.id import ID

from protocols.framing import encode_uvarint
from protocols.messages.authors import (
    ECDSA,
    ED25519,
    MAX_KEY_BYTES,
    MAX_SIGNATURE_BYTES,
    RSA,
    SECP256K1,
    Ed25519Signer,
    author_of,
    peer_id_bytes,
    peer_id_of,
)
from tests.protocols.messages.made import KINDS, Key, key_of, p256_pkix, pkix, public_key, rsa_pkix

DATA = b"vouch-message:1:whatever was signed"


def check(key: Key) -> None:
    author, signature = author_of(key.public_key), key.sign(DATA)
    assert author.peer == key.peer
    assert len(signature) <= MAX_SIGNATURE_BYTES
    assert author.verify(signature, DATA)
    assert not author.verify(signature, DATA + b"\0")
    assert not author.verify(b"", DATA)
    assert not author.verify(signature[:-1], DATA)
    assert not author.verify(signature + b"\0", DATA)
    assert not author.verify(bytes(len(signature)), DATA)
    for other in KINDS:
        assert not author.verify(key_of(other).sign(DATA), DATA) or key_of(other) == key


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_every_kind_proves_its_own_signatures_and_no_others(kind):
    check(key_of(kind))


@pytest.mark.parametrize(
    "make",
    [
        libp2p_ed25519.create_new_key_pair,
        libp2p_secp256k1.create_new_key_pair,
        lambda: libp2p_rsa.create_new_key_pair(2048),
    ],
    ids=["ed25519", "secp256k1", "rsa"],
)
def test_py_libp2p_and_we_agree_on_its_keys(make):
    pair = make()
    key = Key(pair.public_key.serialize(), pair.private_key.sign)
    assert key.peer == str(ID.from_pubkey(pair.public_key))
    check(key)


@pytest.mark.parametrize("kind", KINDS)
def test_every_bit_of_a_signature_counts(kind):
    key = key_of(kind)
    author, signature = author_of(key.public_key), key.sign(DATA)
    for bit in range(len(signature) * 8):
        spoiled = bytearray(signature)
        spoiled[bit // 8] ^= 1 << bit % 8
        assert not author.verify(bytes(spoiled), DATA), f"bit {bit}"


def test_our_signer_is_one_of_them():
    signer = Ed25519Signer(bytes(32))
    # the first test of RFC 8032 has another seed; this is the well-known key of the seed of zeros
    assert signer.public_key.hex() == "080112203b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"
    check(Key(signer.public_key, signer.sign))
    assert peer_id_bytes(author_of(signer.public_key).peer) == peer_id_of(signer.public_key)


# what is no key


def _elliptic(curve: ec.EllipticCurve) -> bytes:
    return pkix(ec.generate_private_key(curve))


RAW = bytes(range(1, 33))
MODULUS = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n
SMALL = rsa.generate_private_key(65537, 1024).public_key().public_numbers().n  # tests of what is refused need one
POINT = ec.generate_private_key(ec.SECP256R1()).public_key()
COMPRESSED = POINT.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
WHOLE = POINT.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (b"", "in its one form"),
        (b"\x08", "a libp2p PublicKey, got something else"),
        (b"\xff" * 40, "a libp2p PublicKey, got something else"),
        (public_key(4, RAW), "a key of type 0 to 3, got 4"),
        (b"\x12\x20" + RAW, "in its one form"),  # no type
        (public_key(ED25519, RAW[1:]), "expected 32 bytes, got 31"),
        (public_key(ED25519, RAW + b"\0"), "expected 32 bytes, got 33"),
        (public_key(SECP256K1, b"\x02" + b"\xff" * 32), "type 2"),  # not below the field's prime
        (public_key(SECP256K1, b"\x04" + RAW), "type 2"),
        (public_key(SECP256K1, bytes(33)), "type 2"),
        (public_key(SECP256K1, b"\x02" + RAW + RAW), "33 bytes, got 65"),
        (public_key(RSA, rsa_pkix(SMALL, 65537)), "2048 to 8192 bits"),
        (public_key(RSA, rsa_pkix((1 << 16383) + 1, 65537)), f"at most {MAX_KEY_BYTES} bytes"),
        (public_key(RSA, rsa_pkix(MODULUS, 1)), "type 0"),
        (public_key(RSA, rsa_pkix(MODULUS, MODULUS + 2)), "type 0"),
        (public_key(RSA, b"garbage"), "type 0"),
        (public_key(RSA, b""), "type 0"),
        (public_key(RSA, p256_pkix(WHOLE)), "an RSA key of"),
        (public_key(RSA, pkix(ed25519.Ed25519PrivateKey.generate())), "an RSA key of"),
        (public_key(ECDSA, b"garbage"), "type 3"),
        (public_key(ECDSA, rsa_pkix(MODULUS, 65537)), "P-256, P-384 or P-521"),
        (public_key(ECDSA, pkix(x25519.X25519PrivateKey.generate())), "P-256, P-384 or P-521"),
        (public_key(ECDSA, pkix(ed448.Ed448PrivateKey.generate())), "P-256, P-384 or P-521"),
        (public_key(ECDSA, _elliptic(ec.SECP256K1())), "P-256, P-384 or P-521"),
        (public_key(ECDSA, _elliptic(ec.SECP224R1())), "P-256, P-384 or P-521"),
        (public_key(ECDSA, p256_pkix(b"\0")), "type 3"),  # the point at infinity
        (public_key(ECDSA, p256_pkix(b"\x04" + RAW + RAW)), "type 3"),  # not on the curve
    ],
)
def test_what_is_no_key_is_refused(key, says):
    with pytest.raises(ValueError, match=says):
        author_of(key)


GOOD = public_key(ED25519, RAW)
NAMES = {
    "a padded type": b"\x08\x81\x00\x12\x20" + RAW,
    "a padded length": b"\x08\x01\x12\xa0\x00" + RAW,
    "data first": b"\x12\x20" + RAW + b"\x08\x01",
    "the type twice": b"\x08\x01" + GOOD,
    "data twice": GOOD + b"\x12\x20" + RAW,
    "another field": GOOD + b"\x18\x01",
    "a type above 32 bits": b"\x08" + encode_uvarint((1 << 32) + 1) + b"\x12\x20" + RAW,
    "RSA without its type": b"\x12" + encode_uvarint(len(rsa_pkix(MODULUS, 65537))) + rsa_pkix(MODULUS, 65537),
    "RSA without parameters": public_key(RSA, rsa_pkix(MODULUS, 65537, "06092a864886f70d010101")),
    "a compressed point": public_key(ECDSA, p256_pkix(COMPRESSED)),
    "a hybrid point": public_key(ECDSA, p256_pkix(bytes([6 + (WHOLE[-1] & 1)]) + WHOLE[1:])),
    "bytes after the DER": public_key(ECDSA, p256_pkix(WHOLE) + b"\0"),
}


@pytest.mark.parametrize("form", NAMES)
def test_a_key_has_one_form_or_its_owner_would_have_many_names(form):
    for proper in (GOOD, public_key(RSA, rsa_pkix(MODULUS, 65537)), public_key(ECDSA, p256_pkix(WHOLE))):
        author_of(proper)
    with pytest.raises(ValueError):
        author_of(NAMES[form])


@pytest.mark.parametrize(
    "key",
    [
        rsa_pkix(MODULUS + 1, 65537),
        rsa_pkix(MODULUS, MODULUS - 2),
        rsa_pkix((1 << 3071) + random.Random(1).getrandbits(3070) | 1, (1 << 3000) + 1),
        rsa_pkix((1 << 8191) + random.Random(2).getrandbits(8190) | 1, 65537),
    ],
    ids=["an even modulus", "an exponent as large as the modulus", "a large exponent", "the largest"],
)
def test_odd_keys_verify_nothing_and_raise_nothing(key):
    try:
        author = author_of(public_key(RSA, key))
    except ValueError:
        return
    for length in (1, 256, 384, 1024):
        assert not author.verify(b"\1" * length, DATA)


@pytest.mark.parametrize("small", [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"])
def test_points_of_small_order_sign_nothing(small):
    """For such a key one signature would fit any message."""
    author = author_of(public_key(ED25519, small))
    for signature in (bytes(64), small + bytes(32), b"\x01" + bytes(63)):
        assert not author.verify(signature, DATA)
        assert not author.verify(signature, b"anything")


@given(st.binary(max_size=200) | st.builds(public_key, st.integers(0, 5), st.binary(max_size=200)), st.binary())
def test_any_bytes_are_a_key_or_a_value_error(data, signature):
    try:
        author = author_of(data)
    except ValueError:
        return
    assert not author.verify(signature, DATA)


@given(st.data())
def test_a_spoiled_key_is_another_key_or_none(data):
    good = key_of(data.draw(st.sampled_from(sorted(KINDS))))
    spoiled = bytearray(good.public_key)
    spoiled[data.draw(st.integers(0, len(spoiled) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        author = author_of(bytes(spoiled))
    except ValueError:
        return
    assert author.peer != good.peer
    assert not author.verify(good.sign(DATA), DATA)
