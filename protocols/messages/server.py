"""What peers send and ask us: the handlers of a sub-protocol, each within its peer's bounds.

    stream --frame--> token? --> message in order? --> place? --+--> one way: a queue, handled in order
                      (gate)     (rules)               (gate)   +--> request: a task of its own --> answer(s)
                      waits, or is refused                      +--> no handler: counted, or an error answer

While a message waits, its stream isn't read: the peer is held back, and refused only after `patience`. A message that
breaks the rules ends the stream; a handler that raises answers its request with an error, and harms nothing else.
"""

from __future__ import annotations

import typing
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import suppress

import trio

from protocols.base import Protocol, ProtocolError, Stream, StreamError
from protocols.errors import FrameTooLargeError
from protocols.messages.declare import OnMessage, OnParts, OnRequest, Reply, SubProtocol
from protocols.messages.errors import AnswerError, MessageDropped, MessageError, oversize
from protocols.messages.gate import Gate
from protocols.messages.rules import Rules
from protocols.messages.tally import Tally
from protocols.messages.wire import (
    ERROR_TYPE,
    ONE_WAY,
    RESPONSE,
    Message,
    Template,
    check_outgoing,
    encode_signed,
    error_payload,
)
from protocols.messages.writer import Writer

T = typing.TypeVar("T")

# peers whose tokens are remembered after they have gone
KNOWN_PEERS = 1024
# what a generator that is given up may still take, in seconds
CLOSE_TIMEOUT = 1.0


class Owner(typing.Protocol):
    """What a server needs of the service that it is a part of."""

    rules: Rules
    stats: Counter[tuple[str, str]]
    tally: Tally

    def wall_ms(self) -> int:
        """Unix time in milliseconds."""

    def rejected(self, error: Exception, protocol: str) -> None:
        """Counts and tells what is wrong with a peer's message."""

    def handler_failed(self, error: Exception, protocol: str, peer: str) -> None:
        """Tells the operator that a handler raised."""


class _Peer:
    """One peer's gate, and who waits at it."""

    __slots__ = ("freed", "gate")

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.freed = trio.lowlevel.ParkingLot()

    async def enter(self, size: int) -> bool:
        """Whether there is a place, now or within the gate's patience."""
        gate = self.gate
        while not gate.take(size, trio.current_time()):
            if trio.current_time() >= gate.give_up_at():
                return False
            with trio.move_on_at(gate.give_up_at()):
                await self.freed.park()
        return True

    def leave(self, size: int) -> None:
        self.gate.leave(size)
        self.freed.unpark_all()


class Server:
    """Answers one sub-protocol for one node."""

    def __init__(self, owner: Owner, sub: SubProtocol) -> None:
        self.owner = owner
        self.sub = sub
        self._peers: OrderedDict[str, _Peer] = OrderedDict()

    def protocol(self) -> Protocol:
        """What the node's registry runs."""
        sub = self.sub
        return Protocol(
            sub.id,
            max_frame=sub.max_frame,
            timeout=None,  # a long-lived stream may be idle: a dead link is the heartbeat's to notice
            send_timeout=sub.stall_timeout,
            streams_per_peer=sub.parts_at_once + 2,  # the long-lived one, and its successor
            handler=self.serve,
        )

    async def serve(self, stream: Stream) -> None:
        """One stream, from its first message to its end. Raises what ended it, if that was an error."""
        session = _Session(self, stream, self._peer(stream.peer))
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                nonlocal failure
                try:
                    await session.writer.run()
                except (StreamError, ProtocolError) as error:
                    failure = error
                    nursery.cancel_scope.cancel()

            nursery.start_soon(write)
            try:
                await session.run()
            except (StreamError, ProtocolError) as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def _peer(self, name: str) -> _Peer:
        peer = self._peers.get(name)
        if peer is None:
            sub = self.sub
            gate = Gate(
                bucket=sub.bucket(trio.current_time()),
                max_taken=sub.requests_in_flight,
                max_bytes=sub.bytes_in_flight,
                patience=sub.patience,
            )
            peer = self._peers[name] = _Peer(gate)
            if len(self._peers) > KNOWN_PEERS:
                self._peers.popitem(last=False)
        self._peers.move_to_end(name)
        return peer


