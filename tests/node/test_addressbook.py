"""The address book on disk: what outlives its node, its file's damage, and a disk that fails."""

from __future__ import annotations

import functools
import logging
import os
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from node import Config, Identity, Node
from node.database import MAX_DAMAGED
from node.errors import UsageError, VouchError
from node.identity import load_or_make_key
from node.peers import addressbook, bookfile
from node.peers.addressbook import AddressBook
from node.peers.bookfile import MIGRATIONS, BookFile
from node.records import unseal
from tests.node.test_book import PEER, addr, record
from tests.nodes import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "addressbook.db"


@asynccontextmanager
async def opened(path, **options):
    book = AddressBook(path, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(book.run)
        yield book
        nursery.cancel_scope.cancel()


def aside(path):
    return sorted(found.name for found in path.parent.glob("*damaged*"))


# what outlives the node


async def test_everything_is_back_after_a_restart(path):
    async with opened(path) as book:
        book.learn(PEER, [addr(0), addr(1)], "exchange", record=record(2**63 - 1))
        book.succeeded(PEER, addr(0))
        book.failed(PEER, addr(1))
        book.describe(PEER, protocols=["/a", "/b"], agent="vouch/1.2.3 \N{SNOWMAN}")
        book.tag(PEER, "static")
        book.seen("inbound")
        book.learn("gone", [addr(3)], "dht")
        before = {entry.peer: entry for entry in book.entries()}
        await book.flush()
        book.remove("gone")
    async with opened(path) as book:
        after = {entry.peer: entry for entry in book.entries()}
        before.pop("gone")
        assert after == before
        assert book.unwritten == 0


async def test_the_number_of_our_own_record_is_back(path):
    async with opened(path) as book:
        book.keep_own_seq(5)
        await book.flush()
        assert not book.unwritten
        book.keep_own_seq(4)
    async with opened(path) as book:
        assert book.own_seq == 5
        book.keep_own_seq(6)  # written at the end
    async with opened(path) as book:
        assert book.own_seq == 6


async def test_a_nodes_record_is_newer_than_its_last_whatever_the_clock_says(tmp_path):
    config = Config(listen=("/ip4/127.0.0.1/tcp/0",), data_dir=tmp_path, dht="off", gossip="off")
    numbers = []
    for ahead in (10**12, 0):
        node = Node(config)
        node.records._clock = lambda ahead=ahead: 1e9 + ahead
        async with node:
            numbers.append(unseal(node.records.own()).seq)
    assert numbers == [(10**9 + 10**12) * 1000, (10**9 + 10**12) * 1000 + 1]


async def test_the_order_in_which_peers_were_seen_is_back(path):
    times = iter(range(1, 1000))
    async with opened(path, clock=lambda: next(times)) as book:
        for name in "zayb":
            book.succeeded(name, addr(0))
    async with opened(path, clock=lambda: 1000) as book:
        assert [entry.peer for entry in book.candidates(9)] == list("byaz")


async def test_a_ban_is_on_disk_when_it_is_given_and_outlives_the_node(path):
    clock = [1000.0]
    async with opened(path, clock=lambda: clock[0]) as book:
        book.learn("a", [addr(0)], "manual")
        await book.ban("a", "spam", seconds=60)
        await book.ban("10.0.0.0/8", "for ever")
        await book.ban("192.0.2.1", "short", seconds=1)
        assert book.candidates(5) == []
        assert await book.unban("10.0.0.0/8")
        assert not await book.unban("10.0.0.0/8")
    clock[0] += 5
    async with opened(path, clock=lambda: clock[0]) as book:
        assert [(ban.target, ban.reason, ban.until) for ban in book.bans()] == [("a", "spam", 1060.0)]
        assert book.ban_of(peer="a")
        assert book.ban_of(ip="10.1.1.1") is None
        clock[0] += 60
        assert book.ban_of(peer="a") is None
        assert [entry.peer for entry in book.candidates(5)] == ["a"]


async def test_a_smaller_book_lets_the_worst_go_on_disk_too(path):
    async with opened(path) as book:
        for number in range(40):
            book.learn(f"p{number}", [addr(number)], "dht")
        book.succeeded("p7", addr(7))
    async with opened(path, max_peers=10) as book:
        assert len(book) == 10
        assert "p7" in book
    async with opened(path) as book:
        assert len(book) == 10


async def test_what_was_never_written_leaves_nothing_to_write(path):
    async with opened(path, max_peers=20) as book:
        await book.flush()
        for number in range(5000):
            book.learn(f"p{number}", [addr(number)], "dht")
            book.seen("p0")
        assert book.unwritten <= 20


async def test_many_changes_are_written_in_batches_while_others_come(path):
    async with opened(path) as book:
        for number in range(3 * addressbook.BATCH):
            book.learn(f"p{number}", [addr(number)], "dht")
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(book.flush)
            await trio.lowlevel.checkpoint()
            book.learn("late", [addr(1)], "dht")
        assert book.unwritten <= 1
        await book.flush()
        assert book.unwritten == 0


async def test_in_memory_nothing_is_waited_for():
    async with opened(None) as book:
        book.learn("a", [addr(0)], "manual")
        await book.flush()
        await book.ban("a", "x")
        assert book.unwritten == 0


async def test_changes_are_written_soon_without_being_asked_for(path):
    async with opened(path) as book:
        book.learn("a", [addr(0)], "manual")
        await eventually(lambda: book.unwritten == 0)


# who may have it


async def test_a_second_node_on_the_file_is_refused_and_told_why(path):
    async with opened(path):
        with pytest.raises(UsageError) as refused:
            BookFile(path)
    assert str(refused.value) == (
        f"another node (process {os.getpid()}) uses the address book in {path.parent}: give this one another --data-dir"
    )
    BookFile(path).close()


async def test_two_nodes_on_one_data_directory(tmp_path):
    off = dict.fromkeys(("dht", "gossip", "heartbeat", "pool"), "off")
    config = Config(data_dir=tmp_path, listen=("/ip4/127.0.0.1/tcp/0",), **off)
    async with Node(config) as node:
        assert node.addressbook.path == config.addressbook_path
        with pytest.raises(UsageError, match=r"another node \(process [0-9]+\) uses the address book in "):
            async with Node(config):
                pass
        # one with an identity of its own has nothing to do with the folder
        async with Node(config, identity=Identity.generate()) as other:
            assert other.addressbook.path is None
            connection = await other.connect(node.addrs[0])
            await eventually(lambda: node.addressbook.get(other.peer_id) and node.addressbook.get(other.peer_id).agent)
            assert connection.peer == node.peer_id
            assert other.addressbook.get(node.peer_id).worked
            entry = node.addressbook.get(other.peer_id)
            assert entry.last_seen > 0
            assert not entry.worked
    async with Node(config) as again:
        assert other.peer_id in again.addressbook


async def test_a_failed_dial_is_remembered_of_peers_that_are_known(tmp_path):
    config = Config(data_dir=tmp_path, listen=(), dht="off", gossip="off", heartbeat="off", addressbook="file")
    stranger = Identity.generate().peer_id
    nobody = "/ip4/127.0.0.1/tcp/9"
    async with Node(config, identity=load_or_make_key(config.key_path)[0]) as node:
        node.addressbook.learn(stranger, [nobody], "manual")
        with pytest.raises(VouchError):
            await node.connect(f"{nobody}/p2p/{stranger}")
        entry = node.addressbook.get(stranger)
        assert (entry.failures, entry.addrs[0].failures) == (1, 1)
        assert node.addressbook.candidates(5) == []


def test_the_file_is_its_owners_alone(path):
    before = os.umask(0)
    try:
        file = BookFile(path)
        file.write()
        modes = {found.name: found.stat().st_mode & 0o777 for found in path.parent.iterdir()}
        file.close()
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_file_that_cannot_be_opened(tmp_path, what):
    if what == "folder":
        (tmp_path / "addressbook.db").mkdir()
        with pytest.raises(UsageError, match=r"can't use the address book .*addressbook\.db: "):
            BookFile(tmp_path / "addressbook.db")
    else:
        (tmp_path / "data").write_text("")
        with pytest.raises(UsageError, match="can't use the data directory"):
            BookFile(tmp_path / "data" / "addressbook.db")


# damage


def spoil_the_header(data):
    return b"x" * 100 + data[100:]


def cut(data):
    return data[: len(data) // 2 + 100]


def fill_with_noise(data):
    return data[:4096] + os.urandom(len(data) - 4096)


@pytest.mark.parametrize("spoil", [spoil_the_header, cut, fill_with_noise, lambda _: b"not a database at all" * 100])
async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(path, caplog, spoil):
    caplog.set_level(logging.WARNING)
    async with opened(path) as book:
        for number in range(300):
            book.learn(f"p{number}", [addr(number)], "dht")
    path.write_bytes(spoil(path.read_bytes()))
    path.with_name("addressbook.db-wal").write_bytes(b"old log")
    spoiled = path.read_bytes()
    async with opened(path) as book:
        assert len(book) == 0
        book.learn("new", [addr(0)], "dht")
    assert aside(path) == ["addressbook.db.damaged-1", "addressbook.db.damaged-1-wal"] or aside(path) == [
        "addressbook.db.damaged-1"
    ]
    assert (path.parent / "addressbook.db.damaged-1").read_bytes()[:100] == spoiled[:100]
    assert "got a damaged file" in caplog.text
    assert "addressbook.db.damaged-1" in caplog.text
    async with opened(path) as book:
        assert "new" in book


def test_damaged_files_are_numbered_and_bounded(path):
    for number in range(1, MAX_DAMAGED + 4):
        BookFile(path).close()
        path.write_text(f"damaged {number} " * 100)
        file = BookFile(path)
        assert f"damaged-{number} now" in file.warnings[0]
        file.close()
    assert len(aside(path)) == MAX_DAMAGED
    assert f"addressbook.db.damaged-{MAX_DAMAGED + 3}" in aside(path)


def test_tables_that_are_not_ours_are_damage_and_stay(path):
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE peers (something)")
    other.execute("INSERT INTO peers VALUES ('precious')")
    other.commit()
    other.close()
    file = BookFile(path)
    assert file.warnings
    file.close()
    kept = sqlite3.connect(path.parent / "addressbook.db.damaged-1")
    assert kept.execute("SELECT * FROM peers").fetchall() == [("precious",)]
    kept.close()


async def test_rows_that_are_none_are_left_out(path):
    async with opened(path) as book:
        book.learn("good", [addr(0)], "dht")
        book.learn("bad", [addr(0)], "dht")
    other = sqlite3.connect(path)
    other.execute("UPDATE peers SET addrs = '{not json' WHERE peer = 'bad'")
    other.commit()
    other.close()
    file = BookFile(path)
    assert [entry.peer for entry in file.entries] == ["good"]
    assert "got 1 rows that are none" in file.warnings[0]
    file.close()


# the schema


def test_a_file_of_an_older_version_is_brought_up_to_date(path, monkeypatch):
    file = BookFile(path)
    file.close()
    more = ("ALTER TABLE peers ADD COLUMN score REAL", "UPDATE peers SET score = 1")
    monkeypatch.setattr(bookfile, "MIGRATIONS", (*MIGRATIONS, more))
    BookFile(path).close()
    known = sqlite3.connect(path)
    assert known.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    known.execute("SELECT score FROM peers")
    known.close()


def test_a_file_of_a_newer_version_is_left_alone(path):
    BookFile(path).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.commit()
    newer.close()
    with pytest.raises(
        UsageError, match=f"expected version {len(MIGRATIONS)} or older, got 99, which a newer vouch has made"
    ):
        BookFile(path)
    assert aside(path) == []


def test_a_migration_that_fails_changes_nothing(path, monkeypatch):
    BookFile(path).close()
    other = sqlite3.connect(path)
    other.execute("DROP TABLE bans")
    other.commit()
    other.close()
    more = ("ALTER TABLE peers ADD COLUMN score REAL", "ALTER TABLE bans ADD COLUMN by TEXT")
    monkeypatch.setattr(bookfile, "MIGRATIONS", (*MIGRATIONS, more))
    BookFile(path).close()  # set aside, since its tables aren't those of its version
    kept = sqlite3.connect(path.parent / aside(path)[0])
    assert kept.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert "score" not in [column[1] for column in kept.execute("PRAGMA table_info(peers)")]
    kept.close()


# a disk that fails


class Failing(BookFile):
    """Fails as long as `error` is set."""

    error: Exception | None = None

    def write(self, *args) -> None:
        if self.error is not None:
            raise self.error
        super().write(*args)


async def test_a_full_disk_ends_nothing_and_is_told(path, caplog, monkeypatch):
    monkeypatch.setattr(addressbook, "RETRY_FIRST", 0.01)
    caplog.set_level(logging.WARNING)
    made = []

    def make(path):
        made.append(Failing(path))
        return made[-1]

    async with opened(path, open_file=make) as book:
        (file,) = made
        file.error = OSError(28, "No space left on device")
        book.learn("a", [addr(0)], "dht")
        with pytest.raises(VouchError, match="No space left on device"):
            await book.flush()
        with pytest.raises(VouchError, match="No space left on device"):
            await book.ban("10.0.0.0/8", "x")
        assert book.ban_of(ip="10.0.0.1")  # it holds, though it isn't on disk
        assert "a" in book
        assert "addressbook_not_written" in caplog.text
        file.error = None
        await eventually(lambda: book.unwritten == 0)
        await book.flush()
    async with opened(path) as book:
        assert "a" in book
        assert book.ban_of(ip="10.0.0.1")


async def test_a_really_full_disk(path):
    """SQLite's own limit of pages, which fails as a full disk does."""
    async with opened(path, open_file=functools.partial(BookFile, pragmas=("max_page_count = 12",))) as book:
        book.learn("first", [addr(0)], "dht")
        await book.flush()
        for number in range(500):
            book.learn(f"p{number}", [addr(n) for n in range(10)], "dht")
        with pytest.raises(VouchError, match="full"):
            await book.flush()
        assert len(book) == 501
    async with opened(path) as book:
        assert [entry.peer for entry in book.entries()] == ["first"]


async def test_a_file_that_turns_out_to_be_damaged_gives_way_to_all_that_is_known(path):
    made = []

    def make(path):
        made.append(Failing(path))
        return made[-1]

    class Malformed(sqlite3.DatabaseError):
        sqlite_errorcode = sqlite3.SQLITE_CORRUPT

    async with opened(path, open_file=make) as book:
        (file,) = made
        book.learn("old", [addr(0)], "dht")
        await book.ban("10.0.0.0/8", "x")
        file.error = Malformed("database disk image is malformed")
        book.learn("new", [addr(0)], "dht")
        with pytest.raises(VouchError, match="malformed"):
            await book.flush()
        file.error = None
        await book.flush()
        assert aside(path)
    async with opened(path) as book:
        assert "old" in book
        assert "new" in book
        assert book.ban_of(ip="10.0.0.1")


async def test_text_that_utf_8_cannot_hold_stops_no_write(path):
    stray = "\udc80"
    async with opened(path) as book:
        assert not book.learn(stray, [addr(0)], "dht")
        assert book.learn("a", [addr(0), f"/dns/{stray}"], stray)
        book.describe("a", protocols=[stray], agent=stray)
        book.tag("a", stray)
        await book.ban("a", stray)
        await book.flush()
    async with opened(path) as book:
        assert book.get("a").agent == "?"


async def test_a_flush_that_is_cancelled_harms_nobody(path):
    async with opened(path) as book:
        book.learn("a", [addr(0)], "dht")
        with trio.move_on_after(0):
            await book.flush()
        await book.flush()
        assert book.unwritten == 0


async def test_a_flush_of_a_book_that_isnt_open(path):
    book = AddressBook(path)
    book.learn("a", [addr(0)], "dht")
    with pytest.raises(VouchError, match="expected it to be open"):
        await book.flush()
    async with trio.open_nursery() as nursery:  # and what was learned before it was opened isn't lost
        await nursery.start(book.run)
        await book.flush()
        nursery.cancel_scope.cancel()
    async with opened(path) as book:
        assert "a" in book


def test_the_rules_and_the_file_need_no_libp2p():
    code = "import sys, node.peers.bookfile, node.api.addressbook; sys.exit('libp2p' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
