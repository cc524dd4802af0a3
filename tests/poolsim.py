"""Many pools in one process, in simulated time: the node's own rules of pool, address book and peer exchange, no bytes.

    network = Network(seed=1)
    first = network.add("20.0.0.1")
    other = network.add("20.1.0.1", bootstrap=[first])
    network.run(600)

A dial takes two round trips to a live node, one to a machine whose node is gone, `DIAL_TIMEOUT` to one that is gone
altogether. A peer that dies is noticed at once, or after `SILENCE` if its machine went with it. What a node tells in an
exchange is its `tell`, which an adversary replaces. The same seed gives the same run.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from node.discovery.exchange import HALF_LIFE, HUNGRY_PAUSE
from node.discovery.rounds import Rounds
from node.peers.actions import Dial, Drop, Low, Probe
from node.peers.addressbook import AddressBook
from node.peers.book import Entry
from node.peers.choice import Targets
from node.peers.pool import Pool
from node.peers.reach import subnet_of
from protocols.exchange.share import Candidate, Share, ShareParams

RTT = 0.04
DIAL_TIMEOUT = 5.0
SILENCE = 45.0
SETTLE = 0.05  # what happens within this is looked at together, as a busy node does
EXCHANGE_INTERVAL, AT_ONCE = 600.0, 4
RECORD = b"." * 150
EPOCH = 1_700_000_000.0


class Directory:
    """What a node may tell of its book: whom it reached when it last tried."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._listed: list[Candidate] = []
        self._at = float("-inf")
        # an entry is never changed, only replaced: what was made of one holds
        self._made: dict[str, tuple[Entry, Candidate | None]] = {}

    def candidates(self) -> Sequence[Candidate]:
        now = self._node.network.now
        if now - self._at >= (60.0 if len(self._listed) >= 100 else 1.0):
            self._at = now
            self._listed = [c for e in self._node.book.entries() if (c := self._candidate(e)) is not None]
        return self._listed

    def candidate(self, peer: str) -> Candidate | None:
        entry = self._node.book.get(peer)
        return self._candidate(entry) if entry is not None else None

    def _candidate(self, entry: Entry) -> Candidate | None:
        made = self._made.get(entry.peer)
        if made is None or made[0] is not entry:
            tested = any(a.last_success and not a.failures for a in entry.addrs)
            record = self._node.network.records[entry.peer]
            found = Candidate(entry.peer, record, entry.last_seen, 2, 2) if tested else None
            made = self._made[entry.peer] = entry, found
        return made[1]


class SimNode:
    """A node: its rules, and what it is connected with."""

    def __init__(self, network: Network, ip: str, targets: Targets, book: AddressBook | None) -> None:
        self.network = network
        self.ip = ip
        self.id = f"P{ip}"
        self.subnet = subnet_of(ip)
        self.addr = f"/ip4/{ip}/tcp/4001"
        self.alive = True
        self.silent = False  # its machine is gone as well
        self.born = network.now
        rng = random.Random(network.rng.random())
        self.book = book or AddressBook(None, clock=lambda: EPOCH + network.now, rng=rng)
        self.pool = Pool(targets, self.book, us=self.id, now=network.now, rng=rng)
        self.book.book.connected = self.pool.peers.__contains__
        self.share = Share(ShareParams(half_life=HALF_LIFE), rng=rng)
        self.rounds = Rounds(EXCHANGE_INTERVAL, hungry_pause=HUNGRY_PAUSE, rng=rng)
        self.directory = Directory(self)
        self.asking = 0
        self.dials = 0
        self.links: dict[SimNode, None] = {}  # in an order, so that a run can be repeated
        self._due = float("inf")
        self.wake(SETTLE * rng.random())

    # what happens

    def wake(self, delay: float = SETTLE) -> None:
        """Looks at what is to be done, `delay` seconds from now at the latest."""
        at = self.network.now + delay
        if at < self._due:
            self._due = at
            self.network.at(at, self._work)

    def _work(self) -> None:
        now = self.network.now
        if not self.alive or now < self._due:
            return
        self._due = float("inf")
        for action in self.pool.poll(now):
            match action:
                case Dial():
                    self.dials += 1
                    self.network.dial(self, action)
                case Drop(peer):
                    self.network.cut(self, self.network.nodes[peer])
                case Probe():
                    delay = DIAL_TIMEOUT if self.network.silent(action.peer) else 2 * RTT
                    self.network.at(now + delay, lambda test=action: self._tested(test))
                case Low():
                    pass
        if self.pool.wants():
            self.rounds.hungry(now)
        while self.asking < AT_ONCE and (peer := self.rounds.begin(now)) is not None:
            self.asking += 1
            self.network.at(now + 2 * RTT, lambda peer=peer: self._told(peer))
        self.wake(max(SETTLE, min(self.pool.next_wakeup(now), self.rounds.next_at) - now))

    def _tested(self, test: Probe) -> None:
        ok = not self.network.silent(test.peer) and self.network.nodes[test.peer].alive
        (self.book.succeeded if ok else self.book.failed)(test.peer, test.addr)
        self.pool.tested(self.network.now, test.peer, test.addr, ok=ok)

    def _told(self, peer: str) -> None:
        """A peer has answered what we asked it, or is gone."""
        now, other = self.network.now, self.network.nodes.get(peer)
        self.asking -= 1
        if other is not None and other in self.links and self.alive:
            source = f"exchange/{other.subnet}"
            for told in other.tell(self):
                # what is known already changes nothing
                if told != self.id and told not in self.book and (known := self.network.nodes.get(told)) is not None:
                    self.found(told, known.addr, source)
        self.rounds.ended(peer, now)
        self.wake()

    def tell(self, asker: SimNode) -> list[str]:
        """Whom we tell of when asked."""
        now = self.network.now
        if self.share.ask(asker.id, now) is not None:
            return []
        records = self.share.draw(
            100, self.directory, asker=asker.id, group=asker.subnet, reach=2, now=self.book.clock()
        )
        return [record[: -len(RECORD)].decode() for record in records]

    def found(self, peer: str, addr: str, source: str) -> None:
        self.book.learn(peer, [addr], source)
        self.pool.learned(self.network.now)
        self.wake()

    def linked(self, other: SimNode, *, outbound: bool) -> None:
        self.links[other] = None
        self.pool.connected(self.network.now, other.id, other.addr, outbound=outbound)
        if outbound:
            self.book.succeeded(other.id, other.addr)
        self.book.seen(other.id)
        self.book.learn(other.id, [other.addr], "identify")
        self.rounds.met(other.id, self.network.now)
        self.wake()

    def unlinked(self, other: SimNode) -> None:
        self.links.pop(other, None)
        self.rounds.gone(other.id)
        self.pool.disconnected(self.network.now, other.id)
        if self.alive:
            self.book.seen(other.id)
            self.wake()

    def outbound(self) -> list[str]:
        return [peer.peer for peer in self.pool.peers.values() if peer.outbound]

    def live(self) -> int:
        """How many of its peers are alive, whatever it believes."""
        return sum(other.alive for other in self.links)


