"""What `vouch run` tells systemd, and the unit that starts it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from node.cli.notify import Notify
from tests import required
from tests.node.test_cli_run import LOOPBACK, ROOT, Running

UNIT = ROOT / "packaging/systemd/vouch.service"


@pytest.fixture
def systemd(tmp_path):
    """The other end: its socket, and its name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(60)
        yield bound, str(tmp_path / "notify")


def test_nobody_to_tell():
    Notify({}).send("READY=1")
    Notify({"NOTIFY_SOCKET": "/nowhere/at/all"}).send("READY=1")


def test_an_abstract_socket():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        name = f"vouch-tests-{os.getpid()}"
        bound.bind(f"\0{name}")
        Notify({"NOTIFY_SOCKET": f"@{name}"}).send("READY=1")
        assert bound.recv(64) == b"READY=1"


@pytest.mark.parametrize(
    ("environ", "pause"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_how_often(environ, pause):
    assert Notify({"NOTIFY_SOCKET": "@x", **environ}).pause == pause
    assert Notify(environ).pause is None


async def test_the_watchdog(systemd, autojump_clock):
    bound, name = systemd
    notify = Notify({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "10000000"})
    with trio.move_on_after(11):
        await notify.watchdog()
    assert [bound.recv(64) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    bound.setblocking(False)
    with pytest.raises(BlockingIOError):
        bound.recv(64)


def test_a_node_tells_of_its_life(systemd, tmp_path):
    bound, name = systemd
    flags = ("--listen", LOOPBACK, "--data-dir", tmp_path / "node", "--dht", "off", "--api", "off")
    with Running(*flags, NOTIFY_SOCKET=name, WATCHDOG_USEC="60000000") as running:
        told = [bound.recv(64)]
        while told[-1] != b"READY=1":
            told.append(bound.recv(64))
        assert set(told[:-1]) <= {b"WATCHDOG=1"}
        running.stop()
        told = [bound.recv(64)]
        while told[-1] != b"STOPPING=1":
            told.append(bound.recv(64))
    assert set(told[:-1]) <= {b"WATCHDOG=1"}


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    required.program("systemd-analyze", why="the unit is given to systemd itself")
    # its program is where an installation has it, which is not here
    text = UNIT.read_text()
    assert "ExecStart=/opt/vouch/bin/vouch run\n" in text
    made = tmp_path / "vouch.service"
    made.write_text(text.replace("/opt/vouch/bin/vouch", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(made)], capture_output=True, text=True, timeout=60)
    ours = [line for line in done.stderr.splitlines() if Path(made).name in line]
    assert (ours, done.returncode) == ([], 0)
