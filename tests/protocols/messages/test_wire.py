"""Bytes and values: any bytes give a message or one error, every field comes back, each form that isn't valid."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from protocols.messages import messages_pb2
from protocols.messages.authors import MAX_SIGNATURE_BYTES
from protocols.messages.errors import MalformedError
from protocols.messages.wire import (
    ERROR_TYPE,
    MAX_ERROR_TEXT,
    MAX_FRAME,
    MAX_OVERHEAD,
    Kind,
    Message,
    Template,
    check_name,
    check_outgoing,
    decode_message,
    decode_signed,
    decode_signed_strictly,
    encode_message,
    encode_signed,
    error_payload,
    error_text,
)
from tests.protocols.messages.made import NETWORK, NOW, REQUEST_1, VERSION, direct, key_of, result, rules

PEER = "who sent it"

NAMES = st.text("abcxyz019._-", min_size=1, max_size=64)
KINDS = st.sampled_from(Kind)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Any valid message."""
    kind = draw(KINDS)
    number = st.integers(0, (1 << 64) - 1)
    version = draw(st.tuples(st.text("aZ09._-", min_size=1, max_size=32), *[st.integers(0, 1 << 40)] * 3))
    return Message(
        protocol=draw(NAMES),
        payload=draw(st.binary()),
        type=draw(st.integers(0, ERROR_TYPE)),
        kind=kind,
        request_id=draw(number) if kind else 0,
        timestamp_ms=draw(number),
        more=kind == Kind.RESPONSE and draw(st.booleans()),
        author=draw(st.binary()),
        network_id=draw(st.binary(min_size=1, max_size=64)),
        client_version=f"{version[0]}/{version[1]}.{version[2]}.{version[3]}",
        recipient=draw(st.binary()),
        peer=PEER,
    )


@given(messages(), st.binary(max_size=MAX_SIGNATURE_BYTES))
def test_every_field_comes_back(message, signature):
    data = encode_signed(encode_message(message), signature)
    for decode in (decode_signed, decode_signed_strictly):
        envelope = decode(data, PEER)
        assert envelope.signature == signature
        assert decode_message(envelope.message, PEER) == message


@given(messages())
def test_there_is_one_encoding_with_the_fields_in_their_order(message):
    pb = messages_pb2.Message(
        author=message.author,
        network_id=message.network_id,
        client_version=message.client_version,
        protocol=message.protocol,
        type=message.type,
        kind=message.kind,  # type: ignore[arg-type]
        request_id=message.request_id,
        timestamp_ms=message.timestamp_ms,
        payload=message.payload,
        recipient=message.recipient,
        more=message.more,
    )
    assert encode_message(message) == pb.SerializeToString(deterministic=True)


@given(st.binary() | messages().map(encode_message))
def test_any_bytes_are_a_message_or_one_error(data):
    message = result(lambda: decode_message(data, PEER), MalformedError)
    assert message.peer == PEER
    if isinstance(message, Message):
        assert message.kind in Kind
        assert 1 <= len(message.network_id) <= 64
    else:
        assert message.field


@given(st.binary() | st.builds(encode_signed, st.binary(), st.binary()))
def test_any_bytes_are_an_envelope_or_one_error(data):
    for decode in (decode_signed, decode_signed_strictly):
        envelope = result(partial(decode, data, PEER), MalformedError)
        if isinstance(envelope, MalformedError):
            assert (envelope.peer, envelope.reason) == (PEER, "malformed")
        else:
            assert envelope.message
            assert decode is decode_signed or encode_signed(envelope.message, envelope.signature) == data


