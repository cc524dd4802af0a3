"""A walk through the network, outward from one node: who is there, and who knows whom. `vouch explore` prints it.

    start --> waiting --next--> under way --reached, refused, failed--> done
                 ^                  |
                 +------ named -----+     by peer exchange, and by Kademlia where it is spoken

`Walk` is the rules: outward from the first, by turns one of those whom each node was the first to name; bounded in
nodes, and in dials a second. When there is no more room, who has named most that wait gives up one for a node that has
named fewer. So a neighbour that invents thousands of peers takes its own turns and its own places, nobody else's. How
often an address is dialled that strangers name is bounded by `DialBudget`, so that a walk can't be aimed at a victim.

It does no I/O: `now` comes from the caller. `explore` moves it with a node, which should be short-lived: each peer is
connected with, asked, and let go.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import trio
from multiaddr import Multiaddr

from node.errors import RefusedError, VouchError
from node.events import Identified
from node.names import parse_peer_addr, parse_peer_id
from node.node import Node
from node.peers.budget import DialBudget
from node.peers.choice import host
from node.peers.reach import reach_of
from node.records import readable
from protocols import Protocol, ProtocolError, StreamError
from protocols.exchange.wire import PROTOCOL_ID as EXCHANGE_ID
from protocols.kad.keyspace import point, random_key, to_bytes, to_text
from protocols.kad.wire import MAX_FRAME, Message, Type, decode, encode

MAX_ADDRS = 16
# peers that one node may name: more than its table and its answers hold
MAX_NAMED = 1000
# nodes behind one address are dialled at once, more of them one each second
BUDGET_BURST, BUDGET_PERIOD = 16, 1.0
AT_ONCE = 16
VISIT_TIMEOUT = 30.0
IDENTIFY_TIMEOUT = 5.0
KAD_TIMEOUT = 10.0
PINGS = 3
# questions of a kind to one node, while they bring something new
MAX_QUESTIONS = 3
MAX_PREFIXES = 10

State = Literal["waiting", "under way", "reached", "refused", "unreachable"]


@dataclass
class Seen:
    """One node of the network. `rtt` in seconds; `knows` whom it has named; `teller` who named it first, `depth` steps
    from the first node by that way; `dials` its addresses that this visit may dial, `at` where it was reached.
    """

    peer: str
    depth: int
    teller: str = ""
    addrs: dict[str, None] = field(default_factory=dict)
    state: State = "waiting"
    agent: str = ""
    version: str = ""
    protocols: tuple[str, ...] = ()
    rtt: float | None = None
    error: str = ""
    knows: dict[str, None] = field(default_factory=dict)
    dials: tuple[str, ...] = ()
    at: str = ""

    @property
    def reachable(self) -> bool | None:
        """Whether it answered where it is said to be; None before it was tried."""
        return {"reached": True, "refused": True, "unreachable": False}.get(self.state)


class Walk:
    """Who was found, and who is next. `left_out` counts the times that a peer was named for whom there was no room."""

    def __init__(self, peer: str, addr: str, *, max_nodes: int = 500, rate: float = 20.0) -> None:
        """`rate`: dials a second."""
        self.start = peer
        self.max_nodes = max_nodes
        self.nodes: dict[str, Seen] = {peer: Seen(peer, 0, addrs={addr: None})}
        self.left_out = 0
        self.under_way = 0
        self._pause = 1 / rate
        self._free_at = -math.inf
        self._budget = DialBudget(burst=BUDGET_BURST, period=BUDGET_PERIOD, longest=60 * BUDGET_PERIOD)
        # by their tellers, in the order of their turns
        self._waiting: OrderedDict[str, deque[str]] = OrderedDict({"": deque([peer])})

    def named(self, by: str, peer: str, addrs: Iterable[str]) -> None:
        """`by` knows `peer`, and where it is."""
        namer, addrs = self.nodes[by], list(addrs)
        if not addrs or peer == by or (peer not in namer.knows and len(namer.knows) >= MAX_NAMED):
            return
        seen = self.nodes.get(peer)
        if seen is None:
            if len(self.nodes) >= self.max_nodes:
                self.left_out += 1
                if not self._make_room(by):
                    return
            seen = self.nodes[peer] = Seen(peer, namer.depth + 1, by)
            self._put(seen)
        namer.knows[peer] = None
        for addr in addrs:
            if len(seen.addrs) < MAX_ADDRS:
                seen.addrs[addr] = None

    def next(self, now: float) -> Seen | None:
        """Whom to visit now; None if nobody can be: the rate, or the budget of all who wait. See `wait`."""
        if now < self._free_at:
            return None
        for teller, waiting in list(self._waiting.items()):
            self._waiting.move_to_end(teller)
            for _ in range(len(waiting)):
                seen = self.nodes[waiting.popleft()]
                seen.dials = self._allowed(seen, now)
                if seen.dials:
                    if not waiting:
                        del self._waiting[teller]
                    seen.state = "under way"
                    self.under_way += 1
                    self._free_at = now + self._pause
                    return seen
                waiting.append(seen.peer)
        return None

    def wait(self, now: float) -> float:
        """Seconds until `next` may have somebody; for ever if nobody waits."""
        if not self._waiting:
            return math.inf
        hosts = {host(addr) for peers in self._waiting.values() for peer in peers for addr in self.nodes[peer].addrs}
        budget = min((self._budget.wait(one, now) for one in hosts), default=0.0)
        return max(0.0, self._free_at - now, budget)

    def visited(self, seen: Seen, state: State, now: float, error: str = "") -> None:
        """A visit is over."""
        self.under_way -= 1
        seen.state, seen.error = state, error
        for one in {host(addr) for addr in seen.dials}:
            if state == "unreachable":
                self._budget.failed(one, now)
            elif seen.at and one == host(seen.at):
                self._budget.succeeded(one, now)
        if state == "waiting":
            self._put(seen)

    @property
    def done(self) -> bool:
        """Whether everybody was visited."""
        return not self._waiting and not self.under_way

    def counts(self) -> dict[State, int]:
        """How many nodes are in each state."""
        counts: dict[State, int] = dict.fromkeys(("waiting", "under way", "reached", "refused", "unreachable"), 0)
        for seen in self.nodes.values():
            counts[seen.state] += 1
        return counts

    def _put(self, seen: Seen) -> None:
        self._waiting.setdefault(seen.teller, deque()).append(seen.peer)

    def _make_room(self, by: str) -> bool:
        """Forgets one of the peers that wait, of whoever has named most of them, if that are more than `by` has."""
        most = max(self._waiting, key=lambda teller: len(self._waiting[teller]), default=by)
        if most == by or len(self._waiting[most]) <= len(self._waiting.get(by, ())) + 1:
            return False
        gone = self._waiting[most].pop()
        del self.nodes[gone]
        for seen in self.nodes.values():
            seen.knows.pop(gone, None)
        return True

    def _allowed(self, seen: Seen, now: float) -> tuple[str, ...]:
        """Which of its addresses may be dialled: those that the user has named, else by each host's budget."""
        if seen.depth == 0:
            return tuple(seen.addrs)
        hosts = dict.fromkeys(host(addr) for addr in seen.addrs)
        allowed = {one for one in hosts if self._budget.take(one, now)}
        return tuple(addr for addr in seen.addrs if host(addr) in allowed)


