"""`vouch measure propagation`: the network's links, what is made of deliveries, and the real thing with five nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from node.cli import main, measure, processes
from node.cli.propagation import DEGREE, Spread, links, markdown

MS = 1_000_000
NODES = 5


# links


@pytest.mark.parametrize("nodes", [10, 11, 20, 33])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_links_are_a_random_regular_network(nodes, seed):
    found = links(nodes, seed)
    assert len({frozenset(pair) for pair in found}) == len(found) == nodes * DEGREE // 2
    assert all(one != other for one, other in found)
    degrees = sorted(sum(node in pair for pair in found) for node in range(nodes))
    assert degrees == [DEGREE] * nodes


def test_an_odd_number_of_ends_is_one_fewer():
    found = links(7, 1, degree=3)
    assert sorted(sum(node in pair for pair in found) for node in range(7)) == [2, 3, 3, 3, 3, 3, 3]


def test_the_seed_decides():
    assert links(20, 1) == links(20, 1)
    assert links(20, 1) != links(20, 2)


@pytest.mark.parametrize(("nodes", "full_mesh"), [(2, False), (9, False), (12, True)])
def test_small_and_full_networks_have_every_link(nodes, full_mesh):
    found = links(nodes, 1, full_mesh=full_mesh)
    assert len({frozenset(pair) for pair in found}) == len(found) == nodes * (nodes - 1) // 2


# deliveries


def spread_of_two():
    """Two messages of node a among a, b, c: one by way of b, which comes before it is known to be sent."""
    spread = Spread()
    spread.came("one", "b", "a", 2 * MS)
    spread.came("one", "c", "b", 5 * MS)
    spread.sent("one", "a", 1 * MS)
    spread.sent("two", "a", 10 * MS)
    spread.came("two", "b", "a", 12 * MS)
    spread.came("two", "b", "c", 13 * MS)  # once more: the first counts
    spread.came("unknown", "b", "c", 13 * MS)
    return spread


def test_delays_and_hops():
    spread = spread_of_two()
    assert spread.deliveries == 3
    assert spread.delays() == [0.001, 0.002, 0.004]
    assert sorted(spread.hops()) == [1, 1, 2]
    assert spread.hop_times() == [0.001, 0.002, 0.003]


def test_the_summary():
    given = {"nodes": 3, "links": 3, "messages": 2, "size": 100, "rate": 1.0, "seed": 1}
    found = spread_of_two().summary(**given, duplicates=6, received=450, cpu_ns=3_000_000)
    assert found.as_dict() == {
        **given,
        "coverage": 0.75,
        "p50_ms": 2.0,
        "p90_ms": 4.0,
        "p99_ms": 4.0,
        "max_ms": 4.0,
        "duplicates": 2.0,
        "bytes_per_byte": 1.5,
        "hops_mean": 1.33,
        "hops_max": 2,
        "hop_ms": 2.0,
        "cpu_us": 1000.0,
    }
    assert "| coverage | 75.00% |" in markdown(found)


def test_nothing_arrived():
    spread = Spread()
    spread.sent("one", "a", 0)
    found = spread.summary(nodes=2, links=1, messages=1, size=16, rate=1.0, seed=1, duplicates=0, received=0)
    assert (found.coverage, found.max_ms, found.hops_max) == (0, 0, 0)


# the real thing


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One run: the process, the folder of its files, and the folder where it keeps its nodes."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "temporary").mkdir()
    flags = ("--nodes", NODES, "--messages", 10, "--rate", 20, "--size", 2048, "--seed", 3, "--json", "--out", folder)
    done = subprocess.run(
        [sys.executable, "-m", "node", "measure", "propagation", *map(str, flags)],
        cwd=processes.PACKAGES,
        env={**os.environ, "TMPDIR": str(folder / "temporary")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done, folder


def test_every_message_arrives_everywhere(measured):
    done, _ = measured
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["nodes"], found["links"], found["messages"], found["size"]) == (NODES, 10, 10, 2048)
    assert found["coverage"] == 1
    assert 0 < found["p50_ms"] <= found["p90_ms"] <= found["p99_ms"] <= found["max_ms"] < 60_000
    assert 0 <= found["duplicates"] < NODES
    assert 1 <= found["bytes_per_byte"] < 2 * NODES
    assert 1 <= found["hops_mean"] <= found["hops_max"] < NODES
    assert f"vouch: starting {NODES} nodes\n" in done.stderr


def test_the_files(measured):
    done, folder = measured
    assert json.loads((folder / "propagation.json").read_text()) == json.loads(done.stdout)
    assert "| coverage | 100.00% |" in (folder / "propagation.md").read_text()
    if "matplotlib isn't installed" in done.stderr:
        assert not (folder / "propagation.png").exists()
    else:
        assert (folder / "propagation.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_left(measured):
    _, folder = measured
    assert list((folder / "temporary").iterdir()) == []


def test_a_node_that_dies_ends_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(measure.tempfile, "tempdir", str(tmp_path))
    program = "import sys; print('no more', file=sys.stderr); sys.exit(3)"
    monkeypatch.setattr(processes, "NODE_COMMAND", (sys.executable, "-c", program))
    assert main(["measure", "propagation", "--nodes", "2", "--messages", "1"]) == 1
    err = capsys.readouterr().err
    assert "node 0: no more\n" in err or "node 1: no more\n" in err
    assert "ended unexpectedly, with exit status 3; its last log lines are above" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--nodes", "1"], "--nodes: expected at least 2 and at most 64, got 1"),
        (["--nodes", "65"], "--nodes: expected at least 2 and at most 64, got 65"),
        (["--size", "15"], "--size: expected 16 to 1040384 bytes, got 15"),
        (["--messages", "100001"], "--messages: expected at most 100000, got 100001"),
        (["--rate", "0"], "--rate: expected a number above 0, got '0'"),
        (["--out", "/dev/null/folder"], "--out /dev/null/folder: expected a folder, got: Not a directory"),
    ],
)
def test_what_cannot_be_measured(capsys, flags, text):
    assert main(["measure", "propagation", *flags]) == 2
    assert text in capsys.readouterr().err
