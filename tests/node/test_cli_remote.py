"""Commands that ask the running node, and those that can do without one."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.cli import main
from node.cli.happenings import line
from node.identity import Identity
from tests.node.test_cli_run import LOOPBACK, ROOT, Running, ask, client_of

NETWORK = "remote-tests"
STRANGER = Identity.generate().peer_id
RTT = r"[0-9]+ µs"


@dataclass
class Peer:
    """A node in a process of its own."""

    data_dir: Path
    peer_id: str
    addr: str


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    """Two nodes that don't know each other: the one whose commands are tested, and one to talk with."""
    folder = tmp_path_factory.mktemp("remote")
    alone = ("--pool", "off", "--dht", "off", "--exchange", "off")  # neither dials the other by itself
    flags = ("--network-id", NETWORK, "--listen", LOOPBACK, *alone, "--log-format", "json", "--data-dir")
    more = ("--perf", "on", "--topic", "relayed")
    with Running(*flags, folder / "ours") as ours, Running(*flags, folder / "theirs", *more) as theirs:
        found = []
        for name, running in (("ours", ours), ("theirs", theirs)):
            running.logged("is_bootstrap")
            status = ask(folder / name, "status")
            found.append(Peer(folder / name, status["peer_id"], status["addrs"][0]))
        yield found
        for running in (ours, theirs):
            running.stop()


@pytest.fixture
def ours(peers):
    """The running node, connected with nobody."""
    with client_of(peers[0].data_dir) as client:
        for peer in client.call("peers")["peers"]:
            client.call("disconnect", peer=peer["peer"])
    return peers[0]


