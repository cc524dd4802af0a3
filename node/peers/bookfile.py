"""The address book's file: SQLite, one row for each peer and each ban. Synchronous, and without trio: commands use it.

    data_dir/
      addressbook.db         and addressbook.db-wal; mode 0600
      addressbook.lock       held (flock) by whoever has the file open
      addressbook.db.damaged-N, -N-wal, -N-shm    what couldn't be read; the newest MAX_DAMAGED of them

What `write` has returned from survives a power loss, and a write is there whole or not at all (`node.database`).

A damaged file is set aside and a new one begun. A file of a newer version, or one that can't be opened or written, is
left alone: UsageError when opening, OSError or sqlite3.Error later.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from node.database import DamagedError, Database, is_damage
from node.datadir import locked
from node.errors import UsageError
from node.peers.bans import Ban
from node.peers.entry import Entry, KnownAddr

# one script for each version; a version that was given out is never changed
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE peers (
            peer TEXT PRIMARY KEY,
            last_seen REAL NOT NULL,
            added REAL NOT NULL,
            source TEXT NOT NULL,
            failures INTEGER NOT NULL,
            not_before REAL NOT NULL,
            record BLOB,
            agent TEXT NOT NULL,
            protocols TEXT NOT NULL,
            tags TEXT NOT NULL,
            addrs TEXT NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE bans (
            target TEXT PRIMARY KEY,
            reason TEXT NOT NULL,
            since REAL NOT NULL,
            until REAL
        ) WITHOUT ROWID""",
    ),
    ("CREATE TABLE own_record (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL)",),
)

_COLUMNS = "peer, last_seen, added, source, failures, not_before, record, agent, protocols, tags, addrs"
_PUT = f"INSERT OR REPLACE INTO peers ({_COLUMNS}) VALUES ({', '.join('?' * 11)})"
_addrs = msgspec.json.Decoder(list[KnownAddr])
_texts = msgspec.json.Decoder(list[str])

Row = tuple[object, ...]
T = TypeVar("T")


class BookFile:
    """The open file. `entries`, `bans` and `own_seq`, the highest number that a signed record of ours has had, are what
    it held; `warnings`, what an operator should know of its opening."""

    def __init__(self, path: Path, *, pragmas: Sequence[str] = ()) -> None:
        """Opens or makes the file. Raises UsageError if another node holds it, or it can't be used.

        `pragmas` are set last: for tests of what the file's safety rests on.
        """
        self.path = path
        self.entries: list[Entry] = []
        self.bans: list[Ban] = []
        self.own_seq = 0
        self.warnings: list[str] = []
        self._database = Database(path, "address book", MIGRATIONS, pragmas=pragmas)
        self._held = contextlib.ExitStack()
        self._held.enter_context(locked(path.parent, path.with_suffix(".lock").name, what="the address book in"))
        try:
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self.set_aside(error)
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise UsageError(f"can't use the address book {path}: {error}") from error
        except BaseException:
            self.close()
            raise

    def write(
        self,
        put: Iterable[Entry] = (),
        removed: Iterable[str] = (),
        bans: Iterable[Ban] = (),
        unbanned: Iterable[str] = (),
        own_seq: int | None = None,
    ) -> None:
        """All of it is on disk when this returns, or none of it when it raises OSError or sqlite3.Error."""
        with self._database.transaction() as db:
            db.executemany(_PUT, map(_row, put))
            db.executemany("DELETE FROM peers WHERE peer = ?", ((peer,) for peer in removed))
            db.executemany("INSERT OR REPLACE INTO bans VALUES (?, ?, ?, ?)", map(_ban_row, bans))
            db.executemany("DELETE FROM bans WHERE target = ?", ((target,) for target in unbanned))
            if own_seq is not None:
                db.execute("INSERT OR REPLACE INTO own_record VALUES (1, ?)", (own_seq,))

    def set_aside(self, error: Exception) -> None:
        """Gives the damaged file another name, and begins a new one that is empty."""
        aside = self._database.set_aside()
        self.warnings.append(
            f"expected an address book, got a damaged file ({error}): it is {aside.name} now, and a new one is begun"
        )
        self._open()

    def close(self) -> None:
        """Lets the file go. Idempotent."""
        self._database.close()
        self._held.close()

    def _open(self) -> None:
        self.entries, self.bans, self.own_seq = [], [], 0
        self._read(self._database.open())

    def _read(self, db: sqlite3.Connection) -> None:
        bad = 0
        try:
            for row in db.execute(f"SELECT {_COLUMNS} FROM peers"):
                try:
                    self.entries.append(_entry(row))
                except (TypeError, ValueError):
                    bad += 1
            for row in db.execute("SELECT target, reason, since, until FROM bans"):
                self.bans.append(Ban(*row))
            for (seq,) in db.execute("SELECT seq FROM own_record"):
                self.own_seq = seq
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # no such table or column
                raise DamagedError(str(error)) from error
            raise
        if bad:
            self.warnings.append(f"expected peers in the address book, got {bad} rows that are none: they are left out")


def _row(entry: Entry) -> Row:
    return (
        entry.peer,
        entry.last_seen,
        entry.added,
        entry.source,
        entry.failures,
        entry.not_before,
        entry.record,
        entry.agent,
        msgspec.json.encode(entry.protocols).decode(),
        msgspec.json.encode(sorted(entry.tags)).decode(),
        msgspec.json.encode(entry.addrs).decode(),
    )


def _entry(row: Row) -> Entry:
    """Raises TypeError or ValueError."""
    peer, last_seen, added, source, failures, not_before, record, agent, protocols, tags, addrs = row
    return Entry(
        peer=_is(peer, str),
        last_seen=_is(last_seen, float),
        added=_is(added, float),
        source=_is(source, str),
        failures=_is(failures, int),
        not_before=_is(not_before, float),
        record=None if record is None else _is(record, bytes),
        agent=_is(agent, str),
        protocols=tuple(_texts.decode(_is(protocols, str))),
        tags=frozenset(_texts.decode(_is(tags, str))),
        addrs=tuple(_addrs.decode(_is(addrs, str))),
    )


def _is(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def _ban_row(ban: Ban) -> Row:
    return ban.target, ban.reason, ban.since, ban.until
