"""Rendezvous' trio shell: `Point` answers, and `register`, `unregister`, `discover` ask. What it means is `rules`'.

    client                                      point
       |---- REGISTER --------------------------->|  checked, kept on disk
       |<--- REGISTER_RESPONSE -------------------|  and only then answered
       |---- DISCOVER --------------------------->|
       |<--- DISCOVER_RESPONSE -------------------|  any number of questions on a stream, answered in order

A question that breaks the rules is answered with an error; what is no question ends its stream. Left to the caller: the
records' signatures (`open_record`), the disk (`Store`), which forms of records a peer reads, where it comes from.
"""

from __future__ import annotations

import time
import typing
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

import trio

from protocols.base import EndOfStream, Network, Protocol, ProtocolError, Stream, StreamError
from protocols.framing import FrameDecoder, encode_frame
from protocols.rendezvous.rules import BOTH, Form, Rates, Registrations, Row, SignedRecord
from protocols.rendezvous.wire import (
    MAX_ANSWER,
    MAX_QUESTION,
    PROTOCOL_ID,
    Answer,
    Discover,
    Discovered,
    Question,
    Refused,
    Register,
    Registered,
    Status,
    Unregister,
    decode_answer,
    decode_question,
    encode_answer,
    encode_question,
)

TIMEOUT = 20.0
# for the point to end the stream, which shows that it has read what has no answer
UNREGISTER_TIMEOUT = 5.0
# what is over is looked for at least so often, for the wall clock may be set
EXPIRE_EVERY = 60.0

CLIENT = Protocol(PROTOCOL_ID, max_frame=MAX_ANSWER, timeout=TIMEOUT)

Change = typing.Literal["registered", "unregistered", "expired"]


class StoreError(Exception):
    """What should be kept couldn't be written."""


class Store(typing.Protocol):
    """Keeps rows over restarts."""

    @property
    def failing(self) -> bool:
        """Whether the last write failed, and something waits to be written since."""

    async def keep(self, row: Row) -> None:
        """Returns once the row is on disk. Raises StoreError; it may be written later all the same."""

    def forget(self, rows: Sequence[Row]) -> None:
        """These rows are written out soon."""


class Memory:
    """A store that keeps nothing."""

    failing = False

    async def keep(self, row: Row) -> None:
        await trio.lowlevel.checkpoint()

    def forget(self, rows: Sequence[Row]) -> None:
        pass


