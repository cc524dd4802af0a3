"""Whether a message may be taken: each rejection by itself, then whatever is made for somebody or somewhere else."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.messages import messages_pb2
from protocols.messages.errors import (
    AuthorError,
    KindError,
    MalformedError,
    MessageDropped,
    MessageError,
    NetworkError,
    RecipientError,
    SignatureError,
    WrongProtocolError,
)
from protocols.messages.rules import Rules
from protocols.messages.wire import SIGNED_PREFIX, Kind, decode_signed, encode_signed
from tests.protocols.messages.made import (
    KINDS,
    NETWORK,
    NOW,
    REQUEST_1,
    direct,
    key_of,
    name,
    public_key,
    result,
    rules,
)

US, THEM, THIRD = rules(1), rules(2), rules(3)
FOREIGN = rules(2, network_id=b"another")
OFF = {number: rules(number, signatures=False) for number in (1, 2)}


def checked(data: bytes, at: Rules = US, peer: str = "", protocol: str = "sync", now: int = NOW) -> Any:
    return at.check_direct(data, peer or name(THEM), protocol, now)


def gossiped(data: bytes, at: Rules = US, forwarder: str = "", topic: str = "sync", now: int = NOW) -> Any:
    return at.check_gossip(data, forwarder or name(THIRD), topic, now)


def spoiled(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def resigned(message: bytes, signer: Rules = THEM, prefix: bytes = SIGNED_PREFIX) -> bytes:
    return encode_signed(message, signer.signer.sign(prefix + message))


def as_pb(**fields: Any) -> bytes:
    """A message of THEM to us with some fields of other values, signed as it is."""
    pb = messages_pb2.Message.FromString(direct(THEM, US)[0])
    for field, value in fields.items():
        setattr(pb, field, value)
    return resigned(pb.SerializeToString())


# what is taken


@pytest.mark.parametrize("kind", [{}, REQUEST_1, {"kind": Kind.RESPONSE, "request_id": 9, "more": True}])
def test_a_message_made_for_us_is_taken(kind):
    message = checked(direct(THEM, US, b"hello", **kind)[1])
    assert (message.peer, message.payload, message.network_id) == (name(THEM), b"hello", NETWORK)
    assert {field: getattr(message, field) for field in kind} == kind


def test_a_message_to_everybody_is_taken_from_whoever_forwards_it():
    for forwarder in (THEM, THIRD):
        assert gossiped(direct(THEM, None)[1], forwarder=name(forwarder)).peer == name(THEM), (
            "the author, not the forwarder"
        )


@pytest.mark.parametrize("kind", KINDS)
def test_authors_with_keys_of_every_kind(kind):
    key = key_of(kind)
    for to in (US, None):
        pb = messages_pb2.Message.FromString(direct(THEM, to)[0])
        pb.author = key.public_key
        message = pb.SerializeToString()
        data = encode_signed(message, key.sign(SIGNED_PREFIX + message))
        assert (gossiped(data) if to is None else checked(data, peer=key.peer)).peer == key.peer
        bad = encode_signed(message, key.sign(message))
        with pytest.raises(SignatureError):
            gossiped(bad) if to is None else checked(bad, peer=key.peer)


def test_unknown_fields_make_no_difference_direct():
    message, _ = direct(THEM, US)
    assert checked(resigned(message + b"\x98\x06\x01") + b"\x18\x01").payload == b"payload"


# what is rejected, one by one

MESSAGE, DATA = direct(THEM, US)
DIRECT: dict[str, tuple[Callable[[], object], type[MessageError], str, str]] = {
    "no bytes": (lambda: checked(b""), MalformedError, "malformed", "message"),
    "other bytes": (lambda: checked(b"\xff" * 9), MalformedError, "malformed", "signed_message"),
    "no message in it": (lambda: checked(resigned(b"\xff" * 9)), MalformedError, "malformed", "message"),
    "an unknown kind": (lambda: checked(as_pb(kind=3)), MalformedError, "malformed", "kind"),
    "another network": (lambda: checked(direct(FOREIGN, US)[1]), NetworkError, "network_id", "network_id"),
    "another protocol": (lambda: checked(DATA, protocol="blocks"), WrongProtocolError, "protocol", "protocol"),
    "no key": (lambda: checked(as_pb(author=b"")), AuthorError, "author", "author"),
    "a key of no kind": (lambda: checked(as_pb(author=public_key(4, bytes(32)))), AuthorError, "author", "author"),
    "another author": (lambda: checked(direct(THIRD, US)[1]), AuthorError, "author", "author"),
    "ourselves": (lambda: checked(direct(US, US)[1]), AuthorError, "author", "author"),
    "another recipient": (lambda: checked(direct(THEM, THIRD)[1]), RecipientError, "recipient", "recipient"),
    "no recipient": (lambda: checked(direct(THEM, None)[1]), RecipientError, "recipient", "recipient"),
    "our name as text": (lambda: checked(as_pb(recipient=name(US).encode())), RecipientError, "recipient", "recipient"),
    "no signature": (lambda: checked(encode_signed(MESSAGE, b"")), SignatureError, "signature", "signature"),
    "another's signature": (lambda: checked(resigned(MESSAGE, THIRD)), SignatureError, "signature", "signature"),
    "another context": (lambda: checked(resigned(MESSAGE, prefix=b"")), SignatureError, "signature", "signature"),
    "a long signature": (
        lambda: checked(encode_signed(MESSAGE, bytes(1025))),
        MalformedError,
        "malformed",
        "signature",
    ),
}
TO_ALL = direct(THEM, None)[0]
GOSSIP: dict[str, tuple[Callable[[], object], type[MessageError], str, str]] = {
    "another network": (lambda: gossiped(direct(FOREIGN, None)[1]), NetworkError, "network_id", "network_id"),
    "another topic": (lambda: gossiped(direct(THEM, None)[1], topic="b"), WrongProtocolError, "protocol", "protocol"),
    "no key": (lambda: gossiped(resigned(TO_ALL[38:])), AuthorError, "author", "author"),
    "a recipient": (lambda: gossiped(direct(THEM, US)[1]), RecipientError, "recipient", "recipient"),
    "a request": (lambda: gossiped(direct(THEM, None, **REQUEST_1)[1]), KindError, "kind", "kind"),
    "an answer": (
        lambda: gossiped(direct(THEM, None, kind=Kind.RESPONSE, request_id=1)[1]),
        KindError,
        "kind",
        "kind",
    ),
    "no signature": (lambda: gossiped(encode_signed(TO_ALL, b"")), SignatureError, "signature", "signature"),
    "the forwarder's": (lambda: gossiped(resigned(TO_ALL, THIRD)), SignatureError, "signature", "signature"),
    "a second form": (
        lambda: gossiped(direct(THEM, None)[1] + b"\x18\x01"),
        MalformedError,
        "malformed",
        "signed_message",
    ),
}


@pytest.mark.parametrize("case", DIRECT)
def test_each_rejection_names_the_peer_and_the_field(case):
    check, kind, reason, field = DIRECT[case]
    with pytest.raises(kind) as caught:
        check()
    error = caught.value
    assert (type(error), error.reason, error.field, error.peer) == (kind, reason, field, name(THEM))
    assert str(error).startswith(f"{field}: expected ")
    assert str(error).endswith(f", from {name(THEM)}")


@pytest.mark.parametrize("case", GOSSIP)
def test_each_rejection_of_gossip_names_the_forwarder_and_the_field(case):
    check, kind, reason, field = GOSSIP[case]
    with pytest.raises(kind) as caught:
        check()
    error = caught.value
    assert (type(error), error.reason, error.field, error.peer) == (kind, reason, field, name(THIRD))


# time: nobody's fault


@pytest.mark.parametrize("check", [checked, gossiped])
@pytest.mark.parametrize(
    ("offset", "taken"),
    [(-600_000, True), (-600_001, False), (0, True), (30_000, True), (30_001, False), (1 << 62, False), (-NOW, False)],
)
def test_the_window_to_the_millisecond(check, offset, taken):
    data = direct(THEM, US if check is checked else None, timestamp_ms=NOW + offset)[1]
    if taken:
        assert check(data).timestamp_ms == NOW + offset
    else:
        with pytest.raises(MessageDropped) as caught:
            check(data)
        assert caught.value.reason == "timestamp"
        assert not isinstance(caught.value, MessageError)


@pytest.mark.parametrize(("back", "taken"), [(100, True), (101, False), (-200, True), (-201, False)])
def test_the_window_is_a_setting(back, taken):
    at = rules(1, max_age=0.1, max_ahead=0.2)
    if taken:
        checked(DATA, at, now=NOW + back)
    else:
        with pytest.raises(MessageDropped):
            checked(DATA, at, now=NOW + back)


# unsigned


def test_unsigned_messages_are_taken_only_with_signatures_off():
    _, unsigned = direct(OFF[2], US)
    assert decode_signed(unsigned, "").signature == b""
    assert checked(unsigned, OFF[1]).payload == b"payload"
    with pytest.raises(SignatureError):
        checked(unsigned, US)
    with pytest.raises(SignatureError):
        gossiped(encode_signed(TO_ALL, b""), OFF[1])


def test_with_signatures_off_a_signature_must_still_be_right():
    assert checked(DATA, OFF[1]).payload == b"payload"
    with pytest.raises(SignatureError):
        checked(spoiled(DATA, len(DATA) * 8 - 1), OFF[1])


def test_with_signatures_off_everything_else_is_still_checked():
    for to, kind in ((THIRD, RecipientError), (None, RecipientError)):
        with pytest.raises(kind):
            checked(direct(OFF[2], to)[1], OFF[1])
    with pytest.raises(AuthorError):
        checked(direct(rules(3, signatures=False), US)[1], OFF[1])
    with pytest.raises(NetworkError):
        checked(direct(rules(2, signatures=False, network_id=b"x"), US)[1], OFF[1])


# any bytes


@given(st.binary() | st.builds(encode_signed, st.binary(), st.binary()) | st.binary().map(resigned))
def test_any_bytes_are_refused_by_one_kind_of_error(data):
    for at in (US, OFF[1]):
        for check in (checked, gossiped):
            with pytest.raises(MessageError) as caught:
                check(data, at)
            assert caught.value.peer == (name(THEM) if check is checked else name(THIRD))
            assert caught.value.field


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "author": st.binary(max_size=40),
            "network_id": st.binary(max_size=66),
            "client_version": st.text(max_size=30),
            "protocol": st.text(max_size=66),
            "type": st.integers(0, (1 << 32) - 1),
            "kind": st.integers(-(1 << 31), (1 << 31) - 1),
            "request_id": st.integers(0, (1 << 64) - 1),
            "timestamp_ms": st.integers(0, (1 << 64) - 1),
            "payload": st.binary(),
            "recipient": st.binary(max_size=40),
            "more": st.booleans(),
        },
    )
)
def test_any_fields_with_a_right_signature_give_a_message_or_one_kind_of_error(fields):
    for check in (checked, gossiped):
        message = result(partial(check, as_pb(**fields)), MessageError, MessageDropped)
        if isinstance(message, Exception):
            assert message.peer in (name(THEM), name(THIRD))
            assert message.reason
        else:
            assert (message.peer, message.network_id, message.protocol) == (name(THEM), NETWORK, "sync")


# one bit


@pytest.mark.parametrize(("check", "to"), [(checked, US), (gossiped, None)])
def test_no_bit_of_a_message_can_be_changed(check, to):
    data = direct(THEM, to, **(REQUEST_1 if to else {}))[1]
    check(data)
    for bit in range(len(data) * 8):
        with pytest.raises((MessageError, MessageDropped)):
            check(spoiled(data, bit))


@pytest.mark.parametrize("kind", KINDS)
def test_no_bit_can_be_changed_whatever_the_authors_key(kind):
    key = key_of(kind)
    message = messages_pb2.Message.FromString(direct(THEM, US)[0])
    message.author = key.public_key
    text = message.SerializeToString()
    data = encode_signed(text, key.sign(SIGNED_PREFIX + text))
    checked(data, peer=key.peer)
    for bit in random.Random(kind).sample(range(len(data) * 8), 200):
        with pytest.raises((MessageError, MessageDropped)):
            checked(spoiled(data, bit), peer=key.peer)


# made for one, shown to another

REPLAYS: dict[str, tuple[bytes, Callable[[bytes], object], type[MessageError]]] = {
    "a request shown to a third node by its author": (
        direct(THEM, US, **REQUEST_1)[1],
        lambda data: checked(data, THIRD),
        RecipientError,
    ),
    "a request shown to a third node by its recipient": (
        direct(THEM, US, **REQUEST_1)[1],
        lambda data: checked(data, THIRD, name(US)),
        AuthorError,
    ),
    "a request given back to its author": (
        direct(THEM, US, **REQUEST_1)[1],
        lambda data: checked(data, THEM, name(US)),
        AuthorError,
    ),
    "a request on another stream": (
        direct(THEM, US, **REQUEST_1)[1],
        lambda data: checked(data, US, protocol="blocks"),
        WrongProtocolError,
    ),
    "a direct message published": (direct(THEM, US)[1], lambda data: gossiped(data), RecipientError),
    "a direct message published to its own recipient": (
        direct(THEM, US)[1],
        lambda data: gossiped(data, US, name(THEM)),
        RecipientError,
    ),
    "gossip sent direct by its author": (direct(THEM, None)[1], lambda data: checked(data), RecipientError),
    "gossip sent direct by another": (
        direct(THEM, None)[1],
        lambda data: checked(data, US, name(THIRD)),
        AuthorError,
    ),
    "gossip on another topic": (direct(THEM, None)[1], lambda data: gossiped(data, topic="b"), WrongProtocolError),
    "a message of another network": (direct(FOREIGN, US)[1], lambda data: checked(data), NetworkError),
    "gossip of another network": (direct(FOREIGN, None)[1], lambda data: gossiped(data), NetworkError),
    "a message of a network whose name begins like ours": (
        direct(rules(2, network_id=NETWORK + b"-2"), US)[1],
        lambda data: checked(data),
        NetworkError,
    ),
}


@pytest.mark.parametrize("case", REPLAYS)
def test_what_was_made_for_one_is_refused_by_every_other_and_so_is_it_with_any_bit_changed(case):
    data, show, kind = REPLAYS[case]
    with pytest.raises(kind):
        show(data)
    for bit in range(len(data) * 8):
        with pytest.raises((MessageError, MessageDropped)):
            show(spoiled(data, bit))


@pytest.mark.parametrize("kind", [{}, REQUEST_1])
def test_a_signature_fits_no_other_place(kind):
    """The signature of a message under another: each field that says where it belongs is under the signature."""
    signature = decode_signed(direct(THEM, US, **kind)[1], "").signature
    others = [
        direct(THEM, US, b"other", **kind),
        direct(THEM, US, timestamp_ms=NOW + 1, **kind),
        direct(THEM, US, **{**REQUEST_1, "request_id": 2}),
        direct(THEM, US, **{**kind, "type": 8}),
    ]
    for message, _ in others:
        with pytest.raises(SignatureError):
            checked(encode_signed(message, signature))
