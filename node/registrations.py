"""A rendezvous point's file: its registrations and its key, in SQLite, written off the event loop.

    keep(row) --> waiting, by key --> one transaction in the writer's thread --> on disk: keep returns
    forget(rows) ---^                          +-- failed: told to who waits; tried again with the next, or soon

The journal is a WAL and every commit is synced, so what was acknowledged survives a killed process and a power loss. A
file that can't be read is set aside (`rendezvous.db.damaged-1`), with a warning, and a new one begun.
What waits is bounded by the point's rows: while writing fails no new ones are taken (protocols.rendezvous.service).
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import trio

from node.database import DamagedError, Database, is_damage
from node.errors import UsageError
from node.log import get_logger
from node.tasks import TaskStatus
from protocols.rendezvous.rules import KEY_BYTES, Form, Row
from protocols.rendezvous.service import StoreError

FILE = "rendezvous.db"
RETRY_AFTER = 5.0
# numbers that a crash may have made known before they were on disk
GAP = 1 << 20

_Key = tuple[str, str, Form]

MIGRATIONS = (
    (
        "CREATE TABLE point (id INTEGER PRIMARY KEY CHECK (id = 1), key BLOB NOT NULL, next_number INTEGER NOT NULL)",
        """CREATE TABLE registration (
            peer TEXT NOT NULL, namespace TEXT NOT NULL, form TEXT NOT NULL, record BLOB NOT NULL, seq TEXT NOT NULL,
            number INTEGER NOT NULL, expires REAL NOT NULL, PRIMARY KEY (peer, namespace, form)
        ) WITHOUT ROWID""",
    ),
    ("ALTER TABLE registration ADD COLUMN subnet TEXT NOT NULL DEFAULT ''",),
)

log = get_logger("rendezvous")


class RegistrationFile:
    """The file at `path`. `open` it once, then `run` it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = b""
        self.next_number = 1
        self.rows: list[Row] = []
        self.failing = False
        self._database = Database(path, "rendezvous point's file", MIGRATIONS)
        self._waiting: dict[_Key, Row | None] = {}
        self._written = trio.Event()
        self._changed = trio.Event()
        self._error: Exception | None = None
        self._batch = 0

    def open(self) -> None:
        """Reads the file into `key`, `next_number` and `rows`, making it if it is missing. Blocks.

        Raises UsageError for a file of a newer version, and a folder that can't be written."""
        try:
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                aside = self._database.set_aside()
                log.warning("registrations_damaged", file=str(self.path), moved_to=str(aside), error=str(error))
                self._open()
        except (OSError, sqlite3.Error) as error:
            self._database.close()
            raise UsageError(f"can't use the rendezvous point's file {self.path}: {error}") from error

    async def run(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Writes what waits, until cancelled; then once more, and closes the file."""
        task_status.started()
        try:
            while True:
                while not self._waiting:
                    await self._changed.wait()
                    self._changed = trio.Event()
                await self._write()
                if self.failing:
                    await trio.sleep(RETRY_AFTER)
        finally:
            with trio.CancelScope(shield=True):
                if self._waiting:
                    await self._write()
                await trio.to_thread.run_sync(self._database.close)

    async def keep(self, row: Row) -> None:
        """Returns once the row is on disk. Raises StoreError."""
        self._put(row.key, row)
        batch = self._batch
        while self._batch == batch:
            await self._written.wait()
        if self._error is not None:
            raise StoreError(str(self._error))

    def forget(self, rows: Sequence[Row]) -> None:
        """Removes rows soon."""
        for row in rows:
            self._put(row.key, None)

    def _put(self, key: _Key, row: Row | None) -> None:
        self._waiting[key] = row
        self._changed.set()

    async def _write(self) -> None:
        batch, self._waiting = self._waiting, {}
        written, self._written = self._written, trio.Event()
        self._batch += 1  # who comes from now on waits for the next one
        error: Exception | None = None
        try:
            with trio.CancelScope(shield=True):  # else a batch is lost that was taken and not begun
                await trio.to_thread.run_sync(self._commit, batch)
        except (OSError, sqlite3.Error) as caught:
            error = caught
            self._waiting = batch | self._waiting
            if not self.failing:
                log.warning("registrations_not_written", file=str(self.path), error=str(error), retry_in=RETRY_AFTER)
        self.failing = error is not None
        self._error = error
        written.set()

    def _open(self) -> None:
        db = self._database.open()
        try:
            self._read(db)
        except (sqlite3.OperationalError, TypeError, ValueError) as error:
            raise DamagedError(f"it can't be read: {error}") from error

    def _read(self, db: sqlite3.Connection) -> None:
        point = db.execute("SELECT key, next_number FROM point").fetchone()
        if point is None:
            point = secrets.token_bytes(KEY_BYTES), 1
            db.execute("INSERT INTO point VALUES (1, ?, ?)", point)
        self.key, next_number = point
        self.next_number = next_number + GAP
        self.rows = [
            Row(peer, namespace, Form(form), record, int(seq), number, expires, subnet)
            for peer, namespace, form, record, seq, number, expires, subnet in db.execute(
                "SELECT peer, namespace, form, record, seq, number, expires, subnet FROM registration ORDER BY number"
            )
        ]
        if len(self.key) != KEY_BYTES:
            raise ValueError(f"expected a key of {KEY_BYTES} bytes, got {len(self.key)}")

    def _commit(self, batch: dict[_Key, Row | None]) -> None:
        rows = [row for row in batch.values() if row is not None]
        with self._database.transaction() as db:
            db.executemany(
                "DELETE FROM registration WHERE peer = ? AND namespace = ? AND form = ?",
                [key for key, row in batch.items() if row is None],
            )
            db.executemany(
                "INSERT OR REPLACE INTO registration VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (row.peer, row.namespace, row.form, row.record, str(row.seq), row.number, row.expires, row.subnet)
                    for row in rows
                ],
            )
            if rows:
                newest = max(row.number for row in rows)
                db.execute("UPDATE point SET next_number = max(next_number, ?)", (newest + 1,))
