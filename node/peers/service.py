"""The node's peers, as `node.peers`: the pool's rules on the node's connections, its sources, its bans.

    events (Admitted, Disconnected, ...) --> Pool --Dial--> dialler, in the background, at most `pool_dials`
    sources --> Feed.found --> address book --> Pool --Drop--> connections
    ban --> address book (on disk), connections closed, and what comes later refused before its handshake

What is decided is `node.peers.pool`'s, what comes of it `node.peers.outcomes`'; here it gets its events and its time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from node.config import Config
from node.dialer import Dialer
from node.discovery.source import Source
from node.errors import UsageError
from node.events import (
    Admitted,
    Banned,
    Disconnected,
    Event,
    GossipRejected,
    Identified,
    MessageRejected,
    Misbehaved,
    PoolLow,
    Unbanned,
)
from node.log import get_logger
from node.names import is_peer_id, parse_peer_id
from node.peers.actions import Back, Dial, Drop, Low, Probe
from node.peers.addressbook import AddressBook
from node.peers.banning import Banning
from node.peers.choice import host
from node.peers.entry import plain_addr
from node.peers.faults import Faults
from node.peers.feed import run_source
from node.peers.outcomes import Outcomes
from node.peers.pool import Pool
from node.peers.reserve import MAX_RESERVE
from node.rules import pool_targets
from node.swarm import Swarm
from node.tasks import TaskStatus
from protocols import ProtocolError

STATIC, PROTECTED = "static", "protected"
MAX_ADDRS = 16

log = get_logger("peers")


@dataclass(frozen=True)
class PeerInfo:
    """One connected peer. `connected_for` in seconds; `score`: what it is worth to us, below 0 who misbehaves;
    `counts`: it takes one of the pool's places (false: an extra, which goes when better ones have come); `source`: who
    first told us of it.
    """

    peer: str
    addr: str
    direction: str
    connected_for: float
    score: float
    counts: bool
    source: str
    tags: tuple[str, ...]


class Peers:
    """Finds, keeps and drops peers. Public calls are safe to cancel."""

    def __init__(
        self,
        swarm: Swarm,
        dialer: Dialer,
        book: AddressBook,
        config: Config,
        *,
        score: Callable[[str], float] = lambda _peer: 0.0,
        rng: random.Random | None = None,
    ) -> None:
        """`score`: what heartbeats and gossip say of a connected peer."""
        self.swarm, self.dialer, self.book = swarm, dialer, book
        self.sources: list[Source] = []
        self.on = config.pool == "on"
        self.faults = Faults()
        self._outside_score = score
        self._config = config
        self._rng = rng or random.Random()
        self._pool: Pool | None = None
        self._static: dict[str, list[str]] = {}
        self._protected: dict[str, dict[str, bool]] = {}  # tags, and whether they outlive the node
        self._asked: dict[str, int] = {}
        self._bootstraps: set[str] = set()
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._banning = Banning(swarm, book, spared=lambda peer: peer in self._protected or peer in self._static)
        swarm.banned = self._banning.reason
        swarm.events.subscribe(self._on_event)

    # life

    async def run(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until cancelled. The address book is open, the swarm serves, and nobody is connected yet."""
        now = trio.current_time()
        self._pool = pool = Pool(
            pool_targets(self._config),
            self.book,
            us=str(self.swarm.self_id),
            now=now,
            score=self.score,
            banned=lambda addr: self.book.ban_of(ip=host(addr)) is not None,
            budget=self.dialer.budget,
            rng=self._rng,
        )
        for peer, addrs in self._static.items():
            pool.add_static(now, peer, addrs)
        for entry in self.book.entries():
            if STATIC in entry.tags:
                pool.add_static(now, entry.peer, [known.addr for known in entry.addrs])
            if PROTECTED in entry.tags:
                pool.protect(entry.peer, on=True)
        for peer in self._protected:
            pool.protect(peer, on=True)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for source in self.sources:
                    nursery.start_soon(run_source, source, self, self._rng)
                task_status.started()
                await self._keep(pool, nursery)
        finally:
            self._nursery = None

    async def _keep(self, pool: Pool, nursery: trio.Nursery) -> None:
        outcomes = Outcomes(
            pool,
            self.swarm,
            self.dialer,
            self.book,
            timeout=self._config.pool_dial_timeout,
            bootstraps=self._bootstraps,
            changed=self._wake,
        )
        while True:
            now = trio.current_time()
            for connection in self.swarm.admitted_connections():
                addr, outbound = str(connection.addr), connection.initiated
                pool.connected(now, connection.peer, addr, outbound=outbound, ip=connection.ip)
            for action in pool.poll(now):
                match action:
                    case Dial():
                        nursery.start_soon(outcomes.dial, action)
                    case Drop():
                        nursery.start_soon(outcomes.drop, action)
                    case Probe():
                        nursery.start_soon(outcomes.test, action)
                    case Back(seconds):
                        self.book.forgive(self.book.clock() - seconds)
                        pool.learned(now)
                    case Low(peers):
                        self.swarm.events.emit(PoolLow(peers, pool.targets.low))
            with trio.move_on_at(pool.next_wakeup(now)):
                await self._changed.wait()
            self._changed = trio.Event()

    # what users ask

    async def add(self, addr: str, *, static: bool = False) -> None:
        """Learns of the peer at `addr`, a multiaddr that ends in /p2p/PEERID. A static one is dialled whenever it isn't
        connected, for ever: it is remembered over restarts. Raises UsageError.
        """
        plain, _, peer = addr.rpartition("/p2p/")
        if not plain or not is_peer_id(peer):
            raise UsageError(f"expected an address such as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…, got {addr!r}")
        if not self._dialable(plain):
            raise UsageError(f"expected an address that this node can dial, got {addr!r}")
        if peer == str(self.swarm.self_id):
            raise UsageError(f"{addr}: that is this node itself")
        self.book.learn(peer, [plain], "manual")
        if static:
            self.book.tag(peer, STATIC)
            self._static.setdefault(peer, []).append(plain)
            if self._pool is not None:
                self._pool.add_static(trio.current_time(), peer, [plain])
        elif self._pool is not None:
            self._pool.learned(trio.current_time())
        self._wake()
        await trio.lowlevel.checkpoint()

    async def remove(self, peer: str) -> None:
        """Forgets a peer, static or not, and closes its connections. It may be heard of again. Raises UsageError."""
        parse_peer_id(peer)
        self._static.pop(peer, None)
        self._protected.pop(peer, None)
        if self._pool is not None:
            self._pool.remove_static(peer)
            self._pool.protect(peer, on=False)
        await self.swarm.close_peer(ID.from_base58(peer), "removed")
        self.book.remove(peer)

    def protect(self, peer: str, tag: str = "user", *, remember: bool = True) -> None:
        """The pool doesn't drop that peer, until each tag is taken off again; over restarts, unless `remember` says no.
        Raises UsageError.
        """
        parse_peer_id(peer)
        self._protected.setdefault(peer, {})[tag] = remember
        if remember:
            self.book.tag(peer, PROTECTED)
        if self._pool is not None:
            self._pool.protect(peer, on=True)

    def unprotect(self, peer: str, tag: str = "user") -> None:
        """Takes a tag off. Raises UsageError."""
        parse_peer_id(peer)
        tags = self._protected.get(peer, {})
        tags.pop(tag, None)
        if not any(tags.values()):
            self.book.untag(peer, PROTECTED)
        if not tags:
            self._protected.pop(peer, None)
            if self._pool is not None:
                self._pool.protect(peer, on=False)
                self._wake()

    async def ban(self, target: str, reason: str, *, seconds: float | None = None) -> None:
        """Bans a peer ID, an IP address or a network (CIDR), for some seconds or for ever. Connections to it are closed
        at once; it is never dialled, and refused before a handshake is spent on it. Returns once the ban is on disk.

        Raises UsageError for a bad target, LimitError if there is no place for one more, and VouchError if it couldn't
        be written: it holds all the same, until the node ends.
        """
        await self._banning.ban(target, reason, seconds=seconds)

    async def unban(self, target: str) -> bool:
        """Whether exactly that target was banned. Raises UsageError, VouchError."""
        return await self._banning.unban(target)

    def list(self) -> list[PeerInfo]:
        """Who is connected, in the order of their IDs."""
        if self._pool is None:
            return []
        now, surplus = trio.current_time(), self._pool.extras()
        rows = []
        for known in self._pool.peers.values():
            entry = self.book.get(known.peer)
            tags = set(entry.tags if entry else ()) | self._protected.get(known.peer, {}).keys()
            rows.append(
                PeerInfo(
                    peer=known.peer,
                    addr=known.addr,
                    direction="outbound" if known.outbound else "inbound",
                    connected_for=now - known.since,
                    score=self.score(known.peer),
                    counts=known.peer not in surplus,
                    source=entry.source if entry else "",
                    tags=tuple(sorted(tags)),
                )
            )
        return sorted(rows, key=lambda row: row.peer)

    def score(self, peer: str) -> float:
        """What a connected peer is worth: by heartbeats, gossip, and the rules it broke. Below 0: it misbehaves."""
        return self._outside_score(peer) - self.faults.points(peer, trio.current_time())

    @property
    def pool(self) -> Pool | None:
        """The pool's rules, once the node runs."""
        return self._pool

    def leave(self, peer: str) -> None:
        """A user is about to close the connections to that peer: the pool doesn't dial it for minutes, unless it is
        static."""
        if self._pool is not None:
            self._pool.leave(trio.current_time(), peer)

    def asked(self, peer: str) -> None:
        """A user wants the connection that comes about now, so the pool's diversity leaves it alone."""
        if self._pool is not None:
            self._pool.asked(peer)

    # sources

    def found(
        self,
        name: str,
        peer: str,
        addrs: Sequence[str],
        *,
        record: bytes | None = None,
        told_by: str = "",
    ) -> bool:
        """A source's candidate, see `Feed.found`; whether it is new."""
        pool, now = self._pool, trio.current_time()
        if pool is None or peer == pool.us or not is_peer_id(peer) or self.book.ban_of(peer=peer) is not None:
            return False
        new = peer not in self.book
        plain = (plain_addr(addr, peer) for addr in addrs[:MAX_ADDRS])
        usable = [addr for addr in plain if addr and self._dialable(addr) and not self.book.ban_of(ip=host(addr))]
        if name == "bootstrap" and (peer in self._bootstraps or len(self._bootstraps) < MAX_RESERVE):
            self._bootstraps.add(peer)
            if self.on:
                pool.add_reserve(now, peer, usable)
            else:
                pool.add_static(now, peer, usable)
        if usable or record:
            try:
                self.book.learn(peer, usable, self._source(name, told_by), record=record)
            except ProtocolError as error:
                log.debug("bad_record", peer=peer, source=name, error=str(error))
                return False
            pool.learned(now)
            self._wake()
        return new

    def _source(self, name: str, told_by: str) -> str:
        """Who is the source: each that tells us of peers, by its subnet, or a flood of one would be as good as all
        others together."""
        known = self._pool.peers.get(told_by) if told_by and self._pool is not None else None
        return f"{name}/{known.subnet or told_by}" if known is not None else name

    def _dialable(self, addr: str) -> bool:
        try:
            return self.swarm.can_dial(Multiaddr(addr))
        except Exception:  # each codec of py-multiaddr fails in its own way on a stranger's text
            return False

    async def wanted(self, not_before: float) -> int:
        """Waits until the pool wants candidates, and until `not_before`."""
        await trio.sleep_until(not_before)
        while self._pool is None or not self._pool.wants():
            with trio.move_on_after(1.0):
                await self._changed.wait()
            await trio.sleep(0.01)
        return self._pool.wants()

    # what happens

    def _wake(self) -> None:
        self._changed.set()

    def _on_event(self, event: Event) -> None:
        pool = self._pool
        if pool is None:
            return
        now = trio.current_time()
        match event:
            case Admitted(peer, addr, direction):
                outbound, ip = direction == "outbound", self.swarm.ip_of(ID.from_base58(peer))
                pool.connected(now, peer, addr, outbound=outbound, asked=peer in self._asked, ip=ip)
                if any(self._protected.get(peer, {}).values()):
                    self.book.tag(peer, PROTECTED)  # it is in the book now
            case Disconnected(peer):
                pool.disconnected(now, peer)
            case Identified(peer):
                pool.learned(now)
            case Banned(target):
                pool.remove_static(target)
                self._static.pop(target, None)
                self.book.untag(target, STATIC)
            case Unbanned():
                pass
            case Misbehaved(peer, _, reason):
                self._charge(peer, reason, now)
            case MessageRejected(peer, _, reason, _, False) | GossipRejected(peer, _, reason, _, False):
                self._charge(peer, reason, now)
            case _:
                return
        self._wake()

    def _charge(self, peer: str, reason: str, now: float) -> None:
        seconds = self._config.fault_ban
        if self.faults.charge(peer, now) and seconds > 0 and self._nursery is not None:
            self._nursery.start_soon(self._banning.for_faults, peer, reason, seconds)

    def user_dials(self, peer: str, *, begins: bool) -> None:
        """A user's own dial of a peer begins or ends."""
        count = self._asked.get(peer, 0) + (1 if begins else -1)
        if count > 0:
            self._asked[peer] = count
        else:
            self._asked.pop(peer, None)
