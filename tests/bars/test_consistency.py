"""What a node tells of itself is true, for a day: its metrics, its API's answers and what happened agree at any moment.

Five whole nodes live in simulated time (tests/memnet.py), and guests come, greet some of them, and go: properly, by
dying, by falling silent, or because they are banned; some are of another network. All gossip, and the deciders accept,
reject, ignore or say nothing; they ask each other, look each other up, and are banned and forgiven. A `Ledger` keeps
its own account of each node, from its events and from what was asked of it. Now and then each node is looked at, in one
moment of the event loop: metrics as text, as a snapshot, the answers of the API's functions, and the node's own tables
must say the same; sometimes the HTTP API is asked too, between two scrapes. What a node keeps may not grow: tasks,
and every table of every object, at a late moment as many as at an early one.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio

from interop.soak.agreement import numbers_of, total
from node import Identity, records
from node.api import functions
from node.discovery import exchange
from node.errors import VouchError
from protocols import ProtocolError, StreamError
from protocols.messages import server
from tests.bars.growth import census, grown
from tests.bars.telling import NETWORK, Life, at_once
from tests.memnet import MemNet

DAY = 24 * 3600.0
CORE = tuple(f"20.{number}.0.1" for number in range(5))
GUESTS = tuple(f"30.{number}.0.1" for number in range(24))
AT_ONCE = 5
TOPICS = ("blocks", "votes")
BEAT, LOOK, HTTP = 5.0, 90.0, 300.0
ECHO = "/echo/1.0.0"
PROTOCOLS = (ECHO, "/vouch/msg/ask/1.0.0", "/ipfs/ping/1.0.0")
CID = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
POOL: dict[str, Any] = {
    "pool": "on",
    "low_peers": 2,
    "target_peers": 4,
    "high_peers": 8,
    "outbound_peers": 2,
    "subnet_share": 1.0,
    "source_share": 1.0,
}


class World:
    """The nodes, who does what to them, and what was compared."""

    def __init__(self, net: MemNet, seed: int, pace: float) -> None:
        """`pace`: how many times as long all pauses are."""
        self.net, self.pace, self.beat = net, pace, BEAT * pace
        self.rng = random.Random(seed)
        self.core: list[Life] = []
        self.guests: dict[str, Life] = {}
        self.gone: deque[str] = deque(maxlen=20)  # the last who went
        self.past: dict[str, list[float]] = {protocol: [0.0] * 4 for protocol in PROTOCOLS}  # what they moved
        self.looks = self.figures = self.by_http = 0
        self.done: Counter[str] = Counter()
        self.quiet = False  # nobody does anything: for the moments that are compared

    @property
    def all(self) -> list[Life]:
        return [*self.core, *self.guests.values()]

    @asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """The core, connected."""
        async with trio.open_nursery() as nursery:
            for ip in CORE:
                bootstrap = (self.core[0].node.addrs[0],) if self.core else ()
                life = Life(self, ip, core=True, bootstrap=bootstrap, **POOL)
                await nursery.start(self._live, life)
                self.core.append(life)
            yield
            nursery.cancel_scope.cancel()

    async def _live(self, life: Life, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        async with life.node, trio.open_nursery() as nursery:
            for topic in TOPICS:
                nursery.start_soon(life.decide, topic)
            task_status.started()
            await trio.sleep_forever()

    # what happens

    async def at_times(self, pause: float, work: Any) -> None:
        """Does something now and then, one after the other."""
        while True:
            await trio.sleep(self.rng.expovariate(1 / (pause * self.pace)))
            if not self.quiet:
                await work()

    async def guest(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Somebody comes, stays and goes, in one of the ways."""
        rng = self.rng
        task_status.started()
        free = [ip for ip in GUESTS if ip not in self.guests]
        if len(self.guests) >= AT_ONCE or not free:
            return
        ip = rng.choice(free)
        way = rng.choice(("properly", "properly", "dies", "silent", "banned", "stranger"))
        life = Life(self, ip, core=False, network_id="another" if way == "stranger" else NETWORK)
        self.guests[ip] = life
        self.done[way] += 1
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._live, life)
                for host in rng.sample(self.core, rng.randint(1, 3)):
                    with suppress(VouchError):
                        await life.node.connect(host.node.addrs[0])
                await trio.sleep(min(300.0, rng.expovariate(1 / 80)) * self.pace)
                if way == "dies":
                    self.net.kill(ip)
                elif way == "silent":
                    self.net.partition([ip], list(CORE))
                    await trio.sleep(90)
                    self.net.heal()
                elif way == "banned":
                    host = rng.choice(self.core).node
                    what = rng.choice((life.node.peer_id, ip))
                    await functions.invoke(host, "ban", {"target": what, "seconds": rng.choice((30.0, 600.0, 7200.0))})
                    await trio.sleep(5)
                nursery.cancel_scope.cancel()
        finally:
            del self.guests[ip]
            self.gone.append(life.node.peer_id)
            for protocol in PROTOCOLS:
                moved = self._flows([life], protocol)
                self.past[protocol] = [sum(both) for both in zip(self.past[protocol], moved, strict=True)]

    async def publish(self) -> None:
        life = self.rng.choice(self.all)
        wanted = self.rng.choices(("accept", "reject", "ignore", "never", "late"), (20, 1, 2, 1, 1))[0]
        payload = f"{wanted} {self.rng.random()}".encode()
        await life.node.gossip.publish(self.rng.choice(TOPICS), payload)
        life.ledger.published += 1
        self.done["published"] += 1

    def _pair(self) -> tuple[Life, str] | None:
        life = self.rng.choice(self.all)
        peers = life.node.connected_peers()
        return (life, self.rng.choice(peers)) if peers else None

    async def ask(self) -> None:
        """A request, with its outcome in the ledger as the caller sees it."""
        if (pair := self._pair()) is None:
            return
        life, peer = pair
        payload = self.rng.choices((b"hello", b"raise", b"wait"), (8, 1, 1))[0]
        timeout = 1.0 if payload == b"wait" and self.rng.random() < 0.5 else None
        with trio.move_on_after(2.0 if payload == b"wait" and self.rng.random() < 0.3 else math.inf) as scope:
            try:
                await life.node.request(peer, "ask", payload, timeout=timeout)
                outcome = "answered"
            except Exception as error:
                outcome = OUTCOMES.get(type(error).__name__, "lost")
        if scope.cancelled_caught:
            outcome = "given_up"
        life.ledger.asked[outcome] += 1
        self.done[f"request {outcome}"] += 1

    async def echo(self) -> None:
        if (pair := self._pair()) is None:
            return
        life, peer = pair
        with suppress(StreamError, ProtocolError, VouchError):
            async with life.node.stream(peer, ECHO) as stream:
                for _ in range(self.rng.randint(1, 4)):
                    await stream.send(self.rng.randbytes(self.rng.randint(1, 4096)))
                    await stream.receive()
            self.done["echo"] += 1

    async def look_up(self) -> None:
        life, other = self.rng.choice(self.core), self.rng.choice(self.all)
        name, params = self.rng.choice(
            (
                ("find_peer", {"peer": other.node.peer_id}),
                ("find_peer", {"peer": Identity.generate().peer_id}),
                ("dht_provide", {"cid": CID}),
                ("dht_find_providers", {"cid": CID}),
                ("dht_withdraw", {"key": CID}),
            )
        )
        with suppress(VouchError):
            await functions.invoke(life.node, name, params)
        self.done[name] += 1

    async def operate(self) -> None:
        """An operator at work: bans and forgives, disconnects, dials who is there and who isn't."""
        life, rng = self.rng.choice(self.core), self.rng
        what = rng.choice(("ban", "unban", "disconnect", "nobody", "ping", "refused", "protect"))
        with suppress(VouchError, StreamError):
            if what == "ban":
                target = f"40.{rng.randrange(40)}.0.0/16"
                await functions.invoke(
                    life.node, "ban", {"target": target, "seconds": rng.choice((20.0, 3600.0, None))}
                )
            elif what == "unban" and (bans := life.node.addressbook.bans()):
                await functions.invoke(life.node, "unban", {"target": rng.choice(bans).target})
            elif what == "disconnect" and (peers := life.node.connected_peers()):
                await functions.invoke(life.node, "disconnect", {"peer": rng.choice(peers)})
            elif what == "nobody":
                address = f"/ip4/50.0.0.{rng.randrange(1, 255)}/tcp/4001/p2p/{Identity.generate().peer_id}"
                await functions.invoke(life.node, "connect", {"address": address})
            elif what == "ping" and (peers := life.node.connected_peers()):
                await functions.invoke(life.node, "ping", {"target": rng.choice(peers), "count": 3})
            elif what == "refused" and self.gone:
                address = f"/ip4/{CORE[0]}/tcp/4001/p2p/{rng.choice(self.gone)}"
                await functions.invoke(life.node, "connect", {"address": address})
        self.done[what] += 1

    # what is looked at

    async def looking(self) -> None:
        while True:
            await trio.sleep(self.rng.uniform(0.5, 1.5) * LOOK * self.pace)
            for life in self.all:
                if life.node.uptime is not None:
                    life.look()

    async def looking_by_http(self) -> None:
        while True:
            await trio.sleep(HTTP * self.pace)
            for life in list(self.core):
                await life.look_by_http()

    async def rest(self, seconds: float) -> dict[str, int]:
        """Everybody has gone, and what they left has had its time. How much each table holds then, and the tasks."""
        self.quiet = True
        while self.guests:  # noqa: ASYNC110  their time comes
            await trio.sleep(10)
        # scores, backoffs and questions of those who went are forgotten by their own times
        await trio.sleep(seconds)
        for life in self.core:  # some tables are tidied by what comes next
            life.ledger.published += 1
            await life.node.gossip.publish(TOPICS[0], f"accept {self.rng.random()}".encode())
        await trio.sleep(10)
        for life in self.core:
            life.look()
        await self._ends_agree()
        found = census()
        found["tasks"] = trio.lowlevel.current_statistics().tasks_living
        self.quiet = False
        return found

    async def _ends_agree(self) -> None:
        """What one node has sent, another has received: never more than that, and nothing less between those who are
        left, once their streams have ended.
        """
        for protocol in PROTOCOLS:
            there = self._flows(self.core, protocol)
            sent, received, _, _ = (sum(both) for both in zip(there, self.past[protocol], strict=True))
            assert received <= sent, (protocol, received, sent)
        before = self._flows(self.core, ECHO)
        pairs = [(life, peer) for life in self.core for peer in life.node.connected_peers()]
        for life, peer in pairs:
            async with life.node.stream(peer, ECHO) as stream:
                await stream.send(self.rng.randbytes(self.rng.randint(1, 4096)))
                await stream.receive()
        await trio.sleep(1)
        sent, received, opened, taken = (
            after - first for after, first in zip(self._flows(self.core, ECHO), before, strict=True)
        )
        assert sent == received > 0, (sent, received)
        assert opened == taken == len(pairs), (opened, taken, len(pairs))
        ways = {
            (life.node.peer_id, row["peer"]): row["direction"]
            for life in self.core
            for row in at_once(functions.invoke(life.node, "peers", {}))["peers"]
        }
        for (here, there), way in ways.items():
            assert {way, ways[there, here]} == {"inbound", "outbound"}, (here, there, way)

    @staticmethod
    def _flows(lives: list[Life], protocol: str) -> tuple[float, float, float, float]:
        """Bytes sent and received, streams opened and taken, of all of them."""
        scrapes = [numbers_of(life.metrics.snapshot()) for life in lives]

        def of_all(name: str, way: str) -> float:
            return sum(total(one, name, protocol=protocol, direction=way) for one in scrapes)

        size, count = "vouch_stream_bytes_total", "vouch_streams_opened_total"
        return of_all(size, "sent"), of_all(size, "received"), of_all(count, "outbound"), of_all(count, "inbound")