@pytest.fixture
def theirs(peers):
    return peers[1]


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    for variable in [name for name in os.environ if name.startswith("VOUCH_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)


@pytest.fixture
def vouch(capsys):
    """Runs a command; its exit status, what it wrote to stdout and what to stderr."""

    def run(*argv):
        status = main([str(text) for text in argv])
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def nobody():
    """An address where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: refuses, and is nobody else's
        yield f"/ip4/127.0.0.1/tcp/{bound.getsockname()[1]}/p2p/{STRANGER}"


def at(peer):
    return ("--data-dir", peer.data_dir)


def one_error(result, text):
    """Checks exit status 1 with one line on stderr that matches, and nothing on stdout."""
    status, out, err = result
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"vouch: error: {text}\n", err), err


# status


def test_status(vouch, ours):
    status, out, err = vouch("status", *at(ours))
    assert (status, err) == (0, "")
    rows = dict(re.split(r"  +| (?=[0-9/])", line, maxsplit=1) for line in out.splitlines())
    assert rows["peer ID"] == ours.peer_id
    assert rows["network"] == NETWORK
    assert rows["version"].startswith("vouch/")
    assert re.fullmatch(r"[0-9]+ s", rows["up for"])
    assert rows["peers"] == "0 (0 inbound, 0 outbound)"
    assert rows["listens on"] == ours.addr
    assert rows["max_connections"] == "0 of 256"


def test_status_as_json(vouch, ours):
    status, out, err = vouch("status", "--json", *at(ours))
    assert (status, err) == (0, "")
    assert out.count("\n") == 1
    answer = json.loads(out)
    assert answer["peer_id"] == ours.peer_id
    assert answer["addrs"] == [ours.addr]
    assert answer["network_id"] == NETWORK


def test_the_data_directory_may_come_from_the_environment(vouch, monkeypatch, ours):
    monkeypatch.setenv("VOUCH_DATA_DIR", str(ours.data_dir))
    status, out, _ = vouch("status", "--json")
    assert status == 0
    assert json.loads(out)["peer_id"] == ours.peer_id


# peers, connect


def test_connect_and_peers(vouch, ours, theirs):
    assert vouch("peers", *at(ours)) == (0, "no peers are connected\n", "")

    status, out, err = vouch("connect", theirs.addr, *at(ours))
    assert (status, err) == (0, "")
    assert re.fullmatch(rf"connected with {theirs.peer_id} in [0-9]+\.[0-9] ms\n", out)
    again = f"{theirs.peer_id} is connected already (outbound, {theirs.addr})\n"
    assert vouch("connect", theirs.addr, *at(ours)) == (0, again, "")

    status, out, err = vouch("peers", *at(ours))
    assert (status, err) == (0, "")
    assert re.fullmatch(rf"{theirs.peer_id}  outbound  vouch/\S+ +[0-9]+ s +(?:-|[0-9.]+ ms)  {theirs.addr}\n", out)
    _, out, _ = vouch("status", *at(ours))
    assert re.search(r"^peers +1 \(0 inbound, 1 outbound\)$", out, re.MULTILINE)


def test_connect_and_peers_as_json(vouch, ours, theirs):
    assert vouch("peers", "--json", *at(ours)) == (0, '{"peers": []}\n', "")

    status, out, err = vouch("connect", "--json", theirs.addr, *at(ours))
    assert (status, err) == (0, "")
    answer = json.loads(out)
    assert answer.pop("seconds") > 0
    assert answer == {"peer": theirs.peer_id, "addr": theirs.addr, "direction": "outbound", "already": False}

    status, out, err = vouch("peers", "--json", *at(ours))
    assert (status, err) == (0, "")
    (peer,) = json.loads(out)["peers"]
    assert (peer["peer"], peer["direction"], peer["addr"]) == (theirs.peer_id, "outbound", theirs.addr)


def test_connect_where_nobody_listens(vouch, ours, nobody):
    one_error(vouch("connect", nobody, *at(ours)), rf"{STRANGER} can't be reached: .+")


def test_connect_with_something_else_than_an_address(vouch, ours):
    status, out, err = vouch("connect", "theirs", *at(ours))
    assert (status, out) == (2, "")
    assert err.startswith("vouch: error: expected an address such as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…, got ")
    assert err.count("\n") == 1


# ping


def test_ping_by_address_and_by_peer_id(vouch, ours, theirs):
    for target in (theirs.addr, theirs.peer_id):
        status, out, err = vouch("ping", target, "--count", "3", "--interval", "0.01", *at(ours))
        assert (status, err) == (0, "")
        assert re.fullmatch(
            rf"1: {RTT}\n2: {RTT}\n3: {RTT}\n3 answered, 0 lost; min/avg/p99/max [0-9]+/[0-9]+/[0-9]+/{RTT}\n", out
        )


def test_ping_as_json(vouch, ours, theirs):
    status, out, err = vouch("ping", theirs.addr, "--json", "--count", "2", "--interval", "0.01", *at(ours))
    assert (status, err) == (0, "")
    answer = json.loads(out)
    assert (answer["peer"], answer["lost"], answer["error"]) == (theirs.peer_id, 0, "")
    assert len(answer["rtts"]) == 2
    assert all(rtt > 0 for rtt in answer["rtts"])
    assert answer["loss"] == 0
    assert 0 < answer["min"] <= answer["avg"] <= answer["p99"] == answer["max"]


def test_ping_of_a_peer_that_is_not_connected(vouch, ours):
    text = rf"there is no connection to {STRANGER}: give its address, or `vouch connect` first"
    one_error(vouch("ping", STRANGER, *at(ours)), text)
    one_error(vouch("ping", "--json", STRANGER, *at(ours)), text)


def test_a_peer_that_does_not_answer_in_time(vouch, ours, theirs):
    assert vouch("connect", theirs.addr, *at(ours))[0] == 0
    process = int((theirs.data_dir / "lock").read_text())
    os.kill(process, signal.SIGSTOP)
    try:
        flags = ("--count", "2", "--interval", "0.01", "--timeout", "0.3")
        status, out, err = vouch("ping", theirs.peer_id, *flags, *at(ours))
    finally:
        os.kill(process, signal.SIGCONT)
    lost = "expected an answer within 0.3 s, got none"
    assert (status, out, err) == (1, f"1: {lost}\n2: {lost}\n0 answered, 2 lost (100%)\n", "")
    assert vouch("ping", theirs.peer_id, "--count", "1", *at(ours))[0] == 0


# perf


def test_perf_with_a_peer_that_serves_it(vouch, ours, theirs):
    given = ("--upload", "300K", "--download", "1M")
    status, out, err = vouch("perf", theirs.addr, *given, *at(ours))
    assert (status, err) == (0, "")
    line = r"[0-9.]+ [KMG]iB/s  \({} in [0-9.]+ s\)\n"
    assert re.fullmatch(f"upload    {line.format('300.0 KiB')}download  {line.format('1.0 MiB')}", out), out
    status, out, err = vouch("perf", theirs.peer_id, *given, "--streams", "2", "--json", *at(ours))
    assert (status, err) == (0, "")
    answer = json.loads(out)
    assert (answer["upload"], answer["download"], answer["peer"]) == (600 << 10, 2 << 20, theirs.peer_id)
    assert answer["upload_speed"] == pytest.approx(answer["upload"] / answer["upload_seconds"])


def test_perf_with_a_peer_that_does_not_serve_it(vouch, ours, theirs):
    one_error(vouch("perf", ours.addr, "--network-id", NETWORK, *at(theirs)), rf".*{ours.peer_id}.*/perf/1\.0\.0.*")


@pytest.mark.parametrize("flags", [("--streams", "9"), ("--streams", "0"), ("--upload", "5G")])
def test_perf_has_bounds(vouch, ours, theirs, flags):
    status, out, err = vouch("perf", theirs.addr, *flags, *at(ours))
    assert (status, out) == (2, "")
    assert err.startswith(f"vouch: error: {flags[0].strip('-')}: expected ")


def test_without_a_node_perf_starts_one_for_the_occasion(vouch, theirs, tmp_path):
    given = ("--network-id", NETWORK, "--data-dir", tmp_path / "none", "--upload", "0", "--download", "64K")
    status, out, err = vouch("perf", theirs.addr, *given)
    assert (status, err) == (0, "")
    assert re.fullmatch(r"download  [0-9.]+ [KMG]iB/s  \(64\.0 KiB in [0-9.]+ s\)\n", out)
    assert list(tmp_path.iterdir()) == []


# disconnect, bans


def test_disconnect(vouch, ours, theirs):
    assert vouch("connect", theirs.addr, *at(ours))[0] == 0
    assert vouch("disconnect", theirs.peer_id, *at(ours)) == (0, f"disconnected {theirs.peer_id}\n", "")
    assert vouch("peers", *at(ours))[1] == "no peers are connected\n"
    one_error(vouch("disconnect", theirs.peer_id, *at(ours)), rf".*{theirs.peer_id}.*")


def tags(vouch, ours, theirs):
    """A peer's tags in the address book; none for one that isn't known."""
    known = json.loads(vouch("addressbook", "list", "--json", *at(ours))[1])["peers"]
    return [tag for peer in known if peer["peer"] == theirs.peer_id for tag in peer.get("tags", ())]


def test_peers_are_added_protected_and_removed(vouch, ours, theirs):
    assert vouch("addressbook", "add", theirs.addr, "--static", *at(ours)) == (
        0,
        f"added {theirs.addr}, to be kept connected\n",
        "",
    )
    assert theirs.peer_id in vouch("addressbook", "list", *at(ours))[1]
    status, out, err = vouch("protect", theirs.peer_id, "--tag", "mine", *at(ours))
    assert (status, out, err) == (0, f"{theirs.peer_id} is protected (mine)\n", "")
    assert {"static", "protected"} <= set(tags(vouch, ours, theirs))
    assert vouch("unprotect", theirs.peer_id, "--tag", "mine", *at(ours))[0] == 0
    assert vouch("addressbook", "remove", theirs.peer_id, *at(ours)) == (0, f"removed {theirs.peer_id}\n", "")
    assert "static" not in tags(vouch, ours, theirs)  # it may be known again already: it may dial us
    status, out, err = vouch("addressbook", "add", "/ip4/192.0.2.7/tcp/1", *at(ours))
    assert (status, out) == (2, "")
    assert "/p2p/" in err


def test_bans(vouch, ours, theirs):
    assert vouch("bans", *at(ours)) == (0, "nobody is banned\n", "")
    assert vouch("connect", theirs.addr, *at(ours))[0] == 0
    status, out, err = vouch("ban", theirs.peer_id, "--reason", "it floods", "--for", "3600", *at(ours))
    assert (status, out, err) == (0, f"banned {theirs.peer_id} for 60 min\n", "")
    assert vouch("peers", *at(ours))[1] == "no peers are connected\n"
    one_error(vouch("connect", theirs.addr, *at(ours)), ".*it floods.*")
    assert vouch("ban", "--json", "192.0.2.0/24", *at(ours)) == (0, "{}\n", "")
    status, out, _ = vouch("bans", *at(ours))
    assert [re.split("  +", line) for line in out.splitlines()] == [
        [theirs.peer_id, "60 min left", "it floods"],
        ["192.0.2.0/24", "for ever", "by the operator"],
    ] or [re.split("  +", line)[0] for line in out.splitlines()] == ["192.0.2.0/24", theirs.peer_id]
    rows = json.loads(vouch("bans", "--json", *at(ours))[1])["bans"]
    assert {row["target"]: row["reason"] for row in rows}[theirs.peer_id] == "it floods"
    for target in (theirs.peer_id, "192.0.2.0/24"):
        assert vouch("unban", target, *at(ours)) == (0, f"{target} is banned no more\n", "")
    status, out, err = vouch("unban", theirs.peer_id, *at(ours))
    assert (status, out) == (2, "")
    assert "isn't banned" in err


# topics, log level, health


def test_topics(vouch, ours, theirs):
    assert vouch("topics", *at(ours))[1].startswith("no topic is joined: ")
    assert vouch("connect", theirs.addr, *at(ours))[0] == 0
    assert vouch("topics", *at(theirs))[1] == (
        "relayed                           mesh   0  subscribers   0  what is signed properly is accepted\n"
    )
    for _ in range(500):  # until the hello has come
        status, out, err = vouch("topics", "relayed", *at(ours))
        if theirs.peer_id in out:
            break
    assert status == 0
    assert re.fullmatch(rf"{theirs.peer_id}  (mesh|-   )  score [-0-9.]+\n", out)
    assert err == "this node hasn't joined relayed: `vouch subscribe relayed` does\n"
    assert json.loads(vouch("topics", "--json", *at(theirs))[1])["topics"][0]["decided_by"] == "relay"


def test_log_level(vouch, ours):
    status, out, err = vouch("log", "level", *at(ours))
    assert (status, err) == (0, "")
    rows = dict(re.split("  +", line, maxsplit=1) if "  " in line else line.split(" ", 1) for line in out.splitlines())
    assert rows["all others"] == "info"
    assert rows["node"] == "info (as all)"
    assert re.search(r"^node +debug$", vouch("log", "level", "node", "debug", *at(ours))[1], re.MULTILINE)
    assert json.loads(vouch("log", "level", "--json", *at(ours))[1])["levels"] == {"": "info", "node": "debug"}
    assert re.search(r"^node +info", vouch("log", "level", "node", "default", *at(ours))[1], re.MULTILINE)
    for words in (("loud",), ("nobody", "debug"), ("a", "b", "c")):
        status, out, err = vouch("log", "level", *words, *at(ours))
        assert (status, out) == (2, "")
        assert err.startswith("vouch: error: expected ")


def test_health(vouch, ours, theirs, tmp_path):
    assert vouch("health", *at(ours)) == (0, "healthy\n", "")
    assert vouch("health", "--ready", *at(ours)) == (0, "ready\n", "")
    answer = json.loads(vouch("health", "--ready", "--json", *at(ours))[1])
    assert answer["healthy"]
    assert {check["name"] for check in answer["checks"]} >= {"listening", "peers"}
    one_error(vouch("health", "--data-dir", tmp_path), "no node is running .*")
    assert json.loads(vouch("health", "--json", "--data-dir", tmp_path)[1])["healthy"] is False


def test_health_of_a_node_that_hangs(vouch, tmp_path):
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "control.sock"))
        deaf.listen(0)
        one_error(vouch("health", "--timeout", "0.1", "--data-dir", tmp_path), "the node didn't answer .*")
        one_error(
            vouch("health", "--timeout", "0.1", "--data-dir", tmp_path), "the node takes no connection: it hangs, .*"
        )


def test_health_imports_nothing_slow(tmp_path):
    program = (
        "import sys; from node.cli import main; main(['health', '--data-dir', sys.argv[1]])\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    loaded = set(done.stdout.split())
    assert "argparse" in loaded, done.stderr
    assert not loaded & {"libp2p", "structlog", "rich", "trio", "cryptography", "msgspec", "google"}


# without a running node


@pytest.mark.parametrize("command", ["status", "peers", "topics", "bans", "top"])
@pytest.mark.parametrize("folder", ["there", "not-there"])
def test_without_a_node_there_is_nothing_to_tell(vouch, tmp_path, command, folder):
    (tmp_path / "there").mkdir()
    data_dir = tmp_path / folder
    text = (
        f"no node is running with the data directory {data_dir}: "
        "start one with `vouch run`, or name another with --data-dir"
    )
    one_error(vouch(command, "--data-dir", data_dir), re.escape(text))
    one_error(vouch(command, "--json", "--data-dir", data_dir), re.escape(text))
    assert data_dir.exists() == (folder == "there")  # asking makes nothing


def test_without_a_node_connect_starts_one_for_the_occasion(vouch, theirs, tmp_path):
    given = ("--network-id", NETWORK, "--data-dir", tmp_path / "none")
    status, out, err = vouch("connect", theirs.addr, *given)
    assert (status, err) == (0, "")
    assert re.fullmatch(rf"connected with {theirs.peer_id} in [0-9]+\.[0-9] ms\n", out)
    assert list(tmp_path.iterdir()) == []  # no key and no socket


def test_without_a_node_ping_starts_one_for_the_occasion(vouch, theirs, tmp_path):
    given = ("--network-id", NETWORK, "--data-dir", tmp_path / "none", "--count", "2", "--interval", "0.01")
    status, out, err = vouch("ping", theirs.addr, *given)
    assert (status, err) == (0, "")
    assert re.fullmatch(rf"1: {RTT}\n2: {RTT}\n2 answered, 0 lost; min/avg/p99/max [0-9]+/[0-9]+/[0-9]+/{RTT}\n", out)
    status, out, err = vouch("ping", "--json", theirs.addr, *given)
    assert (status, err) == (0, "")
    assert json.loads(out)["peer"] == theirs.peer_id
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["connect", "ping"])
def test_a_node_for_the_occasion_must_be_of_the_same_network(vouch, theirs, tmp_path, command):
    given = ("--network-id", "another", "--data-dir", tmp_path / "none")
    one_error(vouch(command, theirs.addr, *given), rf"{theirs.peer_id} at {theirs.addr}: .*another network.*")


def test_a_node_for_the_occasion_knows_nobody(vouch, tmp_path):
    given = ("--network-id", NETWORK, "--data-dir", tmp_path / "none")
    one_error(vouch("ping", STRANGER, *given), rf"there is no connection to {STRANGER}: .+")


def test_a_node_for_the_occasion_where_nobody_listens(vouch, nobody, tmp_path):
    given = ("--network-id", NETWORK, "--data-dir", tmp_path / "none")
    one_error(vouch("ping", nobody, *given), rf"{STRANGER} can't be reached: .+")


# events


def test_events_tell_who_comes(ours, theirs, vouch):
    command = [
        sys.executable,
        "-m",
        "node",
        "events",
        "admitted",
        "--count",
        "2",
        "--json",
        "--data-dir",
        ours.data_dir,
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as watching:
        try:
            for _ in range(300):  # nothing says when it has begun to listen
                assert vouch("connect", theirs.addr, "--data-dir", ours.data_dir)[0] == 0
                assert vouch("disconnect", theirs.peer_id, "--data-dir", ours.data_dir)[0] == 0
                if watching.poll() is not None:
                    break
        finally:
            watching.kill()
        told = [json.loads(row) for row in watching.stdout]
    assert watching.returncode == 0
    assert [item["event"] for item in told] == ["admitted", "admitted"]
    assert {item["fields"]["peer"] for item in told} == {theirs.peer_id}


def test_events_of_a_kind_that_there_is_not(ours, vouch):
    status, _, error = vouch("events", "arrived", "--data-dir", ours.data_dir)
    assert status == 2
    assert "expected kinds of events among admitted, " in error
    assert "got 'arrived'" in error


def test_an_event_on_a_line():
    item = {"event": "refused", "time": 0, "fields": {"peer": STRANGER, "detail": "a \x1b[2Jword", "rtt": None, "n": 3}}
    assert line(item)[8:] == f'  refused        peer={STRANGER} detail="a \\u001b[2Jword" n=3'
