"""Peer exchange on this node: what it tells of its address book, and the source that asks others.

    a peer asks --> Exchange (rules in protocols/exchange) <-- `BookDirectory`: who is tested, by the address book
    a peer can be asked (identified) --> Rounds: when --> Exchange.ask --> each record checked --> feed.found
    the pool is hungry ---------------------^

Told are peers of the book that we have reached by an address of their record, not too long ago, and that aren't banned.
Learned are addresses of records that are believed (`node.records`), and of these only what a peer so far away may know:
one in the world that names addresses in private networks wants something dialled there. Nothing learned is passed on
before it is tested, since only what worked is told.
"""

from __future__ import annotations

import math
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from node.config import Config
from node.discovery.rounds import Rounds
from node.discovery.source import Feed
from node.events import Disconnected, Event, Identified, Misbehaved
from node.identify import IdentifyService
from node.log import get_logger
from node.peers.addressbook import AddressBook
from node.peers.book import Entry
from node.peers.reach import Reach, of_use, reach_of, seen_at, subnet_of
from node.records import RecordError, Records, addrs_of, readable
from node.swarm import Swarm
from protocols import Network, NotSupported, Protocol, ProtocolError, StreamError
from protocols.exchange.service import Exchange
from protocols.exchange.share import Candidate, Directory, ShareParams
from protocols.exchange.wire import MAX_MULTIADDRS, PROTOCOL_ID, Alive

# what worked longer ago isn't told, nor what has failed since
MAX_AGE = 7 * 24 * 3600.0
# of the weight of those that were seen so long ago: where nodes come and go quickly, most of a long-lived node's book
# are gone, and newcomers must be told of those that are there
HALF_LIFE = 600.0
# how long the list of those who could be told of is used (a young node's grows quickly), and how many they are
FRESH_FOR, FRESH_FOR_FEW = 60.0, 1.0
MANY = 100
CONSIDERED = 1024
REMEMBERED = 4096
HUNGRY_PAUSE = 10.0
# records that are verified before others get a turn
AT_A_TIME = 8
BAD_RECORD = "bad_record"

log = get_logger("exchange")


class BookDirectory:
    """The address book's peers that can be told of."""

    def __init__(self, book: AddressBook, rng: random.Random) -> None:
        self._book = book
        self._rng = rng
        self._lock = trio.Lock()
        self._listed: list[Candidate] = []
        self._listed_until = -math.inf
        self._addrs: OrderedDict[tuple[str, int], tuple[str, ...]] = OrderedDict()

    async def refresh(self) -> None:
        """Lists anew who could be told of, if it is time: at most CONSIDERED, the last seen and some of the others."""
        async with self._lock:
            if trio.current_time() < self._listed_until:
                return
            now = self._book.clock()
            tested: list[Entry] = []
            for number, entry in enumerate(self._book.entries(), 1):
                if entry.record is not None and self._tested(entry, now):
                    tested.append(entry)
                if number % 1024 == 0:
                    await trio.lowlevel.checkpoint()
            if len(tested) > CONSIDERED:
                tested.sort(key=lambda entry: -entry.last_seen)
                half = CONSIDERED // 2
                tested = tested[:half] + self._rng.sample(tested[half:], half)
            listed: list[Candidate] = []
            for number, entry in enumerate(tested, 1):
                candidate = self._candidate(entry, now)
                if candidate is not None:
                    listed.append(candidate)
                if number % 32 == 0:
                    await trio.lowlevel.checkpoint()
            self._listed = listed
            self._listed_until = trio.current_time() + (FRESH_FOR if len(listed) >= MANY else FRESH_FOR_FEW)

    def candidates(self) -> Sequence[Candidate]:
        """Those of the last `refresh`."""
        return self._listed

    def candidate(self, peer: str) -> Candidate | None:
        """One of them, if it still can be told of."""
        entry = self._book.get(peer)
        return None if entry is None else self._candidate(entry, self._book.clock())

    def _candidate(self, entry: Entry, now: float) -> Candidate | None:
        if entry.record is None or self._book.ban_of(peer=entry.peer) is not None:
            return None
        named = self._named(entry)
        tested = set(self._tested(entry, now)).intersection(named)
        if not tested:
            return None
        reaches = [reach for reach in map(reach_of, named) if reach is not None]
        reach = max((reach for reach in map(reach_of, tested) if reach is not None), default=None)
        if reach is None:
            return None
        return Candidate(entry.peer, entry.record, entry.last_seen, reach, min(reaches))

    def _tested(self, entry: Entry, now: float) -> list[str]:
        return [
            known.addr
            for known in entry.addrs
            if known.last_success and not known.failures and now - known.last_success <= MAX_AGE
        ]

    def _named(self, entry: Entry) -> tuple[str, ...]:
        """The addresses in its record, which was verified when it was learned."""
        assert entry.record is not None
        key = entry.peer, entry.record_seq
        named = self._addrs.get(key)
        if named is None:
            named = self._addrs[key] = addrs_of(entry.record)
            if len(self._addrs) > REMEMBERED:
                self._addrs.popitem(last=False)
        return named


