"""Programs that decide on messages, whoever runs them: any executable, one process for each message.

    in     standard input: the payload; environment: VOUCH_TOPIC, VOUCH_AUTHOR (a peer ID), VOUCH_TYPE (decimal),
           VOUCH_MESSAGE_ID (hexadecimal), beside the runner's own
    out    exit status: 0 accepts, 65 (EX_DATAERR) rejects; anything else, a signal or no end in time ignores, so that a
           crash punishes nobody

The command is split as a shell would, but none runs it. The program and all that it started, its process group, is
killed when it ends or its time is over: that for a verdict, from the message's arrival, less MARGIN. Whoever runs them
runs AT_ONCE of a topic at a time.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
from contextlib import suppress
from typing import Literal

AT_ONCE = 8
MARGIN = 1.0  # seconds, for the verdict to count and not to come after its deadline
EX_DATAERR = 65


def argv_of(command: str) -> list[str]:
    """Its words, the program by its absolute path, for the working directory may change. Raises ValueError, which names
    the command, if it can't be run.
    """
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"{command!r}: {error}") from None
    found = shutil.which(argv[0]) if argv else None
    if found is None:
        raise ValueError(repr(command))
    return [os.path.abspath(found), *argv[1:]]


def environment(topic: str, author: str, type: int, message_id: str) -> dict[str, str]:
    """What a program is told of a message, in the environment that it gets."""
    told = {"VOUCH_TOPIC": topic, "VOUCH_AUTHOR": author, "VOUCH_TYPE": str(type), "VOUCH_MESSAGE_ID": message_id}
    return {**os.environ, **told}


def time_for(within: float) -> float:
    """Seconds that a program has, of those that there are for a verdict."""
    return max(within - MARGIN, within / 2)


def verdict_of(status: int | None) -> Literal["accept", "reject", "ignore"]:
    """What an exit status means; None: its time was over."""
    if status == 0:
        return "accept"
    return "reject" if status == EX_DATAERR else "ignore"


def kill_group(pid: int) -> None:
    """Ends a program that leads its process group, and whatever it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
