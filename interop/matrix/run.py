"""Runs the matrix: starts two ends for each line, checks one thing after the other, bounded, and retries nothing.

A check that fails takes its ends with it: the next has new ones. One without a connection has nothing to check, so that
it fails with the connection's reason. What fails where a defect of the libraries is known is upstream's only if that
defect's reproduction shows it in the same run.
"""

from __future__ import annotations

import math
import shutil
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import trio

from interop.matrix.cells import Cell, Line, Result, cells, not_applicable
from interop.matrix.checks import CHECKS, SEEDS
from interop.matrix.ends import (
    FULL,
    QUICK,
    CheckError,
    Pair,
    Size,
    Third,
    our_end,
    recipe,
    their_end,
    third_end,
)
from interop.matrix.upstream import Defects
from interop.peer import PeerError

WORKERS = 2  # lines at once
CONNECT_TIMEOUT = 30.0
CHECK_TIMEOUT = 60.0
TRANSFER_TIMEOUT = 240.0
MAX_REASON = 600

Told = Callable[[Result], None]


class MissingPeerError(Exception):
    """A peer isn't built. The text says what to run."""


@dataclass(frozen=True)
class Plan:
    """What is run: which checks on which lines, how much at once."""

    lines: Sequence[Line]
    checks: Sequence[str]
    quick: bool = False
    workers: int = WORKERS
    mutation: str = ""  # of our end (`interop.ends.mutate`)

    @property
    def size(self) -> Size:
        return QUICK if self.quick else FULL


class _NotConnectedError(Exception):
    """A pair of ends that couldn't be connected."""


def check_built(lines: Sequence[Line]) -> None:
    """Raises MissingPeerError unless all peers of the lines are there."""
    missing = []
    for peer in dict.fromkeys(line.peer for line in lines):
        made = recipe(peer)
        if made is not None and not made.binary.is_file():
            tool = "" if shutil.which(made.tool) else f" (it needs the program {made.tool}, which isn't on the PATH)"
            missing.append(f"{peer}{tool}")
    if missing:
        names = ",".join(name.split()[0] for name in missing)
        raise MissingPeerError(f"expected to be built: {', '.join(missing)}; run: make peers PEERS={names}")


async def run(plan: Plan, tell: Told) -> dict[str, dict[str, str]]:
    """Runs it, and tells each result as it comes. The versions that the ends have told, by end."""
    versions: dict[str, dict[str, str]] = {}
    defects = Defects()
    # py-libp2p's Kademlia is on another protocol, so that the thirds of its lines are others
    for stock in (False, True):
        waiting = deque(line for line in plan.lines if (line.peer == "stock") == stock)
        async with trio.open_nursery() as nursery:
            for _ in range(min(plan.workers, len(waiting))):
                nursery.start_soon(_work, plan, waiting, defects, versions, tell)
    return versions


async def _work(
    plan: Plan, waiting: deque[Line], defects: Defects, versions: dict[str, dict[str, str]], tell: Told
) -> None:
    async with third_end(waiting[0]) as process:
        while waiting:
            await _Lines(plan, waiting.popleft(), Third(process), defects, versions, tell).run()


class _Lines:
    """The cells of one line."""

    def __init__(
        self,
        plan: Plan,
        line: Line,
        third: Third,
        defects: Defects,
        versions: dict[str, dict[str, str]],
        tell: Told,
    ) -> None:
        self._plan, self._line, self._third = plan, line, third
        self._defects, self._versions, self._tell = defects, versions, tell

    async def run(self) -> None:
        left = deque[Cell]()
        for cell in cells(self._line, self._plan.checks):
            if reason := not_applicable(cell):
                self._tell(Result(cell, "na", reason))
            else:
                left.append(cell)
        while left:
            started = trio.current_time()
            try:
                async with self._pair([cell.check for cell in left]) as pair:
                    while left:
                        if not await self._one(pair, left.popleft()):
                            break
            except _NotConnectedError as error:
                for cell in left:
                    await self._failed(cell, str(error), trio.current_time() - started)
                left.clear()
            except PeerError:
                pass  # an end that had ended by itself: what was checked on it has been told

    async def _one(self, pair: Pair, cell: Cell) -> bool:
        """Runs a cell's check; whether the ends can go on."""
        started = trio.current_time()
        seconds = TRANSFER_TIMEOUT if cell.check == "transfer" else CHECK_TIMEOUT
        try:
            with trio.fail_after(seconds):
                await CHECKS[cell.check](pair)
        except (CheckError, PeerError, ValueError, KeyError) as error:
            await self._failed(cell, _said(error), trio.current_time() - started)
            return False
        except trio.TooSlowError:
            await self._failed(cell, f"expected it to end within {seconds:g} s", seconds)
            return False
        self._tell(Result(cell, "pass", seconds=trio.current_time() - started))
        return True

    async def _failed(self, cell: Cell, reason: str, seconds: float) -> None:
        result = Result(cell, "fail", reason[:MAX_REASON], seconds)
        defect = self._defects.of(cell)
        if defect is not None and await self._defects.shows(defect):
            why = f"{defect.what}. Here: {reason}"[:MAX_REASON]
            result = replace(result, result="upstream", reason=why, reproduction=defect.path)
        self._tell(result)

    @asynccontextmanager
    async def _pair(self, checks: Sequence[str]) -> AsyncIterator[Pair]:
        """Two new ends, connected. Raises _NotConnectedError."""
        async with AsyncExitStack() as stack:
            try:
                ours, theirs = our_end(self._line, mutation=self._plan.mutation), their_end(self._line)
                for end in (ours, theirs):
                    await stack.enter_async_context(end)
                    self._versions.setdefault(end.name, {}).update(end.events[0].get("versions", {}))
                pair = Pair(self._line, self._plan.size, ours, theirs, self._third)
                with trio.fail_after(CONNECT_TIMEOUT):
                    for check in checks:
                        if check in SEEDS:
                            await SEEDS[check](pair)
                    await pair.connect()
            except (PeerError, CheckError, KeyError) as error:
                raise _NotConnectedError(f"no connection: {_said(error)}") from error
            except trio.TooSlowError:
                raise _NotConnectedError(f"no connection within {CONNECT_TIMEOUT:g} s") from None
            yield pair


def _said(error: Exception) -> str:
    """What it says, on one line."""
    text = str(error) if isinstance(error, CheckError | PeerError) else repr(error)
    return " ".join(text.split())


def seconds_of(results: Sequence[Result]) -> float:
    """What the results have taken, one after the other."""
    return math.fsum(result.seconds for result in results)
