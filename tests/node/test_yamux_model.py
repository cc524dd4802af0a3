"""Yamux without I/O: frames, any bytes in any split, and two ends under random schedules, which lose nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.upgrade.yamux import Session
from node.upgrade.yamux_state import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    INITIAL_WINDOW,
    MESSAGE,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Limits,
    Opened,
    Pong,
    Readable,
    Stream,
    WasReset,
    WentAway,
)
from protocols import ProtocolError


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    return HEADER.pack(0, kind, flags, stream, len(payload) if length is None else length) + payload


def sent(session: Session) -> bytes:
    """All that a session has to send now."""
    out = b""
    while True:
        data, _ = session.output()
        if not data:
            return out
        assert len(data) <= MESSAGE
        out += data


def read(session: Session, stream: Stream, now: float, round_trip: float) -> None:
    """Reads all there is."""
    while session.take(stream, stream.size):
        pass
    session.credit(stream, now, round_trip)


def listener(**limits) -> Session:
    return Session(initiator=False, limits=Limits(**limits))


# frames, byte for byte


def test_a_stream_opens_with_its_first_data_and_is_accepted_with_the_first_answer():
    ours, theirs = Session(initiator=True), listener()
    stream = ours.open()
    assert sent(ours) == b"", "nothing goes out for the opening alone"
    ours.send(stream, b"hello")
    wire = sent(ours)
    assert wire == frame(DATA, SYN, 1, b"hello")
    assert theirs.receive(wire) == [Opened(1), Readable(1)]
    other = theirs.streams[1]
    assert theirs.take(other, 100) == b"hello"
    theirs.send(other, b"welcome")
    wire = sent(theirs)
    assert wire == frame(DATA, ACK, 1, b"welcome")
    assert ours.receive(wire) == [Readable(1)]
    assert ours.take(stream, 3) + ours.take(stream, 100) == b"welcome"


def test_announcing_ending_and_resetting():
    ours, theirs = Session(initiator=True), listener()
    stream = ours.open()
    ours.announce(stream)
    ours.announce(stream)
    wire = sent(ours)
    assert wire == frame(WINDOW_UPDATE, SYN, 1)
    assert theirs.receive(wire) == [Opened(1)]
    ours.end(stream)
    wire = sent(ours)
    assert wire == frame(DATA, FIN, 1)
    assert theirs.receive(wire) == [Readable(1)]
    other = theirs.streams[1]
    assert other.ended
    theirs.end(other)
    assert not theirs.streams
    ours.receive(sent(theirs))
    assert not ours.streams
    again = ours.open()
    ours.send(again, b"x")
    theirs.receive(sent(ours))
    ours.reset(again)
    wire = sent(ours)
    assert wire == frame(WINDOW_UPDATE, RST, 3)
    assert theirs.receive(wire) == [WasReset(3)]
    assert theirs.receive(wire) == []
    assert not ours.streams
    assert not theirs.streams


def test_pings_and_going_away():
    ours, theirs = Session(initiator=True), listener()
    ours.ping(7)
    wire = sent(ours)
    assert wire == frame(PING, SYN, 0, length=7)
    assert theirs.receive(wire) == []
    wire = sent(theirs)
    assert wire == frame(PING, ACK, 0, length=7)
    assert ours.receive(wire) == [Pong(7)]
    theirs.go_away(2)
    assert ours.receive(sent(theirs)) == [WentAway(2)]
    assert ours.went_away


def text(stream: Stream) -> bytes:
    """What a stream has received."""
    return b"".join(map(bytes, stream.received))


@pytest.mark.parametrize("kind", [DATA, WINDOW_UPDATE])
def test_each_flag_of_a_frame_that_comes_in(kind):
    """As data with a byte, and as a window update with credit: what the flag says, and what the frame carries."""
    payload, length, credit = (b"x", 1, 0) if kind == DATA else (b"", 1000, 1000)
    news = [Readable(1)] if kind == DATA else []

    theirs = listener()
    assert theirs.receive(frame(kind, SYN, 1, payload, length)) == [Opened(1), *news]
    other = theirs.streams[1]
    assert (text(other), other.send_window, other.ended) == (payload, INITIAL_WINDOW + credit, False)
    assert theirs.receive(frame(kind, FIN, 1, payload, length))[-1] == Readable(1)
    assert (text(other), other.send_window, other.ended) == (2 * payload, INITIAL_WINDOW + 2 * credit, True)
    theirs.end(other)
    assert sent(theirs) == frame(DATA, ACK | FIN, 1)
    assert not theirs.streams

    ours = Session(initiator=True)
    stream = ours.open()
    ours.announce(stream)
    assert sent(ours) == frame(WINDOW_UPDATE, SYN, 1)
    assert ours.unacknowledged == 1
    assert ours.receive(frame(kind, ACK, 1, payload, length)) == news
    assert ours.unacknowledged == 0
    assert (text(stream), stream.send_window) == (payload, INITIAL_WINDOW + credit)
    assert ours.receive(frame(kind, RST, 1, payload, length)) == [WasReset(1)]
    assert stream.reset
    assert not ours.streams
    assert (ours._unread, ours._windows) == (0, 0)

    theirs = listener()
    events = theirs.receive(frame(kind, SYN | FIN, 1, payload, length))
    assert events[0] == Opened(1)
    assert events[-1] == Readable(1)
    assert theirs.streams[1].ended
    events = theirs.receive(frame(kind, SYN | RST, 3, payload, length) + frame(kind, 0, 3, payload, length))
    assert events == [Opened(3), WasReset(3)]
    assert list(theirs.streams) == [1]
    assert sent(theirs) == b"", "nothing of that is answered"


def test_each_flag_of_a_frame_that_goes_out():
    ours, theirs = Session(initiator=True), listener()
    stream = ours.open()
    ours.send(stream, b"x")
    ours.end(stream)
    assert sent(ours) == frame(DATA, SYN, 1, b"x") + frame(DATA, FIN, 1)
    ours.reset(stream)
    assert sent(ours) == frame(WINDOW_UPDATE, RST, 1)
    ours.end(ours.open())
    assert sent(ours) == frame(DATA, SYN | FIN, 3)
    ours.reset(ours.open())
    assert sent(ours) == b"", "of a stream that the peer never heard of nothing is said"
    theirs.receive(frame(WINDOW_UPDATE, SYN, 1) + frame(WINDOW_UPDATE, SYN, 3) + frame(DATA, SYN, 5, bytes(200_000)))
    theirs.announce(theirs.streams[1])
    assert sent(theirs) == frame(WINDOW_UPDATE, ACK, 1)
    theirs.reset(theirs.streams[3])
    assert sent(theirs) == frame(WINDOW_UPDATE, ACK | RST, 3)
    read(theirs, theirs.streams[5], 1.0, 0.0)
    assert sent(theirs) == frame(WINDOW_UPDATE, ACK, 5, length=200_000)
    theirs.send(theirs.open(), b"y")
    assert sent(theirs) == frame(DATA, SYN, 2, b"y"), "the listener's streams are even"


@pytest.mark.parametrize("reason", [0, 1, 2])
def test_each_reason_to_go_away(reason):
    ours, theirs = Session(initiator=True), listener()
    ours.go_away(reason)
    wire = sent(ours)
    assert wire == frame(GO_AWAY, 0, 0, length=reason)
    assert theirs.receive(wire) == [WentAway(reason)]
    assert theirs.went_away
    assert not ours.went_away
    assert sent(theirs) == b""


def test_pings_with_neither_or_both_flags_and_the_largest_value():
    theirs = listener()
    assert theirs.receive(frame(PING, 0, 0, length=1)) == []
    assert sent(theirs) == b""
    assert theirs.receive(frame(PING, SYN, 0, length=2**32 - 1)) == []
    assert sent(theirs) == frame(PING, ACK, 0, length=2**32 - 1)
    assert theirs.receive(frame(PING, ACK, 0, length=2**32 - 1)) == [Pong(2**32 - 1)]


def test_the_window_may_be_filled_to_the_byte_and_credit_to_four_gibibytes():
    theirs = listener()
    theirs.receive(frame(DATA, SYN, 1, bytes(INITIAL_WINDOW)))
    assert theirs.streams[1].credit == 0
    theirs.receive(frame(WINDOW_UPDATE, 0, 1, length=2**32 - INITIAL_WINDOW))
    assert theirs.streams[1].send_window == 2**32
    theirs.receive(frame(DATA, 0, 1))
    with pytest.raises(ProtocolError, match="window's 0 bytes on stream 1, got 1"):
        theirs.receive(frame(DATA, 0, 1, b"x"))


def test_control_goes_before_data_and_streams_take_turns():
    ours = Session(initiator=True)
    first, second = ours.open(), ours.open()
    text = bytes(range(250)) * 2000
    ours.send(first, text)
    ours.send(second, bytes(100_000))
    ours.ping(1)
    data, _ = ours.output()
    assert data == frame(PING, SYN, 0, length=1) + frame(DATA, SYN, 1, length=INITIAL_WINDOW - INITIAL_WINDOW % MESSAGE)
    ours.ping(2)
    body = [ours.output()[0] for _ in range(INITIAL_WINDOW // MESSAGE)]
    assert b"".join(body) == text[: len(body) * MESSAGE], "the header is alone, so that no message's data is copied"
    data, _ = ours.output()
    assert data == frame(PING, SYN, 0, length=2) + frame(DATA, SYN, 3, length=MESSAGE)
    ours.output()
    data, _ = ours.output()
    assert HEADER.unpack_from(data) == (0, DATA, 0, 1, INITIAL_WINDOW % MESSAGE), "as far as the window goes"
    assert HEADER.unpack_from(data, 12 + INITIAL_WINDOW % MESSAGE) == (0, DATA, 0, 3, 100_000 - MESSAGE)


def test_a_frame_that_has_begun_is_ended_before_its_stream_is_reset():
    ours, theirs = Session(initiator=True), listener()
    stream = ours.open()
    ours.send(stream, b"x" * 300_000)
    wire = bytes(ours.output()[0])
    ours.reset(stream)
    wire += sent(ours)
    assert len(wire) == 12 + INITIAL_WINDOW - INITIAL_WINDOW % MESSAGE + 12
    assert theirs.receive(wire)[-1] == WasReset(1)
    assert not ours._unsent
    assert not theirs._unread


@pytest.mark.parametrize(
    "wire",
    [
        b"\x01" + frame(PING, SYN, 0)[1:],
        frame(4, 0, 1),
        frame(WINDOW_UPDATE, SYN, 2),
        frame(WINDOW_UPDATE, SYN, 0),
        *(bytes([version]) + frame(kind, 0, 0)[1:] for version in (1, 255) for kind in range(4)),
        frame(255, SYN, 1),
        frame(DATA, SYN, 0, b"x"),
        frame(DATA, SYN, 2, b"x"),
        frame(DATA, SYN, 1) + frame(DATA, SYN, 1),
        frame(WINDOW_UPDATE, SYN, 1) + frame(DATA, 0, 1, bytes(INITIAL_WINDOW)) + frame(DATA, 0, 1, b"x"),
        frame(WINDOW_UPDATE, SYN, 1) + frame(WINDOW_UPDATE, 0, 1, length=2**32 - INITIAL_WINDOW + 1),
        frame(WINDOW_UPDATE, SYN, 1) + frame(WINDOW_UPDATE, SYN, 1),
        frame(DATA, SYN, 1, length=INITIAL_WINDOW + 1),
        frame(DATA, SYN | FIN, 1, b"x") + frame(DATA, 0, 1, b"y"),
        frame(WINDOW_UPDATE, SYN, 1, length=2**32 - 1) * 1 + frame(WINDOW_UPDATE, 0, 1, length=2**32 - 1),
        frame(DATA, 0, 9, length=2**20 + 1),
    ],
)
def test_what_breaks_the_rules_ends_the_connection(wire):
    with pytest.raises(ProtocolError, match="expected"):
        listener().receive(wire)


def test_streams_past_the_limit_are_reset():
    theirs = listener(max_streams=2)
    events = theirs.receive(b"".join(frame(WINDOW_UPDATE, SYN, number) for number in (1, 3, 5)))
    assert events == [Opened(1), Opened(3)]
    assert sent(theirs) == frame(WINDOW_UPDATE, RST, 5)
    assert theirs.refused == 1


def test_what_is_held_before_admission_is_counted_to_the_byte():
    theirs = Session(initiator=False, held=65536)
    theirs.receive(frame(DATA, SYN, 1, bytes(40_000)) + frame(DATA, SYN, 3, bytes(25_536)))
    with pytest.raises(ProtocolError, match="before admission"):
        theirs.receive(frame(DATA, 0, 3, b"x"))
    theirs = Session(initiator=False, held=65536)
    theirs.receive(frame(DATA, SYN, 1, bytes(65536)))
    theirs.admitted()
    theirs.receive(frame(DATA, 0, 1, bytes(65536)))


def test_bytes_one_by_one_cost_little_more_than_they_hold():
    theirs = listener()
    theirs.receive(frame(WINDOW_UPDATE, SYN, 1) + frame(DATA, 0, 1, b"x") * 50_000)
    stream = theirs.streams[1]
    assert stream.size == 50_000
    assert len(stream.received) < 50
    assert theirs.take(stream, 60_000) == b"x" * 50_000


def test_unread_bytes_of_streams_that_are_over_are_bounded():
    theirs = listener(max_unread=300_000)
    for number in (1, 3, 5):
        theirs.receive(frame(DATA, SYN, number, bytes(100_000)))
        stream = theirs.streams[number]
        theirs.end(stream)
        theirs.receive(frame(DATA, FIN, number))
        assert number not in theirs.streams, "it has no window any more, but its bytes wait for a reader"
    with pytest.raises(ProtocolError, match="expected at most 300000 bytes that nobody has read yet"):
        theirs.receive(frame(DATA, SYN, 7, bytes(100_000)))


def test_a_window_grows_when_it_is_emptied_fast_and_not_past_its_limits():
    theirs = listener(max_window=1024 * 1024)
    theirs.receive(frame(WINDOW_UPDATE, SYN, 1))
    stream, now = theirs.streams[1], 100.0
    for _ in range(100):
        theirs.receive(frame(DATA, 0, 1, bytes(stream.credit)))
        read(theirs, stream, now, 1.0)
        now += 0.5
    assert stream.window == stream.credit == 1024 * 1024
    slow = listener()
    slow.receive(frame(WINDOW_UPDATE, SYN, 1))
    stream = slow.streams[1]
    for _ in range(20):
        slow.receive(frame(DATA, 0, 1, bytes(stream.credit)))
        read(slow, stream, now, 0.001)
        now += 10
    assert stream.window == INITIAL_WINDOW


# any bytes

frames = st.builds(
    lambda kind, flags, number, payload, lie: frame(kind, flags, number, payload, lie),
    st.integers(0, 4),
    st.integers(0, 15),
    st.integers(0, 6),
    st.binary(max_size=40),
    st.one_of(st.none(), st.none(), st.integers(0, 2**32 - 1)),
)
streams_of_bytes = st.one_of(st.binary(max_size=300), st.lists(frames, max_size=20).map(b"".join))


def outcome(chunks: list[bytes]) -> tuple[object, ...]:
    """What comes of it: the bytes of each stream, which are open, what is answered, and whether it failed."""
    session, failed, opened = listener(max_streams=3), False, []
    for chunk in chunks:
        try:
            events = session.receive(chunk)
        except ProtocolError:
            failed = True
            break
        opened += [event for event in events if not isinstance(event, Readable)]
    if failed:
        return (True,)
    state = {number: (stream.size, stream.ended, stream.send_window) for number, stream in session.streams.items()}
    return False, opened, state, session.control_pending


@given(streams_of_bytes, st.lists(st.integers(1, 30), max_size=40))
@settings(max_examples=400)
def test_any_bytes_give_events_or_one_error_and_the_split_does_not_matter(data, cuts):
    chunks, rest = [], data
    for cut in cuts:
        chunks.append(rest[:cut])
        rest = rest[cut:]
    assert outcome([*chunks, rest]) == outcome([data]) == outcome([data[i : i + 1] for i in range(len(data))])


# two ends


class End:
    """One end in the model: what it has sent and received on each stream."""

    def __init__(self, *, initiator: bool) -> None:
        self.session = Session(initiator=initiator, limits=Limits(max_streams=8, max_window=512 * 1024))
        self.open: dict[int, Stream] = {}
        self.sent: dict[int, bytearray] = {}
        self.got: dict[int, bytearray] = {}
        self.spoilt: set[int] = set()
        self.wire = b""

    def know(self, stream: Stream) -> None:
        self.open[stream.number] = stream
        self.sent.setdefault(stream.number, bytearray())
        self.got.setdefault(stream.number, bytearray())

    def hear(self, data: bytes) -> None:
        for event in self.session.receive(data):
            if isinstance(event, Opened) and event.stream in self.session.streams:
                self.know(self.session.streams[event.stream])
            elif isinstance(event, WasReset):
                self.spoilt.add(event.stream)

    def read(self, stream: Stream, count: int, now: float) -> None:
        self.got[stream.number] += self.session.take(stream, count)
        self.session.credit(stream, now, 0.05)


def act(end: End, rng: random.Random, now: float, text: bytes) -> None:
    session = end.session
    choice = rng.random()
    streams = [stream for stream in end.open.values() if not stream.reset]
    stream = rng.choice(streams) if streams else None
    if stream is None or choice < 0.08:
        if len(session.streams) < 4:
            end.know(session.open())
    elif choice < 0.45:
        if session.has_room(stream) and not stream.end_wanted:
            start = rng.randrange(len(text))
            data = text[start : start + rng.choice([0, 1, 100, 70_000, 300_000])]
            end.sent[stream.number] += data
            session.send(stream, data)
    elif choice < 0.85:
        end.read(stream, rng.choice([1, 1000, 100_000, 1_000_000]), now)
    elif choice < 0.9:
        session.end(stream)
    elif choice < 0.92:
        session.announce(stream)
    elif choice < 0.93:
        end.spoilt.add(stream.number)
        session.reset(stream)
    else:
        session.ping(rng.randrange(1000))


@pytest.mark.parametrize("seed", range(60))
def test_two_ends_lose_repeat_and_reorder_nothing_and_exceed_no_window(seed):
    rng = random.Random(seed)
    text = rng.randbytes(400_000)
    ends = End(initiator=True), End(initiator=False)
    now = 1.0

    def carry(here: End, there: End, most: int) -> None:
        here.wire += here.session.output()[0]
        there.hear(here.wire[:most])  # raises if a window is exceeded
        here.wire = here.wire[most:]

    for _ in range(400):
        now += rng.random() * 0.1
        end = rng.choice(ends)
        act(end, rng, now, text)
        here, there = rng.sample(ends, 2)
        carry(here, there, rng.choice([0, 1, 13, 5000, 200_000]))
    # all is read, all is ended, all is carried
    for round_ in range(200):
        now += 1
        for end in ends:
            for stream in end.open.values():
                end.read(stream, 10_000_000, now)
                if not stream.reset and round_ > 100:
                    end.session.end(stream)
        for here, there in (ends, ends[::-1]):
            for _ in range(20):
                carry(here, there, 1_000_000)
    spoilt = ends[0].spoilt | ends[1].spoilt
    whole = 0
    for here, there in (ends, ends[::-1]):
        for number, sent_ in here.sent.items():
            got = there.got.get(number, bytearray())
            if number in spoilt:
                assert sent_.startswith(got), "of a stream that was reset, what came is a beginning"
            elif number in there.got or sent_:
                assert got == sent_
                whole += len(got)
        assert not here.session.streams, "every stream that is over is forgotten"
        assert here.session._unread == 0
        assert here.session._windows == 0
    assert whole or spoilt
