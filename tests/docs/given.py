"""What pieces of programs on the pages are run with, and what a reader does in a browser meanwhile."""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from node import Admitted, Config, Disconnected, Identity, Node
from node.api.client import Client
from protocols import Protocol, Stream
from protocols.gossip import GossipParams, PeerScoreParams, Verdict
from protocols.gossip.engine import Engine
from protocols.gossip.rpc import PubsubMessage, Rpc, decode, encode
from protocols.gossip.state import TopicParams, content_id
from protocols.messages import Message, SubProtocol
from tests.dashboard import chromium
from tests.docs.reading import Block
from tests.docs.terminals import Terminals
from tests.nodes import eventually


def in_the_dashboard(terminals: Terminals, block: Block) -> None:
    """Opens the URL that `vouch open` printed, listens to the topic, runs the block, and sees what was published."""
    program = chromium.find(why="the page was followed up to the dashboard")
    url = re.findall(r"http://127\.0\.0\.1:\d+/#token=\S+", terminals.transcript)[-1]
    command = r'^\$ echo "([^"]+)" \| vouch publish (\w+) --data-dir (\w+)$'
    [(said, topic, publisher)] = re.findall(command, block.text, re.MULTILINE)
    trio.run(_see, program, url, topic, said, terminals.folder / publisher, terminals, block)


def _subscribers(folder: Path, topic: str) -> Any:
    """Whom the node with that data folder knows in the topic."""
    with Client(Config(data_dir=folder).control_socket) as client:
        return client.call("mesh", topic=topic)["peers"]


async def _see(
    program: str, url: str, topic: str, said: str, publisher: Path, terminals: Terminals, block: Block
) -> None:
    async with chromium.chromium(program) as browser, browser.page() as page:
        await page.open(url)
        await page.until("document.querySelectorAll('#peers tbody tr').length === 1")
        await page.click("#publish-topic")
        await page.type(topic)
        await page.click("#listen")
        await page.until("document.querySelector('#listen').textContent === 'Stop'")
        await eventually(lambda: _subscribers(publisher, topic), pause=0.1)
        await trio.to_thread.run_sync(terminals.run, block)
        await page.until(f"document.querySelector('#messages').textContent.includes({json.dumps(said)})")
        assert page.errors == []
        assert all(one.startswith((url.partition("#")[0], "data:")) for one in page.requests)


# pieces of programs


@asynccontextmanager
async def a_node() -> AsyncIterator[dict[str, Any]]:
    """`node`, and `peer` that it is connected with."""
    config = Config(listen=("/ip4/127.0.0.1/tcp/0",), pool="off")
    async with (
        Node(config, identity=Identity.generate()) as node,
        Node(config, identity=Identity.generate()) as other,
    ):
        await node.connect(other.addrs[0])
        yield {"node": node, "peer": other.peer_id, "other": other}


@asynccontextmanager
async def a_node_that_ends() -> AsyncIterator[dict[str, Any]]:
    """`node`, which closes after a second, and with it those who listen to its events."""
    config = Config(listen=("/ip4/127.0.0.1/tcp/0",), pool="off")
    async with trio.open_nursery() as nursery:
        node = Node(config, identity=Identity.generate())

        async def run(task_status: trio.TaskStatus[None]) -> None:
            async with node:
                task_status.started()
                await trio.sleep(0.3)

        await nursery.start(run)
        yield {"node": node, "Admitted": Admitted, "Disconnected": Disconnected}


@asynccontextmanager
async def a_node_with_their_protocol() -> AsyncIterator[dict[str, Any]]:
    """`node`, and `peer`, which answers a protocol of its own."""
    theirs = Protocol("/my/proto/1.0.0", max_frame=None)

    @theirs.serve
    async def take(stream: Stream) -> None:
        await stream.receive()

    async with a_node() as names:
        await names["other"].serve(theirs)
        yield names


@asynccontextmanager
async def echo_served() -> AsyncIterator[dict[str, Any]]:
    """What a program with the protocol `echo` has; the address is that of a peer of its network."""
    echo = Protocol("/echo/1.0.0")

    @echo.serve
    async def reply(stream: Stream) -> None:
        async for frame in stream:
            await stream.send(frame)

    config = Config(network_id="harbour", listen=("/ip4/127.0.0.1/tcp/0",))
    async with Node(config, identity=Identity.generate(), protocols=[echo]) as other:

        class Here(Node):
            """The page's, on loopback and with an identity of its own; whom it connects with is `other`."""

            def __init__(self, config: Config, **more: Any) -> None:
                config = Config(network_id=config.network_id, listen=("/ip4/127.0.0.1/tcp/0",))
                super().__init__(config, identity=Identity.generate(), **more)

            async def connect(self, addr: str) -> Any:
                return await super().connect(other.addrs[0])

        yield {"Node": Here, "Config": Config, "echo": echo, "peer": other.peer_id}


@asynccontextmanager
async def a_store() -> AsyncIterator[dict[str, Any]]:
    """`node`, and `peer`, which answers requests for blocks as the page says."""
    config = Config(listen=("/ip4/127.0.0.1/tcp/0",))
    block_id = b"17"
    blocks = SubProtocol("blocks")

    @blocks.on_request
    async def block(request: Message) -> bytes:
        return b"block"

    async with (
        Node(config, identity=Identity.generate()) as node,
        Node(config, identity=Identity.generate(), protocols=[blocks]) as other,
    ):
        await node.connect(other.addrs[0])
        yield {
            "SubProtocol": SubProtocol,
            "Message": Message,
            "store": {block_id: b"block"},
            "node": node,
            "peer": other.peer_id,
            "block_id": block_id,
        }


@asynccontextmanager
async def prices() -> AsyncIterator[dict[str, Any]]:
    """`node`, a peer that keeps prices too, and the exchange's two functions."""

    class Whatever:
        def validate(self, key: bytes, value: bytes) -> None:
            pass

        def select(self, key: bytes, values: Sequence[bytes]) -> int:
            return 0

    async with a_node() as names:
        names["other"].dht.register("prices", Whatever())
        while not names["node"].dht.table():  # noqa: ASYNC110  it has no event for this
            await trio.sleep(0.05)
        yield names | {
            "Sequence": Sequence,
            "signed_by_the_exchange": lambda _key, _value: True,
            "round_of": lambda value: value,
            "value": b"17",
        }


@asynccontextmanager
async def an_engine() -> AsyncIterator[dict[str, Any]]:
    """What the router's rules are called with, and a frame that brings a message."""
    peer_id_bytes = Identity.generate().peer_id.encode()
    message = PubsubMessage("blocks", b"block 17")
    yield {
        "Engine": Engine,
        "GossipParams": GossipParams,
        "PeerScoreParams": PeerScoreParams,
        "PubsubMessage": PubsubMessage,
        "TopicParams": TopicParams,
        "Verdict": Verdict,
        "random": random,
        "decode": decode,
        "clock": trio.current_time,
        "now": trio.current_time(),
        "own_peer_id": "us",
        "peer": "them",
        "peer_id_bytes": peer_id_bytes,
        "frame": encode(Rpc(publish=(message,))),
        "message_id": content_id(message),
        "data": b"block 18",
    }
