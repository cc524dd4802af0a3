"""Our node as an end. Without Kademlia, heartbeats and gossip, like the Go peer, so that nothing goes on between
measurements."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import trio

from interop.bench.ends.gossip import gossip_commands
from interop.bench.ends.gossip_vouch import vouch_gossip
from interop.bench.ends.lines import LISTEN, Command, say, say_listening, until
from interop.bench.ends.load import (
    ECHO_ID,
    MAX_FRAME,
    REQUEST_PAYLOAD,
    STREAM_PAYLOAD,
    STREAMS_PER_PEER,
    ask,
    check_echo,
    repeat,
    together,
)
from interop.peer import Message
from node.config import Config
from node.events import Admitted, Disconnected, Event
from node.identity import Identity
from node.node import Node
from protocols import Protocol, Stream
from protocols.messages import Message as SignedMessage
from protocols.messages import Messages, Rules, SubProtocol
from protocols.messages.authors import author_of
from protocols.messages.wire import SIGNED_PREFIX
from protocols.perf import PERF, Result, measure_on, serve_one

# connections that aren't admitted yet: as many as a crowd makes at once, and to spare
HALF_OPEN = 64


def echo_protocol() -> Protocol:
    """Frames that come back one by one."""
    protocol = Protocol(ECHO_ID, max_frame=MAX_FRAME, timeout=60.0, streams_per_peer=STREAMS_PER_PEER)

    @protocol.serve
    async def answer(stream: Stream) -> None:
        async for frame in stream:
            await stream.send(frame)

    return protocol


def perf_protocol() -> Protocol:
    """Perf that tells what it has moved."""
    protocol = Protocol(PERF.id, max_frame=None, timeout=PERF.timeout, streams_per_peer=STREAMS_PER_PEER)

    @protocol.serve
    async def answer(stream: Stream) -> None:
        received, sent = await serve_one(stream)
        say(event="perf", peer=stream.peer, received=received, sent=sent)

    return protocol


def asked(name: str) -> SubProtocol:
    """A sub-protocol that answers with what it was asked."""
    sub = SubProtocol(name, rate=None)

    @sub.on_request
    async def answer(request: SignedMessage) -> bytes:
        return request.payload

    return sub


@asynccontextmanager
async def vouch(
    upgrade: Literal["fast", "stock"] = "fast",
    admission: Literal["required", "open"] = "required",
    connections: int | None = None,
    listen: str = LISTEN,
) -> AsyncIterator[dict[str, Command]]:
    """A node, and what it can be told to do."""
    limits: dict[str, Any] = {}
    if connections is not None:
        limits = dict.fromkeys(("max_connections", "max_inbound", "max_connections_per_ip"), connections)
        limits |= {"max_half_open": HALF_OPEN, "max_half_open_per_ip": HALF_OPEN}
    config = Config(
        listen=(listen,),
        dht="off",
        heartbeat="off",
        gossip="off",
        pool="off",
        upgrade=upgrade,
        admission=admission,
        **limits,
    )
    node = Node(config, identity=Identity.generate(), protocols=[perf_protocol(), echo_protocol(), asked("signed")])
    # a node signs or it doesn't: what it costs is measured beside it
    unsigned = Messages(node, replace(node.messages.rules, signatures=False))
    node.registry.add(unsigned.serve(asked("unsigned")))
    commands = Commands(node, unsigned)
    node.events.subscribe(commands.note)
    async with node, gossip_commands(vouch_gossip) as gossip, trio.open_nursery() as nursery:
        await nursery.start(unsigned.run)
        say_listening(node.peer_id, node.addrs)
        names = ("connect", "identify", "disconnect", "ping", "perf", "both", "streams", "requests", "messages")
        yield {name: getattr(commands, name) for name in names} | gossip
        nursery.cancel_scope.cancel()


class Commands:
    """The commands of `interop.bench.ends`; `messages` asks unsigned only with `unsigned`."""

    def __init__(self, node: Node, unsigned: Messages | None = None) -> None:
        self._node = node
        self._unsigned = unsigned
        self._echo = echo_protocol()
        self._admitted_at: dict[str, float] = {}

    def note(self, event: Event) -> None:
        """Takes what happens on the node."""
        if isinstance(event, Admitted):
            self._admitted_at[event.peer] = trio.current_time()
        elif isinstance(event, Disconnected):
            self._admitted_at.pop(event.peer, None)
            say(event="disconnected", peer=event.peer)

    async def connect(self, addr: str) -> Message:
        started = trio.current_time()
        connection = await self._node.connect(addr)
        ended = trio.current_time()
        reply = {"total_ms": (ended - started) * 1000}
        if connection.shaken:
            reply["admission_ms"] = (self._admitted_at[connection.peer] - connection.opened_at) * 1000
        return reply

    async def identify(self, peer: str) -> Message:
        await until(lambda: peer in self._node.identify.known)
        return {"peer": peer}

    async def disconnect(self, peer: str) -> Message:
        await self._node.disconnect(peer)
        return {"peer": peer}

    async def ping(self, peer: str, count: str) -> Message:
        return {"rtt_us": [rtt * 1e6 for rtt in await self._node.ping(peer, int(count))]}

    async def perf(self, peer: str, upload: str, download: str, streams: str = "1") -> Message:
        return await self._transfers(peer, [(int(upload), int(download))] * int(streams))

    async def both(self, peer: str, amount: str) -> Message:
        return await self._transfers(peer, [(int(amount), 0), (0, int(amount))])

    async def _transfers(self, peer: str, amounts: list[tuple[int, int]]) -> Message:
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(self._node.stream(peer, PERF)) for _ in amounts]
            return await together(
                [
                    partial(_transfer, stream, upload, download)
                    for stream, (upload, download) in zip(opened, amounts, strict=True)
                ]
            )

    async def streams(self, peer: str, count: str, width: str) -> Message:
        async def one() -> None:
            async with self._node.stream(peer, self._echo) as stream:
                await stream.send(STREAM_PAYLOAD)
                check_echo(await stream.receive(), STREAM_PAYLOAD)

        return await repeat(one, int(count), int(width))

    async def requests(self, peer: str, count: str, streams: str) -> Message:
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(self._node.stream(peer, self._echo)) for _ in range(int(streams))]
            return await ask([partial(_ask, stream) for stream in opened], int(count))

    async def messages(self, peer: str, kind: str, count: str, width: str) -> Message:
        """Requests that are "signed" or "unsigned", so many under way at once on one stream."""
        asker = self._node if kind == "signed" or self._unsigned is None else self._unsigned
        request = asker.request

        async def one(payload: bytes) -> bytes:
            return (await request(peer, kind, payload)).payload

        return await ask([one] * int(width), int(count)) | {"signature_us": _signature_us(self._node.messages.rules)}


def _signature_us(rules: Rules) -> float:
    """What signing and checking one small message takes, in microseconds of CPU."""
    verify, times = author_of(rules.signer.public_key).verify, 200
    started = time.process_time()
    for _ in range(times):
        if not verify(rules.sign(REQUEST_PAYLOAD), SIGNED_PREFIX + REQUEST_PAYLOAD):
            raise ValueError("expected our own signature to be right")
    return (time.process_time() - started) / times * 1e6


async def _transfer(stream: Stream, upload: int, download: int) -> Result:
    return await measure_on(stream, upload=upload, download=download)


async def _ask(stream: Stream, payload: bytes) -> bytes:
    await stream.send(payload)
    return await stream.receive()
