"""`vouch explore` on nodes in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from node.cli import main
from tests.node.test_cli_remote import _environment, nobody, vouch  # noqa: F401  fixtures
from tests.node.test_cli_run import LOOPBACK, Running, ask, client_of

NETWORK = "explore-tests"
NET = ("--network-id", NETWORK)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Addresses and IDs of three nodes, the first connected with the second and that with the third."""
    folder = tmp_path_factory.mktemp("explore")
    flags = (*NET, "--listen", LOOPBACK, "--log-format", "json", "--data-dir")
    with (
        Running(*flags, folder / "a") as a,
        Running(*flags, folder / "b") as b,
        Running(*flags, folder / "c") as c,
    ):
        found = []
        for name, running in (("a", a), ("b", b), ("c", c)):
            running.logged("is_bootstrap")
            status = ask(folder / name, "status")
            found.append((status["addrs"][0], status["peer_id"]))
        for name, (addr, _) in (("a", found[1]), ("b", found[2])):
            with client_of(folder / name) as client:
                client.call("connect", address=addr)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if len(ask(folder / "c", "status")["routing_table"]) == 2:
                break
            time.sleep(0.2)
        yield found
        for running in (a, b, c):
            running.stop()


def test_json_tells_who_is_there_and_who_knows_whom(vouch, chain):  # noqa: F811
    status, out, err = vouch("explore", chain[0][0], "--json", *NET)
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert (result["start"], result["ended"], result["left_out"]) == (chain[0][1], "complete", 0)
    nodes = {node["peer"]: node for node in result["nodes"]}
    assert set(nodes) == {peer for _, peer in chain}
    for addr, peer in chain:
        node = nodes[peer]
        assert (node["state"], node["reachable"], node["error"]) == ("reached", True, "")
        assert f"{node['addrs'][0]}/p2p/{peer}" == addr
        assert node["agent"].startswith("vouch/")
        assert node["rtt_us"] > 0
        assert "/vouch/peer-exchange/1.0.0" in node["protocols"]
    assert chain[1][1] in nodes[chain[0][1]]["knows"]
    assert chain[0][1] in nodes[chain[1][1]]["known_by"]


def test_a_table_for_people_and_a_file_for_programs(vouch, chain, tmp_path):  # noqa: F811
    status, out, _ = vouch("explore", chain[0][0], "--out", tmp_path / "network.json", *NET)
    assert status == 0
    assert all(peer in out for _, peer in chain)
    assert out.splitlines()[-1].startswith("3 nodes, 3 reached; ")
    assert len(json.loads((tmp_path / "network.json").read_text())["nodes"]) == 3
    status, out, _ = vouch("explore", chain[0][0], "--max-nodes", "1", "--out", tmp_path / "network.dot", *NET)
    assert status == 0
    assert "named beyond --max-nodes" in out
    assert (tmp_path / "network.dot").read_text().startswith("digraph network {")
    status, out, _ = vouch("explore", chain[0][0], "--dot", *NET)
    assert status == 0
    assert out.count(" -> ") >= 4
    assert sorted(file.name for file in tmp_path.iterdir()) == ["network.dot", "network.json"]


def test_ctrl_c_tells_what_was_found(chain):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("VOUCH_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "node", "explore", chain[0][0], "--json", "--rate", "0.05", "--timeout", "300", *NET],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        # the first is visited at once, the second after twenty seconds
        line = process.stderr.readline()
        assert "1 reached" in line, line
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    result = json.loads(out)
    assert result["ended"] == "interrupted"
    states = [node["state"] for node in result["nodes"]]
    assert states[0] == "reached"
    assert set(states[1:]) == {"waiting"}


def test_a_first_node_that_is_not_there(vouch, nobody):  # noqa: F811
    status, out, err = vouch("explore", nobody, "--json", *NET)
    assert status == 1
    assert json.loads(out)["nodes"][0]["state"] == "unreachable"
    assert err.startswith("vouch: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("nonsense",), "expected an address"),
        (("--out", "/nowhere/at/all.json"), "--out /nowhere/at/all.json: expected a file"),
        (("--json", "--dot"), "not allowed with"),
        (("--max-nodes", "0"), "expected a whole number above 0"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(vouch, nobody, flags, text):  # noqa: F811
    address = () if flags == ("nonsense",) else (nobody,)
    status, out, err = vouch("explore", *flags, *address, *NET)
    assert (status, out) == (2, "")
    assert text in err
    assert err.count("\n") == 1


def test_help(capsys):
    assert main(["explore", "--help"]) == 0
    assert "--max-nodes" in capsys.readouterr().out
