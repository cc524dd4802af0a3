"""The benchmarks' harness: real ends with amounts so small that figures mean nothing, and reports of made-up ones."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from dataclasses import replace

import pytest

from interop.bench import __main__ as command
from interop.bench import chart, counting, floors, report, runner, stage
from interop.bench.benchmarks import BENCHMARKS, Benchmark, Line
from interop.bench.cost import Spent, cpu_seconds, private_bytes
from interop.bench.gossip import Gossiping
from interop.bench.measures import Crowding, Sample, percentile
from interop.bench.runner import Measured, Results
from interop.lab import bench as long_line
from interop.peer import Peer, PeerError
from node.streams import ConnStream
from protocols.gossip.stats import Stats
from tests.lab import lab_or_skip

pytestmark = pytest.mark.interop

BY_NAME = {benchmark.name: benchmark for benchmark in BENCHMARKS}
AMOUNTS = {
    "dial": 1,
    "ping": 5,
    "streams-1": 3,
    "streams-16": 40,
    "requests-1": 10,
    "requests-16": 100,
    "signed-requests": 100,
    "connections": Crowding((2, 5), 5, 0.05, 0.05, width=2, pings=3),
    "gossip": Gossiping(0.1, 4.0, nodes=3),
}
MIB = 1 << 20


def tiny(name, pairings):
    """A row of the plan: that benchmark with next to nothing to do."""
    amount = AMOUNTS.get(name, MIB)
    return replace(BY_NAME[name], amounts=(amount, amount), repeats=(1, 1)), list(pairings)


async def measured(plan):
    results, said = Results(quick=True), []
    await runner.perform(plan, results, said.append, None)
    assert results.failures == []
    return results


def made_up(**values):
    """Results of one benchmark with two lines; `values` are those of the first by pairing."""
    lines = (Line("bulk-up", "MB/s"), Line("idle-cpu", "% of a core", False))
    benchmark = Benchmark(
        name="bulk-up",
        about="made up",
        lines=lines,
        pairings=(),
        amounts=(1, 1),
        repeats=(3, 1),
        measure=None,
    )
    samples = {
        pairing.replace("_", "-"): [Sample({"bulk-up": value}, Spent(1.0, 0.5, 0.25)) for value in some]
        for pairing, some in values.items()
    }
    return Results(quick=False, measured=[Measured(benchmark, "1 MiB", 3, samples)], versions={"go": "1.99"})


# with real ends


async def test_every_benchmark_measures_our_node_on_the_same_processes():
    names = [name for name in BY_NAME if name != "connections" or stage.crowd_is_there()]
    results = await measured([tiny(name, ["vouch"]) for name in names])
    assert [measured.benchmark.name for measured in results.measured] == names
    wanted = [line.name for name in names for line in BY_NAME[name].lines if not line.name.startswith("ping-at-")]
    medians = results.medians()
    assert set(wanted) <= set(medians)
    assert all(value["vouch"] > 0 for name, value in medians.items() if name not in ("connection-memory", "idle-cpu"))
    for measured_one in results.measured:
        (sample,) = measured_one.samples["vouch"]
        assert min(sample.spent.wall, sample.spent.dialler, sample.spent.listener) > 0
    if "connections" in names:
        crowded = results.measured[names.index("connections")]
        assert {"ping-at-0", "ping-at-2", "ping-at-5"} <= set(crowded.samples["vouch"][0].values)
    lines = [json.loads(line) for line in report.json_lines(results, wanted)]
    assert [line["benchmark"] for line in lines] == wanted
    assert all(set(line) == {"benchmark", "unit", "medians"} and set(line["medians"]) == {"vouch"} for line in lines)


async def test_the_go_peer_does_all_that_ours_does(built):
    built("go")
    names = ["dial", "bulk-up-8", "bulk-down-8", "bulk-both", "streams-16", "requests-16"]
    results = await measured([tiny(name, ["go", "vouch-go"]) for name in names])
    assert all(set(medians) == {"go", "vouch-go"} for medians in results.medians().values())
    assert "go-libp2p" in results.versions


@pytest.mark.parametrize("end", ["go", "stock"])
async def test_the_others_gossip_as_ours_does(end, built):
    if end == "go":
        built(end)
    medians = (await measured([tiny("gossip", [end])])).medians()
    assert medians.keys() == {line.name for line in BY_NAME["gossip"].lines}
    assert all(value[end] > 0 for value in medians.values())


async def test_stock_py_libp2p_does_all_that_ours_does():
    names = ["dial", "bulk-up", "bulk-down-8", "bulk-both", "ping", "streams-16", "requests-16", "signed-requests"]
    results = await measured([tiny(name, ["stock"]) for name in names])
    assert set(names) - {"ping"} | {"unsigned-requests"} <= set(results.medians())


def test_lines_can_be_named_and_results_are_written(capsys, tmp_path):
    out = tmp_path / "results"
    assert command.main(["ping-p50", "--peers", "tcp", "--repeats", "1", "--quick", "--json", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()
    told = json.loads(line)
    assert (told["benchmark"], told["unit"], list(told["medians"])) == ("ping-p50", "us", ["tcp"])
    written = json.loads((out / "results.json").read_text())
    assert written["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert written["versions"]["libp2p"] == "0.8.1"
    (sample,) = written["benchmarks"][0]["samples"]["tcp"]
    assert set(sample["values"]) == {"ping-p50", "ping-p99"}
    assert sample["cpu_dialler_s"] > 0
    assert "| tcp |" in (out / "results.md").read_text()


def test_an_end_that_does_not_start_fails_the_run(capsys, monkeypatch):
    broken = [sys.executable, "-c", "import sys; sys.exit('the harbour is closed')"]
    monkeypatch.setattr(stage, "make_peer", lambda end, *flags: Peer(end, broken))
    assert command.main(["ping", "--peers", "tcp", "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "ping, tcp: tcp has ended by itself with status 1" in printed.err
    assert "the harbour is closed" in printed.err


async def test_a_pairing_that_fails_is_left_out_and_the_others_go_on():
    rounds = []

    async def measure(_, pairing, amount):
        rounds.append(pairing)
        if pairing == "vouch-stock" and len(rounds) > 2:
            raise PeerError("lost its way")
        return Sample({"ping-p50": 1.0}, Spent())

    plan = [(replace(BY_NAME["ping"], measure=measure), ["tcp", "vouch-stock"])]
    results, said = Results(quick=True), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "make_peer", lambda end, *flags: Peer.program("interop.bench.ends", "tcp"))
        await runner.perform(plan, results, said.append, 2)
    assert rounds == ["tcp", "vouch-stock", "tcp", "vouch-stock", "tcp"]
    assert results.failures == ["ping, vouch-stock: lost its way"]
    assert set(results.medians()["ping-p50"]) == {"tcp"}


# what measures by itself


async def test_what_metrics_cost(capsys, monkeypatch):
    monkeypatch.setattr(counting, "SCRAPE_EVERY", 0.3)
    monkeypatch.setattr(counting, "TIMES", 1000)
    for name in counting.COUNTED:  # which it wraps for good
        monkeypatch.setattr(ConnStream, name, getattr(ConnStream, name))
    for name in ("delivered", "decided"):
        monkeypatch.setattr(Stats, name, getattr(Stats, name))
    await counting.run(20, 1)
    printed = capsys.readouterr().out
    assert printed.startswith("180 deliveries in ")
    for line in (r"bytes +[1-9][\d.]* times", r"histogram +[1-9][\d.]* times", r"scrapes .* [1-9]\d* bytes"):
        assert re.search(line, printed), printed
    assert re.search(r"together +\d+\.\d\d%$", printed)


@pytest.fixture
def lab():
    lab_or_skip(shapes=True)


def test_a_long_line(lab, capsys):
    assert long_line.main(["--rtt", "4", "--mib", "1", "--repeats", "1", "--peers", "vouch,tcp", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["pairing"], one["line"]) for one in told] == [
        (pairing, way) for pairing in ("vouch", "tcp") for way in ("up", "down")
    ]
    assert all(0 < one["MB/s"] < 25 for one in told), "the line carries 12.5 MB/s"


# who takes part


def test_mixed_pairings_take_part_where_both_ends_do():
    over_quic = ["vouch-quic", "go-quic", "vouch-go-quic", "go-vouch-quic"]
    assert sorted(stage.pairings_of(["vouch", "go"])) == sorted(["vouch", "go", "vouch-go", "go-vouch", *over_quic])
    assert stage.pairings_of(["go", "rust", "tcp"]) == ["go", "rust", "tcp", "go-quic"]
    assert stage.pairings_of(["vouch", "rust"]) == ["vouch", "rust", "vouch-rust", "rust-vouch", "vouch-quic"]
    assert stage.PAIRINGS["rust-vouch"] == ("rust", "vouch-open")


def test_a_missing_peer_is_left_out_by_name(capsys, monkeypatch):
    monkeypatch.setattr(stage, "RECIPES", {})
    assert command.main(["bulk-up", "--peers", "go,rust"]) == 1
    printed = capsys.readouterr()
    assert "go: left out" in printed.err
    assert "rust: left out" in printed.err
    assert "bulk-up: nothing is left to measure" in printed.err
    assert printed.out.strip() == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["bulk"], "got 'bulk'"),
        (["--peers", "vouch,nobody"], "got 'nobody'"),
        (["--repeats", "0"], "got '0'"),
        (["--fast"], "--fast"),
    ],
)
def test_bad_arguments_are_named(capsys, arguments, text):
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert text in capsys.readouterr().err


# reports


def test_tables_have_medians_spread_ratios_and_cost():
    results = made_up(vouch=[300, 200, 1000], go=[100, 200, 150])
    head, ours, go = report.text(results, ["bulk-up"]).splitlines()
    assert [column.strip() for column in head.split("  ") if column][1:5] == ["median", "min", "max", "/ go"]
    assert ours.split() == ["vouch", "300", "200", "1000", "2.00", "1.000", "0.500", "0.250"]
    assert go.split()[:5] == ["go", "150", "100", "200", "1.00"]
    assert report.text(results, ["idle-cpu"]) == ""
    page = report.markdown(results)
    assert "| vouch | 300 | 200 | 1000 | 2.00 |" in page
    assert "| bulk-up | vouch | at least 1.5 times go | 2.00 | met |" in page
    assert "go 1.99" in page


def test_floors_are_judged_by_what_was_measured():
    medians = {
        "bulk-up": {"vouch": 100.0, "go": 80.0, "vouch-go": 80.0},
        "ping-p50": {"vouch": 150.0, "tcp": 75.0},
        "idle-cpu": {"vouch": 1.5},
    }
    judged = {(each.floor.line, each.floor.pairing): (each.measured, each.met) for each in floors.verdicts(medians)}
    assert judged == {
        ("bulk-up", "vouch"): (1.25, False),
        ("bulk-up", "vouch-go"): (1.0, True),
        ("ping-p50", "vouch"): (2.0, True),
        ("idle-cpu", "vouch"): (1.5, False),
    }
    assert {floor.line for floor in floors.FLOORS} <= {line.name for each in BENCHMARKS for line in each.lines}


def test_without_matplotlib_the_picture_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    told = list(report.write(made_up(vouch=[1.0]), tmp_path))
    assert "left out" in told[-1]
    assert "matplotlib isn't installed" in told[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.md"]


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is in the extra `bench`")
def test_the_picture_is_a_picture(tmp_path):
    chart.draw(made_up(vouch=[1.0, 2.0], vouch_go=[3.0]), tmp_path / "results.png")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_percentile():
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([7.0], 0.99) == 7.0


def test_what_a_process_costs():
    before = cpu_seconds(os.getpid())
    sum(range(100_000))
    assert 0 < cpu_seconds(os.getpid()) - before < 5
    assert private_bytes(os.getpid()) > MIB
    with pytest.raises(ProcessLookupError):
        cpu_seconds(2**22 + 1)
