"""A rendezvous point's file: what was acknowledged is there after a kill, a damaged file is set aside, a full disk
ends nothing.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from node import registrations
from node.errors import UsageError
from node.registrations import FILE, GAP, RegistrationFile
from protocols.rendezvous.rules import Form, Row
from protocols.rendezvous.service import StoreError

WRITER = """
import sys, trio
from pathlib import Path
from node.registrations import RegistrationFile
from protocols.rendezvous.rules import Form, Row

async def main():
    file = RegistrationFile(Path(sys.argv[1]))
    file.open()
    async def one(start):
        for number in range(start, 1 << 30, 8):
            await file.keep(Row(f"peer {number % 500}", "ns", Form.STANDARD, b"r" * 200, number, number, 2e9))
            sys.stdout.write(f"{number}\\n")
            sys.stdout.flush()
    async with trio.open_nursery() as nursery:
        await nursery.start(file.run)
        for start in range(1, 9):
            nursery.start_soon(one, start)

trio.run(main)
"""


def row(number: int, peer: str = "peer", **more) -> Row:
    return Row(peer, more.get("namespace", "ns"), Form.STANDARD, b"record", 2**64 - 1, number, 1.5e9, "8.8.0.0/16")


@asynccontextmanager
async def opened(path: Path):
    file = RegistrationFile(path)
    file.open()
    async with trio.open_nursery() as nursery:
        await nursery.start(file.run)
        yield file
        nursery.cancel_scope.cancel()


async def test_rows_and_the_key_are_kept(tmp_path):
    path = tmp_path / FILE
    async with opened(path) as file:
        key = file.key
        assert len(key) == 32
        async with trio.open_nursery() as nursery:
            for number in range(1, 6):
                nursery.start_soon(file.keep, row(number, f"peer {number}"))
        await file.keep(row(6, "peer 1"))
        file.forget([row(2, "peer 2")])
    assert path.stat().st_mode & 0o777 == 0o600
    async with opened(path) as file:
        assert file.key == key
        assert [kept.number for kept in file.rows] == [3, 4, 5, 6]
        assert file.rows[-1] == row(6, "peer 1")
        assert file.next_number == 7 + GAP


@pytest.mark.parametrize("attempt", range(3))
def test_what_was_acknowledged_survives_a_kill(tmp_path, attempt):
    path = tmp_path / FILE
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [int(writer.stdout.readline()) for _ in range(50 + 37 * attempt)]
        os.kill(writer.pid, signal.SIGKILL)
        said += [int(line) for line in writer.stdout.read().split("\n")[:-1]]
    file = RegistrationFile(path)
    file.open()
    newest = {kept.peer: kept.number for kept in file.rows}
    file._database.close()
    for number in said:
        assert newest[f"peer {number % 500}"] >= number
    assert not list(tmp_path.glob("*.damaged*"))


@pytest.mark.parametrize("damage", [b"not a database at all" * 300, b""], ids=["other bytes", "empty"])
async def test_a_damaged_file_is_set_aside(tmp_path, damage):
    path = tmp_path / FILE
    for count in (1, 2):
        path.write_bytes(damage)
        async with opened(path) as file:
            assert file.rows == []
            await file.keep(row(1))
        assert len(list(tmp_path.glob("*.damaged-*"))) == (count if damage else 0)
        async with opened(path) as file:
            assert len(file.rows) == 1


async def test_a_file_torn_inside_is_set_aside(tmp_path):
    path = tmp_path / FILE
    async with opened(path) as file:
        for number in range(1, 200):
            file._put(("p", str(number), Form.STANDARD), row(number, namespace=str(number)))
        await file.keep(row(200))
    data = bytearray(path.read_bytes())
    data[8192:16384] = os.urandom(8192)
    path.write_bytes(data)
    async with opened(path) as file:
        assert file.rows == []
    assert len(list(tmp_path.glob("*.damaged-1"))) == 1


async def test_a_file_of_before_subnets_counted_is_taken_over(tmp_path):
    path = tmp_path / FILE
    with sqlite3.connect(path) as db:
        for statement in registrations.MIGRATIONS[0]:
            db.execute(statement)
        db.execute("INSERT INTO point VALUES (1, ?, 7)", (bytes(32),))
        db.execute("INSERT INTO registration VALUES ('peer', 'ns', 'standard', ?, '5', 6, 1.5e9)", (b"record",))
        db.execute("PRAGMA user_version = 1")
    db.close()
    async with opened(path) as file:
        assert file.rows == [Row("peer", "ns", Form.STANDARD, b"record", 5, 6, 1.5e9)]
        await file.keep(row(8, "peer 2"))
    async with opened(path) as file:
        assert [kept.subnet for kept in file.rows] == ["", "8.8.0.0/16"]


async def test_a_file_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / FILE
    async with opened(path):
        pass
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(UsageError, match="got 99, which a newer vouch has made"):
        RegistrationFile(path).open()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="can't use the rendezvous point's file"):
        RegistrationFile(tmp_path / "file" / FILE).open()


async def test_a_disk_that_is_full_for_a_while_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(registrations, "RETRY_AFTER", 0.05)
    path = tmp_path / FILE
    async with opened(path) as file:
        await file.keep(row(1))
        commit = file._commit

        def full(_batch):
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(file, "_commit", full)
        with pytest.raises(StoreError, match="disk is full"):
            await file.keep(row(2, "late"))
        assert file.failing
        file.forget([row(1)])
        monkeypatch.setattr(file, "_commit", commit)
        with trio.fail_after(5):
            while file.failing:  # noqa: ASYNC110
                await trio.sleep(0.01)
    async with opened(path) as file:
        assert [kept.peer for kept in file.rows] == ["late"]
