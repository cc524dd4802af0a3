"""Rendezvous' bytes: any bytes give a value or one error, and rust-libp2p's clients can take our cookies."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import ProtocolError
from protocols.rendezvous import rendezvous_pb2 as pb
from protocols.rendezvous.wire import (
    MAX_NAMESPACE,
    MAX_QUESTION,
    MAX_RECORD,
    Discover,
    Discovered,
    Refused,
    Register,
    Registered,
    Status,
    Unregister,
    check_namespace,
    decode_answer,
    decode_question,
    encode_answer,
    encode_question,
)

namespaces = st.text(min_size=1, max_size=60).filter(lambda text: len(text.encode()) <= MAX_NAMESPACE)
numbers = st.integers(0, 2**64 - 1)
registers = st.builds(Register, namespaces, st.binary(min_size=1, max_size=300), st.none() | numbers)
questions = (
    registers
    | st.builds(Unregister, namespaces)
    | st.builds(Discover, st.none() | namespaces, st.binary(max_size=100), st.none() | numbers)
)
answers = st.builds(Registered, numbers) | st.builds(
    Discovered, st.lists(registers, max_size=5).map(tuple), st.binary(max_size=100)
)


@given(questions)
def test_a_question_survives_the_wire(question):
    assert decode_question(encode_question(question)) == question


@given(answers)
def test_an_answer_survives_the_wire(answer):
    assert decode_answer(encode_answer(answer)) == answer


@given(st.integers(1, 1000), st.text(max_size=80, alphabet=st.characters(codec="utf-8")), st.booleans())
def test_a_refusal_survives_the_wire(status, text, discover):
    refused = decode_answer(encode_answer(Refused(status, text, discover=discover)))
    assert isinstance(refused, Refused)
    assert (refused.status, refused.discover) == (status, discover)
    assert text.startswith(refused.text.rstrip("�"))


@given(st.binary(max_size=MAX_QUESTION))
def test_any_bytes_are_a_question_or_an_error(data):
    with suppress(ProtocolError, Refused):
        decode_question(data)


@given(st.binary(max_size=MAX_QUESTION))
def test_any_bytes_are_an_answer_or_an_error(data):
    with suppress(ProtocolError):
        decode_answer(data)


def test_the_bytes_are_those_of_the_specification():
    """Worked out by hand from the specification's fields."""
    asked = encode_question(Register("ns", b"record", 7200))
    assert asked == bytes.fromhex("0800 120f 0a02 6e73 1206 7265636f7264 18a038".replace(" ", ""))
    assert encode_question(Unregister("ns")) == bytes.fromhex("080222040a026e73")
    assert encode_question(Discover(None, b"", None)) == bytes.fromhex("08032a00")
    assert encode_answer(Registered(7200)) == bytes.fromhex("08011a05080018a038")


@pytest.mark.parametrize(
    ("register", "status"),
    [
        (pb.Register(ns=b"", signed_peer_record=b"r"), Status.INVALID_NAMESPACE),
        (pb.Register(signed_peer_record=b"r"), Status.INVALID_NAMESPACE),
        (pb.Register(ns=b"n" * 256, signed_peer_record=b"r"), Status.INVALID_NAMESPACE),
        (pb.Register(ns=b"\xff\xfe", signed_peer_record=b"r"), Status.INVALID_NAMESPACE),
        (pb.Register(ns=b"n"), Status.INVALID_SIGNED_PEER_RECORD),
        (pb.Register(ns=b"n", signed_peer_record=b"r" * (MAX_RECORD + 1)), Status.INVALID_SIGNED_PEER_RECORD),
    ],
)
def test_what_is_wrong_with_a_registration_is_answered(register, status):
    with pytest.raises(Refused) as refused:
        decode_question(pb.Message(type=0, register=register).SerializeToString())
    assert refused.value.status == status
    assert not refused.value.discover


def test_a_namespace_has_255_bytes_at_most():
    assert check_namespace("n" * 255)
    for wrong in ("", "n" * 256, "ü" * 128, "\ud800"):
        with pytest.raises(ValueError):
            check_namespace(wrong)


def test_an_answer_leaves_out_registrations_that_cannot_be():
    good = pb.Register(ns=b"n", signed_peer_record=b"r", ttl=7200)
    bad = [pb.Register(ns=b"n" * 300, signed_peer_record=b"r"), pb.Register(ns=b"n"), pb.Register()]
    message = pb.Message(type=4, discover_response=pb.DiscoverResponse(registrations=[*bad, good], cookie=b"c"))
    assert decode_answer(message.SerializeToString()) == Discovered((Register("n", b"r", 7200),), b"c")
