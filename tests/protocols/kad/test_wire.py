"""Kademlia's messages, keys and CIDs: any bytes give a value or a ProtocolError."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import random

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.kad_dht.pb.kademlia_pb2 import Message as TheirMessage

from protocols import ProtocolError
from protocols.kad import dht_pb2
from protocols.kad.cid import multihash_of, provider_key
from protocols.kad.keyspace import common_prefix, is_peer_id, point, random_key, to_bytes, to_text
from protocols.kad.wire import MAX_FRAME, MAX_PEERS, MAX_SENT, MAX_VALUE, Message, Peer, Record, Type, decode, encode

ED25519 = b"\x00\x24\x08\x01\x12\x20"


def peer_id(number: int) -> bytes:
    return ED25519 + hashlib.sha256(b"%d" % number).digest()


ids = st.binary(min_size=32, max_size=32).map(lambda seed: ED25519 + seed)
peers = st.builds(Peer, ids, st.lists(st.binary(min_size=1, max_size=40), max_size=16).map(tuple), st.booleans())
unique_peers = st.lists(peers, max_size=20, unique_by=lambda peer: peer.id).map(tuple)
messages = st.builds(
    Message,
    st.sampled_from(Type),
    st.binary(max_size=80),
    st.none() | st.builds(Record, st.binary(max_size=80), st.binary(max_size=1000), st.just("2026-01-01T00:00:00Z")),
    unique_peers,
    st.just(()),
)


@given(messages)
def test_what_is_encoded_is_decoded(message):
    data = encode(message)
    assert len(data) <= MAX_SENT
    back = decode(data)
    assert (back.type, back.key, back.record) == (message.type, message.key, message.record)
    assert [peer.id for peer in back.closer] == [peer.id for peer in message.closer]


@given(st.binary(max_size=400))
def test_any_bytes_give_a_message_or_an_error(data):
    try:
        message = decode(data)
    except ProtocolError:
        return
    assert len(message.closer) <= MAX_PEERS
    assert all(is_peer_id(peer.id) for peer in (*message.closer, *message.providers))


@given(messages)
def test_py_libp2p_reads_it(message):
    theirs = TheirMessage()
    theirs.ParseFromString(encode(message))
    assert theirs.type == message.type
    assert [peer.id for peer in theirs.closerPeers] == [peer.id for peer in message.closer]
    assert decode(theirs.SerializeToString()) == decode(encode(message))


def test_an_answer_that_names_ten_thousand_peers():
    wire = dht_pb2.Message(type=Type.FIND_NODE)
    for number in range(2500):
        wire.closer_peers.add(id=peer_id(number), addrs=[b"\x04\x01\x02\x03\x04"])
    assert [peer.id for peer in decode(wire.SerializeToString()).closer] == [peer_id(n) for n in range(MAX_PEERS)]
    for number in range(2500, 10_000):
        wire.closer_peers.add(id=peer_id(number))
    with pytest.raises(ProtocolError, match=f"at most {MAX_FRAME} bytes"):
        decode(wire.SerializeToString())


def test_peers_that_are_none_are_left_out():
    wire = dht_pb2.Message(type=Type.FIND_NODE)
    for bad in (b"", b"\x12\x20short", b"x" * 34, ED25519 + b"x" * 31, b"\x00\x00", b"\x00\x2b" + b"x" * 43):
        wire.closer_peers.add(id=bad)
    wire.closer_peers.add(id=peer_id(1), addrs=[b"", b"\x04abcd", b"x" * 257])
    wire.closer_peers.add(id=peer_id(1), addrs=[b"other"])
    assert decode(wire.SerializeToString()).closer == (Peer(peer_id(1), (b"\x04abcd",)),)


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        (dht_pb2.Message(type=6), "type 0 to 5, got 6"),
        (dht_pb2.Message(type=-1), "type 0 to 5, got -1"),
        (dht_pb2.Message(key=b"k" * 257), "a key of at most 256 bytes, got 257"),
        (dht_pb2.Message(record=dht_pb2.Record(value=b"v" * (MAX_VALUE + 1))), "and 12288 of value, got 0 and 12289"),
    ],
)
def test_what_is_too_much_is_an_error(wire, text):
    with pytest.raises(ProtocolError, match=text):
        decode(wire.SerializeToString())


def test_a_full_answer_fits_what_rust_takes():
    many = tuple(Peer(peer_id(n), tuple(b"\x04" + bytes([n, i]) * 60 for i in range(16))) for n in range(20))
    data = encode(Message(Type.GET_VALUE, b"k", Record(b"k", b"v" * MAX_VALUE), many))
    assert len(data) <= MAX_SENT
    assert decode(data).record == Record(b"k", b"v" * MAX_VALUE)
    assert len(decode(encode(Message(Type.FIND_NODE, b"k", None, many))).closer) == 20


def test_keys_of_a_bucket():
    rng, local = random.Random(1), point(peer_id(0))
    for prefix in range(10):
        key = random_key(rng, local, prefix)
        assert common_prefix(point(key), local) == prefix
        assert is_peer_id(key)
    assert common_prefix(point(random_key(rng, local, 200)), local) == 12
    assert to_bytes(to_text(peer_id(7))) == peer_id(7)
    with pytest.raises(ValueError, match="expected a peer ID"):
        to_bytes("nobody")


HASH = b"\x12\x20" + hashlib.sha256(b"hello").digest()
V1 = b"\x01\x55" + HASH


@pytest.mark.parametrize(
    "cid",
    [
        base58.b58encode(HASH).decode(),
        "b" + base64.b32encode(V1).decode().lower().rstrip("="),
        "z" + base58.b58encode(V1).decode(),
        "f" + V1.hex(),
        "u" + base64.urlsafe_b64encode(V1).decode().rstrip("="),
        "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq",
    ],
)
def test_every_form_of_a_cid_is_its_multihash(cid):
    assert multihash_of(cid) == HASH


@given(st.text(max_size=100))
def test_any_text_gives_a_multihash_or_an_error(text):
    with contextlib.suppress(ValueError):
        assert multihash_of(text)


def test_provider_keys():
    assert provider_key(V1) == provider_key(HASH) == HASH
    assert provider_key(b"plain") == b"plain"
    for bad in (b"", b"x" * 81):
        with pytest.raises(ValueError, match="1 to 80 bytes"):
            provider_key(bad)
