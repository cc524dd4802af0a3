"""What we send and ask: an outbox for each peer and sub-protocol that is talked with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from protocols.base import Protocol
from protocols.messages.answer import Answer
from protocols.messages.channel import Owner
from protocols.messages.declare import SubProtocol
from protocols.messages.outbox import Outbox
from protocols.messages.tally import outcome_of
from protocols.messages.timing import within
from protocols.messages.wire import Message, check_outgoing


class Client:
    """The outboxes of a node."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._outboxes: dict[tuple[str, str], Outbox] = {}

    def __len__(self) -> int:
        return len(self._outboxes)

    async def send(self, peer: str, sub: SubProtocol, payload: bytes, type: int) -> None:
        check_outgoing(payload, type, sub.max_payload)
        with self._outbox(peer, sub) as outbox, within(sub.stall_timeout, peer, sub.name, "take the message"):
            await outbox.send(payload, type)
        self._owner.stats[sub.name, "sent"] += 1

    async def request(self, peer: str, sub: SubProtocol, payload: bytes, type: int, timeout: float | None) -> Message:
        check_outgoing(payload, type, sub.max_payload)
        seconds = sub.timeout if timeout is None else timeout
        self._owner.stats[sub.name, "requests"] += 1
        began = trio.current_time()
        try:
            with self._outbox(peer, sub) as outbox, within(seconds, peer, sub.name, "answer"):
                answer = await outbox.request(payload, type)
        except BaseException as error:
            self._owner.tally.ended(sub.name, trio.current_time() - began, outcome_of(error))
            raise
        self._owner.tally.ended(sub.name, trio.current_time() - began, "answered")
        return answer

    @asynccontextmanager
    async def request_stream(
        self, peer: str, sub: SubProtocol, payload: bytes, type: int, timeout: float | None
    ) -> AsyncIterator[Answer]:
        check_outgoing(payload, type, sub.max_payload)
        seconds = sub.timeout if timeout is None else timeout
        self._owner.stats[sub.name, "requests"] += 1
        began, answer, failure = trio.current_time(), None, "given_up"
        try:
            with self._outbox(peer, sub) as outbox:
                async with outbox.request_parts(payload, type, seconds) as answer:
                    yield answer
        except BaseException as error:
            failure = outcome_of(error)
            raise
        finally:
            ended = trio.current_time()
            if answer is not None:  # what its reader does, and how that ends, isn't the request's
                failure, ended = answer.outcome, answer.ended_at or ended
            self._owner.tally.ended(sub.name, ended - began, failure)

    def _outbox(self, peer: str, sub: SubProtocol) -> _Use:
        key = peer, sub.name
        outbox = self._outboxes.get(key)
        if outbox is None:
            protocol = Protocol(sub.id, max_frame=sub.max_frame, timeout=None, send_timeout=sub.stall_timeout)
            outbox = Outbox(self._owner, peer, sub, protocol, lambda outbox: self._forget(key, outbox))
            self._outboxes[key] = outbox
        return _Use(outbox)

    def _forget(self, key: tuple[str, str], outbox: Outbox) -> None:
        if self._outboxes.get(key) is outbox:  # not its successor: its last channel may end late
            del self._outboxes[key]


class _Use:
    """An outbox isn't forgotten while somebody uses it."""

    __slots__ = ("_outbox",)

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def __enter__(self) -> Outbox:
        self._outbox.users += 1
        return self._outbox

    def __exit__(self, *_: object) -> None:
        self._outbox.users -= 1
        self._outbox.release_if_idle()