@given(st.data())
def test_a_message_that_is_cut_or_spoiled_is_another_message_or_one_error(data):
    message, _ = direct(rules(1), rules(2), **REQUEST_1)
    spoiled = bytearray(message)
    for _ in range(data.draw(st.integers(1, 4))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    for end in (len(spoiled), data.draw(st.integers(0, len(spoiled)))):
        assert result(partial(decode_message, bytes(spoiled[:end]), PEER), MalformedError).peer == PEER


# what is no message

FIELDS: dict[str, Any] = {
    "author": b"a key",
    "network_id": NETWORK,
    "client_version": VERSION,
    "protocol": "sync",
    "timestamp_ms": NOW,
}


@pytest.mark.parametrize(
    ("more", "field", "says"),
    [
        ({"network_id": b""}, "network_id", "1 to 64 bytes, got 0"),
        ({"network_id": bytes(65)}, "network_id", "1 to 64 bytes, got 65"),
        ({"client_version": ""}, "client_version", "vouch/1.2.3"),
        ({"client_version": "vouch"}, "client_version", "vouch/1.2.3"),
        ({"client_version": "vouch/1.2"}, "client_version", "vouch/1.2.3"),
        ({"client_version": "vouch/01.2.3"}, "client_version", "vouch/1.2.3"),
        ({"client_version": "vouch/1.2.3\n"}, "client_version", "vouch/1.2.3"),
        ({"client_version": "vouch/٣.2.3"}, "client_version", "vouch/1.2.3"),
        ({"client_version": "a b/1.2.3"}, "client_version", "vouch/1.2.3"),
        ({"client_version": "x" * 33 + "/1.2.3"}, "client_version", "vouch/1.2.3"),
        ({"client_version": "x/1.2." + "9" * 251}, "client_version", "at most 256 bytes, got 257"),
        ({"client_version": "x/1.2." + "9" * 20_000}, "client_version", "at most 256 bytes, got 20006"),
        ({"protocol": ""}, "protocol", "1 to 64 of"),
        ({"protocol": "Sync"}, "protocol", "1 to 64 of"),
        ({"protocol": "sync/2"}, "protocol", "1 to 64 of"),
        ({"protocol": "sync\n"}, "protocol", "1 to 64 of"),
        ({"protocol": "\u017fync"}, "protocol", "1 to 64 of"),
        ({"protocol": "x" * 65}, "protocol", "1 to 64 of"),
        ({"kind": 3}, "kind", "0, 1 or 2, got 3"),
        ({"kind": -1}, "kind", "0, 1 or 2, got -1"),
        ({"request_id": 1}, "request_id", "0 in a ONE_WAY, got 1"),
        ({"more": True}, "more", "in a RESPONSE only"),
        ({"more": True, "kind": 1}, "more", "in a RESPONSE only"),
    ],
)
def test_each_field_has_its_form(more, field, says):
    data = messages_pb2.Message(**FIELDS | more).SerializeToString()
    with pytest.raises(MalformedError) as caught:
        decode_message(data, PEER)
    error = caught.value
    assert (error.field, error.peer, error.reason) == (field, PEER, "malformed")
    assert says in str(error)
    assert len(str(error)) < 400, "a peer can't fill our log"


def test_what_the_least_message_holds():
    message = decode_message(
        messages_pb2.Message(network_id=b"n", client_version="a/0.0.0", protocol="p").SerializeToString(), PEER
    )
    assert message == Message(protocol="p", payload=b"", network_id=b"n", client_version="a/0.0.0", peer=PEER)
    assert not message.is_error


@pytest.mark.parametrize("data", [b"", b"\x0a", b"\x0b", b"\xff" * 20, b"\x22\x02\xff\xfe", b"\x1c" * 200])
def test_what_is_no_protobuf_is_no_message(data):
    with pytest.raises(MalformedError):
        decode_message(data, PEER)


def test_only_an_answer_is_an_error():
    assert Message(protocol="p", payload=b"", type=ERROR_TYPE, kind=Kind.RESPONSE).is_error
    assert not Message(protocol="p", payload=b"", type=ERROR_TYPE, kind=Kind.REQUEST).is_error
    assert not Message(protocol="p", payload=b"", type=ERROR_TYPE - 1, kind=Kind.RESPONSE).is_error


# the envelope

WHOLE = encode_signed(b"message", b"signature")
OTHER_FORMS = {
    "another field after": WHOLE + b"\x18\x01",
    "another field before": b"\x18\x01" + WHOLE,
    "another field between": b"\x0a\x07message\x18\x01\x12\x09signature",
    "the signature first": b"\x12\x09signature\x0a\x07message",
    "a padded length": b"\x0a\x87\x00message\x12\x09signature",
    "a padded length of the signature": b"\x0a\x07message\x12\x89\x00signature",
    "a padded tag": b"\x8a\x00\x07message\x12\x09signature",
    "the message twice": b"\x0a\x07message" + WHOLE,
    "the signature twice": WHOLE + b"\x12\x09signature",
    "an empty signature, written": b"\x0a\x07message\x12\x00",
    "a field of another kind": b"\x08\x01" + WHOLE,
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_gossip_takes_one_form_of_the_envelope(form):
    decode_signed(OTHER_FORMS[form], PEER)  # direct it makes no difference
    with pytest.raises(MalformedError) as caught:
        decode_signed_strictly(OTHER_FORMS[form], PEER)
    assert (caught.value.field, caught.value.peer) == ("signed_message", PEER)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"", "message"),
        (b"\x12\x09signature", "message"),
        (b"\x0a\x00", "message"),
        (encode_signed(b"message", bytes(MAX_SIGNATURE_BYTES + 1)), "signature"),
        (WHOLE[:-1], "signed_message"),
        (b"\x0a", "signed_message"),
        (b"\xff" * 11, "signed_message"),
        (WHOLE + b"\x0c", "signed_message"),  # the end of a group that never began
    ],
)
@pytest.mark.parametrize("decode", [decode_signed, decode_signed_strictly])
def test_what_is_no_envelope(decode, data, field):
    with pytest.raises(MalformedError) as caught:
        decode(data, PEER)
    assert caught.value.field == field