async def explore(node: Node, walk: Walk, *, at_once: int = AT_ONCE) -> None:
    """Visits until everybody was visited; the deadline is the caller's, and what was found so far is in `walk`."""
    visitor = _Visitor(node, walk)
    ended = trio.Event()
    unsubscribe = node.events.subscribe(visitor.on_event)

    async def one(seen: Seen) -> None:
        nonlocal ended
        try:
            await visitor.visit(seen)
        finally:
            ended.set()

    try:
        async with trio.open_nursery() as nursery:
            while not walk.done:
                ended = trio.Event()
                seen = walk.next(trio.current_time()) if walk.under_way < at_once else None
                if seen is not None:
                    nursery.start_soon(one, seen)
                    continue
                with trio.move_on_after(walk.wait(trio.current_time()) if walk.under_way < at_once else math.inf):
                    await ended.wait()
    finally:
        unsubscribe()


class _Visitor:
    """Connects with one peer after the other, and asks."""

    def __init__(self, node: Node, walk: Walk) -> None:
        self._node = node
        self._walk = walk
        self._rng = random.Random()
        self._identified = trio.Event()
        self._kad = Protocol(node.config.kademlia_protocol, max_frame=MAX_FRAME, timeout=KAD_TIMEOUT)

    def on_event(self, event: object) -> None:
        if isinstance(event, Identified):
            self._identified.set()
            self._identified = trio.Event()

    async def visit(self, seen: Seen) -> None:
        """Everything that is done with one peer. Raises nothing but cancellation, which leaves it to be visited."""
        failed: State = "waiting"
        error = ""
        try:
            with trio.move_on_after(VISIT_TIMEOUT) as scope:
                await self._reach(seen)
            if scope.cancelled_caught:
                failed, error = "unreachable", f"not done within {VISIT_TIMEOUT:g} s"
        except RefusedError as refused:
            failed, error = "refused", str(refused)
        except (VouchError, StreamError, ProtocolError) as failure:
            failed, error = "unreachable", str(failure)
        finally:
            reached = seen.state == "reached"  # then it is, whatever became of the questions
            self._walk.visited(seen, "reached" if reached else failed, trio.current_time(), error or seen.error)
        with trio.CancelScope(shield=True):
            await self._node.swarm.close_peer(parse_peer_id(seen.peer))

    async def _reach(self, seen: Seen) -> None:
        addrs = [Multiaddr(addr.partition("/p2p/")[0]) for addr in seen.dials]
        connection = await self._node.dialer.dial(parse_peer_id(seen.peer), addrs)
        seen.state, seen.at = "reached", str(connection.addr)
        seen.version = connection.hello.client_version if connection.hello else ""
        await self._ask(seen)

    async def _ask(self, seen: Seen) -> None:
        identified = self._node.identify.known
        with trio.move_on_after(IDENTIFY_TIMEOUT):
            while seen.peer not in identified:
                await self._identified.wait()
        known = identified.get(seen.peer)
        if known is None:
            seen.error = "it didn't say what it is"
            return
        seen.agent, seen.protocols = known.agent, known.protocols
        for addr in known.addrs[:MAX_ADDRS]:
            if len(seen.addrs) < MAX_ADDRS:
                seen.addrs[addr] = None
        rtts: list[float] = []
        try:
            await self._node.ping(seen.peer, PINGS, into=rtts)
        finally:
            seen.rtt = min(rtts, default=None)
        # a walk goes on without the one or the other
        for protocol, ask in ((EXCHANGE_ID, self._exchange), (self._kad.id, self._find_nodes)):
            if protocol in known.protocols:
                try:
                    await ask(seen.peer)
                except (StreamError, ProtocolError) as error:
                    seen.error = str(error)

    async def _exchange(self, peer: str) -> None:
        assert self._node.exchange is not None
        for _ in range(MAX_QUESTIONS):
            before = len(self._walk.nodes[peer].knows)
            found = await self._node.exchange.ask(peer)
            for other, (addrs, _) in found.items():
                self._walk.named(peer, other, addrs)
            if len(self._walk.nodes[peer].knows) == before or len(found) < 50:
                return  # an answer that isn't full was all it tells

    async def _find_nodes(self, peer: str) -> None:
        """Reads its table: near itself, and in each of the buckets farther away, until they bring nothing new."""
        near = to_bytes(peer)
        keys = [near, *(random_key(self._rng, point(near), prefix) for prefix in range(MAX_PREFIXES))]
        fruitless = 0
        async with self._node.stream(peer, self._kad) as stream:
            for key in keys:
                await stream.send(encode(Message(Type.FIND_NODE, key)))
                answer = decode(await stream.receive())
                before = len(self._walk.nodes[peer].knows)
                for other in answer.closer:
                    addrs = self._of_use(peer, other.addrs)
                    if addrs and other.id != to_bytes(self._node.peer_id):
                        self._walk.named(peer, to_text(other.id), addrs)
                fruitless = fruitless + 1 if len(self._walk.nodes[peer].knows) == before else 0
                if fruitless == MAX_QUESTIONS:
                    return

    def _of_use(self, peer: str, said: Sequence[bytes]) -> list[str]:
        """The addresses that this node can dial, and that somebody so far away may name."""
        reach = self._node.exchange.whereabouts(peer)[1] if self._node.exchange is not None else 0
        texts = [text.partition("/p2p/")[0] for text in map(readable, said) if text is not None]
        return [
            text
            for text in dict.fromkeys(texts)
            if (known := reach_of(text)) is not None and known >= reach and self._node.swarm.can_dial(Multiaddr(text))
        ]


def walk_from(text: str, *, max_nodes: int, rate: float) -> Walk:
    """A walk from the node at a multiaddr. Raises UsageError."""
    peer_id, addr = parse_peer_addr(text)
    return Walk(str(peer_id), str(addr).partition("/p2p/")[0], max_nodes=max_nodes, rate=rate)
