"""Light nodes that send each other messages, and what must be so once they are idle."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from protocols.base import StreamError
from protocols.messages import Message, MessageDropped, MessageError, Messages, RemoteError, Rules, SubProtocol
from protocols.messages.authors import Ed25519Signer
from protocols.messages.outbox import Outbox
from protocols.messages.server import Server
from tests.memnet import MemNet, MemNode

START_MS = 1_700_000_000_000


class Light:
    """A light node with messages. `rejected` and `failed` are what its operator is told."""

    def __init__(self, net: MemNet, number: int, *subs: SubProtocol, **rules: Any) -> None:
        self.node: MemNode = net.node(f"10.0.0.{number}")
        self.rejected: list[MessageError | MessageDropped] = []
        self.failed: list[Exception] = []
        self.skew_ms = 0
        settings: dict[str, Any] = {"network_id": b"harbour", "client_version": "vouch/1.2.3", **rules}
        self.messages = Messages(
            self.node,
            Rules(signer=Ed25519Signer(self.node.identity.secret), **settings),
            on_rejected=lambda error, _: self.rejected.append(error),
            on_failed=lambda error, *_: self.failed.append(error),
            wall_ms=lambda: START_MS + int(trio.current_time() * 1000) + self.skew_ms,
        )
        self.servers: list[Server] = []
        for sub in subs:
            self.serve(sub)

    def serve(self, sub: SubProtocol) -> None:
        protocol = self.messages.serve(sub)
        assert protocol.handler is not None
        self.servers.append(protocol.handler.__self__)  # type: ignore[attr-defined]
        self.node.registry.add(protocol)

    @property
    def peer(self) -> str:
        return self.node.peer_id

    @property
    def stats(self) -> dict[str, int]:
        """What was counted, of all sub-protocols together."""
        counts: dict[str, int] = {}
        for (_, what), count in self.messages.stats.items():
            counts[what] = counts.get(what, 0) + count
        return {what: count for what, count in counts.items() if count}

    @property
    def outboxes(self) -> list[Outbox]:
        return list(self.messages._client._outboxes.values())

    @property
    def streams(self) -> int:
        """How many streams its peers have open with it."""
        return sum(self.node.registry._open.values())

    def assert_idle(self) -> None:
        """No place is taken, at either end of what it does."""
        for outbox in self.outboxes:
            assert outbox.users == 0
            assert outbox._places.value == outbox.sub.requests_in_flight
            assert outbox._parts.value == outbox.sub.parts_at_once
            assert outbox._channel is not None, "an outbox without a channel is forgotten"
            assert len(outbox._channel.requests) == 0
            assert not outbox._channel.writer._waiting
        for server in self.servers:
            for peer in server._peers.values():
                assert (peer.gate.taken, peer.gate.bytes_taken) == (0, 0)

    def assert_forgotten(self) -> None:
        """Nothing is kept of anybody."""
        self.assert_idle()
        assert len(self.messages._client) == 0
        assert self.streams == 0


@asynccontextmanager
async def lights(*subs: SubProtocol, count: int = 2, seed: int = 0, **more: Any) -> AsyncIterator[list[Light]]:
    """Connected light nodes, all of which serve `subs`. At the end they are cut off, and nothing may be left."""
    rules = {key: more.pop(key) for key in ("signatures", "max_age") if key in more}
    async with MemNet(seed=seed, **more) as net:
        made = [Light(net, number, *subs, **rules) for number in range(1, count + 1)]
        for light in made:
            await net.nursery.start(light.messages.run)
        for number, light in enumerate(made):
            for other in made[:number]:
                await light.node.connect(other.node)
        yield made
        for light in made:
            for other in made:
                if other is not light:
                    light.node.disconnect(other.node)
        await trio.sleep(70)  # past every deadline
        for light in made:
            light.assert_forgotten()


def echo(name: str = "echo", **bounds: Any) -> SubProtocol:
    """A sub-protocol that answers with what it was asked, after as many seconds as the text before a colon says."""
    sub = SubProtocol(name, **{"rate": None, **bounds})

    @sub.on_request
    async def answer(request: Message) -> bytes:
        await trio.sleep(float(request.payload.partition(b":")[0] or b"0"))
        return request.payload

    return sub


async def parts_of(
    light: Light, peer: str, sub: str | SubProtocol, payload: bytes = b"", **more: Any
) -> tuple[list[bytes], Exception | None]:
    """The parts of an answer, and the error that ended it, if one did."""
    parts: list[bytes] = []
    try:
        async with light.messages.request_stream(peer, sub, payload, **more) as answer:
            async for part in answer:
                parts.append(part)
    except (RemoteError, StreamError, MessageError) as error:
        return parts, error
    return parts, None
