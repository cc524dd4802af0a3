"""`vouch tracker` as a process, killed and started again, and `vouch rendezvous` beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from node.cli import main
from node.identity import Identity
from tests.nodes import eventually, running

ROOT = Path(__file__).parents[2]
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
NETWORK = "tracker-tests"


class Tracker:
    """The process; `addr` is its first."""

    def __init__(self, folder: Path, *flags: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VOUCH_")}
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "node", "tracker", "--json", "--listen", LOOPBACK),
                *("--network-id", NETWORK, "--data-dir", str(folder), "--dht", "off", *flags),
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.addr = self.event("listening")["addr"]

    def event(self, kind: str):
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] == kind:
                return event
        raise AssertionError(f"expected an event {kind!r} of the tracker, got its end")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    for variable in [name for name in os.environ if name.startswith("VOUCH_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))


def printed(capsys, *command: str):
    assert main(list(command)) == 0
    return capsys.readouterr().out


def test_a_killed_tracker_still_has_its_list(tmp_path, capsys):
    folder = tmp_path / "tracker"
    identity = Identity.generate()

    async def register(addr: str) -> None:
        async with running(identity=identity, network_id=NETWORK, rendezvous=(addr,), gossip="off") as node:
            await eventually(lambda: node.rendezvous.registered)

    with Tracker(folder) as tracker:
        trio.run(register, tracker.addr)
        event = tracker.event("registered")
        assert event["peer"] == identity.peer_id
        assert event["namespace"] == f"vouch/{NETWORK}"
        assert 7190 < event["ttl"] <= 7200
        peer_id = tracker.addr.rpartition("/")[2]
    assert tracker.process.returncode == -9
    with Tracker(folder) as tracker:
        assert tracker.addr.endswith(peer_id)
        listed = json.loads(printed(capsys, "rendezvous", "list", "--data-dir", str(folder), "--json"))
        assert [row["peer"] for row in listed["registrations"]] == [identity.peer_id]
        assert listed["total"] == 1
        assert identity.peer_id in printed(capsys, "rendezvous", "list", "--data-dir", str(folder))
        alone = ("--data-dir", str(tmp_path / "none"), "--network-id", NETWORK)
        found = json.loads(printed(capsys, "rendezvous", "discover", tracker.addr, "--json", *alone))
        (row,) = found["registrations"]
        assert row["peer"] == identity.peer_id
        assert row["addrs"][0].endswith(f"/p2p/{identity.peer_id}")
        elsewhere = (tracker.addr, "--namespace", "elsewhere", "--data-dir", str(folder))
        assert main(["rendezvous", "discover", *elsewhere]) == 1  # a node that asks itself
        capsys.readouterr()
        nobody = printed(capsys, "rendezvous", "discover", tracker.addr, "--namespace", "elsewhere", *alone)
        assert nobody == "nobody is registered there\n"


def test_a_list_needs_a_running_point(capsys, tmp_path):
    assert main(["rendezvous", "list", "--data-dir", str(tmp_path)]) != 0
    assert "no node is running" in capsys.readouterr().err