class NodeExchange:
    """Both sides of peer exchange, as `node.exchange`. It is a `Source`."""

    name = "exchange"

    def __init__(
        self,
        network: Network,
        swarm: Swarm,
        identify: IdentifyService,
        records: Records,
        book: AddressBook,
        config: Config,
        *,
        own_addrs: Callable[[], Sequence[Multiaddr]],
        rng: random.Random | None = None,
    ) -> None:
        self._network, self._swarm, self._identify = network, swarm, identify
        self._records, self._book = records, book
        self._own_addrs = own_addrs
        self._at_once = config.exchange_at_once
        self.under_way = 0
        self.outcomes: Counter[str] = Counter()  # of our questions: answered, not_supported, failed
        self.heard = 0  # peers that answers named
        self._feed: Feed | None = None
        self._rounds = Rounds(config.exchange_interval, hungry_pause=HUNGRY_PAUSE, rng=rng)
        self._changed = trio.Event()
        self._directory = BookDirectory(book, rng or random.Random())
        self.directory: Directory = self._directory
        self.exchange = Exchange(
            network,
            self,
            ShareParams(interval=config.exchange_window, half_life=HALF_LIFE),
            on_heard=self._heard,
            on_fault=self._fault,
            rng=rng,
        )
        swarm.events.subscribe(self._on_event)

    @property
    def protocol(self) -> Protocol:
        """What is to be served."""
        return self.exchange.protocol

    async def ask(self, peer: str, limit: int = 100) -> dict[str, tuple[tuple[str, ...], bytes]]:
        """Asks a connected peer for others: for each its addresses and signed record, verified. A peer that tells bad
        ones is charged, and what is good is taken all the same.

        Raises NotSupported and other StreamErrors, ProtocolError.
        """
        answer = await self.exchange.ask(peer, limit)
        reach = self.whereabouts(peer)[1]
        found: dict[str, tuple[tuple[str, ...], bytes]] = {}
        bad, last = 0, ""
        for number, data in enumerate(answer.records, 1):
            if number % AT_A_TIME == 0:
                await trio.lowlevel.checkpoint()
            try:
                record = self._records.accept(data)
            except RecordError as error:
                if error.reason != "seq":  # who knows only an older one doesn't lie
                    bad, last = bad + 1, str(error)
                continue
            addrs = of_use(record.addrs, reach)
            if addrs and record.peer not in (peer, self._network.peer_id):
                found[record.peer] = addrs, data
        if bad:
            self._fault(peer, BAD_RECORD, f"{bad} of {len(answer.records)} records are bad, the last one: {last}")
        return found

    # the source

    async def run(self, feed: Feed) -> None:
        """Asks new peers, all of them at intervals, and sooner when the pool is hungry. Until cancelled."""
        self._feed = feed
        for peer, known in list(self._identify.known.items()):
            if PROTOCOL_ID in known.protocols:
                self._rounds.met(peer, trio.current_time())
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._when_hungry, feed)
                limiter = trio.Semaphore(self._at_once)
                while True:
                    await limiter.acquire()
                    peer = await self._next()
                    nursery.start_soon(self._ask, peer, feed, limiter)
        finally:
            self._feed = None

    async def _next(self) -> str:
        while True:
            peer = self._rounds.begin(trio.current_time())
            if peer is not None:
                return peer
            with trio.move_on_at(self._rounds.next_at):
                await self._changed.wait()

    async def _ask(self, peer: str, feed: Feed, limiter: trio.Semaphore) -> None:
        self.under_way += 1
        try:
            found = await self.ask(peer)
        except NotSupported:
            self.outcomes["not_supported"] += 1
            self._rounds.gone(peer)
        except (StreamError, ProtocolError) as error:
            self.outcomes["failed"] += 1
            log.debug("exchange_failed", peer=peer, error=str(error))
        else:
            self.outcomes["answered"] += 1
            self.heard += len(found)
            log.debug("exchanged", peer=peer, peers=len(found))
            for other, (addrs, record) in found.items():
                feed.found(other, addrs, record=record, told_by=peer)
        finally:
            self.under_way -= 1
            self._rounds.ended(peer, trio.current_time())
            limiter.release()
            self._wake()

    async def _when_hungry(self, feed: Feed) -> None:
        while True:
            await feed.wanted()
            if self._rounds.hungry(trio.current_time()):
                self._wake()
            # what that brings takes a moment, and who was asked isn't asked again before
            await trio.sleep(HUNGRY_PAUSE / 10)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Identified):
            if PROTOCOL_ID in event.protocols:
                self._rounds.met(event.peer, trio.current_time())
            else:
                self._rounds.gone(event.peer)
            self._wake()
        elif isinstance(event, Disconnected):
            self._rounds.gone(event.peer)

    # what the rules ask of the node

    async def refresh(self) -> None:
        """Lists who could be told of, if it is time."""
        await self._directory.refresh()

    def now(self) -> float:
        """The address book's clock."""
        return self._book.clock()

    def whereabouts(self, peer: str) -> tuple[str, int]:
        """The asker's group (its subnet, in the world) and the reach at which we see it."""
        ip = self._swarm.ip_of(ID.from_base58(peer))
        reach = seen_at(ip)
        return (subnet_of(ip) if reach is Reach.PUBLIC else peer), reach

    def own_addrs(self, peer: str) -> list[bytes]:
        """Ours, as far as they are of use to that peer."""
        named = of_use([str(addr) for addr in self._own_addrs()], self.whereabouts(peer)[1])
        return [Multiaddr(addr).to_bytes() for addr in named[:MAX_MULTIADDRS]]

    def _heard(self, peer: str, alive: Alive) -> None:
        """A peer that asks has said where it can be dialled."""
        if self._feed is None:
            return
        said = [text for text in map(readable, alive.multiaddrs) if text is not None]
        plain = [addr for addr, _, named in (text.partition("/p2p/") for text in said) if named in ("", peer)]
        useful = of_use(plain, self.whereabouts(peer)[1])
        addrs = [addr for addr in useful if self._swarm.can_dial(Multiaddr(addr))]
        if addrs:
            self._feed.found(peer, addrs)

    def _fault(self, peer: str, reason: str, detail: str) -> None:
        self._swarm.events.emit(Misbehaved(peer, PROTOCOL_ID, reason, detail))
