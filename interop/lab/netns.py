"""Network namespaces without names, kept by one process (`keeper`) that goes with whoever asked for them.

The machine's own namespace isn't touched. What runs in a namespace is killed when the keeper ends, which it does when
its input ends: also when the process that used it has been killed. Should the keeper itself be killed, what still runs
in its namespaces is known by the variable MARK in its environment, and `sweep` ends it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import trio

from interop.lab.keeper import processes, started_at

START_TIMEOUT = 10.0
RUN_TIMEOUT = 30.0
REPLY_TIMEOUT = 10.0
END_TIMEOUT = 10.0
MARK = "INTEROP_LAB"  # PID.START of the keeper
MAX_REPLY = 65536
_TOOLS = ("ip", "unshare", "nsenter")


class LabError(Exception):
    """A command of the lab's failed; the text is what it wrote."""


@cache
def why_not() -> str | None:
    """Why there can be no lab here; None if there can."""
    if sys.platform != "linux":
        return f"network namespaces need Linux, this is {sys.platform}"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"the lab needs {', '.join(missing)}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    error = _tried("ip link add t0 type veth peer name t1 && ip link add t2 type bridge")
    return f"no network namespaces here: {error}" if error is not None else None


@cache
def has_netem() -> bool:
    """Whether the kernel can shape: `tc netem`, which small kernels lack."""
    return shutil.which("tc") is not None and _tried("tc qdisc add dev lo root netem delay 1ms") is None


@cache
def why_no_shapes() -> str | None:
    """Why lines can't be shaped here, neither by the kernel nor in user space; None if they can."""
    if (reason := why_not()) is not None or has_netem():
        return reason
    error = _tried("ip tuntap add dev t0 mode tap")
    return f"neither tc netem nor TAP devices here: {error}" if error is not None else None


@cache
def why_no_nat() -> str | None:
    """Why there can be no NATs here; None if there can."""
    if (reason := why_not()) is not None:
        return reason
    if shutil.which("iptables") is None:
        return "NATs need iptables"
    error = _tried("iptables -t nat -A POSTROUTING -j MASQUERADE --random-fully && iptables -A INPUT -j DROP")
    return f"no NATs here: {error}" if error is not None else None


def _tried(script: str) -> str | None:
    """Runs a script in a namespace of its own: None, or what it wrote when it failed."""
    done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip() or f"status {done.returncode}"


def sweep() -> int:
    """Kills what was started in labs whose keeper is gone; how many processes those were."""
    killed = 0
    for pid in processes():
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for variable in variables:
            name, _, value = variable.decode(errors="replace").partition("=")
            keeper, _, start = value.partition(".")
            if name == MARK and keeper.isdecimal() and started_at(int(keeper)) != start:
                try:
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
                except ProcessLookupError:
                    pass
    return killed


@dataclass(frozen=True)
class Namespace:
    """One namespace. `enter` goes before a command that is to run there."""

    path: str
    mark: str

    @property
    def enter(self) -> tuple[str, ...]:
        return ("nsenter", f"--net={self.path}", "--", "env", f"{MARK}={self.mark}")

    async def run(self, command: Sequence[str], *, timeout: float = RUN_TIMEOUT, stdin: bytes = b"") -> str:
        """Runs a command there; what it printed. Raises LabError with what it wrote, TooSlowError."""
        with trio.fail_after(timeout):
            done = await trio.run_process(
                [*self.enter, *command], stdin=stdin, capture_stdout=True, capture_stderr=True, check=False
            )
        if done.returncode:
            raise LabError(f"{' '.join(command)}: status {done.returncode}, {done.stderr.decode().strip()}")
        return done.stdout.decode()

    async def ip(self, *lines: str) -> None:
        """Runs commands of `ip` there, in one go. Raises LabError."""
        await self.run(["ip", "-batch", "-"], stdin="".join(f"{line}\n" for line in lines).encode())


class Keeper:
    """The keeper, while the block lasts. Raises LabError."""

    def __init__(self) -> None:
        self.pid = 0
        self._mark = ""
        self._process: trio.Process | None = None
        self._lock = trio.Lock()

    async def __aenter__(self) -> Keeper:
        if (reason := why_not()) is not None:
            raise LabError(reason)
        await trio.to_thread.run_sync(sweep)
        self._process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "interop.lab.keeper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            start_new_session=True,  # what ends the group of whoever started it leaves it time to clean up
        )
        self.pid = self._process.pid
        self._mark = f"{self.pid}.{started_at(self.pid)}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(process.stdin)
            with trio.move_on_after(END_TIMEOUT):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
            await trio.aclose_forcefully(process.stdout)

    async def namespace(self) -> Namespace:
        """A new namespace, its loopback up."""
        made = Namespace(f"/proc/{self.pid}/fd/{(await self._ask(do='namespace'))['fd']}", self._mark)
        await made.ip("link set lo up")
        return made

    async def line(self, ends: Iterable[tuple[Namespace, str]], shape: dict[str, Any], seed: int) -> int:
        """A link shaped in user space; its number."""
        numbers = [[int(namespace.path.rpartition("/")[2]), name] for namespace, name in ends]
        reply = await self._ask(do="line", ends=numbers, shape=shape, seed=seed)
        return int(reply["line"])

    async def shape(self, line: int, shape: dict[str, Any]) -> None:
        """Changes a line."""
        await self._ask(do="shape", line=line, shape=shape)

    async def counts(self, line: int) -> dict[str, list[int]]:
        """Frames in both directions: "passed", "lost", "dropped" (the queue was full)."""
        return await self._ask(do="counts", line=line)

    async def _ask(self, **command: Any) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        async with self._lock:
            reply = b""
            # half a conversation can't be taken up again: it ends, or the keeper is gone
            with trio.CancelScope(shield=True), trio.move_on_after(REPLY_TIMEOUT):
                try:
                    await process.stdin.send_all(json.dumps(command).encode() + b"\n")
                    while not reply.endswith(b"\n"):
                        more = await process.stdout.receive_some(MAX_REPLY)
                        if not more:
                            break
                        reply += more
                except trio.BrokenResourceError:
                    pass
            if not reply.endswith(b"\n"):
                raise LabError(f"expected a reply to {command} within {REPLY_TIMEOUT:g} s, the keeper gave {reply!r}")
        answer: dict[str, Any] = json.loads(reply)
        if "error" in answer:
            raise LabError(f"{command}: {answer['error']}")
        return answer
