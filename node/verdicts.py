"""Verdicts by a program, in the node: `node.program` has what it is given and what its end means.

The last line of its standard error goes to the log at level debug; standard output is thrown away. It is killed when
the node stops, too.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import dataclass

import trio

from node.log import get_logger
from node.program import argv_of, environment, kill_group, time_for, verdict_of
from protocols.gossip import GossipMessage, Verdict

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
        return Verdict(verdict_of(self.status))


class Program:
    """A topic's validator that asks a program. `timeout`: seconds that the topic gives for a verdict."""

    def __init__(self, topic: str, command: str, timeout: float) -> None:
        """Raises ValueError for a command that can't be run."""
        try:
            self._argv = argv_of(command)
        except ValueError as error:
            raise ValueError(f"{topic}: expected a command whose program can be run, got {error}") from None
        self._time = time_for(timeout)

    async def __call__(self, message: GossipMessage) -> Verdict:
        """What the program says. A message that waited too long for its turn is ignored."""
        deadline = message.received_at + self._time
        if trio.current_time() >= deadline:
            return Verdict.IGNORE
        environ = environment(message.topic, message.author, message.type, message.message_id.hex())
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
        env=environ,
        start_new_session=True,
    )
    words = bytearray()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_give, process, given)
            nursery.start_soon(_listen, process, words)
            with trio.move_on_at(deadline) as timed:
                await process.wait()
            kill_group(process.pid)  # whoever is left would keep the pipe open
            nursery.cancel_scope.deadline = trio.current_time() + STDERR_GRACE
    finally:
        if process.returncode is None:
            kill_group(process.pid)
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
