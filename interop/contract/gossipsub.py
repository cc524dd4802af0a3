"""gossipsub-interop's program: one node of an experiment, which does what its script says (`script`).

    python -m interop.contract gossipsub --params params.json

In Shadow, the suite's simulator, a node's number is in its host name (`node7`), it listens on port 9000 of all
interfaces, and the others are found by their host names. Elsewhere --node-id and --hosts say so, and --start when the
experiment begins: outside Shadow programs take a while to start. It ends when its script does.

Standard output is one JSON object a line, with `time` and `msg`: "PeerID" at the start, "Received Message" for every
copy of a message that comes, duplicates too. Messages are unsigned and carry their own ID.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import trio

from interop.contract.failing import Failure, UnsupportedError
from interop.contract.hosts import make_node
from interop.contract.script import (
    MAX_RPC,
    Connect,
    Publish,
    Script,
    Step,
    Subscribe,
    ValidationDelay,
    WaitUntil,
    identity_of,
    message_id,
    shown_id,
)
from node.errors import BannedError, UsageError, VouchError
from node.node import Node
from protocols.gossip import GossipMessage, Verdict
from protocols.gossip.policy import Opened
from protocols.gossip.rpc import PubsubMessage, Rpc
from protocols.gossip.state import MessageId

PORT = 9000
# nodes start together: one that listens a moment later is tried again
CONNECT_WITHIN = 20.0
CONNECT_PAUSE = 0.25


def program(
    params: Path, *, node: int | None = None, hosts: Path | None = None, start: float | None = None
) -> Callable[[], Awaitable[None]]:
    """What is to be run; its time counts from `start` (Unix time), or from now. Raises UnsupportedError for arguments
    that make no sense.
    """
    began = time.monotonic() + (0.0 if start is None else start - time.time())
    try:
        number = _number_of(socket.gethostname()) if node is None else node
        places = Places(None if hosts is None else json.loads(hosts.read_bytes()))
        experiment = Script.read(params.read_bytes(), number)
        listen = places.listen(number)
    except (OSError, ValueError) as error:
        raise UnsupportedError(str(error)) from None
    return lambda: run(experiment, number, places, listen, began)


async def run(script: Script, number: int, places: Places, listen: str, began: float) -> None:
    """Does what the script says, one step after the other. Raises Failure, VouchError."""
    identity = identity_of(number)
    emit("PeerID", id=identity.peer_id, node_id=number)
    node = make_node(identity=identity, gossip_params=script.params, gossip="on", listen=(listen,))
    router = node.gossip
    router.policy = Plain()
    for topic in script.topics:
        router.configure(topic, message_id=message_id)
    _show_what_comes(node)
    runner = _Runner(node, places, began)
    async with node:
        for step in script.steps:
            await runner.do(step)


class Places:
    """Where the nodes are: by their host names, or as a table of "IP:PORT" by number says."""

    def __init__(self, table: Mapping[str, str] | None) -> None:
        self._table = table

    def listen(self, number: int) -> str:
        """What a node listens on. Raises ValueError."""
        return f"/ip4/0.0.0.0/tcp/{PORT}" if self._table is None else self._multiaddr(number)

    async def find(self, number: int) -> str:
        """Where a node is, complete with /p2p/PEERID. Raises ValueError, OSError."""
        if self._table is None:
            found = await trio.socket.getaddrinfo(f"node{number}", PORT, family=socket.AF_INET, type=socket.SOCK_STREAM)
            addr = f"/ip4/{found[0][4][0]}/tcp/{PORT}"
        else:
            addr = self._multiaddr(number)
        return f"{addr}/p2p/{identity_of(number).peer_id}"

    def _multiaddr(self, number: int) -> str:
        assert self._table is not None
        ip, _, port = self._table.get(str(number), "").rpartition(":")
        if not ip:
            raise ValueError(f"expected node {number} among the hosts, it isn't there")
        return f"/ip4/{ip}/tcp/{port}"


class _Runner:
    """Carries out the steps of one node."""

    def __init__(self, node: Node, places: Places, began: float) -> None:
        self._node = node
        self._places = places
        self._began = began
        self._delays: dict[str, float] = {}

    async def do(self, step: Step) -> None:
        match step:
            case WaitUntil(elapsed):
                _note(f"waiting until {elapsed:g} s have passed")
                await trio.sleep(max(0.0, self._began + elapsed - time.monotonic()))
            case Connect(nodes):
                for number in nodes:
                    await self._connect(number)
                _note(f"connected to {len(self._node.connected_peers())} peers")
            case ValidationDelay(topic, seconds):
                self._delays[topic] = seconds
            case Subscribe(topic):
                self._node.gossip.validator(topic)(self._accept)
            case Publish(topic):
                receipt = await self._node.gossip.publish(topic, step.payload)
                _note(f"published message {step.number} to {len(receipt.peers)} peers")

    async def _connect(self, number: int) -> None:
        error: Exception | None = None
        with trio.move_on_after(CONNECT_WITHIN):
            while True:
                try:
                    await self._node.connect(await self._places.find(number))
                    return
                except (UsageError, BannedError):
                    raise
                except (VouchError, OSError) as failed:
                    error = failed
                await trio.sleep(CONNECT_PAUSE)
        raise Failure(f"expected a connection with node {number} within {CONNECT_WITHIN:g} s: {error}")

    async def _accept(self, message: GossipMessage) -> Verdict:
        if delay := self._delays.get(message.topic, 0.0):
            await trio.sleep(delay)
        _note(f"received message {shown_id(message.message_id)}")
        return Verdict.ACCEPT


class Plain:
    """The suite's policy: pubsub unsigned (StrictNoSign), an ID in the data, no author."""

    def __init__(self) -> None:
        self.message_id: MessageId = message_id
        self.max_payload = MAX_RPC // 2

    def check_topic(self, topic: str) -> None:
        if not topic:
            raise ValueError("expected a topic, got an empty one")

    def make(self, topic: str, payload: bytes, type: int) -> PubsubMessage:
        if len(payload) > self.max_payload:
            raise ValueError(f"expected at most {self.max_payload} bytes, got {len(payload)}")
        return PubsubMessage(topic, payload)

    def admit(self, message: PubsubMessage) -> bool:
        return message.from_ is None and message.seqno is None and message.signature is None and message.key is None

    def open(self, message: PubsubMessage, forwarder: str, now: float) -> Opened:
        return Opened("", message.data)


def emit(msg: str, **fields: str | int) -> None:
    """One line of the suite's output."""
    line = {
        "time": datetime.now(UTC).isoformat(),
        "level": "INFO",
        "msg": msg,
        "service": "gossipsub",
        **fields,
    }
    print(json.dumps(line), flush=True)


def _show_what_comes(node: Node) -> None:
    """Tells of every copy that comes: the router itself only counts those that it has seen before."""
    engine = node.gossip.engine
    receive = engine.receive

    def told(now: float, peer: object, rpc: Rpc) -> None:
        for message in rpc.publish:
            with suppress(ValueError):  # one without an ID, which the router counts
                emit(
                    "Received Message",
                    **{"from": str(peer), "topic": message.topic, "id": shown_id(message_id(message))},
                )
        receive(now, peer, rpc)

    engine.receive = told  # type: ignore[method-assign]


def _number_of(hostname: str) -> int:
    match = re.match(r"node(\d+)", hostname)
    if match is None:
        raise UnsupportedError(f"expected a host name like node7, or --node-id, got the name {hostname!r}")
    return int(match[1])


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":  # python -m interop.contract.gossipsub
    from interop.contract.__main__ import main

    sys.exit(main(["gossipsub", *sys.argv[1:]]))
