"""What the running nodes tell over HTTP while the traffic goes on, held to itself by `agreement`.

The hub and a leaf have their HTTP API on from beginning to end. During the traffic there are CROWD nodes beside them,
which have every part that the others have switched off: they gossip with verdicts, ask each other, ban, part and meet
again, and have the API too. Every PAUSE seconds each is asked: /metrics, /v1/node, /v1/peers, /v1/topics, /v1/gossip,
/v1/bans, /v1/addressbook, /v1/metrics.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import httpx
import trio

from interop.soak.agreement import Numbers, answers, between, numbers, numbers_of, total, within
from node.api.http.serve import Server
from node.api.http.token import read_token
from node.config import Config
from node.errors import VouchError
from node.identity import Identity
from node.metrics import Metrics
from node.node import Node
from protocols import ProtocolError, StreamError
from protocols.gossip import GossipParams, PublishError
from protocols.messages import Message, SubProtocol

CROWD = 3
TOPICS = ("blocks", "votes")
PAUSE = 5.0
TIMEOUT = 60.0
# what is asked between the two scrapes; a node without gossip doesn't answer the latter two
ASKED = {"status": "node", "peers": "peers", "bans": "bans", "addressbook": "addressbook"}
OF_GOSSIP = {"topics": "topics", "gossip": "gossip"}
LISTEN = "/ip4/127.0.0.1/tcp/0"

Fault = Callable[[str], None]


@asynccontextmanager
async def folders() -> AsyncIterator[Path]:
    """Where the nodes' tokens are."""
    with tempfile.TemporaryDirectory(prefix="vouch-soak-") as folder:
        yield Path(folder)


class Asked:
    """A node that is asked, and what it told last. Made before the node starts."""

    def __init__(self, name: str, node: Node) -> None:
        self.name, self.node = name, node
        Metrics(node)
        self.looks = self.figures = 0
        self._last: Numbers = {}

    async def serve(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Its API, until cancelled."""
        self._server = Server(self.node)
        await self._server.run(task_status=task_status)

    async def look(self, fault: Fault) -> None:
        """Asks for everything once."""
        token = read_token(self.node.config.data_dir)
        headers = {"Authorization": f"Bearer {token}"}
        url, paths = self._server.url, ASKED | (OF_GOSSIP if self.node.config.gossip == "on" else {})
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT, trust_env=False) as client:
            before = numbers(await self._get(client, "/metrics", fault))
            told = {name: await self._get(client, f"/v1/{path}", fault, json=True) for name, path in paths.items()}
            after = numbers_of(await self._get(client, "/v1/metrics", fault, json=True))
        compared = answers(before, told, after)
        for text in (
            *within(before),
            *within(after),
            *between(self._last, before),
            *between(before, after),
            *compared.faults,
        ):
            fault(f"{self.name} tells: {text}")
        if total(after, "vouch_api_requests_total") < total(before, "vouch_api_requests_total") + len(paths) + 1:
            fault(f"{self.name} tells: it was asked {len(paths) + 1} things that it hasn't counted")
        self._last = after
        self.looks += 1
        self.figures += compared.figures

    async def _get(self, client: httpx.AsyncClient, path: str, fault: Fault, *, json: bool = False) -> Any:
        answer = await client.get(path)
        if answer.status_code != 200:
            fault(f"{self.name} answers {answer.status_code} to {path}: {answer.text[:200]}")
            return {} if json else ""
        return answer.json() if json else answer.text


async def keep_asking(asked: Sequence[Asked], fault: Fault) -> None:
    """Looks at each again and again, until cancelled; a look under way is finished, or its connection would linger."""
    while True:
        for one in asked:
            with trio.CancelScope(shield=True):
                try:
                    await one.look(fault)
                except (httpx.HTTPError, VouchError) as error:
                    fault(f"{one.name} doesn't answer: {error!r}")
        await trio.sleep(PAUSE)


# the nodes that do what the others don't


@asynccontextmanager
async def crowd(folder: Path, rng: Random, fault: Fault) -> AsyncIterator[list[Asked]]:
    """Nodes with everything, connected, and busy."""
    async with AsyncExitStack() as stack:
        asked: list[Asked] = []
        for number in range(CROWD):
            node = _node(folder / str(number), rng)
            asked.append(Asked(f"node {number} of the crowd", node))
            await stack.enter_async_context(node)
        async with trio.open_nursery() as nursery:
            for one in asked:
                await nursery.start(one.serve)
                for topic in TOPICS:
                    nursery.start_soon(_decide, one.node, topic)
            nodes = [one.node for one in asked]
            await _meet(nodes)
            for work in (_publish, _ask, _part, _ban):
                nursery.start_soon(_again, work, nodes, rng, fault)
            yield asked
            nursery.cancel_scope.cancel()


def _node(folder: Path, rng: Random) -> Node:
    ask = SubProtocol("soak")

    @ask.on_request()
    async def answer(message: Message) -> bytes:
        await trio.sleep(0.001 * len(message.payload))
        return message.payload

    config = Config(
        listen=(LISTEN,),
        data_dir=folder,
        api="127.0.0.1:0",
        network_id="soak",
        pool="off",
        dht_store="memory",
        addressbook="memory",
        max_bans=8,
    )
    # nodes share the event loop with the traffic: a round that takes long says nothing
    params = GossipParams(slow_heartbeat_warning=60.0, verdict_timeout=5.0)
    return Node(config, identity=Identity.generate(), protocols=[ask], gossip_params=params)


async def _meet(nodes: Sequence[Node]) -> None:
    for number, node in enumerate(nodes):
        for other in nodes[:number]:
            with suppress(VouchError):  # the two may dial each other, and the operator may have banned one
                await node.connect(other.addrs[0])


async def _decide(node: Node, topic: str) -> None:
    async with node.gossip.subscribe(topic) as heard:
        async for message in heard:
            match message.payload[0] % 16:
                case 0:
                    message.ignore()
                case 1:
                    pass  # no verdict in time
                case _:
                    message.accept()


async def _again(work: Any, nodes: Sequence[Node], rng: Random, fault: Fault) -> None:
    while True:
        await trio.sleep(rng.uniform(0, 2 * PACE[work]))
        try:
            await work(nodes, rng)
        except (VouchError, StreamError, ProtocolError, PublishError):
            pass  # others part them meanwhile
        except Exception as error:  # whatever else it raises is no way to fail
            fault(f"{work.__name__.strip('_')}: {error!r}")


async def _publish(nodes: Sequence[Node], rng: Random) -> None:
    await rng.choice(nodes).gossip.publish(rng.choice(TOPICS), rng.randbytes(rng.randint(1, 2048)))


async def _ask(nodes: Sequence[Node], rng: Random) -> None:
    node, other = rng.sample(nodes, 2)
    await node.request(other.peer_id, "soak", rng.randbytes(rng.randint(0, 100)))


async def _part(nodes: Sequence[Node], rng: Random) -> None:
    node, other = rng.sample(nodes, 2)
    with suppress(VouchError):
        await node.disconnect(other.peer_id)
    await trio.sleep(0.5)
    await _meet(nodes)


async def _ban(nodes: Sequence[Node], rng: Random) -> None:
    node = rng.choice(nodes)
    await node.peers.ban(f"192.0.2.{rng.randrange(16)}", "soak", seconds=rng.uniform(1, 20))


# seconds between two of a kind, on average
PACE: dict[Any, float] = {_publish: 0.2, _ask: 0.1, _part: 15.0, _ban: 5.0}
