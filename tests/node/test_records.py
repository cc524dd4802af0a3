"""Signed peer records: ours is made once for each change of addresses, others' are believed only when all is right."""

from __future__ import annotations

import contextlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st
from libp2p.crypto import rsa as rsa_keys
from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.crypto.exceptions import CryptographyError
from libp2p.crypto.rsa import create_new_key_pair as rsa_key_pair
from libp2p.crypto.secp256k1 import create_new_key_pair as secp256k1_key_pair
from libp2p.peer.envelope import consume_envelope, seal_record
from libp2p.peer.id import ID
from libp2p.peer.pb.crypto_pb2 import PublicKey
from libp2p.peer.pb.envelope_pb2 import Envelope
from libp2p.peer.pb.peer_record_pb2 import PeerRecord as Message
from libp2p.peer.peer_record import PeerRecord
from multiaddr import Multiaddr

from node.identity import Identity
from node.records import MAX_ADDRS, MAX_RECORD, PAYLOAD_TYPE, RecordError, Records, _unsigned, seal, unseal
from protocols.messages.authors import ECDSA, RSA, Ed25519Signer, encode_key, peer_id_of

ADDR = "/ip4/93.184.216.34/tcp/4001"
IDENTITY = Identity(bytes(range(32)))
SIGNER = Ed25519Signer(IDENTITY.secret)
PEER = IDENTITY.peer_id
OTHER = Ed25519Signer(bytes(32))


def records(addrs=(), clock=lambda: 1000.0, signer=SIGNER, **more):
    held = [Multiaddr(addr) for addr in addrs]
    return Records(signer, addrs=lambda: held, clock=clock, **more), held


def refused(call, *args, **more):
    with pytest.raises(RecordError) as caught:
        call(*args, **more)
    return caught.value.reason


def forged(payload=None, key=None, kind=PAYLOAD_TYPE, signer=SIGNER, **fields):
    """An envelope, well signed whatever is in it."""
    if payload is None:
        payload = Message(**({"peer_id": peer_id_of(SIGNER.public_key), "seq": 1} | fields)).SerializeToString()
    envelope = Envelope(payload_type=kind, payload=payload, signature=signer.sign(_unsigned(payload)))
    envelope.public_key.ParseFromString(key or signer.public_key)
    return envelope.SerializeToString()


# ours


def test_a_clock_that_was_set_back_makes_no_older_record():
    kept = []
    before, _ = records([ADDR], clock=lambda: 2000.0)
    before.on_own = kept.append
    before.own()
    after, held = records([ADDR], clock=lambda: 1000.0)
    early = after.own_seq or unseal(after.own()).seq
    assert early < kept[-1]
    after.last_seq, after.on_own = lambda: kept[-1], kept.append  # the address book is open now
    assert unseal(after.own()).seq == kept[-1] == 2_000_001
    assert after.own() is after.own()
    held.append(Multiaddr("/ip4/93.184.216.35/tcp/4001"))
    assert unseal(after.own()).seq == kept[-1] == 2_000_002


def test_ours_is_made_once_until_the_addresses_change():
    mine, addrs = records([ADDR])
    first = mine.own()
    assert mine.own() is first
    assert mine.own_seq == 1_000_000  # Unix time in milliseconds
    addrs.append(Multiaddr("/ip4/93.184.216.35/tcp/4001"))
    second = mine.own()
    assert unseal(second).addrs == (ADDR, "/ip4/93.184.216.35/tcp/4001")
    assert mine.own_seq == 1_000_001  # higher, though the clock hasn't moved
    assert mine.own() is second


def test_ours_is_newer_after_a_restart():
    before, _ = records([ADDR], clock=lambda: 1000.0)
    after, _ = records([ADDR], clock=lambda: 1000.002)
    assert unseal(after.own()).seq > unseal(before.own()).seq


def test_ours_names_what_reaches_furthest_and_no_more_than_a_record_holds():
    many = [f"/ip4/93.184.216.{number}/tcp/1" for number in range(40)]
    mine, _ = records(["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", *many])
    assert unseal(mine.own()).addrs == tuple(many[:MAX_ADDRS])
    none, _ = records([])
    assert unseal(none.own()).addrs == ()


def test_py_libp2p_takes_ours_and_we_take_its():
    mine, _ = records([ADDR])
    _, theirs = consume_envelope(mine.own(), "libp2p-peer-record")
    assert (str(theirs.peer_id), [str(addr) for addr in theirs.addrs]) == (PEER, [ADDR])
    for pair in (IDENTITY.key_pair(), rsa_key_pair(2048), secp256k1_key_pair()):
        peer = ID.from_pubkey(pair.public_key)
        sealed = seal_record(PeerRecord(peer, [Multiaddr(ADDR)], 7), pair.private_key).marshal_envelope()
        record = unseal(sealed)
        assert (record.peer, record.seq, record.addrs) == (str(peer), 7, (ADDR,))


# others'


def test_a_record_is_verified_once_good_or_bad():
    mine, _ = records()
    data, bad = seal(OTHER, [ADDR], 5), forged(signer=OTHER)
    for _ in range(3):
        assert mine.accept(data).addrs == (ADDR,)
        assert refused(mine.accept, bad) == "peer"
    assert mine.verified == 2


def test_an_older_record_is_refused_and_an_equal_one_taken():
    mine, _ = records()
    newer, older = seal(OTHER, [ADDR], 5), seal(OTHER, [ADDR], 4)
    peer = mine.accept(newer).peer
    assert refused(mine.accept, older) == "seq"
    assert mine.accept(newer).seq == 5
    mine.known_seq = {peer: 9}.get
    assert refused(mine.accept, newer) == "seq"  # the address book remembers longer


