"""Restart: real processes on loopback. The bootstrap is killed, half of the others are killed with -9 and begin again:
each comes back to its target by its address book alone.

The full form runs `vouch run` as users do. Its 15 s count from each node's own "started": before that a dozen
interpreters share two cores, which says nothing of the pool; the time from the process's start is printed beside it.
The quick form forks processes that have imported everything, and there the 15 s count from the fork.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from node.api.client import Client
from node.errors import VouchError
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
WITHIN = 15.0
FORMED = 180.0
LOOK = 0.05


class Starter:
    """Starts processes, see tests/bars/starting.py."""

    def __init__(self, how: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bars.starting", how],
            cwd=ROOT,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, args: list[str], log: Path) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"args": args, "log": str(log)}) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # it kills those that are left
        self._process.wait(60)
        self._process.stdout.close()


class Running:
    """A node on a fixed port and data directory."""

    def __init__(self, starter: Starter, folder: Path, port: int, target: int, bootstrap: str = "") -> None:
        self._starter = starter
        self.folder = folder
        folder.mkdir()
        flags = {
            "data-dir": folder,
            "listen": f"/ip4/127.0.0.1/tcp/{port}",
            "low-peers": max(1, target // 2),
            "target-peers": target,
            "outbound-peers": max(1, target // 2),
            "high-peers": 4 * target,
            "max-connections-per-ip": 256,
            "max-half-open-per-ip": 32,
            "heartbeat-interval": 2,
            "exchange-interval": 10,
            "feeler-interval": 2,
            "dht": "off",
            "gossip": "off",
            "log-format": "json",
            "log-repeat-window": 0.001,
        } | ({"bootstrap": bootstrap} if bootstrap else {})
        self._args = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        self.lives = 0
        self.start()

    def start(self) -> None:
        self.lives += 1
        self.began = time.time()
        self._pid = self._starter.start(self._args, self._log)

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def gone(self) -> bool:
        return not Path(f"/proc/{self._pid}").exists()

    def ask(self, call: str) -> dict[str, Any]:
        """What it answers; nothing while it doesn't."""
        try:
            with Client(self.folder / "control.sock") as client:
                return client.call(call)
        except (VouchError, OSError):
            return {}

    def peers(self) -> set[str]:
        return {row["peer"] for row in self.ask("peers").get("peers", [])}

    @property
    def _log(self) -> Path:
        return self.folder / f"log{self.lives}"

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of that event in this life's log."""
        lines = self._log.read_text().splitlines()
        return [row for line in lines if line.startswith("{") and (row := json.loads(line))["event"] == name]

    def started(self) -> float:
        """When it said that it had."""
        return datetime.fromisoformat(self.events("started")[0]["timestamp"]).timestamp()


def until(condition: Callable[[], bool], timeout: float, what: Callable[[], str]) -> float:
    """Waits; for how many seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout, f"not within {timeout:g} s: {what()}"
        time.sleep(LOOK)
    return time.monotonic() - began


@contextmanager
def starting(how: str) -> Iterator[Starter]:
    starter = Starter(how)
    try:
        yield starter
    finally:
        starter.close()


def restart(folder: Path, starter: Starter, count: int, killed: int, target: int) -> dict[str, float]:
    """A bootstrap and `count` nodes, of which so many are killed when each has `target` peers beside the bootstrap."""
    ports: list[int] = []
    while len(ports) <= count:
        ports.append(free_port(ports))
    first = Running(starter, folder / "bootstrap", ports[0], target)
    until(lambda: bool(first.ask("status").get("addrs")), FORMED, lambda: "the bootstrap listens")
    address = first.ask("status")["addrs"][0]
    bootstrap = address.rpartition("/")[2]
    nodes = [Running(starter, folder / f"node{n}", ports[n + 1], target, address) for n in range(count)]
    short = set(nodes)

    def formed() -> bool:
        short.difference_update([node for node in short if len(node.peers() - {bootstrap}) >= target])
        return not short

    forming = until(formed, FORMED, lambda: f"{target} peers beside the bootstrap; {len(short)} nodes have fewer")
    time.sleep(1.0)  # the book writes what it learned within a quarter of that
    chosen = nodes[:killed]
    for node in (first, *chosen):
        node.kill()
    until(lambda: all(node.gone() for node in (first, *chosen)), FORMED, lambda: "the killed are gone")
    for node in chosen:
        node.start()
    back: dict[Running, float] = {}

    def all_back() -> bool:
        for node in chosen:
            if node not in back and len(node.peers()) >= target:
                back[node] = time.time()
        return len(back) == len(chosen)

    until(all_back, FORMED, lambda: f"only {len(back)} of {killed} are back")
    dialled = [node.events("bootstrap_unreachable") for node in chosen]
    return {
        "formed_s": forming,
        "back_since_started_s": max(at - node.started() for node, at in back.items()),
        "back_since_exec_s": max(at - node.began for node, at in back.items()),
        "through_the_bootstrap": sum(bootstrap in node.peers() for node in chosen) + sum(map(len, dialled)),
    }


@pytest.mark.parametrize(
    ("how", "count", "killed", "target"),
    [
        pytest.param("fork", 6, 3, 3, marks=pytest.mark.bar_quick, id="quick"),
        pytest.param("exec", 19, 10, 8, marks=pytest.mark.bar, id="full"),
    ],
)
def test_bar_restart(tmp_path: Path, how: str, count: int, killed: int, target: int) -> None:
    with starting(how) as starter:
        result = restart(tmp_path, starter, count, killed, target)
    print("\nrestart:", {name: round(value, 2) for name, value in result.items()})
    assert result["back_since_exec_s" if how == "fork" else "back_since_started_s"] <= WITHIN, result
    assert result["through_the_bootstrap"] == 0, result
