"""Runs the matrix: starts two ends for each line, checks one thing after the other, bounded, and retries nothing.

A check that fails takes its ends with it: the next has new ones. One without a connection has nothing to check, so that
it fails with the connection's reason. What fails where a defect of the libraries is known is upstream's only if that
defect's reproduction shows it in the same run.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import trio

from interop.matrix.cells import Cell, Line, Result, cells, not_applicable
from interop.matrix.checks import CHECKS, NEED_THIRD, SEEDS
from interop.matrix.ends import (
    FULL,
    QUICK,
    CheckError,
    Pair,
    Size,
    Third,
    our_flags,
    recipe,
    renewed,
    their_end,
    vouch_process,
)
from interop.matrix.upstream import NO_CONNECTION, Defects
from interop.peer import Peer, PeerError

WORKERS = 2  # lines at once
CONNECT_TIMEOUT = 30.0
CHECK_TIMEOUT = 60.0
TRANSFER_TIMEOUT = 240.0
MAX_REASON = 400

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
    patience: float = 0.0  # seconds for a connection, and for a check, where those below are too many

    @property
    def size(self) -> Size:
        return QUICK if self.quick else FULL

    def seconds(self, check: str) -> float:
        """What a check may take."""
        return self.patience or (TRANSFER_TIMEOUT if check == "transfer" else CHECK_TIMEOUT)


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
    runner = _Runner(plan, tell)
    async with trio.open_nursery() as nursery:
        for _ in range(min(plan.workers, len(plan.lines))):
            nursery.start_soon(runner.work)
    return runner.versions


class _Runner:
    """The work that is left, and what has come of the rest."""

    def __init__(self, plan: Plan, tell: Told) -> None:
        self.versions: dict[str, dict[str, str]] = {}
        self._plan, self._tell = plan, tell
        self._defects = Defects()
        self._waiting: deque[deque[Cell]] = deque()
        for line in plan.lines:
            left = deque[Cell]()
            for cell in cells(line, plan.checks):
                if reason := not_applicable(cell):
                    tell(Result(cell, "na", reason))
                else:
                    left.append(cell)
            if left:
                self._waiting.append(left)

    async def work(self) -> None:
        """Runs lines until none is left, on two processes of ours that last as long as nothing fails."""
        while self._waiting:
            running = False
            try:
                async with AsyncExitStack() as stack:
                    ours = await stack.enter_async_context(vouch_process("vouch", self._plan.mutation))
                    third = None
                    if not NEED_THIRD.isdisjoint(self._plan.checks):
                        third = await stack.enter_async_context(vouch_process("third"))
                    running = went_well = True
                    while self._waiting and went_well:
                        left = self._waiting.popleft()
                        went_well = await self._line(left, ours, third)
                        if left:
                            self._waiting.appendleft(left)
            except PeerError as error:
                if error.reply:
                    raise
                # an end that had ended by itself: what was checked on it has been told; or one that never was
                if not running:
                    for cell in self._waiting.popleft():
                        await self._failed(cell, f"{NO_CONNECTION}: {_said(error)}", 0.0)

    async def _line(self, left: deque[Cell], ours: Peer, third: Peer | None) -> bool:
        """Runs the cells that are left of a line, until one fails; whether none has."""
        started = trio.current_time()
        try:
            async with self._pair(left, ours, third) as pair:
                while left:
                    if not await self._one(pair, left.popleft()):
                        return False
        except _NotConnectedError as error:
            while left:
                await self._failed(left.popleft(), str(error), trio.current_time() - started)
            return False
        except PeerError:
            return False
        return True

    async def _one(self, pair: Pair, cell: Cell) -> bool:
        """Runs a cell's check; whether the ends can go on."""
        started = trio.current_time()
        seconds = self._plan.seconds(cell.check)
        try:
            with trio.fail_after(seconds):
                await CHECKS[cell.check](pair)
        except (CheckError, PeerError, ValueError, KeyError) as error:
            await self._failed(cell, _said(error) + ended_by(pair.theirs, pair.ours), trio.current_time() - started)
            return False
        except trio.TooSlowError:
            reason = f"expected it to end within {seconds:g} s" + ended_by(pair.theirs, pair.ours)
            await self._failed(cell, reason, seconds)
            return False
        self._tell(Result(cell, "pass", seconds=trio.current_time() - started))
        return True

    async def _failed(self, cell: Cell, reason: str, seconds: float) -> None:
        result = Result(cell, "fail", reason[:MAX_REASON], seconds)
        defect = self._defects.of(cell, reason)
        if defect is not None and await self._defects.shows(defect):
            why = f"{defect.what}. Here: {reason}"[:MAX_REASON]
            result = replace(result, result="upstream", reason=why, reproduction=defect.path)
        self._tell(result)

    @asynccontextmanager
    async def _pair(self, left: Sequence[Cell], ours: Peer, third: Peer | None) -> AsyncIterator[Pair]:
        """Two ends, connected. Raises _NotConnectedError."""
        line, seconds = left[0].line, self._plan.patience or CONNECT_TIMEOUT
        async with AsyncExitStack() as stack:
            try:
                theirs = await stack.enter_async_context(their_end(line))
                self.versions.setdefault(ours.name, {}).update(ours.versions)
                self.versions.setdefault(theirs.name, {}).update(theirs.versions)
                with trio.fail_after(seconds):
                    await renewed(ours, our_flags(line))
                    pair = Pair(line, self._plan.size, ours, theirs, Third(third, line))
                    for check in [cell.check for cell in left if cell.check in SEEDS]:
                        await SEEDS[check](pair)
                    await pair.connect()
            except (PeerError, CheckError, KeyError) as error:
                raise _NotConnectedError(f"{NO_CONNECTION}: {_said(error)}") from error
            except trio.TooSlowError:
                raise _NotConnectedError(f"{NO_CONNECTION} within {seconds:g} s") from None
            yield pair


def ended_by(theirs: Peer, ours: Peer) -> str:
    """What a failure's reason has besides where their end has told that it ended the connection for an error."""
    errors = [told["error"] for told in theirs.seen("disconnected", peer=ours.peer_id) if "error" in told]
    return f"; {theirs.name} ended the connection: {errors[-1]}" if errors else ""


def _said(error: Exception) -> str:
    """What it says, on one line."""
    text = str(error) if isinstance(error, CheckError | PeerError) else repr(error)
    return " ".join(text.split())
