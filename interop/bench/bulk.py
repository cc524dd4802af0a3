"""How fast bytes go over one stream, and how long a ping takes, over loopback, each end in a process of its own.

    pairing       dialler       listener
    vouch         vouch         vouch
    vouch-stock   vouch-stock   vouch-stock   our node on py-libp2p's Noise and Yamux
    vouch-go      vouch         go
    go-vouch      go            vouch
    go            go            go

bulk-up     MB/s (10^6 bytes) from dialler to listener by `/perf/1.0.0`, until the listener has read all
bulk-down   MB/s the other way, from the end of an empty upload to the end of what was asked for; the dialler has
            counted the bytes
ping        µs; of each round's pings the 50th and the 99th percentile. vouch, vouch-stock and go only

Beside the wall time stands what a CPU-second of the busier end moves: user and system time of the whole process, from
/proc, over all rounds, since its clock ticks only every 10 ms.

Each pairing keeps one connection, and each round measures once in every pairing, so that whatever the machine does
meanwhile hits them all alike. Round 0 warms up and isn't counted.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from interop.bench import report
from interop.build import RECIPES, BuildError
from interop.peer import Peer, PeerError

BULK = {
    "vouch": ("vouch", "vouch"),
    "vouch-stock": ("vouch-stock", "vouch-stock"),
    "vouch-go": ("vouch", "go"),
    "go-vouch": ("go", "vouch"),
    "go": ("go", "go"),
}
PING = {name: pair for name, pair in BULK.items() if pair[0] == pair[1]}
ENDS = ("vouch", "vouch-stock", "go")
MB = 1_000_000
BULK_BYTES = 256 << 20
QUICK_BULK_BYTES = 64 << 20
PINGS = 1000
QUICK_PINGS = 200
# seconds for one measurement, which a slow machine or a faulty end may exceed
CALL_TIMEOUT = 120.0
IDENTIFY_TIMEOUT = 10.0

Pair = tuple[str, str]


@dataclass
class Cpu:
    """CPU seconds of the two ends, and what was moved meanwhile, in MB."""

    dialler: float = 0.0
    listener: float = 0.0
    moved: float = 0.0

    @property
    def rate(self) -> float:
        """MB for each CPU-second of the busier end."""
        return self.moved / (max(self.dialler, self.listener) or math.nan)


@dataclass
class Results:
    """Values by series and pairing, and CPU time by pairing."""

    series: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    cpu: dict[str, Cpu] = field(default_factory=lambda: defaultdict(Cpu))


Measure = Callable[[Peer, Peer, str, Results], Awaitable[None]]


def run_bulk(direction: str, ends: Sequence[str], repeats: int, *, quick: bool, as_json: bool) -> int:
    """The benchmark bulk-up or bulk-down ("up", "down"): measures, prints, and gives the exit status."""
    name = f"bulk-{direction}"
    amount = QUICK_BULK_BYTES if quick else BULK_BYTES
    results = _results(name, BULK, ends, repeats, partial(_bulk, direction, amount))
    if results is None:
        return 1
    rates = results.series["MB/s"]
    if as_json:
        print(report.json_line(name, "MB/s", _medians(rates)))
        return 0
    rows = [(*row, f"{results.cpu[pairing].rate:.0f}") for pairing, row in _rows(rates)]
    head = (f"{name}, MB/s, {amount >> 20} MiB {repeats} times", "median", "min", "max", "MB/CPU-s")
    print(report.table(head, rows), end="\n\n")
    return 0


def run_ping(ends: Sequence[str], repeats: int, *, quick: bool, as_json: bool) -> int:
    """The benchmark ping: as `run_bulk`."""
    count = QUICK_PINGS if quick else PINGS
    results = _results("ping", PING, ends, repeats, partial(_ping, count))
    if results is None:
        return 1
    for name, times in results.series.items():
        if as_json:
            print(report.json_line(name, "us", _medians(times)))
            continue
        head = (f"{name}, us, {count} pings {repeats} times", "median", "min", "max")
        print(report.table(head, [row for _, row in _rows(times)]), end="\n\n")
    return 0


def _results(
    name: str, pairings: Mapping[str, Pair], ends: Sequence[str], repeats: int, measure: Measure
) -> Results | None:
    """What was measured between those ends, or None after saying why nothing was."""
    ends = [end for end in ENDS if end in ends and _available(name, end)]
    pairings = {pairing: pair for pairing, pair in pairings.items() if set(pair) <= set(ends)}
    if not pairings:
        print(f"{name}: nothing is left to measure", file=sys.stderr)
        return None
    try:
        return trio.run(_rounds, pairings, repeats, measure)
    except PeerError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return None


def _available(name: str, end: str) -> bool:
    if end not in RECIPES:
        return True
    try:
        with redirect_stdout(sys.stderr):
            RECIPES[end].build()
    except BuildError as error:
        print(f"{name}: left out all with {end} ({error})", file=sys.stderr)
        return False
    return True


async def _rounds(pairings: Mapping[str, Pair], repeats: int, measure: Measure) -> Results:
    results = Results()
    async with AsyncExitStack() as stack:
        # one process for each end and role, as in `dial`
        diallers: dict[str, Peer] = {}
        listeners: dict[str, Peer] = {}
        for dialling, listening in pairings.values():
            for role, end in ((diallers, dialling), (listeners, listening)):
                if end not in role:
                    role[end] = await stack.enter_async_context(_peer(end))
        for dialling, listening in pairings.values():
            await _connect(diallers[dialling], listeners[listening])
        for number in range(repeats + 1):
            for pairing, (dialling, listening) in pairings.items():
                measured = Results() if number == 0 else results
                await measure(diallers[dialling], listeners[listening], pairing, measured)
    return results


def _peer(end: str) -> Peer:
    if end == "go":
        return Peer.go("--timeout", f"{CALL_TIMEOUT:g}s")
    return Peer.program("interop.bench.ends", end)


async def _connect(dialler: Peer, listener: Peer) -> None:
    """Connects the two; when it returns both have identified each other, so that nothing else goes on."""
    await dialler.call("connect", listener.addr)
    await dialler.call("identify", listener.peer_id, timeout=IDENTIFY_TIMEOUT)
    await listener.call("identify", dialler.peer_id, timeout=IDENTIFY_TIMEOUT)


async def _bulk(direction: str, amount: int, dialler: Peer, listener: Peer, pairing: str, results: Results) -> None:
    upload, download = (amount, 0) if direction == "up" else (0, amount)
    before = _cpu_seconds(dialler), _cpu_seconds(listener)
    reply = await dialler.call("perf", listener.peer_id, str(upload), str(download), timeout=CALL_TIMEOUT)
    cpu = results.cpu[pairing]
    cpu.dialler += _cpu_seconds(dialler) - before[0]
    cpu.listener += _cpu_seconds(listener) - before[1]
    cpu.moved += amount / MB
    seconds = reply["upload_s" if direction == "up" else "download_s"]
    results.series["MB/s"][pairing].append(amount / MB / seconds)


async def _ping(count: int, dialler: Peer, listener: Peer, pairing: str, results: Results) -> None:
    reply = await dialler.call("ping", listener.peer_id, str(count), timeout=CALL_TIMEOUT)
    times = sorted(reply["rtt_us"])
    results.series["ping-p50"][pairing].append(statistics.median(times))
    results.series["ping-p99"][pairing].append(times[math.ceil(0.99 * len(times)) - 1])


def _cpu_seconds(peer: Peer) -> float:
    """User and system time of the peer's process so far, all its threads (proc(5): fields 14 and 15)."""
    pid = peer.seen("listening")[0]["pid"]
    # the name of the program, in brackets, may hold spaces
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _medians(series: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {pairing: statistics.median(values) for pairing, values in series.items()}


def _rows(series: Mapping[str, Sequence[float]]) -> list[tuple[str, tuple[str, ...]]]:
    """By pairing: its name, median, least and most."""
    return [
        (pairing, (pairing, *(f"{value:.0f}" for value in (statistics.median(values), min(values), max(values)))))
        for pairing, values in series.items()
    ]
