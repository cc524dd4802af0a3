"""Kademlia on streams: the shell around `engine`, `lookup` and `table`.

    kad = Kademlia(network, links, protocol_id)
    registry.add(kad.protocol)             # server mode: what peers ask us
    await kad.find_peer(peer)              # what we ask them

Peers are bytes here, as on the wire. Each public call is one lookup, bounded in requests and time by `LookupParams`,
and safe to cancel.
"""

from __future__ import annotations

import random
import time
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from protocols.base import Network, Protocol, Stream
from protocols.errors import NotConnected, NotSupported, ProtocolError, StreamError
from protocols.histogram import Histogram
from protocols.kad.engine import Addresses, Engine
from protocols.kad.keyspace import MAX_PREFIX, point, random_key, to_bytes, to_text
from protocols.kad.lookup import Candidate, Lookup, LookupParams
from protocols.kad.questions import Questions
from protocols.kad.records import RecordParams, RecordRefusedError, Records
from protocols.kad.table import Table, TableParams
from protocols.kad.validators import InvalidValueError, Validators
from protocols.kad.wire import MAX_FRAME, Message, Peer, Record, Type, decode, encode

# a lookup of a peer's is a burst of one question; rust-libp2p opens a stream for each, 32 at most
RATE, BURST = 100.0, 400.0
STREAMS_PER_PEER = 32
IDLE_TIMEOUT = 60.0
# valid values of different peers after which no more are asked
QUORUM = 10

OnAnswer = Callable[[Lookup, Candidate, Message], None]


class Links(Addresses, typing.Protocol):
    """What Kademlia needs of its node beside streams: addresses, and connections to peers that it has heard of."""

    async def connect(self, peer: bytes, addrs: Sequence[bytes]) -> None:
        """Returns once the peer is admitted. Raises NotConnected if no dial was made, StreamError if it failed."""
        ...

    def own_addrs(self) -> tuple[bytes, ...]:
        """Where we are."""
        ...

    def found(self, peer: bytes, addrs: Sequence[bytes], sender: bytes) -> None:
        """A peer was named in an answer of `sender`'s."""
        ...


class NotFoundError(Exception):
    """Nobody who was asked has the value."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a lookup went; `seconds` it took, `hops` from us to the nearest peer."""

    requests: int
    hops: int
    seconds: float


