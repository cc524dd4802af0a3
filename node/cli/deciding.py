"""`vouch subscribe --verdict`: who decides on the messages of a topic, from outside the node.

    --verdict COMMAND   a process for each message, AT_ONCE of them at a time, by the rules of `node.program`
    --verdict ask       a line of standard input for each message, one after the other; its end ends the command
    --verdict accept    always the same: accept, reject, ignore

A verdict that comes too late is told as such, and has no effect.
"""

from __future__ import annotations

import base64
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from node.api.client import Client
from node.errors import NotFoundError, UsageError
from node.program import AT_ONCE, argv_of, environment, kill_group, time_for, verdict_of

FIXED = ("accept", "reject", "ignore")
WORDS = {word[:length]: word for word in FIXED for length in range(1, len(word) + 1)}

Item = dict[str, Any]


@dataclass(frozen=True)
class Decision:
    """A verdict and what led to it; `counted`: it came in time."""

    verdict: str
    reason: str = ""
    counted: bool = False


class Decide(Protocol):
    """Decides on a message, within `within` seconds; None at the end of whoever is asked."""

    def __call__(self, item: Item, within: float, /) -> Decision | None: ...


def decider(text: str) -> tuple[Decide, int]:
    """Who decides, and on how many messages at once. Raises UsageError for a command that can't be run."""
    if text == "ask":
        return Asking(), 1
    if text in FIXED:
        return (lambda _item, _within: Decision(text)), 1
    return Program(text), AT_ONCE


class Program:
    """Asks a program."""

    def __init__(self, command: str) -> None:
        """Raises UsageError for a command that can't be run."""
        try:
            self._argv = argv_of(command)
        except ValueError as error:
            known = ", ".join(("ask", *FIXED))
            text = f"--verdict: expected {known}, or a command whose program can be run, got {error}"
            raise UsageError(text) from None

    def __call__(self, item: Item, within: float) -> Decision:
        if within <= 0:
            return Decision("ignore", "it waited too long for its turn")
        try:
            process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment(item["topic"], item["author"], item["type"], item["message_id"]),
                start_new_session=True,
            )
        except OSError as error:
            return Decision("ignore", f"{self._argv[0]}: {error.strerror}")
        with process:
            try:
                process.communicate(base64.b64decode(item["payload"]), timeout=within)
            except subprocess.TimeoutExpired:
                return Decision("ignore", f"no end within {within:.1f} s")
            finally:
                kill_group(process.pid)
        return Decision(verdict_of(process.returncode), f"exit status {process.returncode}")


class Asking:
    """Asks whoever is at standard input."""

    def __init__(self, descriptor: int = 0, prompt: Callable[[str], object] | None = None) -> None:
        self._descriptor = descriptor
        self._prompt = prompt or (lambda text: print(text, end="", file=sys.stderr, flush=True))
        self._buffer = b""

    def __call__(self, _item: Item, within: float) -> Decision | None:
        until = time.monotonic() + within
        while True:
            self._prompt("accept, reject or ignore? ")
            line = self._line(until)
            if line is None:
                return None
            if line == "late":
                self._prompt("\n")
                return Decision("ignore", f"no answer within {within:.0f} s")
            verdict = WORDS.get(line)
            if verdict is not None:
                return Decision(verdict, "by hand")

    def _line(self, until: float) -> str | None:
        """The next line in lower case; None at the end, "late" if none comes in time."""
        while b"\n" not in self._buffer:
            if not select.select([self._descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
                return "late"
            more = os.read(self._descriptor, 4096)
            if not more:
                return None
            self._buffer = (self._buffer + more)[-4096:]
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace").strip().lower()


class Deciding:
    """Takes a topic's messages, has them decided, gives the verdicts, and tells `show` of each."""

    def __init__(
        self, verdicts: Client, text: str, begin: Callable[[Item], object], show: Callable[[Item, Decision], object]
    ) -> None:
        """`verdicts`: a client of their own, for the topic's is busy. `begin` is told of a message before somebody is
        asked, `show` after. Raises UsageError.
        """
        self._client = verdicts
        self._decide, at_once = decider(text)
        self._begin, self._show = begin, show
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="verdict") if at_once > 1 else None
        # messages beyond those at work wait in the node, which ignores what waits too long
        self._room = threading.BoundedSemaphore(at_once)
        self._failed: BaseException | None = None

    def message(self, item: Item) -> bool:
        """Decides on one, at once or in a thread. False once nobody decides any more. Raises what a thread raised."""
        if self._pool is None:
            return self._one(item, time.monotonic())
        self._room.acquire()
        if self._failed is not None:
            raise self._failed
        self._pool.submit(self._in_thread, item, time.monotonic())
        return True

    def close(self) -> None:
        """Waits for those at work."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            if self._failed is not None:
                raise self._failed

    def _in_thread(self, item: Item, came: float) -> None:
        try:
            self._one(item, came)
        except BaseException as error:  # whatever ends a worker ends the command: `message` and `close` raise it
            self._failed = error
        finally:
            self._room.release()

    def _one(self, item: Item, came: float) -> bool:
        within = item.pop("verdict_within")
        with self._lock:
            self._begin(item)
        decision = self._decide(item, time_for(within) - (time.monotonic() - came))
        if decision is None:
            return False
        with self._lock:
            counted = self._give(item.pop("verdict_id"), decision)
            self._show(item, Decision(decision.verdict, decision.reason, counted))
        return True

    def _give(self, number: str, decision: Decision) -> bool:
        try:
            answer = self._client.call("verdict", id=number, verdict=decision.verdict, reason="subscriber")
        except NotFoundError:  # its time is over
            return False
        return bool(answer["counted"])