class Point:
    """A rendezvous point. `protocol` is to be served, `run` ends what is over."""

    def __init__(
        self,
        registrations: Registrations,
        *,
        open_record: Callable[[bytes], SignedRecord],
        rates: Rates,
        store: Store | None = None,
        reads: Callable[[str], Collection[Form]] = lambda _peer: BOTH,
        subnet: Callable[[str], str] = lambda _peer: "",
        on_change: Callable[[Change, Row], None] = lambda _change, _row: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`open_record` verifies a signed record, and raises ValueError. `reads` says which forms a peer can read,
        `subnet` what it counts with, "" for nothing. `on_change` is told at once and must not raise. `clock` is Unix
        time."""
        self.registrations = registrations
        self.clock = clock
        self.refused = 0
        self._open_record = open_record
        self._rates = rates
        self._store = store or Memory()
        self._reads = reads
        self._subnet = subnet
        self._on_change = on_change
        self.protocol = Protocol(PROTOCOL_ID, max_frame=None, timeout=TIMEOUT, streams_per_peer=4, handler=self._serve)

    async def run(self) -> None:
        """Ends registrations whose time is over, until cancelled."""
        while True:
            over = self.registrations.expire(self.clock())
            self._store.forget(over)
            for row in over:
                self._on_change("expired", row)
            next_at = self.registrations.next_expiry
            wait = EXPIRE_EVERY if next_at is None else min(EXPIRE_EVERY, max(1.0, next_at - self.clock()))
            await trio.sleep(wait)

    async def _serve(self, stream: Stream) -> None:
        decoder = FrameDecoder(MAX_QUESTION)
        async for data in stream:
            for frame in decoder.feed(data):
                answer = await self._answer(stream.peer, frame)
                if answer is not None:
                    await stream.send(encode_frame(encode_answer(answer), MAX_ANSWER))
        decoder.check()

    async def _answer(self, peer: str, frame: bytes) -> Answer | Refused | None:
        """Raises ProtocolError."""
        try:
            allowed = self._rates.allows(peer, trio.current_time())
            question = decode_question(frame)
            if not allowed:
                raise self._too_many(question)
            match question:
                case Register():
                    return await self._register(peer, question)
                case Unregister(namespace):
                    rows = self.registrations.unregister(peer, namespace)
                    self._store.forget(rows)
                    for row in rows:
                        self._on_change("unregistered", row)
                    return None
                case Discover():
                    return self.registrations.discover(peer, question, self.clock(), self._reads(peer))
        except Refused as refused:
            self.refused += 1
            return refused

    def _too_many(self, question: Question) -> Exception:
        text = "expected fewer questions a second"
        if isinstance(question, Unregister):  # there is no answer that would say so
            return ProtocolError(text)
        return Refused(Status.UNAVAILABLE, text, discover=isinstance(question, Discover))

    async def _register(self, peer: str, asked: Register) -> Answer:
        if self._store.failing:
            raise Refused(Status.INTERNAL_ERROR, "registrations can't be kept at present")
        try:
            signed = self._open_record(asked.record)
        except ValueError as error:
            raise Refused(Status.INVALID_SIGNED_PEER_RECORD, str(error)) from None
        if not signed.addrs:
            raise Refused(Status.INVALID_SIGNED_PEER_RECORD, "expected a record with an address, got none")
        row, answer = self.registrations.register(peer, asked, signed, self.clock(), self._subnet(peer))
        try:
            await self._store.keep(row)
        except StoreError:
            raise Refused(Status.INTERNAL_ERROR, "the registration couldn't be kept") from None
        self._on_change("registered", row)
        return answer


async def register(network: Network, point: str, namespace: str, record: bytes, ttl: int | None = None) -> int:
    """Registers us at an admitted peer; for how many seconds it did. Raises Refused, StreamError, ProtocolError."""
    answer = await _ask(network, point, Register(namespace, record, ttl))
    if not isinstance(answer, Registered):
        raise ProtocolError(f"expected REGISTER_RESPONSE from {point}, got DISCOVER_RESPONSE")
    return answer.ttl


async def unregister(network: Network, point: str, namespace: str) -> None:
    """Ends our registration; no error if there is none. Raises StreamError."""
    async with network.stream(point, CLIENT) as stream:
        await stream.send(encode_question(Unregister(namespace)))
        await stream.send_eof()
        with trio.move_on_after(UNREGISTER_TIMEOUT), suppress(StreamError, ProtocolError):
            await stream.receive()


async def discover(
    network: Network, point: str, namespace: str | None = None, *, cookie: bytes = b"", limit: int | None = None
) -> Discovered:
    """Registrations that come after `cookie`, unverified. Raises Refused, StreamError, ProtocolError."""
    answer = await _ask(network, point, Discover(namespace, cookie, limit))
    if not isinstance(answer, Discovered):
        raise ProtocolError(f"expected DISCOVER_RESPONSE from {point}, got REGISTER_RESPONSE")
    return answer


async def _ask(network: Network, point: str, question: Question) -> Answer:
    async with network.stream(point, CLIENT) as stream:
        await stream.send(encode_question(question))
        try:
            answer = decode_answer(await stream.receive())
        except EndOfStream:
            raise ProtocolError(f"expected an answer from {point}, got the end of the stream") from None
    if isinstance(answer, Refused):
        raise answer
    return answer
