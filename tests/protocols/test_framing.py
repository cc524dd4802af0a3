"""Varints and frames: any bytes in, frames or a ProtocolError out."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import ProtocolError
from protocols.framing import FrameDecoder, VarintDecoder, encode_frame, encode_uvarint

MAX = 300


def decode_varint(data: bytes) -> list[int]:
    decoder = VarintDecoder()
    return [value for byte in data if (value := decoder.feed(byte)) is not None]


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def outcome(chunks: list[bytes]) -> tuple[list[bytes], bool]:
    """The frames that came, and whether it ended in a fault (which a feed after the last frames tells)."""
    decoder, frames = FrameDecoder(MAX), []
    for chunk in [*chunks, b""]:
        try:
            frames += decoder.feed(chunk)
        except ProtocolError:
            return frames, True
    return frames, False


# varints


@pytest.mark.parametrize(
    ("value", "data"),
    [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), (16384, "808001"), (2**63 - 1, "ff" * 8 + "7f")],
)
def test_varints_are_the_specs(value, data):
    assert encode_uvarint(value) == bytes.fromhex(data)
    assert decode_varint(bytes.fromhex(data)) == [value]


@pytest.mark.parametrize("value", [-1, 2**63])
def test_what_no_varint_holds_is_the_callers_mistake(value):
    with pytest.raises(ValueError, match="a varint holds"):
        encode_uvarint(value)


@pytest.mark.parametrize("data", ["8000", "ff00", "808000"])
def test_padded_varints_are_errors(data):
    with pytest.raises(ProtocolError, match="shortest"):
        decode_varint(bytes.fromhex(data))


def test_a_varint_ends_within_nine_bytes():
    assert decode_varint(b"\x80" * 8 + b"\x01") == [1 << 56]
    with pytest.raises(ProtocolError, match="at most 9 bytes"):
        decode_varint(b"\x80" * 9)


@given(st.lists(st.integers(0, 2**63 - 1)))
def test_varints_round_trip_one_after_the_other(values):
    assert decode_varint(b"".join(map(encode_uvarint, values))) == values


def test_a_varint_decoder_knows_whether_it_is_within_one():
    decoder = VarintDecoder()
    assert not decoder.started
    decoder.feed(0x80)
    assert decoder.started
    decoder.feed(0x01)
    assert not decoder.started


# frames


def test_a_frame_is_its_length_and_its_bytes():
    assert encode_frame(b"", MAX) == b"\0"
    assert encode_frame(b"abc", MAX) == b"\3abc"
    assert encode_frame(bytes(MAX), MAX) == b"\xac\x02" + bytes(MAX)


def test_a_frame_over_the_bound_is_not_sent():
    with pytest.raises(ValueError, match="at most 300 bytes, not 301"):
        encode_frame(bytes(MAX + 1), MAX)


def test_the_bound_is_exact_and_checked_before_the_payload():
    assert FrameDecoder(MAX).feed(encode_frame(bytes(MAX), MAX)) == [bytes(MAX)]
    with pytest.raises(ProtocolError, match="at most 300 bytes, got one of 301"):
        FrameDecoder(MAX).feed(encode_uvarint(MAX + 1))


def test_empty_frames_are_frames():
    assert FrameDecoder(MAX).feed(b"\0\0\1a\0") == [b"", b"", b"a", b""]


def test_a_decoder_knows_whether_it_is_within_a_frame():
    decoder = FrameDecoder(MAX)
    expected = [True, True, True, False]  # half a length, a length, a byte of two, the end
    assert not decoder.incomplete
    for chunk, incomplete in zip([b"\x82", b"\x01", bytes(129), bytes(1)], expected, strict=True):
        decoder.feed(chunk)
        assert decoder.incomplete is incomplete


@given(st.lists(st.binary(max_size=MAX)), st.lists(st.integers(0)))
def test_frames_round_trip_however_they_are_split(frames, cuts):
    data = b"".join(encode_frame(frame, MAX) for frame in frames)
    decoder = FrameDecoder(MAX)
    assert [frame for chunk in cut(data, cuts) for frame in decoder.feed(chunk)] == frames
    assert not decoder.incomplete


@given(st.binary(), st.lists(st.integers(0)))
def test_any_bytes_are_frames_or_an_error_and_the_split_does_not_change_which(data, cuts):
    whole, bytewise, split = ([data], [data[i : i + 1] for i in range(len(data))], cut(data, cuts))
    failed = outcome(whole)[1]
    assert outcome(bytewise)[1] == outcome(split)[1] == failed
    if not failed:
        assert outcome(whole)[0] == outcome(bytewise)[0] == outcome(split)[0]


@given(st.binary())
def test_a_decoder_never_holds_more_than_one_frame(data):
    decoder = FrameDecoder(MAX)
    try:
        decoder.feed(data)
    except ProtocolError:
        return
    assert len(decoder._buffer) < MAX
