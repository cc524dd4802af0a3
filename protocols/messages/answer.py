"""An answer in parts, as whoever asked reads it."""

from __future__ import annotations

import trio

from protocols.base import EndOfStream, Stream, StreamReset
from protocols.errors import FrameTooLargeError
from protocols.messages.channel import Owner
from protocols.messages.errors import KindError, MessageDropped, MessageError, RemoteError, oversize
from protocols.messages.tally import outcome_of
from protocols.messages.timing import within
from protocols.messages.wire import RESPONSE, Message, error_text


class Answer:
    """An answer in parts, as they come. `parts` and `bytes` count those that came, `complete` says whether all did.

    `outcome` is "given_up" until the answer has ended, at `ended_at` (trio's time), in one way or another (`tally`).
    """

    def __init__(self, owner: Owner, name: str, stream: Stream, timeout: float) -> None:
        self.peer = stream.peer
        self.parts = 0
        self.bytes = 0
        self.complete = False
        self.outcome = "given_up"
        self.ended_at: float | None = None
        self._owner = owner
        self._name = name
        self._stream = stream
        self._timeout = timeout

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        """The next part, at least one byte. Raises RemoteError, StreamError, and MessageError for a bad one."""
        while not self.complete:
            try:
                message = await self._receive()
                if message.is_error:
                    self.complete = True
                    raise RemoteError(self.peer, self._name, error_text(message.payload))
            except BaseException as error:
                self._end(outcome_of(error))
                raise
            if not message.more:
                self.complete = True
                self._end("answered")
            if message.payload:
                self.parts += 1
                self.bytes += len(message.payload)
                return message.payload
        raise StopAsyncIteration

    def _end(self, outcome: str) -> None:
        if self.ended_at is None:
            self.outcome, self.ended_at = outcome, trio.current_time()

    async def _receive(self) -> Message:
        owner, name = self._owner, self._name
        with within(self._timeout, self.peer, name, "send the next part"):
            while True:
                try:
                    frame = await self._stream.receive()
                except EndOfStream:
                    raise StreamReset(f"{self.peer} ended its answer of {name} before the last part") from None
                except FrameTooLargeError as error:
                    large = oversize(error, self.peer)
                    owner.rejected(large, name)
                    raise large from None
                try:
                    message = owner.rules.check_direct(frame, self.peer, name, owner.wall_ms())
                    if message.kind != RESPONSE or message.request_id != 1:
                        raise KindError(self.peer, "the answer to the one request of this stream, got something else")
                except MessageDropped as error:
                    owner.rejected(error, name)
                    raise StreamReset(f"a part of the answer was dropped: {error}") from None
                except MessageError as error:
                    owner.rejected(error, name)
                    raise
                return message
