"""Restart: real processes on loopback. The bootstrap is killed, half of the others are killed with -9 and begin again:
each comes back to its target by its address book alone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from node.api.client import Client, NoNodeError
from node.errors import VouchError

ROOT = Path(__file__).parents[2]
# from the first answer of its control socket: the interpreter's start isn't the pool's, and is printed beside it
WITHIN = 15.0
FORMED = 180.0


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Process:
    """`vouch run` on a fixed port and data directory."""

    def __init__(self, folder: Path, port: int, target: int, bootstrap: str = "") -> None:
        self.folder = folder
        folder.mkdir()
        self.bootstrap = bootstrap
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
            "log-level": "debug",
        } | ({"bootstrap": bootstrap} if bootstrap else {})
        self.flags = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        self.start()

    def start(self) -> None:
        self.began = time.monotonic()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "node", "run", *self.flags],
                cwd=ROOT,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ask(self, call: str) -> dict:  # type: ignore[type-arg]
        try:
            with Client(self.folder / "control.sock") as client:
                return client.call(call)
        except (NoNodeError, VouchError, OSError):
            return {}

    def peers(self) -> list[dict]:  # type: ignore[type-arg]
        return self.ask("peers").get("peers", [])

    def log(self) -> str:
        return (self.folder / "log").read_text()


def until(condition: Callable[[], bool], timeout: float, what: str) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout, f"{what}: not within {timeout:g} s"
        time.sleep(0.1)
    return time.monotonic() - began


def restart(folder: Path, count: int, killed: int, target: int) -> dict[str, float]:
    ports = free_ports(count + 1)
    processes: list[Process] = []
    try:
        processes.append(Process(folder / "bootstrap", ports[0], target))
        until(lambda: bool(processes[0].ask("status")), FORMED, "the bootstrap's start")
        bootstrap = processes[0].ask("status")["addrs"][0]
        bootstrap_id = bootstrap.rpartition("/")[2]
        nodes = [Process(folder / f"node{n}", ports[n + 1], target, bootstrap) for n in range(count)]
        processes += nodes
        formed = until(
            lambda: all(sum(row["peer"] != bootstrap_id for row in node.peers()) >= target for node in nodes),
            FORMED,
            f"{count} nodes at {target} peers beside the bootstrap",
        )
        time.sleep(1.0)  # the book writes what it learned within a quarter of that
        processes[0].kill()
        chosen = nodes[:killed]
        for node in chosen:
            node.kill()
        for node in chosen:
            node.start()
        answered: dict[int, float] = {}
        back: dict[int, float] = {}
        deadline = time.monotonic() + FORMED
        while len(back) < killed:
            assert time.monotonic() < deadline, f"{len(back)} of {killed} are back: {chosen[0].log()[-2000:]}"
            for number, node in enumerate(chosen):
                if number not in back:
                    rows = node.ask("peers")
                    if rows:
                        answered.setdefault(number, time.monotonic())
                        if len(rows["peers"]) >= target:
                            back[number] = time.monotonic()
            time.sleep(0.05)
        through = sum(row["peer"] == bootstrap_id for node in chosen for row in node.peers())
        return {
            "formed_s": formed,
            "back_s": max(back[n] - answered[n] for n in back),
            "back_with_start_s": max(back[n] - chosen[n].began for n in back),
            "through_the_bootstrap": through,
        }
    finally:
        for process in processes:
            if process.process.poll() is None:
                process.kill()


def check(result: dict[str, float]) -> None:
    print({name: round(value, 2) for name, value in result.items()})
    assert result["back_s"] <= WITHIN, result
    assert result["through_the_bootstrap"] == 0, result


@pytest.mark.bar_quick
def test_bar_restart_quick(tmp_path: Path) -> None:
    check(restart(tmp_path, 5, 2, 3))


@pytest.mark.bar
def test_bar_restart(tmp_path: Path) -> None:
    check(restart(tmp_path, 19, 10, 8))
