"""`vouch demo`: the rules of who knows whom, and the real thing with real nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from node.cli import demo, main, processes
from node.cli.demo import Progress, Row

ROOT = Path(__file__).parents[2]
# a demo of four nodes takes 7 s on two cores
DEADLINE = 90.0


# who knows whom


def told(progress):
    return [(row.node, row.peers, row.routing_table) for row in progress.changes()]


def test_before_anybody_answers_everybody_lacks_everybody():
    progress = Progress(3)
    assert progress.missing() == {1: [2, 3], 2: [1, 3], 3: [1, 2]}
    assert progress.rows() == [Row(1), Row(2), Row(3)]
    assert progress.changes() == []


def test_complete_when_each_table_holds_all_others():
    progress = Progress(3)
    progress.answered(1, "a", 2, ["b", "c"])
    progress.answered(2, "b", 2, ["a", "c"])
    progress.answered(3, "c", 1, ["a"])
    assert progress.missing() == {3: [2]}
    progress.answered(3, "c", 2, ["b", "a"])
    assert progress.missing() == {}


def test_a_table_that_shrinks_is_no_longer_complete():
    progress = Progress(2)
    progress.answered(1, "a", 1, ["b"])
    progress.answered(2, "b", 1, ["a"])
    assert progress.missing() == {}
    progress.answered(2, "b", 0, [])
    assert progress.missing() == {2: [1]}


def test_only_a_nodes_first_answer_is_its_first():
    progress = Progress(2)
    assert progress.answered(1, "a", 0, [])
    assert not progress.answered(1, "a", 0, [])
    assert progress.answered(2, "b", 0, [])


def test_changes_are_told_once():
    progress = Progress(3)
    progress.answered(1, "a", 0, [])
    assert told(progress) == []  # it was shown as started; its table is as empty as before
    progress.answered(1, "a", 1, [])
    assert told(progress) == [(1, 1, ())]
    progress.answered(2, "b", 1, ["a"])
    progress.answered(1, "a", 1, ["b"])
    assert told(progress) == [(1, 1, (2,)), (2, 1, (1,))]
    assert told(progress) == []


def test_a_peer_is_counted_once_it_has_a_number():
    progress = Progress(2)
    progress.answered(1, "a", 1, ["b", "stranger"])
    assert told(progress) == [(1, 1, ())]
    progress.answered(2, "b", 1, [])
    assert told(progress) == [(1, 1, (2,)), (2, 1, ())]
    assert progress.missing() == {2: [1]}


def test_a_node_in_its_own_table_does_not_count():
    progress = Progress(2)
    progress.answered(1, "a", 0, ["a"])
    assert progress.row(1).routing_table == ()


# what needs no node


@pytest.mark.parametrize("nodes", ["1", "21"])
def test_too_few_or_too_many_nodes(capsys, nodes):
    assert main(["demo", "--nodes", nodes]) == 2
    assert capsys.readouterr() == ("", f"vouch: error: --nodes: expected at least 2 and at most 20, got {nodes}\n")


def test_a_node_that_dies(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(demo.tempfile, "tempdir", str(tmp_path))
    program = "import sys; [print('line', n) for n in range(20)]; print('no more', file=sys.stderr); sys.exit(3)"
    monkeypatch.setattr(processes, "NODE_COMMAND", (sys.executable, "-c", program))
    assert main(["demo", "--json", "--timeout", str(DEADLINE)]) == 1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert len(lines) == processes.LOG_LINES + 1
    assert "node 1: no more" in lines
    assert lines[-1] == ("vouch: error: node 1 ended unexpectedly, with exit status 3; its last log lines are above")
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_ignores_its_end_is_killed(monkeypatch, tmp_path):
    monkeypatch.setattr(demo.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(processes, "STOP_TIMEOUT", 0.1)
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    monkeypatch.setattr(processes, "NODE_COMMAND", (sys.executable, "-c", program))
    assert main(["demo", "--json", "--timeout", "0.5"]) == 1
    assert list(tmp_path.iterdir()) == []
    assert left_over(tmp_path) == []


# the real thing


def demo_process(folder, *flags):
    # variables that would change the nodes; none may come through
    environ = {**os.environ, "TMPDIR": str(folder), "VOUCH_NETWORK_ID": "elsewhere", "VOUCH_DHT": "off"}
    return subprocess.Popen(
        [sys.executable, "-m", "node", "demo", "--nodes", "4", *flags],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_demo(folder, *flags):
    """Its exit status, its events by their name, and what it wrote to stderr."""
    with demo_process(folder, "--json", *flags) as process:
        try:
            out, err = process.communicate(timeout=DEADLINE)
        finally:
            process.terminate()
    return process.returncode, [json.loads(line) for line in out.splitlines()], err


def left_over(folder):
    """The command lines of processes that were given something in `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue  # it has just ended
        if os.fsencode(folder) in command:
            found.append(command)
    return found


def test_four_nodes_find_each_other(tmp_path):
    status, events, err = run_demo(tmp_path, "--timeout", "60")
    assert (status, err) == (0, "")

    started = {event["node"]: event for event in events if event["event"] == "started"}
    assert sorted(started) == [1, 2, 3, 4]
    for event in started.values():
        assert event["addrs"] == [addr for addr in event["addrs"] if addr.startswith("/ip4/127.0.0.1/tcp/")]
        assert all(addr.endswith("/p2p/" + event["peer"]) for addr in event["addrs"])

    last = {event["node"]: event for event in events if event["event"] == "table"}
    assert {node: event["routing_table"] for node, event in last.items()} == {
        1: [2, 3, 4],
        2: [1, 3, 4],
        3: [1, 2, 4],
        4: [1, 2, 3],
    }
    ping, complete = events[-2:]
    assert (ping["event"], ping["from"], ping["to"]) == ("ping", 1, 4)
    assert 0 < ping["rtt_us"] < 10e6
    assert complete["event"] == "complete"
    assert complete["nodes"] == 4
    assert 0 < complete["seconds"] < 60

    assert list(tmp_path.iterdir()) == []
    assert left_over(tmp_path) == []


def test_timeout(tmp_path):
    status, events, err = run_demo(tmp_path, "--timeout", "0.1")
    assert status == 1
    missing = {"1": [2, 3, 4], "2": [1, 3, 4], "3": [1, 2, 4], "4": [1, 2, 3]}
    assert events == [{"event": "timeout", "missing": missing}]
    assert err.startswith("vouch: error: routing tables aren't complete after 0.1 s: node 1 lacks 2, 3, 4; 2 lacks 1")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(tmp_path, number, status):
    with demo_process(tmp_path, "--json") as process:
        try:
            assert process.stdout.readline().startswith('{"event": "started", "node": 1,')  # others are starting now
            process.send_signal(number)
            _, err = process.communicate(timeout=DEADLINE)
        finally:
            process.terminate()
    assert (process.returncode, err) == (status, "")
    assert list(tmp_path.iterdir()) == []
    assert left_over(tmp_path) == []


def test_the_table_for_people(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(demo.tempfile, "tempdir", str(tmp_path))
    assert main(["demo", "--nodes", "2", "--timeout", str(DEADLINE)]) == 0
    out = capsys.readouterr().out
    assert "routing table" in out
    assert out.count("12D3KooW…") == 2
    assert "node 1 pinged node 2: " in out
    assert out.splitlines()[-1].startswith("complete: each of 2 nodes has the others in its routing table, ")
    assert list(tmp_path.iterdir()) == []
