"""`vouch doctor`: its rules, one by one; and the command, where something is wrong."""

from __future__ import annotations

import errno
import json
import os
import socket
from contextlib import contextmanager

import pytest

from node.cli import checkup, main
from node.cli import doctor as doctor_module
from node.cli.checkup import Finding
from node.errors import DialError, RefusedError
from node.identity import Identity, write_key
from tests.node.test_cli_run import LOOPBACK, Running, ask

GIB = 1 << 30


def state(finding):
    assert bool(finding.todo) == (finding.state != "ok"), finding
    return finding.state


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, "ok"),
        ({"exists": False}, "ok"),
        ({"writable": False}, "fail"),
        ({"exists": False, "writable": False}, "fail"),
        ({"file_system": "nfs4"}, "fail"),
        ({"mode": 0o770}, "warn"),
        ({"exists": False, "mode": 0o777}, "ok"),
        ({"file_system": ""}, "ok"),
    ],
)
def test_the_data_folder(facts, expected):
    given = {"exists": True, "writable": True, "mode": 0o700, "file_system": "ext4", **facts}
    assert state(checkup.data_dir("/d", **given)) == expected


@pytest.mark.parametrize(
    ("error", "warning", "expected"), [("", "", "ok"), ("", "others can read it", "warn"), ("no key", "", "fail")]
)
def test_the_key(error, warning, expected):
    assert state(checkup.key("/k", exists=True, error=error, warning=warning)) == expected


@pytest.mark.parametrize(("free", "expected"), [(5 * GIB, "ok"), (GIB - 1, "warn"), ((64 << 20) - 1, "fail")])
def test_the_disk(free, expected):
    assert state(checkup.disk("/d", free)) == expected


@pytest.mark.parametrize(
    ("soft", "hard", "expected", "says"),
    [
        (-1, -1, "ok", "no limit"),
        (592, 592, "ok", "may need 592"),
        (591, 4096, "warn", "may need 592"),
        (300, 300, "fail", "may need 592"),
    ],
)
def test_open_files(soft, hard, expected, says):
    finding = checkup.open_files(soft, hard, 256, 208)
    assert state(finding) == expected
    assert says in finding.detail
    assert ("ulimit" in finding.todo) == (expected != "ok" and hard >= 592)


@pytest.mark.parametrize(
    ("error", "facts", "expected", "says"),
    [
        (None, {}, "ok", "free"),
        (errno.EADDRINUSE, {}, "fail", "by process 7 (x)"),
        (errno.EADDRINUSE, {"ours": True}, "ok", "by the node that runs here"),
        (errno.EADDRINUSE, {"spare": True}, "warn", "by process 7 (x)"),
        (errno.EACCES, {}, "fail", "Permission denied"),
        (errno.EACCES, {"spare": True}, "fail", "Permission denied"),
        (errno.EADDRNOTAVAIL, {}, "fail", "assign"),
    ],
)
def test_listening(error, facts, expected, says):
    failed = None if error is None else OSError(error, os.strerror(error))
    finding = checkup.listening("a", failed, "process 7 (x)", **{"ours": False, **facts})
    assert state(finding) == expected
    assert says in finding.detail


@pytest.mark.parametrize(
    ("sizes", "expected"), [((0, 0), "ok"), ((4 << 20, 4 << 20), "ok"), ((4 << 20, 212992), "warn")]
)
def test_udp_buffers(sizes, expected):
    assert state(checkup.udp_buffers(*sizes)) == expected


@pytest.mark.parametrize(
    ("year", "jump", "expected"),
    [(2026, 0.0, "ok"), (1970, 0.0, "fail"), (2200, 0.0, "fail"), (2026, -0.2, "warn"), (2026, 0.2, "warn")],
)
def test_the_clock(year, jump, expected):
    assert state(checkup.clock(year, jump, 30.0)) == expected


def test_the_clock_says_what_it_cannot_know():
    assert "whether it is right can't be told from here" in checkup.clock(2026, 0.0, 30.0).detail


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RefusedError("x: the peer closed the connection", "closed_by_peer"), "network_id"),
        (RefusedError("x: expected another", "network_id"), "network_id"),
        (RefusedError("x: expected version 2, got 1", "client_version"), "one side is too old"),
        (DialError("x: Connection refused"), "check the address"),
        (DialError("/dns4/banned.network.another.version: no such name"), "check the address"),
    ],
)
def test_a_bootstrap_that_fails(error, says):
    finding = checkup.bootstrap("/a", error, 0.0)
    assert state(finding) == "fail"
    assert says in finding.todo


def test_one_bootstrap_is_enough():
    good, bad = checkup.bootstrap("a", None, 0.1), checkup.bootstrap("b", DialError("x"), 0.0)
    assert [one.state for one in checkup.bootstraps([good, bad], 2)] == ["ok", "warn"]
    assert [one.state for one in checkup.bootstraps([bad, bad], 2)] == ["fail", "fail"]
    assert [one.state for one in checkup.bootstraps([], 0)] == ["ok"]


