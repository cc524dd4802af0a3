"""The heartbeat's rules and its bytes: by examples worked out by hand, and for any delays and losses."""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import ProtocolError
from protocols.heartbeat.engine import (
    MAX_INTERVAL,
    MAX_UNANSWERED,
    Change,
    Echo,
    Flaky,
    Lost,
    Monitor,
    Params,
    Rtt,
    Steady,
)
from protocols.heartbeat.service import HEARTBEAT
from protocols.heartbeat.wire import MAX_FRAME, Beat

PARAMS = Params(interval=10, window=5, flaky_at=3, steady_at=1)


def beat(monitor: Monitor) -> tuple[Beat, list[Change]]:
    """The next beat, sent when it is due."""
    now = monitor.next_at
    changes = monitor.poll(now)
    sent = monitor.take(now)
    assert sent is not None
    assert monitor.take(now) is None
    return sent, changes


def run(monitor: Monitor, answers: str, rtt: float = 0.1) -> list[Change]:
    """One beat for each letter: + answered, - missed though the peer lives (it resets the stream)."""
    changes = []
    for letter in answers:
        now = monitor.next_at
        sent, more = beat(monitor)
        changes += more
        changes += monitor.echoed(sent, now + rtt) if letter == "+" else monitor.failed(now + rtt, silent=False)
    return changes


# parameters


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"interval": 0.4}, "an interval of 0.5 to 300 seconds, got 0.4"),
        ({"interval": 301}, "got 301"),
        ({"interval": math.nan}, "got nan"),
        ({"flaky_at": 11}, "steady_at < flaky_at <= window <= 1000, got 1, 11 and 10"),
        ({"steady_at": 3}, "got 3, 3 and 10"),
        ({"steady_at": -1}, "got -1, 3 and 10"),
        ({"window": 1001}, "got 1, 3 and 1001"),
        ({"lost_after": 1.9}, "lost_after to be 2 to 3 intervals, got 1.9"),
        ({"lost_after": 3.1}, "got 3.1"),
    ],
)
def test_parameters_check_themselves(wrong, text):
    with pytest.raises(ValueError, match=text):
        Params(**wrong)


def test_the_first_beat_is_due_within_an_interval():
    assert Monitor(PARAMS, now=100, first=10).next_at == 110
    for first in (-1, 10.1):
        with pytest.raises(ValueError, match="first beat within the interval of 10 s"):
            Monitor(PARAMS, now=100, first=first)


# round trips


def test_the_round_trip_is_smoothed_as_rfc_6298_says():
    monitor = Monitor(PARAMS, now=0)
    expected = [
        (0.100, Rtt(0.100, 0.050)),
        (0.200, Rtt(0.1125, 0.0625)),  # 3/4 of 50 ms and 1/4 of 100 ms; 7/8 of 100 ms and 1/8 of 200 ms
        (0.1125, Rtt(0.1125, 0.046875)),
        (1.0, Rtt(0.2234375, 0.25703125)),
    ]
    for sample, rtt in expected:
        sent, _ = beat(monitor)
        monitor.echoed(sent, (sent.sequence - 1) * 10 + sample)
        assert monitor.rtt == pytest.approx(rtt)


def test_the_round_trip_begins_when_the_beat_goes_out_and_not_when_it_was_due():
    monitor = Monitor(PARAMS, now=0)
    monitor.poll(0)
    sent = monitor.take(4)
    monitor.echoed(sent, 4.5)
    assert monitor.rtt == (0.5, 0.25)


# missed, flaky, steady


def test_an_answer_after_the_next_beat_is_a_missed_beat_but_a_sign_of_life():
    monitor = Monitor(PARAMS, now=0)
    late, _ = beat(monitor)
    assert monitor.missed == 0
    beat(monitor)
    assert monitor.missed == 1
    assert monitor.echoed(late, 12) == []
    assert monitor.missed == 1
    assert monitor.rtt == (12, 6)
    assert monitor.lost_at == 42


def test_flaky_and_steady_have_room_between_them():
    monitor = Monitor(PARAMS, now=0)
    assert run(monitor, "--") == []
    assert run(monitor, "-") == [Flaky(3, 5)]
    assert run(monitor, "++") == []  # - - - + +
    assert run(monitor, "-+-+") == []  # two or three of five are missed all the time
    assert run(monitor, "++") == [Steady()]
    assert run(monitor, "+++++-+-+") == []
    assert not monitor.flaky


