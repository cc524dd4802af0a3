"""One long-lived stream that we opened, and who waits for answers on it.

    OPENING --> READY --its connection leaves--> RETIRED: answers still come, new requests go on another channel;
        |         |                              |   \\-- all is sent and answered --> closed properly
        \\---------+------------------------------+----> LOST: whoever waits is told

A channel is run by a task of the node's, not by the caller who needed it first: a caller that is cancelled gives back
its place, and nothing else happens.
"""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Awaitable, Callable

import outcome
import trio

from protocols.base import Network, Protocol, ProtocolError, Stream, StreamError, StreamReset
from protocols.errors import FrameTooLargeError
from protocols.messages.errors import KindError, MessageDropped, MessageError, RemoteError, oversize
from protocols.messages.requests import Requests
from protocols.messages.rules import Rules
from protocols.messages.tally import Tally
from protocols.messages.wire import REQUEST, RESPONSE, Kind, Message, encode_signed, error_text
from protocols.messages.writer import Writer


class Owner(typing.Protocol):
    """What a client needs of the service that it is a part of."""

    network: Network
    rules: Rules
    stats: Counter[tuple[str, str]]
    tally: Tally

    def wall_ms(self) -> int:
        """Unix time in milliseconds."""

    def spawn(self, run: Callable[[], Awaitable[None]]) -> None:
        """Runs a task that lives as long as the node."""

    def rejected(self, error: Exception, protocol: str) -> None:
        """Counts and tells what is wrong with a peer's message."""

    def handler_failed(self, error: Exception, protocol: str, peer: str) -> None:
        """Tells the operator of a fault of ours."""


Result = outcome.Value[Message] | outcome.Error


class Outbox(typing.Protocol):
    """Whose channel it is."""

    owner: Owner
    peer: str
    name: str
    protocol: Protocol

    def encode(self, payload: bytes, type: int, kind: Kind, request_id: int) -> bytes:
        """A message to the peer, stamped with the time."""

    def ended(self, channel: Channel) -> None:
        """A channel is no more."""


class AnswerInPartsError(StreamError):
    """The answer comes in parts: ask with `request_stream`."""


class Waiter:
    """A task that waits for one answer."""

    __slots__ = ("_result", "_task")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._result: Result | None = None

    async def wait(self) -> Message:
        """The answer."""
        if self._result is not None:  # it came while the request's sender still had its turn to wait for
            return self._result.unwrap()
        self._task = trio.lowlevel.current_task()
        message: Message = await trio.lowlevel.wait_task_rescheduled(self._give_up)
        return message

    def tell(self, result: Result) -> None:
        """Ends the wait. Called once."""
        if self._task is None:
            self._result = result
        else:
            trio.lowlevel.reschedule(self._task, result)

    def _give_up(self, _: object) -> trio.lowlevel.Abort:
        self._task = None  # an answer that comes in the same turn must not wake the task a second time
        return trio.lowlevel.Abort.SUCCEEDED


class Channel:
    """Our stream to a peer for one sub-protocol, and who waits for answers on it."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.requests: Requests[Waiter] = Requests()
        self.opened = trio.Event()
        self.failure: Exception | None = None
        self.stream: Stream | None = None
        self.writer: Writer
        self.retired = False
        self._sending = 0

    @property
    def usable(self) -> bool:
        """Whether it takes requests, or may soon."""
        return self.failure is None and not self.retired and not (self.stream is not None and self.stream.leaving)

    def retire(self) -> None:
        """Takes no more requests, and ends once those under way are answered and what waits is sent."""
        self.retired = True
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self.retired and self.stream is not None and not self.requests and not self._sending:
            self.writer.finish()

    async def run(self) -> None:
        """Opens the stream and takes the answers until it ends. Tells whoever waits, and raises nothing."""
        outbox = self.outbox
        failure: Exception | None = None
        try:
            async with outbox.owner.network.stream(outbox.peer, outbox.protocol) as stream:
                failure = await self._serve(stream)
        except (StreamError, ProtocolError) as error:
            failure = error
        except Exception as error:  # a fault of ours must not end the node with the channel
            outbox.owner.handler_failed(error, outbox.name, outbox.peer)
            failure = error
        finally:
            name, peer = outbox.name, outbox.peer
            self.failure = failure or StreamReset(f"the stream of {name} with {peer} has ended")
            self.opened.set()
            for waiter in self.requests.fail_all():
                waiter.tell(outcome.Error(lost(self.failure, f"lost {peer} before it answered {name}")))
            self._count_strays()
            outbox.ended(self)

    async def _serve(self, stream: Stream) -> Exception | None:
        """What ended it; None is a proper end, the peer's or ours. An error resets the stream."""
        self.writer = Writer(stream)
        self.stream = stream
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                nonlocal failure
                try:
                    await self.writer.run()
                except (StreamError, ProtocolError) as error:
                    failure = error
                nursery.cancel_scope.cancel()

            nursery.start_soon(write)
            self.opened.set()
            try:
                async for frame in stream:
                    self._take(frame)
            except FrameTooLargeError as error:
                failure = oversize(error, self.outbox.peer)
                self.outbox.owner.rejected(failure, self.outbox.name)
            except (StreamError, ProtocolError) as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            await stream.reset()
        return failure

    async def send(self, message: bytes) -> None:
        """Signs a message and sends it."""
        self._sending += 1
        try:
            await self.writer.send(encode_signed(message, self.outbox.owner.rules.sign(message)))
        finally:
            self._sending -= 1
            self._end_if_done()

    async def ask(self, payload: bytes, type: int) -> Message:
        """Sends a request and waits for its answer."""
        requests, waiter = self.requests, Waiter()
        request_id = requests.open(waiter)
        try:
            await self.send(self.outbox.encode(payload, type, REQUEST, request_id))
            if self.failure is not None:
                raise lost(self.failure, f"lost {self.outbox.peer} before it answered {self.outbox.name}")
            return await waiter.wait()
        finally:
            requests.forget(request_id)
            self._end_if_done()

    def _take(self, frame: bytes) -> None:
        owner, peer, name = self.outbox.owner, self.outbox.peer, self.outbox.name
        try:
            message = owner.rules.check_direct(frame, peer, name, owner.wall_ms())
            if message.kind != RESPONSE:
                raise KindError(peer, f"answers on a stream that we opened, got {message.kind.name}")
        except MessageDropped as error:
            owner.rejected(error, name)
            return
        except MessageError as error:
            owner.rejected(error, name)
            raise
        waiter = self.requests.answer(message.request_id)
        if waiter is None:
            self._count_strays()
        elif message.is_error:
            waiter.tell(outcome.Error(RemoteError(peer, name, error_text(message.payload))))
        elif message.more:
            text = f"{peer} answers {name} in parts: ask with request_stream"
            waiter.tell(outcome.Error(AnswerInPartsError(text)))
        else:
            waiter.tell(outcome.Value(message))

    def _count_strays(self) -> None:
        requests, stats, name = self.requests, self.outbox.owner.stats, self.outbox.name
        stats[name, "late"] += requests.late
        stats[name, "unknown"] += requests.unknown
        requests.late = requests.unknown = 0


def lost(error: Exception, text: str) -> Exception:
    """An error of one's own for each who waits, of the same type where it is one of a stream's."""
    said = f"{text}: {error}" if text else str(error)
    kind = type(error) if isinstance(error, StreamError) else StreamReset
    return kind(said)
