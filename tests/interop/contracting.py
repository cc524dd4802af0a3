"""The harness of libp2p's suites in small: a real Redis, and programs with their environment, as its scripts run them.

async with redis_server() as address:                                # "127.0.0.1:PORT"
    async with started("transport", IS_DIALER="false", ...):         # ended with the block
        outcome = await finished("transport", IS_DIALER="true", ...)
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from interop.contract.redis import Redis
from interop.peer import ROOT
from tests import required
from tests.ports import free_port

# starting Python and the node takes seconds on a machine that does much else
TIMEOUT = 90.0
STARTED_WITHIN = 10.0
END_TIMEOUT = 5.0

# what the scripts take of a dialer's output (run-single-test.sh of each suite)
TRANSPORT_LINE = r"latency:|  (handshake_plus_one_rtt|ping_rtt|unit): \S+"
PERF_LINE = r"upload:|download:|latency:|  (iterations|min|q1|median|q3|max|outliers|samples|unit): \S.*"
KAD_LINE = r"(status|error): \S.*"


@dataclass(frozen=True)
class Outcome:
    """How a program ended, and what it said."""

    status: int
    stdout: str
    stderr: str

    def lines(self, pattern: str) -> list[str]:
        """Standard output without comments and empty lines, all of which must be the suite's."""
        lines = [line for line in self.stdout.splitlines() if line and not line.startswith("#")]
        strange = [line for line in lines if not re.fullmatch(pattern, line)]
        assert not strange, f"the suite's script wouldn't know these lines: {strange}"
        return lines

    def figures(self) -> dict[str, dict[str, str]]:
        """Sections and their fields; other programs may indent them otherwise."""
        found: dict[str, dict[str, str]] = {}
        section: dict[str, str] = {}
        for line in self.stdout.splitlines():
            name, colon, value = line.strip().partition(":")
            if not colon or name.startswith("#"):
                continue
            if line.startswith(" "):
                section[name] = value.strip()
            else:
                section = found[name] = {}
        return found


def environment(address: str, **changes: str) -> dict[str, str]:
    """What the scripts set for TCP, Noise and Yamux, and the key of a new test."""
    return {
        "DEBUG": "false",
        "REDIS_ADDR": address,
        "TEST_KEY": secrets.token_hex(4),
        "TRANSPORT": "tcp",
        "SECURE_CHANNEL": "noise",
        "MUXER": "yamux",
        "LISTENER_IP": "127.0.0.1",
        **changes,
    }


def ours(suite: str, *args: str) -> list[str]:
    """The command of a program of ours."""
    return [sys.executable, "-m", "interop.contract", suite, *args]


async def finished(
    command: str | Sequence[str], environ: dict[str, str] | None = None, *, timeout: float = TIMEOUT
) -> Outcome:
    """Runs a program (a suite's name: ours) to its end."""
    words = ours(command) if isinstance(command, str) else list(command)
    with trio.fail_after(timeout):
        done = await trio.run_process(
            words, env=_clean(environ), cwd=ROOT, capture_stdout=True, capture_stderr=True, check=False
        )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


@asynccontextmanager
async def started(command: str | Sequence[str], environ: dict[str, str]) -> AsyncIterator[None]:
    """Runs a program until the end of the block. If that fails, its errors are added."""
    words = ours(command) if isinstance(command, str) else list(command)
    with tempfile.TemporaryFile() as errors:
        process = await trio.lowlevel.open_process(
            words, env=_clean(environ), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            yield
        except BaseException as error:
            errors.seek(0)
            error.add_note(f"{' '.join(words)} wrote:\n{errors.read().decode()}")
            raise
        finally:
            with trio.CancelScope(shield=True):
                process.terminate()
                with trio.move_on_after(END_TIMEOUT):
                    await process.wait()
                process.kill()
                await process.wait()


def _clean(environ: dict[str, str] | None) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, **(environ or {})}


def redis_or_skip() -> None:
    """Ends the test where there can be no Redis, see tests/required.py."""
    required.program("redis-server", why="the suites' contracts need it (apt-get install redis-server)")


@asynccontextmanager
async def redis_server(*, host: str = "127.0.0.1", enter: Sequence[str] = ()) -> AsyncIterator[str]:
    """A Redis that keeps nothing, on a port of the system's choice; `enter` goes before its command. HOST:PORT."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        quiet = ("--save", "", "--appendonly", "no", "--protected-mode", "no", "--loglevel", "warning")
        process = await trio.lowlevel.open_process(
            [*enter, "redis-server", "--bind", host, "--port", str(port), "--dir", folder, *quiet],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            if not enter:
                async with Redis.connect(host, port, within=STARTED_WITHIN) as redis:
                    assert await redis.command("PING") == "PONG"
            yield f"{host}:{port}"
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