def test_silence_is_noticed_three_intervals_after_the_last_answer():
    monitor = Monitor(PARAMS, now=0)
    sent, _ = beat(monitor)
    monitor.echoed(sent, 0.1)
    told = []
    while not monitor.lost:
        now = monitor.next_at
        told += [(now, change) for change in monitor.poll(now)]
    assert told == [(30.1, Lost(30.0))]
    assert monitor.missed == 2  # those of 10 and 20


def test_only_silence_makes_a_peer_lost():
    monitor = Monitor(PARAMS, now=0)
    run(monitor, "-" * 20, rtt=5.0)
    assert not monitor.lost
    monitor = Monitor(PARAMS, now=0)
    for _ in range(3):
        beat(monitor)
        monitor.failed(monitor.next_at - 1, silent=True)
    assert monitor.poll(30) == [Lost(30)]
    assert (monitor.next_at, monitor.lost_at) == (math.inf, math.inf)
    assert monitor.poll(31) == []
    assert monitor.take(31) is None


def test_a_stream_that_fails_between_beats_costs_nothing():
    monitor = Monitor(PARAMS, now=0)
    run(monitor, "+")
    assert monitor.failed(5, silent=False) == []
    assert monitor.missed == 0
    assert monitor.next_at == 10


def test_our_own_sleep_is_held_against_nobody():
    monitor = Monitor(PARAMS, now=0)
    sent, _ = beat(monitor)
    assert monitor.poll(500, late=490) == []
    assert monitor.missed == 0
    again = monitor.take(500)
    assert again == Beat(2)
    monitor.echoed(sent, 500.1)  # it had come long ago, nobody read it
    assert monitor.lost_at == pytest.approx(530.1)


def test_an_answer_gets_one_more_interval_where_we_slept_through_the_deadline():
    monitor = Monitor(PARAMS, now=0)
    assert monitor.poll(500, late=470) == []
    assert monitor.lost_at == 510
    monitor.poll(510)
    assert monitor.lost


# echoes


@pytest.mark.parametrize("sequence", [0, 3, 2**64 - 1])
def test_an_echo_of_what_was_never_sent_is_the_peers_fault(sequence):
    monitor = Monitor(PARAMS, now=0)
    run(monitor, "+")
    beat(monitor)
    with pytest.raises(ProtocolError, match=f"got sequence {sequence}, never sent"):
        monitor.echoed(Beat(sequence), 11)


def test_an_echo_comes_once_and_only_on_its_own_stream():
    monitor = Monitor(PARAMS, now=0)
    sent, _ = beat(monitor)
    monitor.echoed(sent, 1)
    with pytest.raises(ProtocolError, match="got sequence 1, answered or dropped before"):
        monitor.echoed(sent, 1)
    sent, _ = beat(monitor)
    monitor.failed(11, silent=False)
    with pytest.raises(ProtocolError, match="got sequence 2, answered or dropped before"):
        monitor.echoed(sent, 12)


def test_so_many_unanswered_beats_are_remembered_and_no_more():
    monitor = Monitor(PARAMS, now=0)
    dropped = []
    for _ in range(MAX_UNANSWERED + 2):
        dropped.append(beat(monitor)[0])
        answered, _ = beat(monitor)
        monitor.echoed(answered, monitor.next_at - 1)
    assert len(monitor._sent) == MAX_UNANSWERED - 1  # the last one that was answered had a place too
    now = monitor.next_at - 1
    monitor.echoed(dropped[3], now)
    with pytest.raises(ProtocolError, match="got sequence 5, answered or dropped before"):
        monitor.echoed(dropped[2], now)


def test_more_than_four_beats_a_second_end_the_stream():
    echo = Echo(now=0)
    for number in range(4):
        frame = Beat(number).encode()
        assert echo.receive(frame, 0.0) == frame
    with pytest.raises(ProtocolError, match="at most 4 beats a second"):
        echo.receive(Beat(4).encode(), 0.2)
    echo = Echo(now=0)
    for number in range(1000):
        echo.receive(Beat(number).encode(), number / 4)
    echo = Echo(now=0)
    for number in range(15):  # five a second: the burst is used up in three seconds
        echo.receive(Beat(number).encode(), number / 5)
    with pytest.raises(ProtocolError):
        echo.receive(Beat(15).encode(), 2.95)