_InOrder = tuple[OnMessage, Message, int]


class _Session:
    """One inbound stream."""

    def __init__(self, server: Server, stream: Stream, peer: _Peer) -> None:
        self.owner = server.owner
        self.sub = server.sub
        self.stream = stream
        self.writer = Writer(stream)
        self.peer = peer
        self._template: Template = self.owner.rules.template(self.sub.name, stream.peer)
        # never full: a message in it has a place of the gate's
        self._in_order: trio.MemorySendChannel[_InOrder] | None = None
        self._received: trio.MemoryReceiveChannel[_InOrder] | None = None

    async def run(self) -> None:
        """Reads to the peer's end, and waits for the handlers. Raises what ended the reading."""
        failure: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                try:
                    await self._read(nursery)
                except (StreamError, ProtocolError) as error:
                    failure = error
                    nursery.cancel_scope.cancel()
        finally:
            self._drop_queue()
        if failure is not None:
            raise failure

    async def _read(self, nursery: trio.Nursery) -> None:
        stats, name = self.owner.stats, self.sub.name
        while True:
            frame = await self._receive()
            if frame is None:
                break
            message, refusal = await self._check(frame)
            if message is None:
                continue
            stats[name, "received"] += 1
            if not refusal and not await self.peer.enter(len(frame)):
                refusal = "busy: too much of yours is being worked on"
            if refusal:
                stats[name, "refused"] += 1
                if message.kind != ONE_WAY:
                    await self._answer(message, error_payload(refusal), ERROR_TYPE)
            elif message.kind == ONE_WAY:
                self._queue(message, len(frame), nursery)
            else:
                nursery.start_soon(self._handle_request, message, len(frame))
        if self._in_order is not None:
            self._in_order.close()

    async def _receive(self) -> bytes | None:
        try:
            async for frame in self.stream:
                return frame
        except FrameTooLargeError as error:
            large = oversize(error, self.stream.peer)
            self.owner.rejected(large, self.sub.name)
            raise large from None
        return None

    async def _check(self, frame: bytes) -> tuple[Message | None, str]:
        """The message, once its token is there, and a reason to refuse it; no message if it is dropped."""
        peer, name = self.stream.peer, self.sub.name
        wait = self.peer.gate.token(trio.current_time())
        if wait:
            await trio.sleep(wait)
        try:
            message = self.owner.rules.check_direct(frame, peer, name, self.owner.wall_ms())
            if message.kind == RESPONSE:
                raise MessageDropped("unasked", peer, "expected no answer on a stream where nothing was asked, got one")
        except MessageDropped as error:
            self.owner.rejected(error, name)
            return None, ""
        except MessageError as error:
            self.owner.rejected(error, name)
            raise
        return message, "busy: more messages a second than are taken" if wait is None else ""

    # one way

    def _queue(self, message: Message, size: int, nursery: trio.Nursery) -> None:
        handler = _for_type(self.sub.messages, message.type)
        if handler is None:
            self.owner.stats[self.sub.name, "unhandled"] += 1
            self.peer.leave(size)
            return
        if self._in_order is None:
            self._in_order, self._received = trio.open_memory_channel[_InOrder](self.sub.requests_in_flight)
            nursery.start_soon(self._handle_in_order, self._received)
        self._in_order.send_nowait((handler, message, size))

    async def _handle_in_order(self, received: trio.MemoryReceiveChannel[_InOrder]) -> None:
        async for handler, message, size in received:
            try:
                with trio.fail_after(self.sub.answer_timeout):
                    await handler(message)
            except Exception as error:  # whatever a handler raises harms nothing else
                self._failed(error)
            finally:
                self.peer.leave(size)

    def _drop_queue(self) -> None:
        """What nobody will handle gives its places back: the gate outlives the stream."""
        if self._received is not None:
            with suppress(trio.WouldBlock, trio.EndOfChannel):
                while True:
                    self.peer.leave(self._received.receive_nowait()[2])

    # requests

    async def _handle_request(self, request: Message, size: int) -> None:
        began = trio.current_time()
        try:
            parts = self.sub.parts.get(request.type)
            handler = None if parts else self.sub.requests.get(request.type)
            if parts is None and handler is None:
                parts, handler = self.sub.parts.get(None), self.sub.requests.get(None)
            if parts is not None:
                await self._answer_in_parts(request, parts)
            elif handler is not None:
                await self._answer_whole(request, handler)
            else:
                await self._answer_error(request, f"{self.sub.name} doesn't answer requests of type {request.type}")
        except StreamError:
            return  # whoever asked is gone; the reader sees it too
        finally:
            self.owner.tally.handled(self.sub.name, trio.current_time() - began)
            self.peer.leave(size)

    async def _answer_whole(self, request: Message, handler: OnRequest) -> None:
        try:
            reply = await self._in_time(handler(request))
            payload, reply_type = reply if isinstance(reply, Reply) else (reply, 0)
            check_outgoing(payload, reply_type, self.sub.max_payload)
        except Exception as error:  # whatever a handler raises is the answer
            await self._answer_failure(request, error)
            return
        self.owner.stats[self.sub.name, "answered"] += 1
        await self._answer(request, payload, reply_type)

    async def _answer_in_parts(self, request: Message, handler: OnParts) -> None:
        """Each part as soon as it is there. The last one has no bytes: nobody knows before that it is the last."""
        parts: AsyncIterator[bytes] | None = None
        try:
            while True:
                try:
                    if parts is None:
                        parts = aiter(handler(request))
                    part = await self._in_time(anext(parts))
                    check_outgoing(part, 0, self.sub.max_payload)
                except StopAsyncIteration:
                    break
                except Exception as error:  # as above
                    await self._answer_failure(request, error)
                    return
                if part:
                    await self._answer(request, part, more=True)
        finally:
            if isinstance(parts, AsyncGenerator):
                await self._close(parts)
        self.owner.stats[self.sub.name, "answered"] += 1
        await self._answer(request, b"")

    async def _in_time(self, work: Awaitable[T]) -> T:
        with trio.CancelScope(deadline=trio.current_time() + self.sub.answer_timeout):
            return await work
        raise self._too_slow()

    def _too_slow(self) -> AnswerError:
        text = f"no answer was found within {self.sub.answer_timeout:g} s"
        self._failed(trio.TooSlowError(f"expected an answer in time: {text}"))
        return AnswerError(text)

    async def _close(self, parts: AsyncGenerator[bytes]) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT):
            try:
                await parts.aclose()
            except Exception as error:  # as above, but it is no answer
                self._failed(error)

    async def _answer_failure(self, request: Message, error: Exception) -> None:
        if isinstance(error, AnswerError):
            await self._answer_error(request, str(error))
        else:
            self._failed(error)
            await self._answer_error(request, str(error) or type(error).__name__)

    async def _answer_error(self, request: Message, text: str) -> None:
        await self._answer(request, error_payload(text), ERROR_TYPE)

    async def _answer(self, request: Message, payload: bytes, type: int = 0, more: bool = False) -> None:
        message = self._template.encode(
            payload,
            type=type,
            kind=RESPONSE,
            request_id=request.request_id,
            timestamp_ms=self.owner.wall_ms(),
            more=more,
        )
        await self.writer.send(encode_signed(message, self.owner.rules.sign(message)))

    def _failed(self, error: Exception) -> None:
        self.owner.stats[self.sub.name, "failed"] += 1
        self.owner.handler_failed(error, self.sub.name, self.stream.peer)


def _for_type(table: Mapping[int | None, OnMessage], type: int) -> OnMessage | None:
    return table.get(type) or table.get(None)
