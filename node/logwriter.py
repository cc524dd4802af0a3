"""Writes log lines in a thread of its own, so that whoever logs never waits: not for a pipe that nobody reads, not for
a terminal that was stopped, not for a disk.

Lines wait in a queue of `max_bytes`. Where it is full, lines are dropped and counted; the last quarter is kept for
what is important, so that a flood of small talk doesn't displace errors. As soon as lines get through again, `marker`
makes the line that says how many are missing, in their place. A disk that is full is tried again each second. A reader
that has gone isn't: the log ends, in silence.

It writes to a copy of the file descriptor, beside Python's own buffer: a thread that hangs in a `write` of that buffer
would keep its lock, and the interpreter couldn't end.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

RESERVED = 0.25
OVERHEAD = 100  # bytes that a line costs beside its text
BATCH = 64 * 1024
RETRY = 1.0
# the end waits as long as lines get through, but not for a reader that reads nothing
STALL = 0.5
MAX_FLUSH = 3.0


class Writer:
    """Writes to a copy of `fd`. `tick` is called in the thread and gives the time (`time.monotonic`) when it is to be
    called next, or None; `gone`, once, when the reader has gone."""

    def __init__(
        self,
        fd: int,
        *,
        max_bytes: int,
        marker: Callable[[int], bytes],
        tick: Callable[[], float | None] = lambda: None,
        gone: Callable[[], None] = lambda: None,
    ) -> None:
        self._fd = os.dup(fd)
        self._max = max_bytes
        self._marker, self._tick, self._gone = marker, tick, gone
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._waiting = 0  # bytes, with those being written
        self._missing = 0  # lines that no marker has told of
        self._closed = False
        self._stalled = -1  # what was written when a flush had waited in vain
        self.written = 0
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="vouch log", daemon=True)
        self._thread.start()  # now: at the interpreter's end none can be started

    @property
    def waiting(self) -> int:
        """Bytes that wait."""
        return self._waiting

    def put(self, line: bytes, *, important: bool) -> bool:
        """Takes a line, with its end, to be written. Never waits; False if there is no place, or no reader."""
        size = len(line) + OVERHEAD
        with self._changed:
            limit = self._max if important else self._max * (1 - RESERVED)
            if self._closed:
                return False
            if self._waiting + size > limit:
                self._missing += 1
                self.dropped += 1
                return False
            self._lines.append(line)
            self._waiting += size
            self._changed.notify_all()
            return True

    def wake(self) -> None:
        """`tick` has something new to do."""
        with self._changed:
            self._changed.notify_all()

    def flush(self) -> None:
        """Waits until all is written, as long as there is progress."""
        if threading.current_thread() is self._thread:
            return
        end = time.monotonic() + MAX_FLUSH
        with self._changed:
            while self._waiting and not self._closed and time.monotonic() < end and self._stalled != self.written:
                before = self.written
                step = min(time.monotonic() + STALL, end)
                while self._waiting and self.written == before and (left := step - time.monotonic()) > 0:
                    self._changed.wait(left)
                if self._waiting and self.written == before:
                    self._stalled = before

    def close(self) -> None:
        """Ends the thread, after a `flush`. Idempotent. A thread that hangs in a write stays until the process ends."""
        self.flush()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            while (batch := self._next()) is not None:
                lines, size, missing = batch
                done = not lines or self._write(b"".join(lines))
                if done and missing:
                    done = self._write(self._marker(missing))
                with self._changed:
                    self._waiting -= size
                    self.written += len(lines) if done else 0
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._closed = True
                self._lines.clear()
                self._waiting = 0
                self._changed.notify_all()
            os.close(self._fd)

    def _next(self) -> tuple[list[bytes], int, int] | None:
        """Some lines with what they cost, and how many are missing after them; None at the end."""
        while True:
            due = self._tick()
            with self._changed:
                if not self._lines and not self._missing:
                    if self._closed:
                        return None
                    self._changed.wait(None if due is None else max(0.0, due - time.monotonic()))
                    if not self._lines and not self._missing:
                        continue
                lines: list[bytes] = []
                size = length = 0
                while self._lines and length < BATCH:
                    line = self._lines.popleft()
                    lines.append(line)
                    length += len(line)
                    size += len(line) + OVERHEAD
                missing = 0
                if not self._lines:  # those that found no place came after all these
                    missing, self._missing = self._missing, 0
                return lines, size, missing

    def _write(self, data: bytes) -> bool:
        view = memoryview(data)
        while view:
            if self._closed:
                return False
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:  # somebody else who has this pipe wants it that way
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll(RETRY * 1000)
            except BrokenPipeError:
                with self._changed:
                    self._closed = True
                self._gone()
                return False
            except OSError:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, RETRY)
        return True
