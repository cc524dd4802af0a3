"""The log's thread: nobody waits for who reads."""

from __future__ import annotations

import os
import threading
import time

import pytest

from node.logwriter import OVERHEAD, RESERVED, STALL, Writer

LINE = b"x" * 99 + b"\n"
MAX = 100 * (len(LINE) + OVERHEAD)


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def writer(fd, **more):
    return Writer(fd, max_bytes=MAX, marker=lambda count: b"missing %d\n" % count, **more)


def fill(fd):
    """A pipe that is full before the log begins."""
    os.set_blocking(fd, False)
    try:
        while True:
            os.write(fd, b"." * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(fd, True)


def drain(fd, until):
    found = b""
    while until not in found:
        found += os.read(fd, 65536)
    return found.lstrip(b".")


def test_lines_arrive_in_order(pipe):
    made = writer(pipe[1])
    for number in range(50):
        assert made.put(b"%d\n" % number, important=False)
    made.close()
    assert drain(pipe[0], b"49\n") == b"".join(b"%d\n" % number for number in range(50))
    assert (made.written, made.dropped, made.waiting) == (50, 0, 0)


def test_a_pipe_that_nobody_reads_costs_a_bounded_queue_and_no_time(pipe):
    fill(pipe[1])
    made = writer(pipe[1])
    started = time.monotonic()
    taken = sum(made.put(LINE, important=False) for _ in range(1000))
    serious = sum(made.put(b"error\n", important=True) for _ in range(5))
    assert time.monotonic() - started < 1.0
    assert 0.9 * 100 * (1 - RESERVED) <= taken <= 100 * (1 - RESERVED)
    assert serious == 5  # what is important has a part of its own
    assert made.dropped == 1000 - taken
    assert made.waiting <= MAX
    found = drain(pipe[0], b"missing")  # somebody reads again
    found += os.read(pipe[0], 1000) if not found.endswith(b"\n") else b""
    assert found == LINE * taken + b"error\n" * 5 + b"missing %d\n" % (1000 - taken)
    made.close()


def test_the_end_does_not_wait_for_a_reader_that_reads_nothing(pipe):
    fill(pipe[1])
    made = writer(pipe[1])
    made.put(LINE, important=False)
    started = time.monotonic()
    made.flush()
    made.flush()
    made.close()
    assert STALL <= time.monotonic() - started < 2 * STALL
    os.read(pipe[0], 65536)


def test_a_reader_that_has_gone_is_noticed_once():
    gone = threading.Event()
    reading, writing = os.pipe()
    made = writer(writing, gone=gone.set)
    os.close(reading)
    os.close(writing)
    made.put(LINE, important=False)
    assert gone.wait(10)
    made.flush()
    assert not made.put(LINE, important=False)
    made.close()
    made.close()


def test_a_pipe_that_somebody_made_non_blocking(pipe):
    fill(pipe[1])
    os.set_blocking(pipe[1], False)
    made = writer(pipe[1])
    made.put(b"heard\n", important=False)
    assert drain(pipe[0], b"heard\n").endswith(b"heard\n")
    made.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_stops_nobody():
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        made = writer(fd)
        started = time.monotonic()
        for _ in range(1000):
            made.put(LINE, important=False)
        made.close()
        assert time.monotonic() - started < 2.0
        assert made.written == 0
    finally:
        os.close(fd)


def test_the_thread_wakes_for_its_rules(pipe):
    woken = threading.Event()
    due = [time.monotonic() + 0.05]

    def tick():
        if due and time.monotonic() >= due[0]:
            due.clear()
            woken.set()
        return due[0] if due else None

    made = writer(pipe[1], tick=tick)
    assert woken.wait(10)
    made.close()
