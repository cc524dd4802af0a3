"""`python -m interop.lab.keeper`: the process that owns a lab's namespaces and the lines shaped in user space.

One JSON object a line comes in, one goes out for each ({"error": TEXT} if it failed):

    {"do": "namespace"}                                            {"fd": N}: a network namespace, /proc/KEEPER/fd/N
    {"do": "line", "ends": [[FD, NAME], [FD, NAME]],               {"line": N}: a link of two TAP devices, one in each
        "shape": {...}, "seed": N}                                 namespace, of that shape in both directions
    {"do": "shape", "line": N, "shape": {...}}                     {}
    {"do": "counts", "line": N}                                    {"passed": [N, N], "lost": [N, N], "dropped": [N, N]}

Nothing that it makes has a name on the machine, and nothing lives longer than it does. At the end of its input it
kills every process in its namespaces and ends: so a lab goes whole, however whoever started it has ended. Linux only,
for root.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import math
import os
import random
import select
import signal
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from interop.lab.line import Held, Line, Shape

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
TAP, NO_PI = 0x0002, 0x1000
# frames read from one device before the others have their turn
TURN = 64
MAX_FRAME = 65536
KILL_ROUNDS = 200
KILL_PAUSE = 0.01

_libc = ctypes.CDLL(None, use_errno=True)
Message = dict[str, Any]


class Keeper:
    """Namespaces by file descriptor, lines by number."""

    def __init__(self) -> None:
        self.namespaces: list[int] = []
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._held = Held()
        self._lines: list[tuple[Line, Line]] = []
        self._ways: dict[int, tuple[Line, int]] = {}  # from a device: its line, the device at the other end
        self._poll = select.epoll()
        self._input = b""

    def run(self) -> None:
        """Until the end of the input."""
        self._poll.register(0, select.EPOLLIN)
        while True:
            wait = self._held.next_due() - time.monotonic()
            # epoll counts milliseconds, which are too much for a fast line
            if wait > 0:
                select.select([self._poll.fileno()], [], [], None if wait == math.inf else wait)
            for fd, _ in self._poll.poll(0):
                if fd != 0:
                    self._read(fd)
                elif not self._commands():
                    return
            self._deliver()

    # frames

    def _read(self, fd: int) -> None:
        line, to = self._ways[fd]
        for _ in range(TURN):
            try:
                frame = os.read(fd, MAX_FRAME)
            except BlockingIOError:
                return
            except OSError:  # somebody has deleted the device
                self._poll.unregister(fd)
                return
            due = line.take(time.monotonic(), len(frame))
            if due is not None:
                self._held.put(due, to, frame)

    def _deliver(self) -> None:
        now = time.monotonic()
        while (item := self._held.take(now)) is not None:
            with suppress(OSError):  # the device is down: as a cable's end that hangs in the air
                os.write(*item)

    # commands

    def _commands(self) -> bool:
        data = os.read(0, 65536)
        *lines, self._input = (self._input + data).split(b"\n")
        for text in lines:
            command = json.loads(text)
            try:
                reply = getattr(self, "_do_" + command.pop("do"))(**command)
            except (OSError, ValueError) as error:
                reply = {"error": str(error)}
            os.write(1, json.dumps(reply).encode() + b"\n")
        return bool(data)

    def _do_namespace(self) -> Message:
        _check(_libc.unshare(CLONE_NEWNET))
        try:
            fd = os.open("/proc/self/ns/net", os.O_RDONLY)
        finally:
            self._enter(self._home)
        self.namespaces.append(fd)
        return {"fd": fd}

    def _do_line(self, ends: list[tuple[int, str]], shape: Message, seed: int) -> Message:
        rng = random.Random(seed)
        devices = [self._device(namespace, name) for namespace, name in ends]
        lines = Line(Shape(**shape), rng), Line(Shape(**shape), rng)
        self._lines.append(lines)
        for fd, line, to in zip(devices, lines, reversed(devices), strict=True):
            self._ways[fd] = (line, to)
            self._poll.register(fd, select.EPOLLIN)
        return {"line": len(self._lines) - 1}

    def _do_shape(self, line: int, shape: Message) -> Message:
        for way in self._lines[line]:
            way.shape = Shape(**shape)
        return {}

    def _do_counts(self, line: int) -> Message:
        ways = self._lines[line]
        return {name: [getattr(way, name) for way in ways] for name in ("passed", "lost", "dropped")}

    def _device(self, namespace: int, name: str) -> int:
        self._enter(namespace)
        try:
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP | NO_PI))
        finally:
            self._enter(self._home)
        return fd

    def _enter(self, namespace: int) -> None:
        _check(_libc.setns(namespace, CLONE_NEWNET))


def kill_all(namespaces: list[int]) -> None:
    """Kills every process in those namespaces, and those that they start meanwhile."""
    wanted = {_identity(fd) for fd in namespaces}
    for _ in range(KILL_ROUNDS):
        members = [pid for pid in processes() if pid != os.getpid() and _network(pid) in wanted]
        if not members:
            return
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(KILL_PAUSE)


def processes() -> list[int]:
    """All of the machine's."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def started_at(pid: int) -> str:
    """When a process has started, in ticks since the machine has: no two of one number share it. Empty if it's gone, or
    nobody has noticed yet that it is."""
    try:
        state, *more = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else more[18]


def _network(pid: int) -> tuple[int, int] | None:
    try:
        return _identity(f"/proc/{pid}/ns/net")
    except OSError:
        return None  # it has just ended


def _identity(namespace: int | str) -> tuple[int, int]:
    found = os.stat(namespace)
    return found.st_dev, found.st_ino


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main() -> None:
    # whoever started it says when it is over, by ending its input; a Ctrl-C is theirs to handle
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keeper = Keeper()
    try:
        with suppress(BrokenPipeError):  # nobody is there for the reply
            keeper.run()
    finally:
        kill_all(keeper.namespaces)


if __name__ == "__main__":
    main()