# a message that never changes

# the seed 01 01 … asks the peer with the seed 02 02 …; the parts are the fields, written out by hand from docs/wire.md
GOLDEN = (
    "0a8001"
    "0a2408011220" "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"  # author
    "1207686172626f7572"  # network_id harbour
    "1a0b766f7563682f312e322e33"  # client_version vouch/1.2.3
    "220473796e63"  # protocol sync
    "2807"  # type
    "3001"  # kind REQUEST
    "3801"  # request_id
    "4080d095ffbc31"  # timestamp_ms
    "4a077061796c6f6164"  # payload
    "5226002408011220" "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"  # recipient
    "1240"
    "bbd20599d2dd6dd4314da2db401be9f813ec1a2d7a43ae9ea5530385cc721384"
    "a34d9a2a13f8db18e17c5cef4ba9c4901c3fa620609ce8673c063d384ffc610e"
)  # fmt: skip


def test_a_message_is_the_same_bytes_for_ever():
    message, data = direct(rules(1), rules(2), **REQUEST_1)
    assert data.hex() == GOLDEN
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(GOLDEN)[9:41]).verify(data[-64:], b"vouch-message:1:" + message)


# what we send


def test_the_largest_payload_fits_with_the_largest_of_all_else():
    template = Template(bytes(1100), bytes(64), "x" * 32 + "/" + "9" * 222, "p" * 64, bytes(42))
    number = (1 << 64) - 1
    message = template.encode(
        bytes(MAX_FRAME - MAX_OVERHEAD),
        type=ERROR_TYPE,
        kind=Kind.RESPONSE,
        request_id=number,
        timestamp_ms=number,
        more=True,
    )
    assert len(encode_signed(message, bytes(MAX_SIGNATURE_BYTES))) <= MAX_FRAME


def test_a_key_of_every_kind_fits():
    assert len(key_of("rsa 3072").public_key) < 1100


@pytest.mark.parametrize(
    ("payload", "type", "says"),
    [(bytes(11), 0, "at most 10 bytes, got 11"), (b"", -1, "0 to"), (b"", ERROR_TYPE, "0 to")],
)
def test_what_cant_be_sent_is_our_callers_mistake(payload, type, says):
    check_outgoing(bytes(10), ERROR_TYPE - 1, 10)
    with pytest.raises(ValueError, match=says):
        check_outgoing(payload, type, 10)


@pytest.mark.parametrize(
    ("payload", "type"),
    [("text", 0), (None, 0), (bytearray(2), 0), (("a", "b"), 0), (b"", 1.5), (b"", "7"), (b"", None)],
)
def test_what_isnt_bytes_or_a_number_is_a_type_error_before_anything_is_sent(payload, type):
    with pytest.raises(TypeError, match=r"expected (bytes|a number), got"):
        check_outgoing(payload, type, 10)


@pytest.mark.parametrize("name", ["", "A", "a/b", "a\n", "x" * 65, "\u017f", "a b"])
def test_names_that_name_nothing(name):
    with pytest.raises(ValueError, match="expected a name of 1 to 64"):
        check_name(name)


@given(st.text())
def test_an_errors_text_is_utf8_and_bounded_and_its_beginning_arrives(text):
    payload = error_payload(text)
    assert len(payload) <= MAX_ERROR_TEXT
    assert payload.decode("utf-8") or not text  # strictly: whatever the language of the reader
    arrived = error_text(payload)
    assert arrived.isprintable()
    if len(text.encode("utf-8", "replace")) <= MAX_ERROR_TEXT and text.isprintable():
        assert arrived == text


def test_an_errors_text_is_cut_between_characters():
    assert error_payload("é" * 600) == b"\xc3\xa9" * 512
    assert error_payload("a" + "é" * 600) == b"a" + b"\xc3\xa9" * 511
    assert error_payload("lone \ud800") == b"lone ?"


@given(st.binary(max_size=3000))
def test_an_errors_text_can_be_printed_whatever_came(payload):
    assert error_text(payload).isprintable()
