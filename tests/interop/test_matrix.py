"""The matrix: its rules, its document, its command; and a quick run of it with the Go peer over TCP."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from interop.matrix import report
from interop.matrix.__main__ import DOCUMENT, main
from interop.matrix.cells import CHECKS, RESULTS, Cell, Line, Result, cells, lines, not_applicable
from interop.matrix.checks import CHECKS as FUNCTIONS
from interop.matrix.run import MissingPeerError, Plan, check_built, ended_by, run
from interop.matrix.upstream import DEFECTS, HERE, Defect, Defects, reproduce
from interop.peer import Peer
from node.identity import Identity

ROOT = Path(__file__).parents[2]
QUICK_TIMEOUT = 60
GO = Line("go", "tcp", "noise", "out")


# rules


def test_the_lines_are_each_peer_over_everything_both_ways():
    assert len(lines()) == 4 * (2 * 2 + 1) * 2
    assert len(set(lines())) == len(lines())
    assert {line.security for line in lines() if line.transport == "quic-v1"} == {"tls"}
    assert lines(peers=("go",), transports=("quic-v1",), securities=("noise",)) == []
    assert [line.direction for line in lines(("js",), ("tcp",), ("noise",))] == ["out", "in"]


def test_each_line_has_each_check_and_each_check_a_function():
    for line in lines():
        assert [cell.check for cell in cells(line)] == list(CHECKS)
    assert set(CHECKS) <= set(FUNCTIONS)
    assert [cell.check for cell in cells(GO, ("ping", "connect"))] == ["connect", "ping"]


def test_what_is_not_applicable_has_a_reason_and_is_only_what_py_libp2p_lacks():
    without = [cell for line in lines() for cell in cells(line) if not_applicable(cell)]
    assert {cell.line.peer for cell in without} == {"stock"}
    assert {cell.check for cell in without} == {"handshake", "other-network", "other-version", "messages"}
    assert all(len(not_applicable(cell)) > 20 for cell in without)


@pytest.mark.parametrize(
    ("result", "reason", "reproduction"),
    [("fail", "", ""), ("na", "", ""), ("upstream", "broken", ""), ("pass", "", "x.py"), ("good", "", "")],
)
def test_a_result_without_what_it_needs_is_none(result, reason, reproduction):
    with pytest.raises(ValueError, match="expected"):
        Result(Cell(GO, "ping"), result, reason, reproduction=reproduction)


# upstream's defects


def test_each_reproduction_is_there_explained_and_none_of_ours():
    for defect in DEFECTS:
        program = ROOT / defect.program
        shown = program.name if program.parent == HERE else defect.program
        assert f"`{shown}`" in (HERE / "README.md").read_text()
        for name in ("interop", "node", "protocols"):
            assert f"import {name}" not in program.read_text()
            assert f"from {name}" not in program.read_text()
        assert any(defect.fits(cell) for line in lines() for cell in cells(line))


@pytest.mark.parametrize(("status", "shown"), [(0, True), (1, False), (2, False)])
def test_a_reproduction_shows_a_defect_by_its_status(tmp_path, status, shown):
    program = tmp_path / "program.py"
    program.write_text(f"raise SystemExit({status})")
    assert reproduce(Defect("nothing works", str(program), "stock", "broken")) is shown


STOPPED = "of 3000000 bytes, then nothing for 20 s')"


@pytest.mark.parametrize(
    ("direction", "check", "reason", "excused"),
    [
        ("out", "streams", "stock: echo failed: ExceptionGroup('…', [StreamReset()])", True),
        # what stock_quic_overflow.py shows: bytes that are dropped, and ends that never come
        ("out", "half-close", f"vouch: echo failed: ProtocolError('expected more, got 65536 {STOPPED}", True),
        ("out", "transfer", "vouch: echo failed: ProtocolError('expected 75 at offset 3382016, got 183')", True),
        # what it doesn't: small streams, and anything before them
        ("out", "streams", "vouch: echo failed: ProtocolError('expected 75 at offset 16, got 183')", False),
        ("out", "half-close", f"vouch: echo failed: ProtocolError('expected more, got 0 {STOPPED}", False),
        ("out", "half-close", "vouch: expected a reply to 'echo' within 30 s; its last events: []", False),
        ("in", "streams", "no connection within 30 s", False),
        ("in", "transfer", "no connection within 30 s", False),
        ("out", "ping", "stock: ping failed: StreamReset()", False),
    ],
)
def test_a_defect_excuses_only_what_it_makes(direction, check, reason, excused):
    cell = Cell(Line("stock", "quic-v1", "tls", direction), check)
    assert (Defects().of(cell, reason) is not None) is excused


PAUSED = "StreamBufferError: Read buffer length of 4201160 exceeded limit of 4194304, read status is paused"


@pytest.mark.parametrize(
    ("peer", "security", "errors", "excused"),
    [
        ("js", "tls", [PAUSED], True),
        ("js", "tls", [], False),  # silent, and nobody has said why
        ("js", "tls", ["Error: the handshake failed"], False),
        ("js", "noise", [PAUSED], False),
        ("go", "tls", [PAUSED], False),
    ],
)
def test_silence_is_excused_only_where_the_peer_says_that_it_ended_the_connection(peer, security, errors, excused):
    ours, theirs = Peer("vouch", []), Peer("js peer", [])
    ours.peer_id = "it"
    theirs.events.append({"event": "disconnected", "peer": "it", "direction": "inbound"})
    theirs.events.append({"event": "disconnected", "peer": "another", "error": PAUSED})
    theirs.events.extend({"event": "disconnected", "peer": "it", "error": error} for error in errors)
    reason = "vouch: echo failed: StreamTimeout('it did not send anything on /vouch/bytes/1.0.0 for 30 s')"
    cell = Cell(Line(peer, "ws", security, "out"), "transfer")
    assert (Defects().of(cell, reason + ended_by(theirs, ours)) is not None) is excused


async def test_an_end_of_ours_that_does_not_start_fails_its_lines_and_is_not_tried_for_ever(monkeypatch):
    broken = [sys.executable, "-c", "import sys; sys.exit('the harbour is closed')"]
    monkeypatch.setattr("interop.matrix.run.vouch_process", lambda *_: Peer("vouch", broken))
    results = []
    with trio.fail_after(30):
        await run(Plan([GO], ["connect", "ping"]), results.append)
    assert [(result.cell.check, result.result) for result in results] == [("connect", "fail"), ("ping", "fail")]
    assert all("the harbour is closed" in result.reason for result in results)


# the document


def some_results():
    for line in lines():
        for cell in cells(line):
            if reason := not_applicable(cell):
                yield Result(cell, "na", reason)
            elif cell.check == "transfer" and line.peer == "stock":
                reason = f"it | loses the end of {Identity.generate().peer_id}"
                yield Result(cell, "upstream", reason, 1.5, "interop/matrix/upstream/x.py")
            else:
                yield Result(cell, "pass", seconds=0.1)


def test_the_document_tells_each_cell():
    results = list(some_results())
    text = report.document(results, {"vouch": {"vouch-node": "0.1.0"}}, datetime.date(2020, 2, 29), 61.4)
    assert report.parse(text) == {(result.cell.line, result.cell.check): result.result for result in results}
    assert "2020-02-29" in text
    assert "vouch-node 0.1.0" in text
    # the peers are others in every run
    assert text.count(r"it \| loses the end of PEER (`interop/matrix/upstream/x.py`)") == 1


def test_the_document_of_the_project_is_of_these_cells():
    """`make interop` writes it: run that if the matrix has changed."""
    told = report.parse(DOCUMENT.read_text())
    assert set(told) == {(line, cell.check) for line in lines() for cell in cells(line)}
    assert {result for result in told.values() if result not in RESULTS} == set()
    assert {where for where, result in told.items() if result == "fail"} == set()
    assert {where for where, result in told.items() if (result == "na") != bool(not_applicable(Cell(*where)))} == set()


# the command


@pytest.mark.parametrize(
    "flags",
    [["--peer", "cobol"], ["--check", "all"], ["--transport", "quic-v1", "--security", "noise"], ["--qui"], ["x"]],
)
def test_bad_arguments_end_with_2(flags, capsys):
    try:
        status = main(flags)
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert "expected" in capsys.readouterr().err or flags in (["--qui"], ["x"])


def test_a_peer_that_is_not_built_is_told_with_what_to_run(monkeypatch, tmp_path):
    monkeypatch.setattr("interop.build.BUILT", tmp_path)
    with pytest.raises(MissingPeerError, match="make peers PEERS=go,rust"):
        check_built(lines(("go", "rust", "stock")))


@pytest.mark.interop
def test_quick_with_go_over_tcp(built):
    built("go")
    command = [sys.executable, "-m", "interop.matrix", "--peer", "go", "--transport", "tcp", "--quick", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=QUICK_TIMEOUT, check=False, env={**os.environ}
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row for row in told if row["result"] != "pass"] == [], done.stderr
    assert len(told) == 4 * len(CHECKS)
    assert {(row["peer"], row["transport"]) for row in told} == {("go", "tcp")}
    assert done.returncode == 0
