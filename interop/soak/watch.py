"""What must be the same before and after a soak's traffic, counted when the nodes are idle; memory; and the log.

    tasks          in all of trio, by name: a task that goes on after its reason to is a leak
    connections    admitted ones, and the places of the limits that are taken
    streams        in the muxers' sessions, and at the connections
    slots          of the registries
    objects        connections, muxers and streams that are still referred to from somewhere

`idle` waits until the counts are as they should be: a stream's end takes a round trip. Memory is the process's resident
set after a collection, with what the allocator holds free given back to the system where it can (glibc). The first pass
over new code and the largest heap both belong to the warm-up; from then on it may grow by `may_grow_to`.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from node.connection import Connection
from node.node import Node
from protocols import Stream

# growth of the resident set that says nothing: the allocator's arenas, and what is left of a larger moment
TOLERANCE_SHARE = 0.03
TOLERANCE_BYTES = 4 << 20
# the same after a warm-up too short for buffers and caches to fill
SHORT_WARM_UP = 3.0
SHORT_TOLERANCE_BYTES = 16 << 20
# a second without a change: the counts are those of idle nodes
SETTLED = 1.0
POLL = 0.1

Counts = dict[str, int]


def count(nodes: Sequence[Node]) -> Counts:
    """The counts of all nodes together; zeros are left out."""
    counts: Counter[str] = Counter()
    for name, number in tasks().items():
        counts[f"task {name}"] = number
    muxers: set[type] = set()
    for node in nodes:
        limits, registry = node.swarm.limits, node.registry
        counts["places of the limits"] += limits.total
        counts["places of the limits, half-open"] += limits.half_open
        for peer_id, connections in node.swarm.connections.items():
            counts["connections"] += len(connections)
            for protocol in registry.ids():
                counts[f"slots of {protocol}"] += registry.streams(str(peer_id), protocol)
            for connection in connections:
                muxers.add(type(connection.muxed_conn))
                counts["streams of muxers"] += len(getattr(connection.muxed_conn, "streams", ()))
                counts["streams of connections"] += len(connection.get_streams())
    gc.collect()
    for found in gc.get_objects():
        kind = type(found)
        if kind in (Connection, Stream) or kind in muxers:
            counts[f"objects {kind.__module__}.{kind.__name__}"] += 1
    return {name: number for name, number in sorted(counts.items()) if number}


def tasks() -> Counter[str]:
    """All tasks of trio by name, its own among them."""
    found: Counter[str] = Counter()
    root = trio.lowlevel.current_root_task()
    waiting = [root] if root is not None else []
    while waiting:
        task = waiting.pop()
        found[task.name] += 1
        for nursery in task.child_nurseries:
            waiting += nursery.child_tasks
    return found


def differences(before: Counts, after: Counts) -> list[str]:
    """What isn't as it was, each in a sentence."""
    return [
        f"{name}: expected {before.get(name, 0)}, counted {after.get(name, 0)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name, 0) != after.get(name, 0)
    ]


async def idle(look: Callable[[], Counts], wanted: Counts, timeout: float) -> list[str]:
    """Waits until the counts are as wanted; what still differs after `timeout` seconds."""
    deadline = trio.current_time() + timeout
    while (different := differences(wanted, look())) and trio.current_time() < deadline:  # noqa: ASYNC110
        await trio.sleep(POLL)
    return different


async def settled(look: Callable[[], Counts], timeout: float) -> Counts:
    """The counts once they haven't changed for a moment, or after `timeout` seconds."""
    deadline = trio.current_time() + timeout
    counts, since = look(), trio.current_time()
    while trio.current_time() < min(since + SETTLED, deadline):
        await trio.sleep(POLL)
        now = look()
        if now != counts:
            counts, since = now, trio.current_time()
    return counts


def resident() -> int:
    """Bytes of the process's resident set."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def resident_at_rest() -> int:
    """The same after a collection, without what the allocator keeps for later."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return resident()


def may_grow_to(warm: int, warm_up: float) -> int:
    """The most that the resident set may be in the end, if it was `warm` bytes after `warm_up` seconds."""
    least = SHORT_TOLERANCE_BYTES if warm_up < SHORT_WARM_UP else TOLERANCE_BYTES
    return warm + max(int(warm * TOLERANCE_SHARE), least)


class LogWatch(logging.Handler):
    """Tells of every warning and error that the nodes log, and of errors that Python can't raise. A context manager."""

    def __init__(self, fault: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._fault = fault
        self._logger = logging.getLogger("vouch")
        self._libp2p = logging.getLogger("libp2p")

    def emit(self, record: logging.LogRecord) -> None:
        self._fault(f"logged by {record.name}: {record.getMessage()}")

    def __enter__(self) -> LogWatch:
        self._logger.addHandler(self)
        self._level = self._libp2p.level
        self._libp2p.setLevel(logging.CRITICAL)  # of connections that end it speaks at error level
        self._hook = sys.unraisablehook
        sys.unraisablehook = lambda found: self._fault(f"ignored by Python: {found.err_msg} {found.exc_value!r}")
        return self

    def __exit__(self, *_: object) -> None:
        sys.unraisablehook = self._hook
        self._libp2p.setLevel(self._level)
        self._logger.removeHandler(self)
