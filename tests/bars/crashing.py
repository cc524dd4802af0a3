"""A process that writes into an address book and says what was acknowledged, for tests/bars/test_crash.py.

    python -m tests.bars.crashing record FOLDER STEPS PRAGMA...   one run; acknowledges into FOLDER/acknowledged
    python -m tests.bars.crashing fork                            for each line FOLDER FIRST a run in a child, which
                                                                  prints its process ID and the steps acknowledged

Every step is deterministic, so that its number says what must be in the book from then on (`missing`).
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from node.peers.addressbook import AddressBook
from node.peers.bookfile import BookFile

FILE = "addressbook.db"
ACKNOWLEDGED = "acknowledged"
FOR_EVER = 1 << 40


def addr(step: int) -> str:
    return f"/ip4/192.0.2.{step % 250}/tcp/{1024 + step}"


def network(step: int) -> str:
    return f"10.{step >> 8}.{step & 255}"


async def one_step(book: AddressBook, step: int) -> None:
    for number in range(3):
        book.learn(f"p{step}x{number}", [addr(step), addr(step + 1)], "exchange")
    book.succeeded(f"p{step}x0", addr(step))
    book.remove(f"p{step - 2}x2")
    book.learn("counter", [addr(0)], "manual")
    book.describe("counter", agent=str(step), protocols=[f"/p/{number}" for number in range(step % 40)])
    if step and step % 3 == 0:
        await book.unban(f"{network(step - 1)}.0/24")
    await book.ban(f"{network(step)}.0/24", f"step {step}")
    await book.flush()


def missing(book: AddressBook, last: int, first: int = 0) -> str:
    """What is missing in a book whose last acknowledged step is `last`, or there and mustn't be; "" if nothing is."""
    for step in range(first, last + 1):
        for number in range(2):
            entry = book.get(f"p{step}x{number}")
            if entry is None or entry.worked != (number == 0) or len(entry.addrs) != 2:
                return f"peer {number} of step {step}: {entry}"
        if step <= last - 2 and f"p{step}x2" in book:
            return f"peer 2 of step {step} is back"
        banned = book.ban_of(ip=f"{network(step)}.7") is not None
        if step < last and banned != ((step + 1) % 3 != 0):
            return f"the ban of step {step}: {banned}"
        if step == last and not banned and (step + 1) % 3:
            return f"the last ban, of step {step}"
    if last >= first:
        if f"p{last}x2" not in book:
            return f"peer 2 of step {last}"
        counter = book.get("counter")
        if counter is None or int(counter.agent) not in (last, last + 1):
            return f"the counter at {last}: {counter}"
    return ""


async def run(folder: Path, first: int, end: int, tell: Callable[[int], object], pragmas: Sequence[str]) -> None:
    book = AddressBook(folder / FILE, open_file=functools.partial(BookFile, pragmas=pragmas))
    async with trio.open_nursery() as nursery:
        await nursery.start(book.run)
        for step in range(first, end):
            await one_step(book, step)
            tell(step)
        nursery.cancel_scope.cancel()


def record(folder: Path, steps: int, pragmas: Sequence[str]) -> None:
    file = os.open(folder / ACKNOWLEDGED, os.O_WRONLY | os.O_CREAT, 0o600)
    trio.run(run, folder, 0, steps, lambda step: os.write(file, b"%d\n" % step), pragmas)


def fork() -> None:
    for line in sys.stdin:
        folder, first = line.split()
        child = os.fork()
        if not child:
            os.write(1, b"%d\n" % os.getpid())
            trio.run(run, Path(folder), int(first), FOR_EVER, lambda step: os.write(1, b"%d\n" % step), ())
        os.waitpid(child, 0)
        os.write(1, b"gone\n")


if __name__ == "__main__":
    if sys.argv[1] == "fork":
        fork()
    else:
        record(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