def test_an_echo_is_the_same_bytes_even_where_they_hold_more_than_we_know():
    frame = Beat(7).encode() + b"\x12\x03new"
    assert Echo(now=0).receive(frame, 0) == frame


def test_a_receiver_waits_longer_than_a_sender_may_pause():
    assert HEARTBEAT.timeout is not None
    assert HEARTBEAT.timeout > MAX_INTERVAL


# for any delays and losses


@given(
    st.integers(1, 8).flatmap(
        lambda window: st.integers(1, window).flatmap(
            lambda flaky: st.tuples(st.just(window), st.just(flaky), st.integers(0, flaky - 1))
        )
    ),
    st.floats(2, 3),
    st.floats(0, 1),
    st.lists(st.one_of(st.none(), st.floats(0, 4)), max_size=60),
)
def test_whatever_comes_when(thresholds, lost_after, first, delays):
    """`delays`: of each echo in intervals, None if it is dropped. Against the rules in their plainest form."""
    window, flaky_at, steady_at = thresholds
    params = Params(1.0, window, flaky_at, steady_at, lost_after)
    monitor = Monitor(params, now=0, first=first)
    coming: list[tuple[float, Beat]] = []
    verdicts: deque[bool] = deque(maxlen=window)
    undecided: Beat | None = None
    sent_times: dict[int, float] = {}
    flaky, heard, rtt, left = False, 0.0, None, iter(delays)

    def decided(missed: bool, changes: list[Change]) -> None:
        nonlocal flaky
        verdicts.append(missed)
        expected: list[Change] = []
        if not flaky and sum(verdicts) >= flaky_at:
            flaky, expected = True, [Flaky(sum(verdicts), window)]
        elif flaky and sum(verdicts) <= steady_at:
            flaky, expected = False, [Steady()]
        assert changes == expected
        assert monitor.flaky == flaky

    while not monitor.lost:
        at, echo = min(coming, key=lambda pair: pair[0], default=(math.inf, None))
        if echo is not None and at < monitor.next_at:
            coming.remove((at, echo))
            heard = at
            sample = at - sent_times[echo.sequence]
            rtt = (
                (sample, sample / 2)
                if rtt is None
                else (0.875 * rtt[0] + 0.125 * sample, 0.75 * rtt[1] + 0.25 * abs(rtt[0] - sample))
            )
            changes = monitor.echoed(echo, at)
            if echo == undecided:
                undecided = None
                decided(False, changes)
            else:
                assert changes == []
            assert monitor.rtt == pytest.approx(rtt)
            continue
        now = monitor.next_at
        assert now <= heard + 3
        changes = monitor.poll(now)
        if monitor.lost:
            (lost,) = changes
            assert isinstance(lost, Lost)
            assert now == pytest.approx(heard + lost_after)
            return
        if undecided is not None:
            decided(True, changes)
        undecided = monitor.take(now)
        assert undecided is not None
        sent_times[undecided.sequence] = now
        delay = next(left, None)
        if delay is not None:
            coming.append((now + delay, undecided))


# bytes


@given(st.integers(0, 2**64 - 1))
def test_a_beat_survives_its_encoding(sequence):
    data = Beat(sequence).encode()
    assert len(data) <= 11 <= MAX_FRAME
    assert Beat.decode(data) == Beat(sequence)


@pytest.mark.parametrize("sequence", [-1, 2**64])
def test_a_beat_holds_64_bits(sequence):
    with pytest.raises(ValueError, match="between 0 and 2"):
        Beat(sequence)


@given(st.binary(max_size=MAX_FRAME))
def test_any_bytes_are_a_beat_or_a_protocol_error(data):
    with suppress(ProtocolError):
        assert 0 <= Beat.decode(data).sequence < 2**64


def test_the_bytes_of_a_beat():
    assert Beat(0).encode() == b""
    assert Beat(300).encode() == bytes.fromhex("08 ac02")
    assert Beat.decode(bytes.fromhex("08 ffffffffffffffffff01")) == Beat(2**64 - 1)
