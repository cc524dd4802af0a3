"""The lab's lines in simulated time: when a frame is due, whether it is lost, what a full queue does."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interop.lab.line import BURST, FRAME, MIN_QUEUE, Held, Line, Shape
from interop.lab.network import netem_command

SIZES = st.integers(60, FRAME)


def line(seed=1, **shape):
    return Line(Shape(**shape), random.Random(seed))


def test_a_plain_line_does_nothing():
    plain = line()
    assert Shape().plain
    assert [plain.take(now, FRAME) for now in (0.0, 1.0, 1.0)] == [0.0, 1.0, 1.0]
    assert (plain.passed, plain.lost, plain.dropped) == (3, 0, 0)


def test_delay_is_the_same_for_all():
    slow = line(delay=0.02)
    assert [slow.take(now, FRAME) for now in (0.0, 0.001, 5.0)] == pytest.approx([0.02, 0.021, 5.02])


def test_loss_is_the_part_that_was_told():
    lossy = line(loss=0.1)
    arrived = sum(lossy.take(0.001 * number, FRAME) is not None for number in range(20_000))
    assert arrived == lossy.passed == 20_000 - lossy.lost
    assert 0.09 < lossy.lost / 20_000 < 0.11
    assert [line(loss=1).take(0.0, FRAME), line(loss=0).take(0.0, FRAME)] == [None, 0.0]


def test_the_same_seed_loses_the_same():
    def lost(seed):
        lossy = line(seed, loss=0.3)
        return [lossy.take(0.0, FRAME) is None for _ in range(200)]

    assert lost(1) == lost(1) != lost(2)


def test_bandwidth_is_shared_by_what_comes():
    """Twice as much as the line carries is offered for ten seconds: it is busy all the time, and half is dropped."""
    busy = line(rate=8e6)
    due = [busy.take(number * FRAME / 2e6, FRAME) for number in range(int(10 * 2e6 / FRAME))]
    arrived = [time for time in due if time is not None]
    assert len(arrived) * FRAME * 8 / max(arrived) == pytest.approx(8e6, rel=0.02)
    assert busy.dropped / len(due) == pytest.approx(0.5, rel=0.05)
    # nothing waited for longer than the queue is
    waits = [time - number * FRAME / 2e6 for number, time in enumerate(due) if time is not None]
    assert max(waits) <= 0.1 + 1e-9


def test_what_a_silent_line_makes_up_for_is_bounded():
    quiet = line(rate=80e6)
    due = [quiet.take(100.0, FRAME) for _ in range(30)]
    at_once = sum(time == 100.0 for time in due)
    assert at_once == int(BURST * 80e6 / 8 / FRAME)
    gaps = {round(after - before, 9) for before, after in itertools.pairwise(due[at_once:])}
    assert gaps == {round(FRAME * 8 / 80e6, 9)}


def test_a_queue_that_was_told():
    short = line(rate=1e6, queue=3 * FRAME)
    assert sum(short.take(0.0, FRAME) is not None for _ in range(10)) == 4  # one passes at once, three wait
    assert short.dropped == 6
    assert short.take(1.0, FRAME) == 1.0


def test_another_shape_on_the_way_overtakes_nothing():
    changing = line(delay=1.0)
    assert changing.take(0.0, FRAME) == 1.0
    changing.shape = Shape(delay=0.1)
    assert changing.take(0.5, FRAME) == 1.0
    assert changing.take(2.0, FRAME) == pytest.approx(2.1)


@pytest.mark.parametrize(
    "shape",
    [{"delay": -1}, {"delay": 61}, {"delay": math.nan}, {"loss": 1.1}, {"rate": 0}, {"rate": math.inf}, {"queue": 9}],
)
def test_what_is_no_shape(shape):
    with pytest.raises(ValueError, match="expected"):
        Shape(**shape)


@given(
    st.lists(st.tuples(st.floats(0, 0.01), SIZES), max_size=200),
    st.floats(0, 0.1),
    st.floats(1e5, 1e9),
    st.integers(MIN_QUEUE, 1 << 20),
    st.floats(0, 1),
)
def test_any_traffic_keeps_its_order_and_the_lines_bounds(frames, delay, rate, queue, loss):
    tested = line(delay=delay, rate=rate, queue=queue, loss=loss)
    now, last, bits, first = 0.0, 0.0, 0, None
    for pause, size in frames:
        now += pause
        due = tested.take(now, size)
        if due is None:
            continue
        first = now if first is None else first
        bits += size * 8
        assert due >= max(last, now + delay)
        assert due <= now + delay + queue * 8 / rate + 1e-9
        # never more than the rate since the first frame, and what it may make up for
        assert bits <= rate * (due - delay - first + max(BURST, FRAME * 8 / rate)) * (1 + 1e-9)
        last = due
    assert tested.passed + tested.lost + tested.dropped == len(frames)


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 3), st.binary(max_size=50)), max_size=100))
def test_frames_come_when_they_are_due_and_in_order(frames):
    held = Held()
    for due, to, frame in frames:
        held.put(due, to, frame)
    came = []
    while held.next_due() < math.inf:
        now = held.next_due()
        assert held.take(now - 0.001) is None
        came.append((now, *held.take(now)))
    assert came == sorted(frames, key=lambda frame: frame[0])
    assert held.bytes == 0


def test_no_more_is_held_than_there_is_room_for():
    held = Held(max_bytes=100)
    for number in range(5):
        held.put(1.0, number, bytes(40))
    assert held.refused == 3
    assert [held.take(1.0)[0], held.take(1.0)[0], held.take(1.0)] == [0, 1, None]


def test_the_same_for_a_kernel_that_can():
    words = "tc qdisc replace dev eth0 root netem limit 1991 delay 20000us loss random 1.000000% rate 100000000bit"
    assert " ".join(netem_command("eth0", Shape(delay=0.02, loss=0.01, rate=100e6))) == words
    words = "tc qdisc replace dev port3 root netem limit 1000 delay 0us"
    assert " ".join(netem_command("port3", Shape())) == words
