"""Verdicts by a program: any executable, one process for each message.

    in     standard input: the payload; environment: VOUCH_TOPIC, VOUCH_AUTHOR (a peer ID), VOUCH_TYPE (decimal),
           VOUCH_MESSAGE_ID (hexadecimal), beside the node's own
    out    exit status: 0 accepts, 65 (EX_DATAERR) rejects; anything else, a signal or no end in time ignores, so that a
           crash punishes nobody. The last line of standard error goes to the log at level debug; standard output is
           thrown away

The command is split as a shell would, but none runs it. The program and all that it started, its process group, is
killed when it ends, when its time is over, and when the node stops. Bounds: AT_ONCE processes for each topic; the
topic's time for a verdict less MARGIN, counted from the message's arrival.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass

import trio

from node.log import get_logger
from protocols.gossip import GossipMessage, Verdict

AT_ONCE = 8
MARGIN = 1.0  # seconds, for the verdict to count and not to come after its deadline
EX_DATAERR = 65
STDERR_GRACE = 1.0  # seconds for reading what the program's end left in the pipe
MAX_LINE = 1024

log = get_logger("verdicts")


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit status, negative for a signal, None if its time was over; its last words."""

    status: int | None
    detail: str

    @property
    def verdict(self) -> Verdict:
        if self.status == 0:
            return Verdict.ACCEPT
        return Verdict.REJECT if self.status == EX_DATAERR else Verdict.IGNORE


class Program:
    """A topic's validator that asks a program. `timeout`: seconds that the topic gives for a verdict."""

    def __init__(self, topic: str, command: str, timeout: float) -> None:
        """Raises ValueError for a command that can't be run."""
        try:
            self._argv = shlex.split(command)
        except ValueError as error:
            raise ValueError(f"{topic}: expected a command, got {command!r}: {error}") from None
        found = shutil.which(self._argv[0]) if self._argv else None
        if found is None:
            raise ValueError(f"{topic}: expected a command whose program can be run, got {command!r}")
        self._argv[0] = os.path.abspath(found)  # wherever the node's working directory may go
        self._time = max(timeout - MARGIN, timeout / 2)

    async def __call__(self, message: GossipMessage) -> Verdict:
        """What the program says. A message that waited too long for its turn is ignored."""
        deadline = message.received_at + self._time
        if trio.current_time() >= deadline:
            return Verdict.IGNORE
        environ = {
            "VOUCH_TOPIC": message.topic,
            "VOUCH_AUTHOR": message.author,
            "VOUCH_TYPE": str(message.type),
            "VOUCH_MESSAGE_ID": message.message_id.hex(),
        }
        try:
            ended = await run(self._argv, message.payload, environ, deadline)
        except OSError as error:
            log.warning("program_not_started", topic=message.topic, program=self._argv[0], error=error.strerror)
            return Verdict.IGNORE
        log.debug(
            "program_verdict",
            topic=message.topic,
            message=message.message_id.hex(),
            verdict=ended.verdict.value,
            status="timeout" if ended.status is None else ended.status,
            detail=ended.detail,
        )
        return ended.verdict


async def run(argv: list[str], given: bytes, environ: dict[str, str], deadline: float) -> Ended:
    """Runs one program in a process group of its own. Raises OSError if it can't be started."""
    process = await trio.lowlevel.open_process(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **environ},
        start_new_session=True,
    )
    words = bytearray()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_give, process, given)
            nursery.start_soon(_listen, process, words)
            with trio.move_on_at(deadline) as timed:
                await process.wait()
            _kill_group(process)  # whoever is left would keep the pipe open
            nursery.cancel_scope.deadline = trio.current_time() + STDERR_GRACE
    finally:
        if process.returncode is None:
            _kill_group(process)
            with trio.CancelScope(shield=True):  # a killed process ends at once
                await process.wait()
    return Ended(None if timed.cancelled_caught else process.returncode, last_line(bytes(words)))


async def _give(process: trio.Process, payload: bytes) -> None:
    assert process.stdin is not None
    async with process.stdin:
        with suppress(trio.BrokenResourceError):  # it needn't read it
            await process.stdin.send_all(payload)


async def _listen(process: trio.Process, words: bytearray) -> None:
    assert process.stderr is not None
    async with process.stderr:
        async for part in process.stderr:
            words += part
            del words[:-MAX_LINE]


def last_line(words: bytes) -> str:
    """The last line with something in it, without what a terminal would take for commands."""
    lines = [line for line in words.decode(errors="replace").splitlines() if line.strip()]
    return "".join(one if one.isprintable() else "�" for one in lines[-1].strip()) if lines else ""


def _kill_group(process: trio.Process) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
