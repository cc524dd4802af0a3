"""The file of Kademlia's records: SQLite, written in batches by a thread of its own.

    data_dir/dht.db        values, providers, and what is our own; mode 0600; made with the first record

What it holds can be had again from its authors, so a power loss may cost the last second (WAL, `synchronous=NORMAL`),
and a damaged file is set aside as dht.db.damaged, and a new one begun. The calls are synchronous, for a thread.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from protocols import ProtocolError
from protocols.framing import FrameDecoder, encode_frame
from protocols.kad.records import Changed, Own, Provider, RecordParams, Records, Value
from protocols.kad.wire import MAX_ADDR

FILE = "dht.db"
VERSION = 1

Item = Value | Provider | Own

_SCHEMA = """
CREATE TABLE vals (key BLOB PRIMARY KEY, value BLOB NOT NULL, sender BLOB NOT NULL, received REAL NOT NULL)
    WITHOUT ROWID;
CREATE TABLE providers (key BLOB, peer BLOB, addrs BLOB NOT NULL, received REAL NOT NULL, subnet TEXT,
    PRIMARY KEY (key, peer)) WITHOUT ROWID;
CREATE TABLE own (key BLOB, is_value INTEGER, value BLOB, published REAL NOT NULL,
    PRIMARY KEY (key, is_value)) WITHOUT ROWID;
"""

Batch = list[tuple[str, tuple[object, ...]]]


def batch_of(changed: Changed, records: Records) -> Batch:
    """The statements that write down what has changed."""
    batch: Batch = []
    for key in changed.values:
        value = records.stored(key)
        if value is None:
            batch.append(("DELETE FROM vals WHERE key = ?", (key,)))
        else:
            row = (key, value.value, value.sender, value.received)
            batch.append(("INSERT OR REPLACE INTO vals VALUES (?, ?, ?, ?)", row))
    for key, peer in changed.providers:
        provider = records.provider(key, peer)
        if provider is None:
            batch.append(("DELETE FROM providers WHERE key = ? AND peer = ?", (key, peer)))
        else:
            addrs = b"".join(encode_frame(addr, MAX_ADDR) for addr in provider.addrs)
            told = (key, peer, addrs, provider.received, provider.subnet)
            batch.append(("INSERT OR REPLACE INTO providers VALUES (?, ?, ?, ?, ?)", told))
    for key, is_value in changed.own:
        own = records.own.get((key, is_value))
        if own is None:
            batch.append(("DELETE FROM own WHERE key = ? AND is_value = ?", (key, is_value)))
        else:
            mine = (key, is_value, own.value, own.published)
            batch.append(("INSERT OR REPLACE INTO own VALUES (?, ?, ?, ?)", mine))
    return batch


class DhtFile:
    """The file, opened by the first call that needs it. One thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set_aside: str | None = None  # why, if a damaged file was
        self._db: sqlite3.Connection | None = None

    def load(self, params: RecordParams, now: float) -> list[Item]:
        """What is there and not too old, within the bounds. Raises OSError, sqlite3.Error."""
        if not self.path.exists():
            return []
        try:
            return self._load(params, now)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            self.close()
            self.set_aside = str(error)
            for suffix in ("", "-wal", "-shm"):
                damaged = self.path.with_name(self.path.name + suffix)
                if damaged.exists():
                    damaged.replace(self.path.with_name(f"{self.path.name}.damaged{suffix}"))
            return []

    def _load(self, params: RecordParams, now: float) -> list[Item]:
        db = self._open()
        with db:
            db.execute("DELETE FROM vals WHERE received < ?", (now - params.value_age,))
            db.execute("DELETE FROM providers WHERE received < ?", (now - params.provider_age,))
        newest = "ORDER BY received DESC LIMIT ?"
        items: list[Item] = [Value(*row) for row in db.execute(f"SELECT * FROM vals {newest}", (params.max_values,))]
        for key, peer, addrs, received, subnet in db.execute(
            f"SELECT * FROM providers {newest}", (params.max_provided,)
        ):
            items.append(Provider(key, peer, _addrs(addrs), received, subnet))
        for key, is_value, value, published in db.execute("SELECT * FROM own LIMIT ?", (params.max_own,)):
            items.append(Own(key, value if is_value else None, published))
        return items

    def write(self, batch: Batch) -> None:
        """Writes a batch, all of it or nothing. Raises OSError, sqlite3.Error."""
        db = self._open()
        with db:
            for statement, row in batch:
                db.execute(statement, row)

    def close(self) -> None:
        """Closes the file. Idempotent."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        if self._db is not None:
            return self._db
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, check_same_thread=False, timeout=2.0)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
            elif version != VERSION:
                raise sqlite3.OperationalError(
                    f"expected version {VERSION} of {self.path.name}, got {version}: a newer vouch has written it"
                )
        except BaseException:
            db.close()
            raise
        self._db = db
        return db


def _addrs(data: bytes) -> tuple[bytes, ...]:
    try:
        return tuple(FrameDecoder(MAX_ADDR).feed(data)) if data else ()
    except ProtocolError:
        return ()
