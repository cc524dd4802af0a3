"""The frame meter: what is too much is said by the header, in whatever pieces it comes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.upgrade.frame_meter import HEADER, MAX_HELD_FRAMES, MAX_STRAY_FRAME, FrameMeter
from protocols import ProtocolError
from protocols.handshake.engine import MAX_HELD_BYTES

DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
WINDOW = 256 * 1024


def header(length: int, *, kind: int = DATA, stream: int = 1, version: int = 0, flags: int = 0) -> bytes:
    return HEADER.pack(version, kind, flags, stream, length)


def data(size: int, stream: int = 1) -> bytes:
    return header(size, stream=stream) + bytes(size)


def meter(*, admitted: bool = True, windows: dict[int, int] | None = None) -> FrameMeter:
    """A meter of a connection where streams 1 and 3 are open."""
    found = FrameMeter((windows if windows is not None else {1: WINDOW, 3: WINDOW}).get)
    found.admitted = admitted
    return found


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def outcome(chunks: list[bytes], *, admitted: bool) -> str | tuple[int, int]:
    found = meter(admitted=admitted, windows={1: 40, 3: 100})
    try:
        for chunk in chunks:
            found.feed(chunk)
    except ProtocolError as error:
        return str(error)
    return found.held_bytes, found.held_frames


# before admission


def test_before_admission_the_bound_over_all_streams_is_exact():
    assert MAX_HELD_BYTES == 65536
    held = meter(admitted=False)
    held.feed(data(40_000, stream=1))
    held.feed(data(25_536, stream=3))
    assert held.held_bytes == 65536
    held.feed(header(0))
    with pytest.raises(ProtocolError, match=r"at most 65536 bytes .* before admission, got 65537"):
        held.feed(data(1, stream=1))


def test_before_admission_one_frame_over_the_bound_is_refused_by_its_header():
    meter(admitted=False).feed(header(65536))
    with pytest.raises(ProtocolError, match="before admission"):
        meter(admitted=False).feed(header(65537))


def test_before_admission_the_number_of_frames_is_bounded_too():
    held = meter(admitted=False)
    for kind in (DATA, WINDOW_UPDATE, PING, GO_AWAY):
        held.feed(header(0, kind=kind) * (MAX_HELD_FRAMES // 4))
    with pytest.raises(ProtocolError, match=f"in {MAX_HELD_FRAMES} frames before admission"):
        held.feed(header(0))


def test_after_admission_only_windows_count():
    found = meter(admitted=False)
    found.feed(data(65536))
    found.admitted = True
    for _ in range(2 * MAX_HELD_FRAMES):
        found.feed(data(1024))
    found.feed(data(WINDOW, stream=3))


# windows


def test_a_window_may_be_used_up_and_not_overrun():
    windows = {1: 100, 3: 0}
    found = meter(windows=windows)
    found.feed(data(100))
    windows[1] = 0
    found.feed(data(0))
    for stream in (1, 3):
        with pytest.raises(ProtocolError, match=f"at most the window's 0 bytes on stream {stream}, got 1"):
            meter(windows=windows).feed(header(1, stream=stream))
    with pytest.raises(ProtocolError, match="the window's 100 bytes on stream 1, got 101"):
        meter(windows={1: 100}).feed(header(101))


def test_strays_of_a_stream_that_is_gone_are_taken_up_to_a_bound():
    found = meter()
    found.feed(data(MAX_STRAY_FRAME, stream=99))
    found.feed(data(10, stream=1))
    with pytest.raises(ProtocolError, match="on stream 99"):
        found.feed(header(MAX_STRAY_FRAME + 1, stream=99))


def test_lengths_of_frames_without_payload_are_no_payload():
    found = meter(admitted=False)
    for kind in (WINDOW_UPDATE, PING, GO_AWAY):
        found.feed(header(2**32 - 1, kind=kind))
    assert found.held_bytes == 0
    found.feed(data(5))
    assert found.held_bytes == 5


def test_other_versions_of_yamux_are_refused():
    with pytest.raises(ProtocolError, match="expected Yamux version 0, got 1"):
        meter().feed(header(0, version=1))


# pieces


def test_payload_that_looks_like_a_header_is_payload():
    found = meter()
    found.feed(header(24) + header(2**31, version=7) + header(2**31))
    found.feed(data(1))


def test_nothing_is_decided_before_the_header_is_whole():
    found = meter(admitted=False)
    for byte in header(2**32 - 1)[:-1]:
        found.feed(bytes([byte]))
    with pytest.raises(ProtocolError):
        found.feed(b"\xff")


frames = st.builds(
    lambda kind, stream, size: header(size, kind=kind, stream=stream) + bytes(size if kind == DATA else 0),
    st.sampled_from([DATA, DATA, WINDOW_UPDATE, PING, GO_AWAY]),
    st.sampled_from([1, 3, 5]),
    st.integers(0, 120),
)


@given(st.lists(frames, max_size=20).map(b"".join) | st.binary(), st.lists(st.integers(0)), st.booleans())
def test_the_split_does_not_change_the_result(stream, cuts, admitted):
    whole = outcome([stream], admitted=admitted)
    assert outcome(cut(stream, cuts), admitted=admitted) == whole
    assert outcome([stream[i : i + 1] for i in range(len(stream))], admitted=admitted) == whole