def test_a_running_node():
    assert state(checkup.running("12D3", 3, "", "")) == "ok"
    assert state(checkup.running("", 0, "", "")) == "ok"
    assert state(checkup.running("", 0, "no answer", "77")) == "fail"


def test_the_exit_status():
    assert checkup.status_of([Finding("a", "ok", ""), Finding("b", "warn", "", "x")]) == 0
    assert checkup.status_of([Finding("a", "ok", ""), Finding("b", "fail", "", "x")]) == 1


# the command


@pytest.fixture
def doctor(capsys, monkeypatch, tmp_path):
    """Runs it; its exit status, and the findings by name."""
    for variable in [name for name in os.environ if name.startswith("VOUCH_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("node.cli.doctor.WATCH", 0.0)

    def run(*flags):
        status = main(["doctor", "--json", "--api", "127.0.0.1:0", *map(str, flags)])
        answer = json.loads(capsys.readouterr().out)
        assert answer["ok"] == (status == 0)
        return status, {finding["name"]: finding for finding in answer["findings"]}

    return run


def test_nothing_is_wrong_and_nothing_is_made(doctor, tmp_path):
    status, findings = doctor("--data-dir", tmp_path / "none", "--listen", LOOPBACK)
    assert status == 0
    assert findings["bootstrap"]["detail"] == "none is named: others come to this node"
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_is_said_with_what_to_do(doctor, tmp_path):
    write_key(tmp_path / "node.key", Identity.generate())
    (tmp_path / "node.key").chmod(0o644)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        nobody = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"
        listen = f"/ip4/127.0.0.1/tcp/{port}"
        status, findings = doctor("--data-dir", tmp_path, "--listen", listen, "--bootstrap", nobody)
    assert status == 1
    assert findings["key"]["state"] == "warn"
    assert findings["key"]["todo"].startswith("chmod 0600 ")
    assert findings[f"listen {listen}"]["state"] == "fail"
    assert f"process {os.getpid()} " in findings[f"listen {listen}"]["detail"]
    assert findings[f"bootstrap {nobody}"]["state"] == "fail"


def test_text_for_people(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "node.key").write_text("no key")
    assert main(["doctor", "--offline", "--data-dir", str(tmp_path), "--api", "off"]) == 1
    out = capsys.readouterr().out
    assert "\nFAIL  key: key file " in out
    assert "\n      -> `vouch key generate --out FILE` makes one" in out
    assert "no key" not in out  # almost a secret


@pytest.fixture
def another_user():
    """Files of this process's user, without rights for others, are closed to it then."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else for a while")

    @contextmanager
    def as_nobody():
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return as_nobody


def test_a_folder_of_another_user(doctor, another_user, tmp_path, capsys):
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    (theirs / "node.key").touch()
    commands = (["status"], ["addressbook", "list"])
    doctor("--offline", "--data-dir", theirs)  # imports what it needs
    for command in commands:
        main([*command, "--data-dir", str(theirs)])
    with another_user():
        for folder in (theirs, theirs / "deeper"):
            capsys.readouterr()
            status, findings = doctor("--offline", "--data-dir", folder)
            assert status == 1
            assert "Permission denied" in findings["key"]["detail"]
            assert findings["running node"]["todo"] == "ask as the user of the node"
            for command in commands:
                assert main([*command, "--data-dir", str(folder)]) == 2
                assert "can't open the control socket" in capsys.readouterr().err


def test_with_running_nodes(doctor, tmp_path):
    flags = ("--network-id", "doctor", "--listen", LOOPBACK, "--dht", "off", "--api", "off", "--log-format", "json")
    with Running(*flags, "--data-dir", tmp_path / "node") as running:
        running.logged("started")
        addr = ask(tmp_path / "node", "status")["addrs"][0]
        ours = addr.partition("/p2p/")[0]
        status, findings = doctor("--data-dir", tmp_path / "node", "--listen", ours, "--network-id", "doctor")
        assert status == 0
        assert findings[f"listen {ours}"]["detail"] == "in use by the node that runs here"
        given = ("--data-dir", tmp_path / "none", "--listen", LOOPBACK, "--bootstrap", addr)
        status, findings = doctor("--network-id", "doctor", *given)
        assert (status, findings[f"bootstrap {addr}"]["state"]) == (0, "ok")
        status, findings = doctor("--network-id", "another", *given)
        assert (status, findings[f"bootstrap {addr}"]["state"]) == (1, "fail")
        assert "network_id" in findings[f"bootstrap {addr}"]["todo"]
        running.stop()


@pytest.mark.parametrize("addr", ["/ip4/127.0.0.1", "/dns4/harbour.example/tcp"])
def test_an_address_without_a_port(addr):
    finding = doctor_module._listening(addr, ours=False)
    assert (finding.state, finding.detail) == ("fail", "expected a port")