class Network:
    """The nodes, and the time."""

    def __init__(self, *, seed: int = 0, targets: Targets | None = None, max_inbound: int = 192) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self.targets = targets or Targets()
        self.max_inbound = max_inbound
        self.nodes: dict[str, SimNode] = {}
        self.records: dict[str, bytes] = {}
        self.cut_off = False
        self.dialled: Counter[str] = Counter()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()

    def add(
        self,
        ip: str,
        bootstrap: Iterable[SimNode] = (),
        *,
        kind: type[SimNode] = SimNode,
        book: AddressBook | None = None,
    ) -> SimNode:
        node = kind(self, ip, self.targets, book)
        self.nodes[node.id] = node
        self.records[node.id] = node.id.encode() + RECORD
        for other in bootstrap:
            node.pool.add_reserve(self.now, other.id, [other.addr])
        return node

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._number), call))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        gc.disable()  # it would go through all that the nodes know, again and again
        try:
            while self._heap and self._heap[0][0] <= end:
                self.now, _, call = heapq.heappop(self._heap)
                call()
        finally:
            gc.enable()
        self.now = end

    def silent(self, peer: str) -> bool:
        """Whether nothing at all answers there."""
        other = self.nodes.get(peer)
        return other is None or other.silent or self.cut_off

    def dial(self, node: SimNode, dial: Dial) -> None:
        self.dialled[dial.peer] += 1
        if self.silent(dial.peer):
            self.at(self.now + DIAL_TIMEOUT, lambda: self._fail(node, dial, answered=False))
        elif not (other := self.nodes[dial.peer]).alive:
            self.at(self.now + RTT, lambda: self._fail(node, dial, answered=True))
        else:
            self.at(self.now + 2 * RTT, lambda: self._connect(node, other, dial))

    def _fail(self, node: SimNode, dial: Dial, *, answered: bool) -> None:
        node.book.failed(dial.peer, dial.addrs[0])
        node.book.failed(dial.peer, "")
        node.pool.failed(self.now, dial.peer, answered=answered)
        node.wake()

    def _connect(self, node: SimNode, other: SimNode, dial: Dial) -> None:
        if not (node.alive and other.alive) or self.cut_off:
            self._fail(node, dial, answered=False)
            return
        if other not in node.links and not self.join(node, other):
            self._fail(node, dial, answered=True)
            return
        drop = node.pool.done(self.now, dial.peer)
        if drop is not None:
            self.at(self.now + 1.0, lambda: self.cut(node, other))
        node.wake()

    def join(self, node: SimNode, other: SimNode) -> bool:
        """`node` has connected with `other`, if that has a place."""
        if other in node.links or sum(not peer.outbound for peer in other.pool.peers.values()) >= self.max_inbound:
            return False
        node.linked(other, outbound=True)
        other.linked(node, outbound=False)
        return True

    def cut(self, node: SimNode, other: SimNode) -> None:
        if other in node.links:
            node.unlinked(other)
            other.unlinked(node)

    def cut_all(self, silence: float) -> None:
        """Nobody reaches anybody any more; connections break `silence` seconds later at most."""
        self.cut_off = True
        for node in list(self.nodes.values()):
            for other in list(node.links):
                self.at(self.now + silence * self.rng.random(), lambda a=node, b=other: self.cut(a, b))

    def kill(self, node: SimNode, *, machine: bool = False) -> None:
        """The node dies; with its `machine` nobody answers there any more."""
        node.alive, node.silent = False, machine
        for other in list(node.links):
            self.at(self.now + (SILENCE * self.rng.random() if machine else RTT), lambda o=other: self.cut(o, node))

    def in_one_piece(self, nodes: Iterable[SimNode]) -> bool:
        """Whether each of these live nodes reaches each other over live links."""
        left = set(nodes)
        waiting = [left.pop()] if left else []
        while waiting:
            for other in waiting.pop().links:
                if other in left:
                    left.discard(other)
                    waiting.append(other)
        return not left
