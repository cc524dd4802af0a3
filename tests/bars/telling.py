"""One node of the consistency bar: what it tells of itself, and an account of it that is kept apart from it."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any, Protocol

import httpx
import msgspec
import trio

from interop.soak.agreement import Numbers, answers, between, numbers, numbers_of, same, total, within
from node import Node
from node.api import functions
from node.api.http.app import Api
from node.api.http.guard import Guard, Rates
from node.events import Admitted, Banned, Disconnected, Event, Unbanned
from node.metrics import Metrics
from protocols.gossip import GossipMessage, GossipParams
from protocols.messages import Message, SubProtocol
from tests.memnet import MemNet, mem_node
from tests.nodes import echo_protocol

NETWORK = "consistency-tests"
TOKEN = "t" * 43
# tables that are full after a while: what grows beyond them is a leak
BOUNDS: dict[str, Any] = {
    "max_known_peers": 32,
    "max_bans": 16,
    "message_max_age": 60.0,
    "dht_max_values": 32,
    "dht_max_providers": 32,
    "exchange_window": 60.0,
    "exchange_interval": 60.0,
}


class Owner(Protocol):
    """What a node needs of the world: its network, chance and pace; and where it counts what was compared."""

    net: MemNet
    rng: random.Random
    beat: float
    looks: int
    figures: int
    by_http: int


def at_once(call: Coroutine[Any, Any, Any]) -> Any:
    """What a call gives that waits for nothing: nothing else has run meanwhile."""
    try:
        call.send(None)
    except StopIteration as done:
        return msgspec.to_builtins(done.value)
    call.close()
    raise AssertionError("expected a call that doesn't wait")


class Ledger:
    """What happened to one node, counted apart from it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.events: Counter[str] = Counter()
        self.peers: dict[str, str] = {}  # and their direction
        self.bans: dict[str, float] = {}  # and their end
        self.published = 0
        self.verdicts: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()  # our requests, by outcome
        node.events.subscribe(self._on_event)

    def _on_event(self, event: Event) -> None:
        self.events[type(event).__name__] += 1
        match event:
            case Admitted(peer, _, direction):
                assert peer not in self.peers, f"{peer} was admitted twice"
                self.peers[peer] = direction
            case Disconnected(peer):
                del self.peers[peer]
            case Banned(target, _, seconds):
                self.bans[target] = math.inf if seconds is None else self.node.addressbook.clock() + seconds
            case Unbanned(target):
                self.bans.pop(target, None)


