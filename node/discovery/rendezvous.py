"""Rendezvous: our registration at the points that are named, kept while the node runs, and the peers found there.

    keep    for each point: dial, REGISTER, wait for about half of the TTL (less if the point was lost) --> dial ...
    run     the pool is hungry: DISCOVER at the point that was asked longest ago --> each record verified --> feed

When is `protocols.rendezvous.upkeep`'s to say. A node that listens nowhere doesn't register. In a network with open
admission it registers with both forms of its record (node.envelopes), so that peers of rust-libp2p can read one. A
point in the world isn't believed addresses in private networks.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

import trio
from libp2p.crypto.keys import KeyPair
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

from node.config import Config
from node.dialer import Dialer
from node.discovery.source import Feed
from node.envelopes import open_record, seal_record
from node.errors import VouchError
from node.events import Disconnected, Event, Listening
from node.host import Host
from node.log import get_logger
from node.peers.reach import of_use, seen_at
from protocols import Network, NotSupported, ProtocolError, StreamError, StreamTimeout
from protocols.rendezvous import service
from protocols.rendezvous.rules import Form
from protocols.rendezvous.upkeep import Asking, Pace, Upkeep
from protocols.rendezvous.wire import MAX_TTL, Refused, Status

# registrations asked for at once; a question goes on for so many pages while the pool still wants peers
PAGE = 100
MAX_PAGES = 10
# records are verified in pieces, between which others run
PIECE = 8

log = get_logger("rendezvous")


class _At:
    """One point, and how we stand with it."""

    def __init__(self, peer_id: ID, addrs: list[Multiaddr], upkeep: Upkeep) -> None:
        self.peer_id = peer_id
        self.peer = str(peer_id)
        self.addrs = addrs
        self.upkeep = upkeep
        self.woken = trio.Event()

    def wake(self) -> None:
        self.woken.set()
        self.woken = trio.Event()


class Rendezvous:
    """The client of the points in `config.rendezvous`; a `Source`."""

    name = "rendezvous"

    def __init__(
        self,
        network: Network,
        host: Host,
        key_pair: KeyPair,
        config: Config,
        *,
        pace: Pace | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.namespace = config.rendezvous_namespace_or_default
        self._network, self._host, self._key_pair = network, host, key_pair
        self._dialer: Dialer = host.dialer
        self._rng = rng or random.Random()
        self._pace = pace or Pace(ttl=min(config.rendezvous_ttl, MAX_TTL))
        self._every_form = config.admission == "open"
        self._sealed: tuple[tuple[int, tuple[str, ...]], bytes] = ((0, ()), b"")
        self._points: list[tuple[ID, list[Multiaddr]]] = []
        named: dict[ID, list[Multiaddr]] = {}
        for text in config.rendezvous:
            addr = Multiaddr(text)
            named.setdefault(info_from_p2p_addr(addr).peer_id, []).append(addr)
        named.pop(host.get_id(), None)  # a point that names itself
        self._points = list(named.items())
        self._at: list[_At] | None = None
        self.outcomes: Counter[tuple[str, str]] = Counter()  # register, discover: and ok, refused, failed

    @property
    def registered(self) -> list[str]:
        """The points at which we are registered now."""
        now = trio.current_time()
        return [at.peer for at in self._at or () if at.upkeep.expires_at > now]

    async def keep(self) -> None:
        """Keeps us registered at every point until cancelled."""
        points = self._here()
        unsubscribe = self._host.swarm.events.subscribe(self._on_event)
        try:
            async with trio.open_nursery() as nursery:
                for at in points:
                    nursery.start_soon(self._keep, at)
        finally:
            unsubscribe()

    async def run(self, feed: Feed) -> None:
        """Finds peers while the pool wants some, until cancelled."""
        points = self._here()
        if not points:
            await trio.sleep_forever()
        asked = [(at, Asking(self._pace, self._rng, trio.current_time())) for at in points]
        while True:
            at, asking = min(asked, key=lambda pair: pair[1].next_at)
            await trio.sleep_until(asking.next_at)
            wanted = await feed.wanted()
            try:
                await self._ask(at, asking, wanted, feed)
            except (VouchError, Refused, StreamError, ProtocolError) as error:
                self.outcomes["discover", "refused" if isinstance(error, Refused) else "failed"] += 1
                asking.failed(trio.current_time())
                log.info("not_discovered", peer=at.peer, error=str(error))

    def _here(self) -> list[_At]:
        if self._at is None:  # made when the clock runs
            now = trio.current_time()
            self._at = [
                _At(
                    peer_id,
                    addrs,
                    Upkeep(self._pace, self._rng, now, every_form=self._every_form),
                )
                for peer_id, addrs in self._points
            ]
        return self._at

    # our registration

    async def _keep(self, at: _At) -> NoReturn:
        while True:
            with trio.move_on_at(at.upkeep.due_at):
                await at.woken.wait()
            if trio.current_time() < at.upkeep.due_at:
                continue
            if not self._host.listen_addrs:
                await at.woken.wait()  # for an address
                continue
            addrs = tuple(self._host.listen_addrs)
            try:
                await self._register(at)
            except (VouchError, Refused, StreamError, ProtocolError) as error:
                self.outcomes["register", "refused" if isinstance(error, Refused) else "failed"] += 1
                refused = error if isinstance(error, Refused) else None
                wait = at.upkeep.failed(trio.current_time(), refused)
                log.warning("not_registered", peer=at.peer, error=str(error), retry_in=round(wait, 1))
            else:
                if addrs != tuple(self._host.listen_addrs):
                    at.upkeep.changed(trio.current_time())

    async def _register(self, at: _At) -> None:
        await self._dialer.dial(at.peer_id, at.addrs)
        taken: list[Form] = []
        ttl, last = MAX_TTL, Exception()
        for form in at.upkeep.forms():
            try:
                held = await service.register(self._network, at.peer, self.namespace, self._record(form), at.upkeep.ttl)
            except (NotSupported, StreamTimeout):
                raise
            except Refused as error:
                if error.status != Status.INVALID_SIGNED_PEER_RECORD:
                    raise
                last = error
            except (StreamError, ProtocolError) as error:
                last = error  # rust-libp2p ends the stream for a record that it can't read
            else:
                ttl = min(ttl, held)
                taken.append(form)
            if not at.upkeep.wants_more(taken):
                break
        if not taken:
            raise last
        self.outcomes["register", "ok"] += 1
        first = at.upkeep.expires_at < trio.current_time()
        at.upkeep.registered(taken, ttl, trio.current_time())
        tell = log.info if first else log.debug
        tell("registered", peer=at.peer, namespace=self.namespace, ttl=ttl, forms=[str(form) for form in taken])

    def _record(self, form: Form) -> bytes:
        if form is Form.STANDARD:
            return self._host.signed_record()
        signed = open_record(self._host.signed_record())
        if self._sealed[0] != (signed.seq, signed.addrs):
            record = seal_record(self._key_pair, list(map(Multiaddr, signed.addrs)), signed.seq, form)
            self._sealed = (signed.seq, signed.addrs), record
        return self._sealed[1]

    def _on_event(self, event: Event) -> None:
        now = trio.current_time()
        if isinstance(event, Listening):
            for at in self._here():
                at.upkeep.changed(now)
                at.wake()
        elif isinstance(event, Disconnected):
            for at in self._here():
                if at.peer == event.peer:
                    at.upkeep.lost(now)
                    at.wake()

    # others'

    async def _ask(self, at: _At, asking: Asking, wanted: int, feed: Feed) -> None:
        """Raises VouchError, Refused, StreamError, ProtocolError."""
        await self._dialer.dial(at.peer_id, at.addrs)
        told = 0
        for _ in range(MAX_PAGES):
            answer = await service.discover(self._network, at.peer, self.namespace, cookie=asking.cookie, limit=PAGE)
            told += await self._tell(at.peer, [found.record for found in answer.registrations], feed)
            count = len(answer.registrations)
            asking.found(count, answer.cookie, trio.current_time())
            if told >= wanted or count < PAGE:
                break
        self.outcomes["discover", "ok"] += 1
        log.debug("discovered", peer=at.peer, peers=told)

    async def _tell(self, point: str, records: Sequence[bytes], feed: Feed) -> int:
        told = 0
        reach = seen_at(self._host.swarm.ip_of(ID.from_base58(point)))
        self._rng.shuffle(order := list(records[:PAGE]))
        for index, record in enumerate(order):
            if index % PIECE == PIECE - 1:
                await trio.lowlevel.checkpoint()
            try:
                signed = open_record(record)
            except ValueError as error:
                log.debug("bad_peer_record", error=str(error))
                continue
            addrs = of_use(signed.addrs, reach)
            if signed.peer != self._network.peer_id and addrs:
                # the book verifies records in the standard's form, and knows no other
                known = record if signed.form is Form.STANDARD else None
                feed.found(signed.peer, addrs, record=known, told_by=point)
                told += 1
        return told
