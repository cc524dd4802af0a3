"""The address book: what is known of peers, and who is banned, in memory and on disk.

    learn, seen, ... --> Book, Bans (rules, in memory)      what everybody reads
                           |  what changed, once for each peer
                           v
                         writer: a batch every WRITE_DELAY, in a thread --> BookFile

`flush` is the acknowledgement: what was learned before it is on disk when it returns. Everything else is written soon,
and a crash loses that much at most. What waits is bounded: a peer waits once, however often it changes, and one that
was never written leaves nothing behind when it is evicted.

A write that fails (disk full, disk broken) is told as a warning and tried again, after RETRY_FIRST seconds, doubling
to RETRY_LONGEST, and at each `flush`, which raises; the book goes on in memory meanwhile. A file that turns out to be
damaged is set aside, and all that is in memory goes into a new one.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path

import trio
import trio.to_thread

from node.database import is_damage
from node.errors import VouchError
from node.log import get_logger
from node.peers.bans import MAX_BANS, Ban, Bans, parse_target
from node.peers.book import FIRST_WAIT, LONGEST_WAIT, MAX_PEERS, Book, Entry
from node.peers.bookfile import BookFile
from node.tasks import TaskStatus
from protocols.histogram import Histogram

WRITE_DELAY = 0.25
BATCH = 1000  # peers in one write, that the event loop isn't kept by making it
RETRY_FIRST = 1.0
RETRY_LONGEST = 60.0
LAST_WRITE_TIMEOUT = 5.0
EXPIRE_INTERVAL = 60.0

log = get_logger("addressbook")


class AddressBook:
    """See `Book` for the rules. Everything but `ban`, `unban` and `flush` is at once, and never blocks."""

    def __init__(
        self,
        path: Path | None,
        *,
        max_peers: int = MAX_PEERS,
        max_bans: int = MAX_BANS,
        first_wait: float = FIRST_WAIT,
        longest_wait: float = LONGEST_WAIT,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        open_file: Callable[[Path], BookFile] = BookFile,
    ) -> None:
        """`path`: the file, or None to keep everything in memory only."""
        self.path = path
        self.clock = clock
        self.book = Book(
            max_peers, rng=rng, first_wait=first_wait, longest_wait=longest_wait, changed=self._peer_changed
        )
        self.book.banned = self._is_banned
        self._bans = Bans(max_bans)
        self._open_file = open_file
        self._file: BookFile | None = None
        # in the order of their first change: for each whether it is on disk, or may be
        self._dirty: dict[str, None] = {}
        self._dirty_bans: dict[str, None] = {}
        self._stored: set[str] = set()
        self.own_seq, self._own_seq_dirty = 0, False  # the highest number that a record of ours has had
        self._changes = 0
        self._written = 0
        self._wake = trio.Event()
        self._hurry = trio.Event()
        self._waiting: list[_Waiter] = []
        self.writes: Counter[str] = Counter()  # "ok", "failed"
        self.write_seconds = Histogram()
        self.error = ""  # why the last write failed; empty after one that didn't

    # life

    async def run(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Opens the file, writes until cancelled, and once more then. Raises UsageError if the file can't be used, or
        another node uses it.
        """
        if self.path is None:
            task_status.started()
            await self._expire()
            return
        file = await trio.to_thread.run_sync(self._open_file, self.path)
        try:
            self._take(file)
            self._file = file
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._expire)
                await self._write_on()
        finally:
            self._file = None
            await self._close(file)

    def _take(self, file: BookFile) -> None:
        now = self.clock()
        for warning in file.warnings:
            log.warning("addressbook", detail=warning)
        file.warnings.clear()
        self.own_seq = max(self.own_seq, file.own_seq)
        self._stored.update(entry.peer for entry in file.entries)
        known = set(self._dirty)
        self.book.restore(file.entries, now)
        # what came from there needn't go back, unless more was known of it; what wasn't taken has to go
        for entry in file.entries:
            if entry.peer not in known and entry.peer in self.book:
                self._dirty.pop(entry.peer, None)
            elif entry.peer not in self.book:
                self._peer_changed(entry.peer)
        for ban in file.bans:
            if self._bans.get(ban.target) is None and (ban.until is None or now < ban.until):
                try:
                    gone = self._bans.add(ban, now)
                except VouchError as error:
                    log.warning("addressbook", detail=f"a ban is left out: {error}")
                    continue
                for other in gone:
                    self._ban_changed(other.target)
            else:
                self._ban_changed(ban.target)
        file.entries, file.bans = [], []
        log.debug("addressbook_opened", peers=len(self.book), bans=len(self._bans))

    async def _expire(self) -> None:
        while True:
            await trio.sleep(EXPIRE_INTERVAL)
            for ban in self._bans.expire(self.clock()):
                self._ban_changed(ban.target)

    async def _close(self, file: BookFile) -> None:
        """The last write. A disk that hangs isn't waited for."""
        with trio.CancelScope(shield=True), trio.move_on_after(LAST_WRITE_TIMEOUT) as scope:
            try:
                await self._write(file, abandon=True)
            except (OSError, sqlite3.Error) as error:
                log.warning("addressbook_not_written", error=str(error), peers=len(self._dirty))
            self._answer(VouchError("the address book is closed"))
            await trio.to_thread.run_sync(file.close, abandon_on_cancel=True)  # type: ignore[call-arg]  # old stubs
        if scope.cancelled_caught:
            log.warning("addressbook_not_written", error=f"the disk took over {LAST_WRITE_TIMEOUT:g} s")

    # what is learned: see Book

    def learn(self, peer: str, addrs: Sequence[str], source: str, *, record: bytes | None = None) -> bool:
        """Somebody told of a peer; whether it is in the book now. Raises ProtocolError for a record that isn't one."""
        return self.book.learn(peer, addrs, source, self.clock(), record=record)

    def succeeded(self, peer: str, addr: str) -> None:
        """We have reached the peer at that address."""
        self.book.succeeded(peer, addr, self.clock())

    def failed(self, peer: str, addr: str) -> None:
        """That address failed; without one (""), the peer as a whole did."""
        self.book.failed(peer, addr, self.clock())

    def forgive(self, since: float) -> None:
        """Ends the backoffs of what failed at `since` (wall time) or later: it was our own network that was away."""
        self.book.forgive(since)

    def seen(self, peer: str) -> None:
        """The peer is connected now, or was heard of by itself."""
        self.book.seen(peer, self.clock())

    def describe(self, peer: str, *, protocols: Sequence[str] = (), agent: str = "") -> None:
        """What a known peer says of itself."""
        self.book.describe(peer, protocols=protocols, agent=agent)

    def tag(self, peer: str, tag: str) -> bool:
        """Marks a known peer: "static" and "protected" are never evicted."""
        return self.book.tag(peer, tag)

    def untag(self, peer: str, tag: str) -> None:
        """Takes a mark away."""
        self.book.untag(peer, tag)

    def remove(self, peer: str) -> bool:
        """Forgets a peer; whether it was known."""
        return self.book.remove(peer)

    def keep_own_seq(self, seq: int) -> None:
        """Our own signed record has that number now: the next one's is to be higher, whatever the clock says."""
        if seq > self.own_seq:
            self.own_seq = seq
            if self.path is not None:
                self._own_seq_dirty = True
                self._changed()

    def restore(self, entries: Sequence[Entry]) -> int:
        """Joins entries with what is known (an import); how many are in the book now."""
        return self.book.restore(entries, self.clock())

    # what is known

    def get(self, peer: str) -> Entry | None:
        return self.book.get(peer)

    def entries(self) -> Iterator[Entry]:
        return self.book.entries()

    def __len__(self) -> int:
        return len(self.book)

    def __contains__(self, peer: object) -> bool:
        return peer in self.book

    def candidates(self, limit: int, *, exclude: Container[str] = ()) -> list[Entry]:
        """Peers that may be dialled now, best first: neither banned nor excluded, their backoff over."""
        return self.book.candidates(limit, self.clock(), exclude=exclude)

    def untested(self, limit: int, *, exclude: Container[str] = ()) -> list[Entry]:
        """The same of those that we have never reached."""
        return self.book.untested(limit, self.clock(), exclude=exclude)

    def dialable(self, entry: Entry) -> list[str]:
        """The addresses of an entry whose backoff is over, best first."""
        return entry.dialable(self.clock(), self.book.longest_wait)

    # bans

    async def ban(self, target: str, reason: str, *, seconds: float | None = None) -> None:
        """Bans a peer ID, an IP or a network (CIDR), for some seconds or for ever. It holds at once, and is on disk
        when this returns. Raises UsageError for a bad target, LimitError, and VouchError if it couldn't be written.
        """
        now = self.clock()
        until = None if seconds is None else now + seconds
        for other in self._bans.add(Ban(target, reason, now, until), now):
            self._ban_changed(other.target)
        self._ban_changed(parse_target(target))
        await self.flush()

    async def unban(self, target: str) -> bool:
        """Whether that very target was banned. As `ban` otherwise."""
        banned = self._bans.remove(target)
        if banned:
            self._ban_changed(parse_target(target))
            await self.flush()
        return banned

    def ban_bound(self) -> tuple[int, int, int]:
        """How many bans are kept, may be, and gave way or were refused because there was no place."""
        return len(self._bans), self._bans.places, self._bans.no_room

    def bans(self) -> list[Ban]:
        """Those that hold now."""
        now = self.clock()
        return [ban for ban in self._bans if ban.until is None or now < ban.until]

    def ban_of(self, *, peer: str | None = None, ip: str | None = None) -> Ban | None:
        """The ban that holds for a peer or an address."""
        return self._bans.of(self.clock(), peer=peer, ip=ip)

    def _is_banned(self, peer: str) -> bool:
        return len(self._bans) > 0 and self.ban_of(peer=peer) is not None

    # the disk

    async def flush(self) -> None:
        """Returns once everything that was learned so far is on disk. Raises VouchError saying why it can't be."""
        if self.path is None or self._written >= self._changes:
            await trio.lowlevel.checkpoint()
            return
        if self._file is None:
            raise VouchError(f"address book {self.path}: expected it to be open, it isn't")
        waiter = _Waiter(self._changes)
        self._waiting.append(waiter)
        self._hurry.set()
        try:
            await waiter.answered.wait()
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        if waiter.error is not None:
            raise VouchError(f"address book {self.path}: {waiter.error}") from waiter.error

    @property
    def unwritten(self) -> int:
        """How many peers and bans wait to be written."""
        return len(self._dirty) + len(self._dirty_bans)

    def _peer_changed(self, peer: str) -> None:
        if self.path is None:
            return
        if peer not in self.book and peer not in self._stored:
            self._dirty.pop(peer, None)  # it was never written, so there is nothing to take back
        else:
            self._dirty[peer] = None
        self._changed()

    def _ban_changed(self, target: str) -> None:
        if self.path is not None:
            self._dirty_bans[target] = None
            self._changed()

    def _changed(self) -> None:
        self._changes += 1
        self._wake.set()

    async def _write_on(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            wait = min(RETRY_FIRST * 2.0 ** min(failures - 1, 10), RETRY_LONGEST) if failures else WRITE_DELAY
            with trio.move_on_after(wait):
                await self._hurry.wait()
            self._wake, self._hurry = trio.Event(), trio.Event()
            file = self._file
            assert file is not None
            began = trio.current_time()
            try:
                await self._write(file)
                failures, self.error = 0, ""
                self.writes["ok"] += 1
                self.write_seconds.observe(trio.current_time() - began)
            except (OSError, sqlite3.Error) as error:
                self.writes["failed"] += 1
                failures, self.error = failures + 1, str(error)
                self._wake.set()
                self._answer(error)
                if is_damage(error) and failures == 1:
                    await self._begin_anew(file, error)
                else:
                    log.warning("addressbook_not_written", error=str(error), peers=len(self._dirty))

    async def _begin_anew(self, file: BookFile, error: Exception) -> None:
        """The file is damaged: a new one gets all that is known."""
        try:
            await trio.to_thread.run_sync(file.set_aside, error)
        except (OSError, sqlite3.Error) as another:
            log.warning("addressbook_not_written", error=str(another), peers=len(self._dirty))
        for warning in file.warnings:
            log.warning("addressbook", detail=warning)
        file.warnings.clear()
        self._stored.clear()
        self._dirty = {entry.peer: None for entry in self.book.entries()}
        self._dirty_bans = {ban.target: None for ban in self._bans}
        self._own_seq_dirty = self.own_seq > 0
        self._changed()
        self._hurry.set()

    async def _write(self, file: BookFile, *, abandon: bool = False) -> None:
        """Everything that has changed until now, in batches. Raises OSError, sqlite3.Error; what failed is kept."""
        target = self._changes
        # a batch's worth at a time: what changes meanwhile comes behind them, and needn't be waited for
        left = len(self._dirty)
        while left > 0 or self._dirty_bans or self._own_seq_dirty:
            peers, bans = list(self._dirty)[:BATCH] if left > 0 else [], list(self._dirty_bans)
            for peer in peers:
                del self._dirty[peer]
            self._dirty_bans.clear()
            own_seq, self._own_seq_dirty = self.own_seq if self._own_seq_dirty else None, False
            left -= len(peers)
            put = [entry for peer in peers if (entry := self.book.get(peer)) is not None]
            removed = [peer for peer in peers if peer not in self.book]
            kept = [ban for target_ in bans if (ban := self._bans.get(target_)) is not None]
            unbanned = [target_ for target_ in bans if self._bans.get(target_) is None]
            self._stored.update(entry.peer for entry in put)
            try:
                await trio.to_thread.run_sync(  # type: ignore[call-arg]  # old stubs
                    file.write, put, removed, kept, unbanned, own_seq, abandon_on_cancel=abandon
                )
            except BaseException:
                self._own_seq_dirty = self._own_seq_dirty or own_seq is not None
                self._dirty = dict.fromkeys(peers) | self._dirty
                self._dirty_bans = dict.fromkeys(bans) | self._dirty_bans
                raise
            self._stored.difference_update(peer for peer in removed if peer not in self._dirty)
        self._written = max(self._written, target)
        for waiter in [waiter for waiter in self._waiting if waiter.target <= self._written]:
            self._waiting.remove(waiter)
            waiter.answered.set()

    def _answer(self, error: Exception) -> None:
        """Everybody who waits for the disk learns that it didn't work."""
        for waiter in self._waiting:
            waiter.error = error
            waiter.answered.set()
        self._waiting.clear()


class _Waiter:
    """Somebody who waits until the changes up to the `target`-th are on disk."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.answered = trio.Event()
        self.error: Exception | None = None
