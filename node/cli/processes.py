"""Nodes in processes of their own, for commands that need some: `vouch demo`, `vouch measure`.

Each is a `vouch run` on loopback with a data directory of its own, all of one network that nobody else is in. They are
asked over their control sockets, and ended by their process IDs, whatever happens.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from node.api.client import TIMEOUT, Client
from node.errors import VouchError

ANSWER_TIMEOUT = 2.0
STOP_TIMEOUT = 5.0
LOG_LINES = 10
LOG_TAIL = 8192

NODE_COMMAND = (sys.executable, "-m", "node", "run")
# the folder that holds our packages, so that the module is ours whatever lies in the user's working directory
PACKAGES = Path(__file__).parents[2]


class EndedError(VouchError):
    """A node's process has ended by itself; `log` holds its last lines."""

    def __init__(self, number: int, status: int, log: str) -> None:
        super().__init__(f"node {number} ended unexpectedly, with exit status {status}; its last log lines are above")
        self.log = log


class Nodes:
    """The node processes, by number, in one temporary folder; at most `most` of them."""

    def __init__(self, folder: Path, most: int) -> None:
        self.folder = folder
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.addrs: dict[int, str] = {}  # of those that have answered
        self._most = most
        # nobody else's network, even if other nodes listen on this machine
        self._network_id = f"vouch-{os.getpid()}-{secrets.token_hex(4)}"
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith("VOUCH_")}

    def start(self, number: int, *flags: str) -> None:
        """Starts one, with more flags if need be."""
        settings = {
            "--listen": "/ip4/127.0.0.1/tcp/0",
            "--data-dir": str(self._data_dir(number)),
            "--network-id": self._network_id,
            "--log-format": "json",
            "--api": "off",
            # to each of them, all others come from one IP address
            "--max-half-open-per-ip": str(2 * self._most),
            "--max-connections-per-ip": str(2 * self._most),
        }
        with self._log(number).open("wb") as log:
            self.processes[number] = subprocess.Popen(
                [*NODE_COMMAND, *(text for pair in settings.items() for text in pair), *flags],
                cwd=PACKAGES,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the terminal's Ctrl-C is for us, who then stop them
            )

    def status(self, number: int) -> dict[str, Any] | None:
        """What the node tells of itself, None while it can't. Raises EndedError if its process is gone."""
        self.check(number)
        try:
            with self.client(number, ANSWER_TIMEOUT) as client:
                answer = client.call("status")
        except VouchError:
            return None  # it is still starting, or the machine is busy: it is asked again
        if not answer["addrs"]:
            return None  # its socket answers already, its listeners are still to come
        self.addrs[number] = answer["addrs"][0]
        return answer

    def check(self, number: int) -> None:
        """Raises EndedError if the node's process is gone."""
        status = self.processes[number].poll()
        if status is not None:
            raise EndedError(number, status, self._last_lines(number))

    def client(self, number: int, timeout: float = TIMEOUT) -> Client:
        """A client of the node, which gets `timeout` seconds for each answer. Raises NoNodeError if it doesn't run."""
        return Client(self._data_dir(number) / "control.sock", timeout=timeout)

    def stop(self) -> None:
        """Ends them all, by force after STOP_TIMEOUT."""
        for process in self.processes.values():
            process.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT
        for process in self.processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _data_dir(self, number: int) -> Path:
        return self.folder / f"node-{number}"

    def _log(self, number: int) -> Path:
        return self.folder / f"node-{number}.log"

    def _last_lines(self, number: int) -> str:
        lines = self._log(number).read_bytes()[-LOG_TAIL:].decode(errors="replace").splitlines()
        return "\n".join(f"node {number}: {line}" for line in lines[-LOG_LINES:])


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Collects the signals that should end us, so that none cuts off the cleaning up. Those ignored stay ignored."""
    noted: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    heard = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in heard:
        signal.signal(number, lambda number, _frame: noted.append(number))
    try:
        yield noted
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler or signal.SIG_DFL)


def raise_noted(noted: Sequence[int]) -> None:
    """Raises what the first of those signals stands for, if there was one."""
    if noted:
        raise KeyboardInterrupt if noted[0] == signal.SIGINT else SystemExit(128 + noted[0])
