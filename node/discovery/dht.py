"""Kademlia on the node: `node.dht`, and a source of peers. The rules are `protocols.kad`'s.

    identified peer that serves Kademlia --> routing table <-- refresh: look ourselves up, then a key in each bucket
                                                  |
                         answers to others, look-ups of ours, random walks for the pool

The protocol ID is the network's own (docs/wire.md). Refreshes are frequent while the table is small and changes, and
slow down to `dht_refresh_interval`. What we keep for others is in the data directory's dht.db (`dhtfile`).
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio
from libp2p.peer.id import ID

from node.config import Config
from node.discovery.addresses import NodeLinks, to_texts
from node.discovery.dhtfile import batch_of, file_of
from node.discovery.source import Feed
from node.errors import NotFoundError, UsageError
from node.events import Banned, Event, Identified
from node.host import Host
from node.identify import IdentifyService
from node.identity import Identity
from node.log import get_logger
from protocols import Network
from protocols.kad import service
from protocols.kad.cid import MAX_KEY, provider_key
from protocols.kad.keyspace import to_bytes, to_text
from protocols.kad.lookup import LookupParams
from protocols.kad.records import Changed, RecordParams
from protocols.kad.service import Kademlia
from protocols.kad.validators import Validator

FIRST_REFRESH = 0.5
# a table with so many peers doesn't hurry when it changes: in a large network it always does
FULL = 20
REFRESH_TIMEOUT = 60.0
JITTER = 0.25
# seconds between random walks, which cost others something, however hungry the pool is
WALK_PAUSE = 5.0
# seconds between looks at what is to be republished, expired and closed; between writes
TIDY_EVERY = 30.0
WRITE_EVERY = 1.0

log = get_logger("dht")


@dataclass(frozen=True, slots=True)
class PeerAddrs:
    """A peer and where it is said to be, without /p2p/PEERID."""

    peer: str
    addrs: list[str]


class Dht:
    """The node's Kademlia. `run` keeps the table fresh, our records published and those of others on disk."""

    def __init__(
        self,
        network: Network,
        host: Host,
        identify: IdentifyService,
        identity: Identity,
        config: Config,
        *,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self.protocol = config.kademlia_protocol
        self._host = host
        self._identify = identify
        self._interval = config.dht_refresh_interval
        self._rng = rng or random.Random()
        self._changed = trio.Event()
        self._feed: Feed | None = None
        records = RecordParams(max_values=config.dht_max_values, max_provided=config.dht_max_providers)
        self.kad = Kademlia(
            network,
            NodeLinks(host, self._found, timeout=config.dht_request_timeout),
            self.protocol,
            params=LookupParams(parallel=config.dht_parallel, timeout=config.dht_request_timeout),
            records=records,
            paths=config.dht_paths,
            serves=config.dht == "server",
            wall=clock,
            rng=self._rng,
        )
        self._file = file_of(config, identity)
        self._threads = trio.CapacityLimiter(1)
        self.source = DhtSource(self)
        if self.kad.serves:
            host.swarm.registry.add(self.kad.protocol)
        host.swarm.events.subscribe(self._on_event)

    # what a user asks of it

    def table(self) -> list[str]:
        """The peers in the routing table."""
        return sorted(to_text(entry.peer) for entry in self.kad.table)

    def register(self, namespace: str, validator: Validator) -> None:
        """Takes values under /NAMESPACE/… from now on: best before the node starts. Raises UsageError."""
        try:
            self.kad.validators.register(namespace, validator)
        except ValueError as error:
            raise UsageError(str(error)) from None

    async def find_peer(self, peer: str | ID) -> list[str]:
        """The addresses of a peer, by its own word if it could be reached, else by others'; empty if it isn't found.

        Raises UsageError for what is no peer ID.
        """
        return to_texts(await self.kad.find_peer(_peer(peer)))

    async def closest(self, key: bytes) -> list[str]:
        """The peers nearest to a key, at most 20, nearest first; of a peer, its ID in bytes is the key."""
        return [to_text(peer) for peer in await self.kad.closest(key)]

    async def provide(self, cid_or_key: bytes) -> int:
        """Tells the network that we have what a CID or multihash stands for, and again every 22 h until `withdraw`; how
        many peers were told. Raises UsageError.
        """
        key = _provider_key(cid_or_key)
        try:
            return await self.kad.provide(key)
        except ValueError as error:
            raise UsageError(str(error)) from None

    async def find_providers(self, cid_or_key: bytes, *, limit: int = 20) -> list[PeerAddrs]:
        """Who has it, those first whom most peers have named. Raises UsageError."""
        found = await self.kad.find_providers(_provider_key(cid_or_key), limit)
        return [PeerAddrs(to_text(peer.id), to_texts(peer.addrs)) for peer in found]

    async def put(self, key: bytes, value: bytes) -> int:
        """Stores a value at the peers nearest to its key, and again every 22 h until `withdraw`; how many have it.

        Raises UsageError if no validator takes the key and value.
        """
        try:
            return await self.kad.put(key, value)
        except ValueError as error:
            raise UsageError(str(error)) from None

    async def get(self, key: bytes) -> bytes:
        """The best value that the peers nearest to the key have. Raises NotFoundError, UsageError."""
        try:
            return await self.kad.get(key)
        except service.NotFoundError as error:
            raise NotFoundError(str(error)) from None
        except ValueError as error:
            raise UsageError(str(error)) from None

    def withdraw(self, key: bytes) -> bool:
        """Publishes a key no more; whether we did. What others keep of it expires in 48 h."""
        published = self.kad.withdraw(key)
        return self.kad.withdraw(_provider_key(key)) or published if len(key) <= MAX_KEY else published

    def forget(self, peer: str) -> None:
        """Takes a peer out of the routing table, until it is identified again. Raises UsageError."""
        self.kad.table.remove(_peer(peer), trio.current_time())

    # life

    async def run(self) -> None:
        """Runs until cancelled."""
        await self._load()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._refresh_all)
                nursery.start_soon(self._tidy)
                nursery.start_soon(self._write_all)
        finally:
            await self._close()

    async def _refresh_all(self) -> None:
        wait = FIRST_REFRESH
        while True:
            await trio.sleep(wait * (1 - JITTER * self._rng.random()))
            await self._refresh()
            with trio.move_on_after(wait) as unchanged:
                await self._changed.wait()
            self._changed = trio.Event()
            young = len(self.kad.table) < FULL
            wait = FIRST_REFRESH if young and not unchanged.cancelled_caught else min(2 * wait, self._interval)

    async def _refresh(self) -> None:
        now = trio.current_time()
        before = {entry.peer for entry in self.kad.table}
        for peer in before:
            if self.kad.links.is_connected(peer):
                self.kad.table.seen(peer, now)
        if not before:
            return
        with trio.move_on_after(REFRESH_TIMEOUT) as scope:
            await self.kad.refresh(self._interval)
        if before != {entry.peer for entry in self.kad.table}:
            self._changed.set()
        log.debug("refreshed", peers=len(self.kad.table), complete=not scope.cancelled_caught)

    async def _tidy(self) -> None:
        while True:
            await trio.sleep(TIDY_EVERY * (1 - JITTER * self._rng.random()))
            self.kad.records.expire(self.kad.wall())
            await self.kad.questions.close_idle()
            if len(self.kad.table):
                await self.kad.republish()

    # the disk

    async def _load(self) -> None:
        if self._file is None or not self._file.path.exists():
            return
        try:
            items = await trio.to_thread.run_sync(
                self._file.load, self.kad.records.params, self.kad.wall(), limiter=self._threads
            )
        except (OSError, sqlite3.Error, UsageError) as error:
            log.warning("dht_file_unusable", file=str(self._file.path), error=str(error))
            self._file = None
            return
        if self._file.set_aside is not None:
            log.warning("dht_file_set_aside", file=str(self._file.path), error=self._file.set_aside)
        for item in items:
            self.kad.records.restore(item)

    async def _write_all(self) -> None:
        while True:
            await trio.sleep(WRITE_EVERY)
            await self._write()

    async def _write(self) -> None:
        records = self.kad.records
        changed, records.changed = records.changed, Changed()
        if self._file is None or not changed:
            return
        try:
            await trio.to_thread.run_sync(self._file.write, batch_of(changed, records), limiter=self._threads)
        except BaseException as error:  # cancelled before it began, too
            records.changed.values |= changed.values
            records.changed.providers |= changed.providers
            records.changed.own |= changed.own
            if not isinstance(error, OSError | sqlite3.Error):
                raise
            log.warning("dht_not_written", file=str(self._file.path), error=str(error))
            await trio.sleep(TIDY_EVERY)  # a full disk isn't asked every second

    async def _close(self) -> None:
        with trio.move_on_after(WRITE_EVERY) as scope:
            scope.shield = True
            await self.kad.questions.close_idle(0.0)
        if self._file is None:
            return
        with trio.CancelScope(shield=True):  # a thread, no peer: it ends
            if self.kad.records.changed:
                with trio.move_on_after(WRITE_EVERY):
                    await self._write()
            await trio.to_thread.run_sync(self._file.close, limiter=self._threads)

    # what it is told

    def _found(self, peer: bytes, addrs: Sequence[bytes], sender: bytes) -> None:
        if self._feed is not None:
            self._feed.found(to_text(peer), to_texts(addrs), told_by=to_text(sender))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Banned):
            if event.target in self.table():
                self.forget(event.target)
            return
        if not isinstance(event, Identified):
            return
        peer = to_bytes(event.peer)
        if self.protocol not in event.protocols:
            self.kad.table.remove(peer, trio.current_time())
        elif peer not in self.kad.table and self.kad.serving(peer):
            self._changed.set()


class DhtSource:
    """Random walks through the network while the pool wants peers; and whomever other look-ups hear of."""

    name = "dht"

    def __init__(self, dht: Dht) -> None:
        self._dht = dht

    async def run(self, feed: Feed) -> None:
        """Runs until cancelled."""
        self._dht._feed = feed
        try:
            while True:
                await feed.wanted()
                if len(self._dht.kad.table):
                    for peer in await self._dht.kad.walk():
                        feed.found(to_text(peer.id), to_texts(peer.addrs))
                await trio.sleep(WALK_PAUSE)
        finally:
            self._dht._feed = None


def _peer(peer: str | ID) -> bytes:
    try:
        return to_bytes(str(peer))
    except ValueError:
        raise UsageError(f"expected a peer ID such as 12D3KooW…, got {str(peer)!r}") from None


def _provider_key(cid_or_key: bytes) -> bytes:
    try:
        return provider_key(cid_or_key)
    except ValueError as error:
        raise UsageError(str(error)) from None