class Life:
    """One node with all that is told of it."""

    def __init__(self, world: Owner, ip: str, *, core: bool, **config: Any) -> None:
        self.world, self.ip = world, ip
        self.rng = random.Random(world.rng.random())
        self.ask = SubProtocol("ask", answer_timeout=3.0)
        self.ask.on_request()(self._answer)
        settings = {"network_id": NETWORK, "heartbeat": "on", "addressbook": "memory"} | BOUNDS | config
        if not core:
            settings |= {"dht": "client", "exchange": "off"}
        self.node = mem_node(
            world.net,
            ip,
            protocols=[echo_protocol(), self.ask],
            gossip_params=GossipParams(heartbeat_interval=world.beat, verdict_timeout=4.0),
            **settings,
        )
        self.metrics = Metrics(self.node)
        self.ledger = Ledger(self.node)
        self.last: Numbers = {}
        guard = Guard(TOKEN, port=80)
        self.http = Api(self.node, guard, rates=Rates(1e9))

    async def _answer(self, message: Message) -> bytes:
        if message.payload == b"raise":
            raise ValueError("as asked for")
        if message.payload == b"wait":
            await trio.sleep(60.0)
        return message.payload

    async def decide(self, topic: str) -> None:
        """Gives verdicts as the messages want them, some of them late or never."""
        async with trio.open_nursery() as nursery, self.node.gossip.subscribe(topic, limit=8) as heard:
            async for message in heard:
                nursery.start_soon(self._judge, message)

    async def _judge(self, message: GossipMessage) -> None:
        wanted = message.payload.split(b" ")[0].decode()
        if wanted == "never":
            return
        await trio.sleep(6.0 if wanted == "late" else self.rng.random())
        given = {"reject": lambda: message.reject("as asked for"), "ignore": message.ignore}.get(wanted, message.accept)
        if given():
            self.ledger.verdicts[wanted if wanted in ("reject", "ignore") else "accept"] += 1

    # what it says of itself

    def look(self) -> None:
        """Everything that is told now, against everything else."""
        node, ledger = self.node, self.ledger
        scrape = numbers_of(self.metrics.snapshot())
        told = {
            name: at_once(functions.invoke(node, name, {}))
            for name in ("status", "peers", "topics", "gossip", "bans", "addressbook", "config")
        }
        faults = [*within(scrape), *between(self.last, scrape)]
        if not self.world.looks % 8:  # a text takes longer to read than all else here
            faults += same(scrape, numbers(self.metrics.text().decode()))
        compared = answers(scrape, told, scrape)
        faults += compared.faults
        assert compared.figures > 25, compared.figures
        for what, shown, true in self._truth(scrape, told):
            if shown != true:
                faults.append(f"{what}: told {shown}, expected {true}")
        self.last = scrape
        self.world.looks += 1
        self.world.figures += compared.figures
        assert not faults, (self.ip, trio.current_time(), ledger.events, faults)

    def _truth(self, scrape: Any, told: Any) -> Iterator[tuple[str, Any, Any]]:
        """What is told, and what the node's own tables and the ledger say."""
        node, ledger = self.node, self.ledger
        swarm, engine = node.swarm, node.gossip.engine
        now = node.addressbook.clock()
        yield "connections", total(scrape, "vouch_connections"), len(swarm.running())
        rows = {row["peer"]: row["direction"] for row in told["peers"]["peers"]}
        leaving = {str(peer) for peer in swarm.connections if swarm.connection(peer) is None}
        yield "who is there", set(rows) | leaving, set(ledger.peers)
        status = told["status"]
        yield "peers of status", status["peers"], len(rows)
        for direction in ("inbound", "outbound"):
            there = list(rows.values()).count(direction)
            yield f"{direction} of status", status[direction], there
            yield f"{direction} in metrics", total(scrape, "vouch_peers", direction=direction), there
        for kind in (Admitted, Disconnected, Banned, Unbanned):
            name = kind.__name__
            yield f"events {name}", total(scrape, "vouch_events_total", event=name.lower()), ledger.events[name]
        holding = {target for target, until in ledger.bans.items() if now < until}
        yield "bans", {row["target"] for row in told["bans"]["bans"]}, holding
        yield "published", total(scrape, "vouch_gossip_published_total"), ledger.published
        for verdict in ("accept", "reject", "ignore"):
            yield (
                f"verdicts {verdict}",
                total(scrape, "vouch_gossip_verdicts_total", verdict=verdict),
                ledger.verdicts[verdict],
            )
        for outcome in ("answered", "error", "timeout", "not_supported", "lost", "given_up", "failed"):
            shown = total(scrape, "vouch_requests_total", protocol="ask", outcome=outcome)
            yield f"requests {outcome}", shown, ledger.asked[outcome]
        for row in told["topics"]["topics"]:
            mesh = at_once(functions.invoke(node, "mesh", {"topic": row["topic"]}))["peers"]
            yield f"mesh of {row['topic']}", row["mesh"], sum(one["in_mesh"] for one in mesh)
            yield f"mesh of {row['topic']}", row["mesh"], len(engine.mesh(row["topic"]))
            yield f"subscribers of {row['topic']}", row["subscribers"], len(mesh)
        yield "gossip's peers are there", set(map(str, engine.connected())) - set(ledger.peers), set()
        watched = total(scrape, "vouch_peers_by_round_trip")
        yield "who is watched is there", watched <= len(ledger.peers), True
        yield (
            "address book",
            {row["peer"] for row in told["addressbook"]["peers"]},
            {entry.peer for entry in node.addressbook.entries()},
        )
        shown_limits = {row["name"]: row["value"] for row in told["config"]["settings"]}
        for name, use in status["limits"].items():
            yield f"limit {name}", use["limit"], shown_limits[name]

    async def look_by_http(self) -> None:
        """The same through the routes, of which each may be asked at another moment."""
        transport = httpx.ASGITransport(self.http)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            before = numbers((await client.get("/metrics")).text)
            told = {}
            for name, path in (("status", "node"), ("peers", "peers"), ("topics", "topics"), ("gossip", "gossip")):
                answer = await client.get(f"/v1/{path}")
                assert answer.status_code == 200, answer.text
                told[name] = answer.json()
            after = numbers_of((await client.get("/v1/metrics")).json())
            assert (await client.get("/health")).json() == {"status": "ok"}
        compared = answers(before, told, after)
        faults = [*within(before), *within(after), *between(before, after), *compared.faults]
        assert not faults, (self.ip, trio.current_time(), faults)
        self.world.by_http += compared.figures
