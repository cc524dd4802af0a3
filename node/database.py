"""A file of the node's in SQLite: opened with care, moved to a newer schema, set aside when it is damaged. Synchronous.

    NAME                 and NAME-wal; mode 0600
    NAME.damaged-N       with its -wal and -shm: what couldn't be read; the newest MAX_DAMAGED of them

Write-ahead log. With `synchronous="FULL"` what `transaction` has returned from survives a power loss; with "NORMAL" the
last second may be lost. Either way a transaction is there whole or not at all. The schema's version is SQLite's
`user_version`; `migrations` lead to it from any earlier one, one script each, and one that was given out never changes.

Left to the caller: that nobody else has the file open, what is in the tables, and which thread it is (one at a time).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from node.errors import UsageError

MAX_DAMAGED = 8
WAL_LIMIT = 4 << 20  # bytes that the log is cut to once its content is in the file

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_PARTS = ("-wal", "-shm", "")


class DamagedError(sqlite3.DatabaseError):
    """The file isn't what it should be, though it may be a file of SQLite's."""


def is_damage(error: Exception) -> bool:
    """Whether an error tells of a damaged file, which no retry mends."""
    if isinstance(error, DamagedError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGED


class Database:
    """The file at `path`, which is a `what` to whoever reads an error. Nothing is opened yet."""

    def __init__(
        self,
        path: Path,
        what: str,
        migrations: Sequence[Sequence[str]],
        *,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        pragmas: Sequence[str] = (),
    ) -> None:
        """`pragmas` are set last: for tests of what the file's safety rests on."""
        self.path = path
        self._what = what
        self._migrations = migrations
        self._pragmas = (f"synchronous = {synchronous}", f"journal_size_limit = {WAL_LIMIT}", *pragmas)
        self._db: sqlite3.Connection | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        """For reading. Raises OSError if the file isn't open."""
        if self._db is None:
            raise OSError(f"the {self._what} isn't open")
        return self._db

    def open(self) -> sqlite3.Connection:
        """Opens the file, or makes it. Raises UsageError for one of a newer version, and OSError or sqlite3.Error, of
        which `is_damage` tells those that `set_aside` mends.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # not as SQLite makes it
        db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            # before the first access: then SQLite keeps the log's index in memory, and there is no third file
            for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", *self._pragmas):
                db.execute(f"PRAGMA {pragma}").close()
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise DamagedError(found)
            self._migrate(db)
        except BaseException:  # cancelled or not, it isn't left open
            _close(db)
            raise
        _sync_folder(self.path.parent)
        self._db = db
        return db

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What is done in the block is in the file at its end; nothing if it raises. Raises OSError, sqlite3.Error."""
        db = self.connection
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # a full disk may have ended it already
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
            raise

    def set_aside(self) -> Path:
        """Closes the file and gives it another name, which is returned. Raises OSError."""
        self.close()
        folder, prefix = self.path.parent, f"{self.path.name}.damaged-"
        names = [found.name[len(prefix) :] for found in folder.glob(f"{prefix}*")]
        numbers = sorted(int(name) for name in names if name.isdigit())
        for number in numbers[: max(0, len(numbers) - MAX_DAMAGED + 1)]:
            for part in _PARTS:
                (folder / f"{prefix}{number}{part}").unlink(missing_ok=True)
        aside = folder / f"{prefix}{numbers[-1] + 1 if numbers else 1}"
        for part in _PARTS:  # the log first: a new file must never find an old log
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{self.path}{part}", f"{aside}{part}")
        _sync_folder(folder)
        return aside

    def close(self) -> None:
        """Idempotent."""
        if self._db is not None:
            _close(self._db)
            self._db = None

    def _migrate(self, db: sqlite3.Connection) -> None:
        newest = len(self._migrations)
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > newest:
            raise UsageError(
                f"{self._what} {self.path}: expected version {newest} or older, got {version}, "
                "which a newer vouch has made"
            )
        for number, script in enumerate(self._migrations[version:], version + 1):
            db.execute("BEGIN IMMEDIATE")
            try:
                for statement in script:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number}")
                db.execute("COMMIT")
            except sqlite3.Error as error:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # its tables aren't those of its version
                    raise DamagedError(str(error)) from error
                raise


def _close(db: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        db.close()


def _sync_folder(folder: Path) -> None:
    """Makes new names survive a power loss; not every file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
