"""A peer whose pubsub is said by hand: what no router would say, and all that one is told.

    async with raw_gossip(net, "10.0.0.9") as raw:      a whole node on the in-memory network, its router switched off
        await raw.node.connect(target.addrs[0])
        await raw.say(target, subscribe(TOPIC), graft(TOPIC))
        await raw.until(lambda: raw.heard("graft"))

`WireTap` counts what a router says and hears on its pubsub streams, below the router itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from node.node import Node
from protocols import Protocol, Stream
from protocols.gossip.rpc import Control, Graft, IHave, IWant, Prune, PubsubMessage, Rpc, Subscription, decode, encode
from protocols.gossip.state import FLOODSUB, MESHSUB_12, PROTOCOLS
from tests.memnet import MemNet, mem_node

KINDS = ("graft", "prune", "ihave", "iwant", "idontwant")


class RawGossip:
    """`rpcs` is all that was said to it, with who said it, in order. `deaf` it reads nothing."""

    def __init__(self, protocol: str = MESHSUB_12) -> None:
        self.protocol = Protocol(protocol, max_frame=1 << 20, timeout=None, handler=self._serve, streams_per_peer=2)
        self.node: Node
        self.rpcs: list[tuple[str, Rpc]] = []
        self.told: list[str] = []  # who has opened a stream to us
        self.ended: list[str] = []  # whose stream to us has ended
        self.deaf = False
        self._awake = trio.Event()
        self._inbound: list[trio.CancelScope] = []
        self._streams: dict[str, Stream] = {}
        self._stack = AsyncExitStack()
        self._changed = trio.Event()

    async def say(self, to: Node, *rpcs: Rpc) -> None:
        """Sends RPCs, on a stream that stays open."""
        for rpc in rpcs:
            await self.say_bytes(to, encode(rpc))

    async def say_bytes(self, to: Node, data: bytes) -> None:
        """Sends a frame, whatever is in it."""
        stream = self._streams.get(to.peer_id)
        if stream is None:
            opened = self.node.stream(to.peer_id, self.protocol)
            stream = self._streams[to.peer_id] = await self._stack.enter_async_context(opened)
        await stream.send(data)

    def forget_stream(self, to: Node) -> None:
        """What is said next goes on a new stream."""
        self._streams.pop(to.peer_id, None)

    def drop_inbound(self) -> None:
        """Resets the streams that others have opened to us."""
        for scope in self._inbound:
            scope.cancel()
        self._inbound.clear()

    def wake(self) -> None:
        """Reads on."""
        self._awake.set()

    def messages(self) -> list[PubsubMessage]:
        """The messages that came."""
        return [message for _, rpc in self.rpcs for message in rpc.publish]

    def heard(self, kind: str) -> list[object]:
        """The control messages of one kind that came."""
        return [one for _, rpc in self.rpcs if rpc.control for one in getattr(rpc.control, kind)]

    async def until(self, condition: Callable[[], object], timeout: float = 20.0) -> None:
        """Waits until `condition` holds; it is looked at when something comes, or a stream ends."""
        with trio.fail_after(timeout):
            while not condition():
                await self._changed.wait()

    async def _serve(self, stream: Stream) -> None:
        self.told.append(stream.peer)
        self._tell()
        try:
            with trio.CancelScope() as scope:
                self._inbound.append(scope)
                if self.deaf:
                    await self._awake.wait()
                while True:
                    self.rpcs.append((stream.peer, decode(await stream.receive())))
                    self._tell()
            await stream.reset()
        finally:
            self.ended.append(stream.peer)
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def raw_gossip(net: MemNet, ip: str, *, protocol: str = MESHSUB_12, **config):
    """A `RawGossip` on a node of its own."""
    raw = RawGossip(protocol)
    settings = {"gossip": "off", "dht": "off"} | config
    async with mem_node(net, ip, protocols=[raw.protocol], **settings) as raw.node, raw._stack:
        yield raw


def floodsub(net: MemNet, ip: str, **config):
    """One that speaks floodsub and nothing else."""
    return raw_gossip(net, ip, protocol=FLOODSUB, **config)


# RPCs


def subscribe(*topics: str) -> Rpc:
    return Rpc(tuple(Subscription(topic, True) for topic in topics))


def publish(*messages: PubsubMessage) -> Rpc:
    return Rpc(publish=messages)


def graft(topic: str) -> Rpc:
    return Rpc(control=Control(graft=(Graft(topic),)))


def prune(topic: str, **fields) -> Rpc:
    return Rpc(control=Control(prune=(Prune(topic, **fields),)))


def ihave(topic: str, *ids: bytes) -> Rpc:
    return Rpc(control=Control(ihave=(IHave(topic, ids),)))


def iwant(*ids: bytes) -> Rpc:
    return Rpc(control=Control(iwant=(IWant(ids),)))


class WireTap:
    """What one process's routers said to each peer (`out`) and heard of it (`into`): control entries and messages.

    Frames are counted where they enter and leave a pubsub stream.
    """

    def __init__(self, monkeypatch) -> None:
        self.into: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.out: defaultdict[str, Counter[str]] = defaultdict(Counter)
        receive, send, send_nowait = Stream.receive, Stream.send, Stream.send_nowait

        async def tapped_receive(stream):
            frame = await receive(stream)
            self._count(self.into, stream, frame)
            return frame

        async def tapped_send(stream, data):
            await send(stream, data)
            self._count(self.out, stream, data)

        def tapped_send_nowait(stream, data):
            sent = send_nowait(stream, data)
            if sent:
                self._count(self.out, stream, data)
            return sent

        monkeypatch.setattr(Stream, "receive", tapped_receive)
        monkeypatch.setattr(Stream, "send", tapped_send)
        monkeypatch.setattr(Stream, "send_nowait", tapped_send_nowait)

    def _count(self, where: defaultdict[str, Counter[str]], stream: Stream, frame: bytes) -> None:
        if stream.protocol.id in PROTOCOLS:
            rpc = decode(frame)
            counts = where[stream.peer]
            counts["messages"] += len(rpc.publish)
            for kind in KINDS:
                counts[kind] += len(getattr(rpc.control, kind)) if rpc.control else 0
