"""One stream's frames, sent by many tasks, any of which may be cancelled without harm to the others.

    send() --taken at once--> done
           --the peer is slow--> queue --the writer's task--> done, or failed
             cancelled: taken out of the queue; what is under way goes on

A cancelled `Stream.send` breaks its stream, since half a frame may be sent. Here only the writer's own task waits in
one. Its queue is as long as there are tasks that send, and those are bounded by the places for requests.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress

import trio

from protocols.base import ProtocolError, Stream, StreamError, StreamReset

YIELD_AFTER = 16


class _Waiting:
    __slots__ = ("done", "failure", "frame")

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.done = trio.Event()
        self.failure: Exception | None = None


class Writer:
    """Sends frames on one stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._waiting: deque[_Waiting] = deque()
        self._wake = trio.Event()
        self._busy = False
        self._sent = 0
        self._finishing = False
        self._ended: Exception | None = None

    async def send(self, frame: bytes) -> None:
        """Returns when the frame is on its way. Raises StreamError, and ValueError for one over the bound."""
        bound = self._stream.protocol.max_frame
        if bound is not None and len(frame) > bound:  # before it is queued: it is its sender's mistake, nobody else's
            raise ValueError(f"a frame of {self._stream.protocol.id} holds at most {bound} bytes, not {len(frame)}")
        self._sent += 1
        if self._sent % YIELD_AFTER:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        if self._ended is not None:
            raise _again(self._ended)
        if not self._busy and not self._waiting and self._stream.send_nowait(frame):
            return
        waiting = _Waiting(frame)
        self._waiting.append(waiting)
        self._wake.set()
        try:
            await waiting.done.wait()
        except trio.Cancelled:
            with suppress(ValueError):
                self._waiting.remove(waiting)
            raise
        if waiting.failure is not None:
            raise waiting.failure

    def finish(self) -> None:
        """`run` returns once all that waits is sent."""
        self._finishing = True
        self._wake.set()

    async def run(self) -> None:
        """Sends what has to wait, until finished, cancelled or the stream fails: then it raises, and so does whoever
        waits. Afterwards nothing can be sent.
        """
        waiting: _Waiting | None = None
        failure: Exception = StreamReset(f"the stream of {self._stream.protocol.id} was closed")
        try:
            while True:
                while self._waiting:
                    waiting = self._waiting.popleft()
                    self._busy = True
                    await self._stream.send(waiting.frame)
                    self._busy = False
                    waiting.done.set()
                    waiting = None
                if self._finishing:
                    return
                self._wake = trio.Event()
                await self._wake.wait()
        except (StreamError, ProtocolError) as error:
            failure = error
            raise
        finally:
            self._ended = failure
            for one in ([waiting] if waiting else []) + list(self._waiting):
                one.failure = _again(failure)
                one.done.set()
            self._waiting.clear()


def _again(failure: Exception) -> Exception:
    """Each who is told gets an error of its own."""
    return type(failure)(str(failure))