class Kademlia:
    """One node's Kademlia. `last` tells how its latest lookup went."""

    def __init__(
        self,
        network: Network,
        links: Links,
        protocol_id: str,
        *,
        params: LookupParams | None = None,
        table: TableParams | None = None,
        records: RecordParams | None = None,
        paths: int = 2,
        serves: bool = True,
        rng: random.Random | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`paths`: how many disjoint ones a lookup takes that somebody asked for. A client (`serves` False) keeps
        nothing for others."""
        self.local = to_bytes(network.peer_id)
        self.links = links
        self.params = params or LookupParams()
        self.paths = paths
        self.serves = serves
        self.wall = wall
        self.rng = rng or random.Random()
        self.validators = Validators()
        self.table = Table(self.local, table or TableParams(k=self.params.k))
        self.records = Records(self.local, self.validators, records)
        self.engine = Engine(self.table, self.records, links)
        self.protocol = Protocol(
            protocol_id,
            max_frame=MAX_FRAME,
            timeout=IDLE_TIMEOUT,
            streams_per_peer=STREAMS_PER_PEER,
            rate=RATE,
            burst=BURST,
            handler=self._serve,
        )
        self.questions = Questions(network, self.protocol)
        self.last = Outcome(0, 0, 0.0)
        self.lookups: Counter[str] = Counter()  # by question
        self.asked: Counter[str] = Counter()  # peers, by outcome
        self.lookup_seconds = Histogram()

    # what peers ask us

    async def _serve(self, stream: Stream) -> None:
        sender = to_bytes(stream.peer)
        async for frame in stream:
            answer = self.engine.answer(sender, decode(frame), self.wall())
            if answer is not None:
                await stream.send(encode(answer))

    # who there is

    def serving(self, peer: bytes) -> bool:
        """A connected peer serves Kademlia; whether it is in the table now."""
        return self.table.add(peer, trio.current_time(), self.links.subnet(peer))

    async def find_peer(self, peer: bytes) -> tuple[bytes, ...]:
        """Where a peer is: by its own word if it could be reached, else by others'; empty if nobody knows."""
        if peer == self.local:
            return self.links.own_addrs()
        if self.links.is_connected(peer) and (told := self.links.told(peer, self.local)):
            return told  # one that dialled us may not have said yet where it is
        claimed: dict[bytes, None] = {}

        def named(lookup: Lookup, _candidate: Candidate, answer: Message) -> None:
            for other in answer.closer:
                if other.id == peer:
                    claimed.update(dict.fromkeys(other.addrs))
            if self.links.is_connected(peer) and self.links.told(peer, self.local):
                lookup.stop()

        await self._look_up(peer, Type.FIND_NODE, self.paths, named, until=peer)
        told = self.links.told(peer, self.local) if self.links.is_connected(peer) else ()
        return told or tuple(claimed)[: self.params.max_addrs]

    async def closest(self, key: bytes, *, paths: int | None = None) -> list[bytes]:
        """The k peers nearest to a key that answered, nearest first."""
        lookup = await self._look_up(key, Type.FIND_NODE, paths or self.paths)
        return [candidate.peer for candidate in lookup.closest()]

    async def walk(self) -> list[Peer]:
        """Peers at a random place, from there outwards."""
        lookup = await self._look_up(random_key(self.rng), Type.FIND_NODE, 1)
        return [Peer(candidate.peer, candidate.addrs) for candidate in lookup.closest()]

    async def refresh(self, interval: float) -> None:
        """Looks ourselves up, then a key in each bucket that wasn't refreshed for `interval` seconds. The first is
        enough where there are fewer peers than a bucket holds.
        """
        await self._look_up(self.local, Type.FIND_NODE, 1)
        if len(self.table) < self.params.k:
            return
        for index in self.table.due(trio.current_time(), interval, MAX_PREFIX):
            self.table.refreshed(index, trio.current_time())
            await self._look_up(random_key(self.rng, self.table.point, index), Type.FIND_NODE, 1)

    # values

    async def put(self, key: bytes, value: bytes) -> int:
        """Stores a value at the peers nearest to its key, and again until `withdraw`; how many have taken it.

        Raises InvalidValueError, RecordRefusedError.
        """
        self.validators.validate(key, value)
        kept = self.records.value(key, self.wall())
        if kept is not None and self.validators.best(key, [kept.value, value]) != value:
            raise RecordRefusedError(
                f"expected a value better than the one that is known of {key[:64]!r}, got an older"
            )
        self.records.add_own(key, value, self.wall())
        return await self._publish_value(key, value)

    async def _publish_value(self, key: bytes, value: bytes) -> int:
        if self.serves:
            self.records.put(key, value, self.local, self.wall())
        lookup = await self._look_up(key, Type.FIND_NODE, self.paths)
        message = Message(Type.PUT_VALUE, key, Record(key, value))
        return await self._tell([c.peer for c in lookup.closest_of_paths()], message)

    async def get(self, key: bytes, *, quorum: int = QUORUM) -> bytes:
        """The best value under a key that the peers nearest to it have. Raises NotFoundError, InvalidValueError."""
        self.validators.check_key(key)
        kept = self.records.value(key, self.wall())
        found: dict[bytes, bytes] = {} if kept is None else {self.local: kept.value}
        without: list[bytes] = []

        def answered(lookup: Lookup, candidate: Candidate, answer: Message) -> None:
            record = answer.record
            try:
                if record is None or record.key != key:
                    raise InvalidValueError("no record of that key")
                self.validators.validate(key, record.value)
            except InvalidValueError:
                without.append(candidate.peer)
                return
            found[candidate.peer] = record.value
            if len(found) >= quorum:
                lookup.stop()

        lookup = await self._look_up(key, Type.GET_VALUE, self.paths, answered)
        if not found:
            raise NotFoundError(f"expected a value under {key[:64]!r}, got none from {lookup.requests} peers")
        best = self.validators.best(key, sorted(set(found.values())))
        nearest = {candidate.peer for candidate in lookup.closest()}
        outdated = [peer for peer, value in found.items() if value != best and peer != self.local]
        stale = outdated + [peer for peer in without if peer in nearest]
        if self.serves and kept is not None and kept.value != best:
            with suppress(RecordRefusedError):  # the answer is one all the same
                self.records.put(key, best, self.local, self.wall())
        if stale:  # those who should have it get it
            await self._tell(stale[: self.params.k], Message(Type.PUT_VALUE, key, Record(key, best)))
        return best

    # providers

    async def provide(self, key: bytes) -> int:
        """Tells the peers nearest to a key that we have what it stands for, and again until `withdraw`; how many were
        told. Raises RecordRefusedError."""
        self.records.add_own(key, None, self.wall())
        return await self._publish_provider(key)

    async def _publish_provider(self, key: bytes) -> int:
        own = Peer(self.local, self.links.own_addrs(), True)
        if self.serves:
            self.records.provide(key, own, self.wall())
        lookup = await self._look_up(key, Type.FIND_NODE, self.paths)
        message = Message(Type.ADD_PROVIDER, key, providers=(own,))
        return await self._tell([c.peer for c in lookup.closest_of_paths()], message)

    async def find_providers(self, key: bytes, limit: int = 20) -> list[Peer]:
        """Who provides a key, at most `limit`; first those whom most of the peers asked have named."""
        addrs: dict[bytes, tuple[bytes, ...]] = {}
        named: Counter[bytes] = Counter()
        for provider in self.records.providers(key, self.wall())[:limit]:
            addrs[provider.peer] = provider.addrs
            named[provider.peer] = 2  # told to us by itself

        def answered(lookup: Lookup, candidate: Candidate, answer: Message) -> None:
            for peer in answer.providers:
                addrs[peer.id] = tuple(dict.fromkeys((*addrs.get(peer.id, ()), *peer.addrs)))[: self.params.max_addrs]
                named[peer.id] += 2 if peer.id == candidate.peer else 1
            if sum(count > 1 for count in named.values()) >= limit:
                lookup.stop()

        await self._look_up(key, Type.GET_PROVIDERS, self.paths, answered)
        return [Peer(peer, addrs[peer]) for peer, _ in named.most_common(limit)]

    # our own, again

    def withdraw(self, key: bytes) -> bool:
        """Publishes a key no more; whether we did. Where it is, it stays until it expires."""
        self.records.forget_provider(key, self.local)
        return self.records.forget_own(key)

    async def republish(self) -> int:
        """Publishes what is due; how many."""
        count = 0
        for own in self.records.due(self.wall()):
            try:
                if own.value is None:
                    told = await self._publish_provider(own.key)
                else:
                    told = await self._publish_value(own.key, own.value)
            except (InvalidValueError, RecordRefusedError):
                told = 1  # a better one is there, or its rules have changed: not again before the next time
            if told and self.records.own.get((own.key, own.value is not None)) is own:
                self.records.add_own(own.key, own.value, self.wall())
                count += 1
        return count

    # inside

    async def _look_up(
        self, key: bytes, question: Type, paths: int, on_answer: OnAnswer | None = None, *, until: bytes | None = None
    ) -> Lookup:
        began = trio.current_time()
        target, message = point(key), Message(question, key)
        near = self.table.closest(target, self.params.max_known)
        if len(near) < self.params.k:
            near = self.table.closest(target, self.params.k, failing=True)
        known = [Peer(peer, self.links.told(peer, self.local)) for peer in near]
        lookup = Lookup(target, self.local, known, began, self.params, paths=paths)
        changed = trio.Event()

        async def one(candidate: Candidate) -> None:
            nonlocal changed
            answer = await self._ask(candidate.peer, candidate.addrs, message)
            if answer is None:
                lookup.failed(candidate.peer)
            else:
                answer = self._checked(answer, candidate.peer)
                lookup.answered(candidate.peer, answer.closer, trio.current_time())
                if on_answer is not None:
                    on_answer(lookup, candidate, answer)
            if until is not None and candidate.peer == until and self.links.is_connected(until):
                lookup.stop()
            changed.set()

        async with trio.open_nursery() as nursery:
            while not lookup.done(now := trio.current_time()):
                for candidate in lookup.ask(now):
                    nursery.start_soon(one, candidate)
                with trio.move_on_at(lookup.wakeup(now)):
                    await changed.wait()
                changed = trio.Event()
            nursery.cancel_scope.cancel()
        now = trio.current_time()
        for peer in lookup.silent(now):
            self.table.failed(peer, now)
        self.last = Outcome(lookup.requests, lookup.hops, now - began)
        self.lookups[question.name.lower()] += 1
        self.lookup_seconds.observe(now - began)
        return lookup

    async def _ask(self, peer: bytes, addrs: Sequence[bytes], message: Message) -> Message | None:
        """A peer's answer, or None: then the table knows that it failed."""
        try:
            with trio.fail_after(self.params.timeout):
                if not self.links.is_connected(peer):
                    await self.links.connect(peer, addrs)
                answer = await self.questions.ask(to_text(peer), message)
        except NotConnected:
            self.asked["not_dialled"] += 1
            return None  # nobody has tried: it is no failure of the peer's
        except NotSupported:
            self.asked["not_supported"] += 1
            self.table.remove(peer, trio.current_time())
            return None
        except (StreamError, ProtocolError, trio.TooSlowError) as error:
            self.asked["timeout" if isinstance(error, trio.TooSlowError) else "failed"] += 1
            self.table.failed(peer, trio.current_time())
            return None
        self.asked["answered"] += 1
        self.serving(peer)
        return answer or message

    def _checked(self, answer: Message, sender: bytes) -> Message:
        """The answer with the addresses that we believe, told to whoever collects peers."""
        closer, providers = (self._believed(peers, sender) for peers in (answer.closer, answer.providers))
        for peer in closer:
            if peer.id != self.local and peer.addrs:
                self.links.found(peer.id, peer.addrs, sender)
        return Message(answer.type, answer.key, answer.record, tuple(closer), tuple(providers))

    def _believed(self, peers: Iterable[Peer], sender: bytes) -> list[Peer]:
        return [Peer(peer.id, self.links.believed(peer.addrs, sender), peer.connected) for peer in peers]

    async def _tell(self, peers: Sequence[bytes], message: Message) -> int:
        """Sends a message to peers, a few at a time; how many have taken it."""
        taken = 0
        limiter = trio.CapacityLimiter(self.params.most_parallel)

        async def one(peer: bytes) -> None:
            nonlocal taken
            async with limiter:
                answer = await self._ask(peer, (), message)
            expected = message.record.value if message.record is not None else b""
            got = answer.record.value if answer is not None and answer.record is not None else b""
            taken += answer is not None and got == expected

        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(one, peer)
        return taken
