"""The exchange's messages and the order in which they may come."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import ProtocolError
from protocols.exchange import exchange_pb2
from protocols.exchange.engine import Answerer, Asker, State
from protocols.exchange.wire import (
    MAX_FRAME,
    MAX_MULTIADDRS,
    MAX_RECORDS,
    Addresses,
    GetAddresses,
    Ping,
    Pong,
    decode,
    encode,
    fitting,
)

A, B, C = b"peer a", b"peer b", b"peer c"

alive = {
    "peer_id": st.binary(max_size=64),
    "multiaddrs": st.lists(st.binary(max_size=40), max_size=MAX_MULTIADDRS).map(tuple),
    "nonce": st.integers(0, 2**64 - 1),
}
messages = st.one_of(
    st.builds(Ping, **alive),
    st.builds(Pong, **alive),
    st.builds(GetAddresses, st.integers(0, MAX_RECORDS)),
    st.builds(Addresses, st.lists(st.binary(max_size=40), max_size=MAX_RECORDS).map(tuple)),
)


@given(messages)
def test_a_message_comes_back(message):
    assert decode(encode(message)) == message


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_protocol_error(data):
    with contextlib.suppress(ProtocolError):
        decode(data)


def test_what_is_over_its_bound_is_no_message():
    wire = exchange_pb2.ExchangeMessage
    over = [
        wire(ping=exchange_pb2.Alive(multiaddrs=[b"a"] * (MAX_MULTIADDRS + 1))),
        wire(get_addresses=exchange_pb2.GetAddresses(limit=MAX_RECORDS + 1)),
        wire(addresses=exchange_pb2.Addresses(signed_peer_records=[b"a"] * (MAX_RECORDS + 1))),
        wire(),
    ]
    for message in over:
        with pytest.raises(ProtocolError):
            decode(message.SerializeToString())


def test_field_numbers_are_those_of_the_wire_page():
    assert encode(Ping(b"p", (b"m",), 1)) == bytes.fromhex("0a08 0a0170 12016d 1801")
    assert encode(Pong(b"p")) == bytes.fromhex("1203 0a0170")
    assert encode(GetAddresses(100)) == bytes.fromhex("1a02 0864")
    assert encode(Addresses((b"r",))) == bytes.fromhex("2203 0a0172")
    assert encode(GetAddresses(0)) == bytes.fromhex("1a00")  # none is wanted, which isn't no message


@given(st.lists(st.integers(0, 5000), max_size=120), st.integers(0, MAX_RECORDS))
def test_an_answer_fits_into_a_frame(sizes, limit):
    records = [bytes(size) for size in sizes]
    taken = fitting(records, limit)
    assert len(taken) <= limit
    assert taken == tuple(records[: len(taken)])
    assert len(encode(Addresses(taken))) <= MAX_FRAME
    if len(taken) < min(limit, len(records)):
        assert sum(map(len, taken)) + len(records[len(taken)]) > MAX_FRAME - 1024


def pair(limit=10, records=(b"r",) * 20, nonce=7):
    drawn = []

    def draw(count):
        drawn.append(count)
        return records[:count]

    asker = Asker(A, B, [b"at a"], limit=limit, nonce=nonce)
    answerer = Answerer(B, A, [b"at b"], draw)
    return asker, answerer, drawn


def test_the_whole_exchange():
    asker, answerer, drawn = pair()
    frame = asker.first()
    assert decode(frame) == Ping(A, (b"at a",), 7)
    frame = answerer.receive(frame)
    assert decode(frame) == Pong(B, (b"at b",), 7)
    assert not answerer.done
    frame = asker.receive(frame)
    assert decode(frame) == GetAddresses(10)
    frame = answerer.receive(frame)
    assert answerer.done
    assert drawn == [10]
    assert asker.receive(frame) is None
    assert asker.records == (b"r",) * 10
    assert (asker.heard.multiaddrs, answerer.heard.multiaddrs) == ((b"at b",), (b"at a",))


def broken(side, frame):
    with pytest.raises(ProtocolError):
        side.receive(frame)
    assert side.state is State.BROKEN
    with pytest.raises(ProtocolError):  # and stays so, whatever comes
        side.receive(encode(Ping(A)))


def test_get_addresses_before_a_pong_ends_the_stream():
    _, answerer, drawn = pair()
    broken(answerer, encode(GetAddresses(1)))
    assert drawn == []


def test_another_peers_id_ends_the_stream():
    asker, answerer, _ = pair()
    broken(answerer, encode(Ping(C)))
    broken(asker, encode(Pong(C, nonce=7)))
    asker, answerer, _ = pair()
    broken(answerer, encode(Ping(b"")))
    broken(asker, encode(Pong(A, nonce=7)))  # our own is none of its either


def test_another_nonce_ends_the_stream():
    asker, _, _ = pair()
    broken(asker, encode(Pong(B, nonce=8)))


def test_more_records_than_were_asked_for_end_the_stream():
    asker, answerer, _ = pair(limit=2)
    asker.receive(answerer.receive(asker.first()))
    broken(asker, encode(Addresses((b"r",) * 3)))


def test_a_second_ping_or_answer_ends_the_stream():
    asker, answerer, _ = pair()
    ping = asker.first()
    pong = answerer.receive(ping)
    broken(answerer, ping)
    asker.receive(pong)
    broken(asker, pong)


@given(st.lists(st.one_of(st.binary(max_size=60), messages.map(encode)), max_size=8))
def test_any_frames_in_any_order_are_answered_by_the_rules_or_end_the_stream(frames):
    _, answerer, drawn = pair()
    for number, frame in enumerate(frames):
        try:
            answer = decode(answerer.receive(frame))
        except ProtocolError:
            assert answerer.state is State.BROKEN
            assert drawn == []
            return
        assert isinstance(answer, Pong) == (number == 0)


@given(st.lists(st.one_of(st.binary(max_size=60), messages.map(encode)), max_size=4))
def test_an_asker_asks_after_a_pong_only(frames):
    asker, _, _ = pair()
    for number, frame in enumerate(frames):
        try:
            answer = asker.receive(frame)
        except ProtocolError:
            assert asker.state is State.BROKEN
            return
        assert number < 2
        assert (answer is None) == (number == 1)
