"""All that we send one peer on one sub-protocol: places for requests, kept over reconnects, and the channel of now.

A request has its place before it is sent and until it is answered, given up or lost. An answer in parts has a stream of
its own. An outbox that nobody uses, and that has no channel, is forgotten.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from protocols.base import Protocol
from protocols.messages.answer import Answer
from protocols.messages.channel import Channel, Owner, lost
from protocols.messages.declare import SubProtocol
from protocols.messages.timing import within
from protocols.messages.wire import ONE_WAY, REQUEST, Kind, Message, encode_signed


class Outbox:
    """All that we send one peer on one sub-protocol."""

    def __init__(
        self, owner: Owner, peer: str, sub: SubProtocol, protocol: Protocol, on_idle: Callable[[Outbox], None]
    ) -> None:
        self.owner = owner
        self.peer = peer
        self.sub = sub
        self.name = sub.name
        self.protocol = protocol
        self.users = 0
        self._on_idle = on_idle
        self._template = owner.rules.template(sub.name, peer)
        self._places = trio.Semaphore(sub.requests_in_flight)
        self._parts = trio.Semaphore(sub.parts_at_once)
        self._channel: Channel | None = None

    def encode(self, payload: bytes, type: int, kind: Kind, request_id: int) -> bytes:
        """A message to the peer, stamped with the time."""
        return self._template.encode(
            payload, type=type, kind=kind, request_id=request_id, timestamp_ms=self.owner.wall_ms()
        )

    async def send(self, payload: bytes, type: int) -> None:
        """A one-way message."""
        channel = await self._ready()
        await channel.send(self.encode(payload, type, ONE_WAY, 0))

    async def request(self, payload: bytes, type: int) -> Message:
        """A request and its answer, once there is a place for it."""
        await _acquire(self._places)
        try:
            channel = await self._ready()
            return await channel.ask(payload, type)
        finally:
            self._places.release()

    @asynccontextmanager
    async def request_parts(self, payload: bytes, type: int, timeout: float) -> AsyncIterator[Answer]:
        """A request on a stream of its own, and its answer in parts."""
        with within(timeout, self.peer, self.name, "take the request"):
            await _acquire(self._parts)
        try:
            async with self.owner.network.stream(self.peer, self.protocol) as stream:
                message = self.encode(payload, type, REQUEST, 1)
                await stream.send(encode_signed(message, self.owner.rules.sign(message)))
                answer = Answer(self.owner, self.name, stream, timeout)
                try:
                    yield answer
                finally:
                    if not answer.complete:
                        await stream.reset()
        finally:
            self._parts.release()

    def ended(self, channel: Channel) -> None:
        """A channel is no more."""
        if self._channel is channel:
            self._channel = None
        self.release_if_idle()

    def release_if_idle(self) -> None:
        """Nothing need be kept of a peer that nobody talks with."""
        if not self.users and self._channel is None:
            self._on_idle(self)

    async def _ready(self) -> Channel:
        while True:
            channel = self._channel
            if channel is not None and not channel.usable:
                channel.retire()
                channel = None
            if channel is None:
                channel = Channel(self)
                self.owner.spawn(channel.run)  # raises if the node doesn't run
                self._channel = channel
            if channel.stream is not None:
                return channel
            await channel.opened.wait()
            if channel.failure is not None:
                raise lost(channel.failure, "")
            if not channel.retired:  # it may have been while we had yet to be woken
                return channel


async def _acquire(places: trio.Semaphore) -> None:
    """A place, without a turn of the event loop where there is one."""
    try:
        places.acquire_nowait()
    except trio.WouldBlock:
        await places.acquire()
