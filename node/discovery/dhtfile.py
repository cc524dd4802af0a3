"""The file of Kademlia's records: SQLite, written in batches by a thread of its own.

    data_dir/dht.db        values, providers, and what is our own; mode 0600; made with the first record

What it holds can be had again from its authors, so a power loss may cost the last second (WAL, `synchronous=NORMAL`),
and a damaged file is set aside as dht.db.damaged-1, and a new one begun. The calls are synchronous, for a thread.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from node.config import Config
from node.database import Database, is_damage
from node.errors import UsageError
from node.identity import Identity, load_key
from protocols import ProtocolError
from protocols.framing import FrameDecoder, encode_frame
from protocols.kad.records import Changed, Own, Provider, RecordParams, Records, Value
from protocols.kad.wire import MAX_ADDR

FILE = "dht.db"
Item = Value | Provider | Own

MIGRATIONS = (
    (
        """CREATE TABLE vals (key BLOB PRIMARY KEY, value BLOB NOT NULL, sender BLOB NOT NULL, received REAL NOT NULL)
            WITHOUT ROWID""",
        """CREATE TABLE providers (key BLOB, peer BLOB, addrs BLOB NOT NULL, received REAL NOT NULL, subnet TEXT,
            PRIMARY KEY (key, peer)) WITHOUT ROWID""",
        """CREATE TABLE own (key BLOB, is_value INTEGER, value BLOB, published REAL NOT NULL,
            PRIMARY KEY (key, is_value)) WITHOUT ROWID""",
    ),
)

Batch = list[tuple[str, tuple[object, ...]]]


def file_of(config: Config, identity: Identity) -> DhtFile | None:
    """The node's file; None if its records are in memory. With "auto" the data directory belongs to its key: a node
    with an identity of its own leaves no trace there.
    """
    if config.dht_store == "auto":
        try:
            if load_key(config.key_path).peer_id != identity.peer_id:
                return None
        except UsageError:
            return None
    return None if config.dht_store == "memory" else DhtFile(config.data_dir / FILE)


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
        self._database = Database(path, "hash table's records", MIGRATIONS, synchronous="NORMAL")
        self._open = False

    def load(self, params: RecordParams, now: float) -> list[Item]:
        """What is there and not too old, within the bounds. Raises OSError, sqlite3.Error, UsageError."""
        if not self.path.exists():
            return []
        try:
            return self._load(params, now)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._database.set_aside()
            self._open = False
            self.set_aside = str(error)
            return []

    def _load(self, params: RecordParams, now: float) -> list[Item]:
        with self._opened().transaction() as db:
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
        with self._opened().transaction() as db:
            for statement, row in batch:
                db.execute(statement, row)

    def close(self) -> None:
        """Closes the file. Idempotent."""
        self._database.close()
        self._open = False

    def _opened(self) -> Database:
        if not self._open:
            self._database.open()
            self._open = True
        return self._database


def _addrs(data: bytes) -> tuple[bytes, ...]:
    try:
        return tuple(FrameDecoder(MAX_ADDR).feed(data)) if data else ()
    except ProtocolError:
        return ()
