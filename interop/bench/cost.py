"""What a process costs: CPU time and memory, asked of the system."""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass
class Spent:
    """Seconds: on the wall, and on the CPU of the two ends."""

    wall: float = 0.0
    dialler: float = 0.0
    listener: float = 0.0

    @property
    def busier(self) -> float:
        """CPU seconds of the busier end."""
        return max(self.dialler, self.listener)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, all its threads. Raises ProcessLookupError.

    From the process's own clock, in nanoseconds: /proc counts ticks of 10 ms, and what is measured may take five.
    """
    clock = ctypes.c_int()
    error = _LIBC.clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise ProcessLookupError(error, f"no CPU clock of process {pid}: {os.strerror(error)}")
    return time.clock_gettime(clock.value)


def private_bytes(pid: int) -> int:
    """Memory that a process has to itself and that is in RAM, in bytes (proc(5): smaps_rollup)."""
    fields = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(field[1]) * 1024 for field in fields if field[0] in ("Private_Clean:", "Private_Dirty:"))