def test_a_record_of_another_peer_than_expected_is_refused():
    mine, _ = records()
    data = seal(OTHER, [ADDR], 5)
    assert refused(mine.accept, data, peer=PEER) == "peer"
    assert mine.accept(data, peer=unseal(data).peer).seq == 5


def test_each_fault_has_its_word():
    good = seal(SIGNER, [ADDR], 5)
    assert refused(unseal, good[:-1]) == "form"
    assert refused(unseal, good[:-2] + bytes([good[-2] ^ 1]) + good[-1:]) == "signature"
    assert refused(unseal, forged(kind=b"\x03\x02")) == "form"
    assert refused(unseal, forged(b"\xff")) == "form"
    assert refused(unseal, forged(seq=1 << 63)) == "form"
    assert refused(unseal, forged(peer_id=b"")) == "peer"
    assert refused(unseal, forged(signer=OTHER)) == "peer"
    assert refused(unseal, forged(key=OTHER.public_key)) == "peer"
    assert refused(unseal, forged(key=OTHER.public_key, peer_id=peer_id_of(OTHER.public_key))) == "signature"
    mine, _ = records()
    assert refused(mine.verify, b"") == "size"
    assert refused(mine.verify, bytes(MAX_RECORD + 1)) == "size"


def test_addresses_are_those_that_can_be_read_and_dialled():
    said = [
        b"\xff\xff",
        b"",
        Multiaddr("/ip4/0.0.0.0/tcp/1").to_bytes(),
        Multiaddr("/ip4/93.184.216.34/tcp/0").to_bytes(),
        Multiaddr(f"{ADDR}/p2p/{PEER}").to_bytes(),
        Multiaddr(ADDR).to_bytes(),
        Multiaddr(f"{ADDR}/p2p/{unseal(seal(OTHER, [], 1)).peer}").to_bytes(),
        Multiaddr("/ip4/93.184.216.34/udp/1/quic-v1").to_bytes(),
    ]
    data = forged(addresses=[Message.AddressInfo(multiaddr=addr) for addr in said])
    assert unseal(data, lambda addr: "tcp" in str(addr)).addrs == (ADDR,)
    many = [Message.AddressInfo(multiaddr=Multiaddr(f"/ip4/93.184.{n}.1/tcp/1").to_bytes()) for n in range(60)]
    assert len(unseal(forged(addresses=many)).addrs) == MAX_ADDRS


@given(st.binary(max_size=512))
@example(seal(SIGNER, [ADDR], 5))
def test_any_bytes_are_a_record_or_a_record_error(data):
    try:
        record = unseal(data)
    except RecordError:
        return
    assert len(record.addrs) <= MAX_ADDRS


TCP = Multiaddr("/ip4/93.184.216.34/tcp/1").to_bytes()
# codes of what is text or has a length of its own: dns, dns4, unix, p2p, garlic64, http-path, certhash, memory
CODES = [b"\x35", b"\x36", b"\x90\x03", b"\xa5\x03", b"\xbe\x03", b"\xe1\x03", b"\xd2\x03", b"\x89\x06"]
PARTS = st.tuples(st.sampled_from(CODES), st.binary(max_size=20)).map(
    lambda part: part[0] + bytes([len(part[1])]) + part[1]
)


@given(st.lists(st.one_of(PARTS, PARTS.map(lambda part: TCP + part), st.binary(max_size=20)), max_size=4))
def test_any_addresses_in_a_well_signed_record_are_kept_or_left_out(said):
    record = unseal(forged(addresses=[Message.AddressInfo(multiaddr=addr) for addr in said]))
    for addr in record.addrs:
        assert str(Multiaddr(addr))


@given(st.data())
def test_a_record_that_was_spoiled_says_the_same_or_is_refused(data):
    good = seal(SIGNER, [ADDR], 5)
    at = data.draw(st.integers(0, len(good) - 1))
    spoiled = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    with contextlib.suppress(RecordError):
        assert unseal(spoiled) == unseal(good)


# why it isn't py-libp2p's (docs/upstream.md)


def test_stock_parses_keys_of_any_size(monkeypatch):
    parsed, parse = [], rsa_keys.RSA.import_key
    monkeypatch.setattr(rsa_keys.RSA, "import_key", lambda data, *more: parsed.append(len(data)) or parse(data, *more))
    large = rsa.RSAPublicNumbers(65537, (1 << 16_000) | 12345).public_key()
    der = large.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    record = forged(key=PublicKey(Type=RSA, Data=der).SerializeToString())
    with pytest.raises(CryptographyError):
        consume_envelope(record, "libp2p-peer-record")
    assert parsed == [len(der)]  # it looks at the size afterwards
    assert refused(unseal, record) == "form"
    assert parsed == [len(der)]


def test_stock_takes_no_ecdsa_keys():
    private = ec.generate_private_key(ec.SECP256R1())
    key = encode_key(ECDSA, private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    class Signer:
        public_key = key

        def sign(self, data):
            return private.sign(data, ec.ECDSA(SHA256()))

    record = seal(Signer(), [ADDR], 1)
    assert unseal(record).addrs == (ADDR,)
    with pytest.raises(ValueError, match="Unknown key type"):
        consume_envelope(record, "libp2p-peer-record")


def test_stock_verifies_a_record_each_time_it_comes(monkeypatch):
    record, verified = seal(SIGNER, [ADDR], 1), []
    verify = Ed25519PublicKey.verify
    monkeypatch.setattr(Ed25519PublicKey, "verify", lambda *args: verified.append(1) or verify(*args))
    for _ in range(3):
        consume_envelope(record, "libp2p-peer-record")
    assert len(verified) == 3
