"""Crash: whatever ends a node, its address book opens, and nothing that was acknowledged is missing.

Killed with -9 during writes, again and again on one file; and power losses at random points of a recorded run, where
unsynced writes are lost, kept, or torn (powerloss.py). That the latter would see a missing fsync is a test as well.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
import trio

from node.peers.addressbook import AddressBook
from tests.bars import powerloss
from tests.bars.crashing import ACKNOWLEDGED, FILE, missing

ROOT = Path(__file__).parents[2]
HOWS = ("lost", "kept", "torn", "torn")
RUNS_ON_ONE_FILE = 8
LONGEST_RUN = 0.12
# so that the log is often written back into the file, which is where most can go wrong
SMALL_LOG = "wal_autocheckpoint = 12"

quick = pytest.mark.bar_quick
full = pytest.mark.bar


def opened(folder: Path, check) -> object:
    """`check` of the book that opens there, which must be without a complaint."""

    async def open_and_check():
        book = AddressBook(folder / FILE)
        async with trio.open_nursery() as nursery:
            await nursery.start(book.run)
            result = check(book)
            nursery.cancel_scope.cancel()
        return result

    result = trio.run(open_and_check)
    assert not list(folder.glob("*damaged*")), "the file was taken for a damaged one"
    return result


# kill -9


def kill_often(folder: Path, times: int, seed: int = 1) -> Counter[str]:
    """Kills writers; what was counted. Each goes on where the last one ended."""
    rng = random.Random(seed)
    counted: Counter[str] = Counter()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bars.crashing", "fork"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as forker:
        assert forker.stdin is not None
        assert forker.stdout is not None
        for time_ in range(times):
            if time_ % RUNS_ON_ONE_FILE == 0:
                data, first, last = folder / str(time_), 0, -1
                data.mkdir()
            forker.stdin.write(f"{data} {last + 2}\n".encode())  # the step after the last one may be there in part
            forker.stdin.flush()
            child = int(forker.stdout.readline())
            first = last + 2
            if time_ % 4:  # else it may be killed before it has begun, however slow the machine is
                last = int(forker.stdout.readline())
                counted["acknowledged"] += 1
            time.sleep(rng.uniform(0, LONGEST_RUN))
            os.kill(child, 9)
            while (line := forker.stdout.readline()) != b"gone\n":
                last = int(line)
                counted["acknowledged"] += 1
            result = opened(data, lambda book, first=first, last=last: missing(book, last, first))
            assert not result, f"after kill {time_}: {result}"
            counted["kills"] += 1
            last = max(last, first - 1)
        forker.stdin.close()
    return counted


# power losses


def recorded(tmp: Path, library: Path, steps: int, *pragmas: str) -> list[powerloss.Record]:
    folder = tmp / "recorded"
    folder.mkdir()
    log = tmp / "log"
    variables = {"LD_PRELOAD": str(library), "POWERLOSS_DIR": str(folder), "POWERLOSS_LOG": str(log)}
    command = [sys.executable, "-m", "tests.bars.crashing", "record", str(folder), str(steps), *pragmas]
    subprocess.run(command, cwd=ROOT, env=os.environ | variables, check=True, timeout=120)
    return powerloss.read(log)


def lose_power(tmp: Path, records: list[powerloss.Record], times: int, seed: int = 1) -> tuple[Counter[str], list[str]]:
    """Loses power at that many points of a log; what was counted, and what was missing."""
    rng = random.Random(seed)
    points = sorted(rng.sample(range(len(records) + 1), times))
    counted: Counter[str] = Counter()
    faults: list[str] = []
    for point, disk in enumerate(powerloss.replay(records, ACKNOWLEDGED)):
        if not points or point < points[0]:
            continue
        points.pop(0)
        how = rng.choice(HOWS)
        last = int((disk.acknowledged.split() or [b"-1"])[-1])
        with tempfile.TemporaryDirectory(dir=tmp) as name:
            disk.lose_power(Path(name), how, rng)
            try:
                result = opened(Path(name), lambda book, last=last: missing(book, last))
            except Exception as error:  # whatever it is, it didn't open
                result = f"it doesn't open: {error!r}"
        if result:
            faults.append(f"at {point} of {len(records)}, unsynced writes {how}: {result}")
        counted[how] += 1
        counted["losses"] += 1
        # the lock's holder is never synced, and is less than a page
        unsynced = any(len(record.data) >= 512 for records_ in disk.unsynced.values() for record in records_)
        counted["with unsynced writes"] += unsynced
        counted["acknowledged before"] += last + 1
    return counted, faults


@pytest.mark.parametrize(
    ("kills", "losses"), [pytest.param(6, 60, marks=quick), pytest.param(200, 200, marks=full)], ids=["quick", "full"]
)
def test_bar_crash(tmp_path, kills, losses):
    (tmp_path / "killed").mkdir()
    killed = kill_often(tmp_path / "killed", kills)
    print(f"\nkilled: {dict(killed)}")
    assert killed["acknowledged"] >= kills * 3 // 4  # else nothing was tested

    library = powerloss.build(tmp_path)
    for number, (steps, pragmas) in enumerate([(60, (SMALL_LOG,)), *([(600, ())] if losses >= 200 else [])]):
        (tmp_path / str(number)).mkdir()
        records = recorded(tmp_path / str(number), library, steps, *pragmas)
        counted, faults = lose_power(tmp_path, records, losses)
        print(f"power lost: {dict(counted)}, in {len(records)} records")
        assert not faults, "\n".join(faults[:10])
        assert counted["with unsynced writes"] > losses / 4


@quick
@pytest.mark.parametrize("less", ["synchronous = OFF", "synchronous = NORMAL"])
def test_bar_crash_sees_a_missing_fsync(tmp_path, less):
    records = recorded(tmp_path, powerloss.build(tmp_path), 20, SMALL_LOG, less)
    _, faults = lose_power(tmp_path, records, 20)
    assert faults