OUTCOMES = {"RemoteError": "error", "StreamTimeout": "timeout", "NotSupported": "not_supported"}


async def live(net: MemNet, seconds: float, rest: float, seed: int, pace: float) -> World:
    """So much simulated time, in two parts with a rest after each."""
    world = World(net, seed, pace)
    async with world.living(), trio.open_nursery() as nursery:

        async def come() -> None:
            await nursery.start(world.guest)

        for pause, work in (
            (60.0, lambda: _in_background(nursery, world.guest)),
            (10.0, world.publish),
            (20.0, world.ask),
            (30.0, world.echo),
            (120.0, world.look_up),
            (45.0, world.operate),
        ):
            nursery.start_soon(world.at_times, pause, work)
        nursery.start_soon(world.looking)
        nursery.start_soon(world.looking_by_http)
        await trio.sleep(seconds / 3)
        early = await world.rest(rest)
        await trio.sleep(seconds * 2 / 3)
        late = await world.rest(rest)
        nursery.cancel_scope.cancel()
    for name, (before, after) in (more := grown(early, late)).items():
        print(f"grew: {name} from {before} to {after}")
    assert not more
    return world


async def _in_background(nursery: trio.Nursery, work: Any) -> None:
    nursery.start_soon(work)


@pytest.mark.parametrize(
    ("seconds", "rest", "pace"),
    [
        pytest.param(400.0, 200.0, 1.0, marks=pytest.mark.bar_quick, id="quick"),
        pytest.param(DAY, 7300.0, 3.0, marks=pytest.mark.bar, id="full"),
    ],
)
async def test_bar_consistency(autojump_clock, monkeypatch, seconds: float, rest: float, pace: float) -> None:
    for module in (records, exchange):
        monkeypatch.setattr(module, "REMEMBERED", 16)  # so that these tables are full early, too
    monkeypatch.setattr(server, "KNOWN_PEERS", 16)
    async with MemNet(seed=1, latency=0.01) as net:
        world = await live(net, seconds, rest, 1, pace)
    print(f"\n{world.looks} looks, {world.figures} figures at once, {world.by_http} by HTTP; {dict(world.done)}")
    assert world.looks > 50
    assert world.by_http > 100
