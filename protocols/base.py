"""The vocabulary of a protocol's author: `Protocol`, `Stream`, `Network`.

A protocol is declared once, with its bounds; whoever runs it enforces them:

    echo = Protocol("/echo/1.0.0", max_frame=64 * 1024, timeout=10, streams_per_peer=4)

    @echo.serve
    async def reply(stream: Stream) -> None:
        async for frame in stream:
            await stream.send(frame)

A `Stream` carries frames (a varint length and that many bytes, see `framing`), or plain bytes where the protocol says
`max_frame=None`. Its life:

    open --send_eof()--> we have said all --the peer's end--> ended --close()--> closed
      \\----------------- reset() from either side, an error, a timeout ---------> broken

A handler that returns closes its stream, one that raises resets it; neither touches another stream. What a protocol
does with its frames, and whether it keeps a stream or opens one for each question, is left to it.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import TracebackType

import trio

from protocols.errors import (
    EndOfStream,
    NotConnected,
    NotSupported,
    ProtocolError,
    StreamError,
    StreamReset,
    StreamTimeout,
)
from protocols.framing import FrameDecoder, encode_frame
from protocols.rate import TokenBucket

__all__ = [
    "ByteStream",
    "EndOfStream",
    "Handler",
    "Network",
    "NotConnected",
    "NotSupported",
    "Protocol",
    "ProtocolError",
    "Stream",
    "StreamError",
    "StreamReset",
    "StreamTimeout",
]

READ_SIZE = 64 * 1024
MAX_ID_BYTES = 256
YIELD_AFTER = 16
YIELD_BYTES = 16 * 1024

Handler = Callable[["Stream"], Awaitable[None]]


class ByteStream(typing.Protocol):
    """What a `Stream` stands on: a muxer's stream in a node, a pipe in a test. Errors are `StreamError`s."""

    @property
    def leaving(self) -> bool:
        """Whether the connection takes no new streams and will end: there is another one to the peer, or it goes."""

    def receive_nowait(self, max_bytes: int) -> bytes:
        """Up to `max_bytes` bytes that have come already; b"" if there are none, or it can't tell."""

    async def receive_some(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """1 to `max_bytes` bytes; b"" at the peer's proper end. Raises TooSlowError after `timeout` seconds."""

    def send_nowait(self, data: bytes) -> bool:
        """Whether it took all of `data` without waiting; else it took nothing."""

    async def send_all(self, data: bytes) -> None:
        """Returns when all of `data` is on its way."""

    async def send_eof(self) -> None:
        """Closes our side; the peer's may go on."""

    async def aclose(self) -> None:
        """Closes both sides. Idempotent."""

    async def reset(self) -> None:
        """Gives the stream up at once, and tells the peer. Idempotent."""


@dataclass(eq=False, kw_only=True)
class Protocol:
    """One protocol and its bounds. The node enforces them; a handler can't forget them.

    id: what peers negotiate, "/" first, at most 256 bytes.
    max_frame: bytes of the largest frame, or None for a protocol that has no frames and reads and writes bytes.
    timeout: seconds that one receive or send may wait for the peer; None only where another rule ends idle streams.
    send_timeout: the same for sends alone, where a stream may be idle but its peer must take what it is sent.
    streams_per_peer: streams that one peer may have open with us at once; one more is reset.
    rate: frames a second that are taken from one peer; None is no limit. The surplus waits, the peer is slowed down.
    burst: frames that may come at once within `rate`; by default one second's worth.
    """

    id: str = field(kw_only=False)
    max_frame: int | None = 64 * 1024
    timeout: float | None = 10.0
    streams_per_peer: int = 4
    rate: float | None = None
    burst: float | None = None
    handler: Handler | None = None
    send_timeout: float | None = None

    def __post_init__(self) -> None:
        if not self.id.startswith("/") or not 1 < len(self.id.encode()) <= MAX_ID_BYTES or "\n" in self.id:
            raise ValueError(f'a protocol ID starts with "/" and has 2 to {MAX_ID_BYTES} bytes, not {self.id!r}')
        for name in ("max_frame", "timeout", "send_timeout", "streams_per_peer", "rate", "burst"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{self.id}: {name} is a positive number, not {value}")
        if self.burst is not None and self.burst < 1:
            raise ValueError(f"{self.id}: burst is at least 1, or no frame would ever pass, not {self.burst}")

    def serve(self, handler: Handler) -> Handler:
        """Names the function that is called with each stream that a peer opens. Use as a decorator."""
        if self.handler is not None:
            raise ValueError(f"{self.id} has a handler already")
        self.handler = handler
        return handler

    def bucket(self, now: float) -> TokenBucket | None:
        """A new token bucket for one peer, if the protocol is limited in rate."""
        if self.rate is None:
            return None
        return TokenBucket(self.rate, self.burst if self.burst is not None else max(1.0, self.rate), now)

    def __repr__(self) -> str:
        return f"Protocol({self.id!r})"


class Stream:
    """One stream of a protocol with one peer. One task may receive while another sends.

    As an async context manager it closes at the end, and resets if the block raises.
    """

    def __init__(self, raw: ByteStream, protocol: Protocol, peer: str, bucket: TokenBucket | None = None) -> None:
        self.peer = peer
        self.protocol = protocol
        self._raw = raw
        self._bucket = bucket
        self._decoder = None if protocol.max_frame is None else FrameDecoder(protocol.max_frame)
        self._frames: list[bytes] = []
        self._due: float | None = None
        self._unread = b""
        self._send_lock = trio.Lock()
        self._broken = False
        self._closed = False
        self._worked = 0
        timeout = protocol.timeout if protocol.send_timeout is None else protocol.send_timeout
        self._send_timeout = math.inf if timeout is None else timeout

    @property
    def leaving(self) -> bool:
        """Whether its connection will end soon, and a long-lived stream should be opened anew: it goes on another."""
        return self._raw.leaving

    @property
    def frames_waiting(self) -> bool:
        """Whether the next frame is there already: a reader may put off what is cheaper for several."""
        return bool(self._frames)

    async def receive(self) -> bytes:
        """The next frame; without frames, the next bytes (at least one).

        Raises EndOfStream at the peer's proper end, StreamTimeout, StreamReset, or ProtocolError for a bad frame.
        """
        if self._decoder is None:
            return await self.receive_some(READ_SIZE)
        while not self._frames:
            self._decoder.check()
            data = await self._read(READ_SIZE)
            if not data:
                if self._decoder.incomplete:
                    raise ProtocolError(f"expected a whole frame from {self.peer}, got the end inside one")
                raise EndOfStream(f"{self.peer} has ended {self.protocol.id}")
            self._frames = self._decoder.feed(data)[::-1]
        self._worked += 1
        if self._worked > YIELD_AFTER:
            await self._let_others_run()
        if self._bucket is not None:
            if self._due is None:
                self._due = trio.current_time() + self._bucket.take(trio.current_time())
            await trio.sleep_until(self._due)  # cancelled here, the frame and its token are still there
            self._due = None
        return self._frames.pop()

    async def receive_some(self, max_bytes: int) -> bytes:
        """1 to `max_bytes` bytes; for protocols without frames. Raises as `receive` does."""
        self._need_bytes("receive_some")
        if self._unread:
            data, self._unread = self._unread[:max_bytes], self._unread[max_bytes:]
            return data
        data = await self._read(max_bytes)
        if not data:
            raise EndOfStream(f"{self.peer} has ended {self.protocol.id}")
        return data

    async def receive_exactly(self, count: int) -> bytes:
        """`count` bytes; for protocols without frames. Raises as `receive`, EndOfStream only before the first byte."""
        self._need_bytes("receive_exactly")
        buffer = bytearray()
        while len(buffer) < count:
            try:
                buffer += await self.receive_some(count - len(buffer))
            except EndOfStream:
                if not buffer:
                    raise
                raise ProtocolError(f"expected {count} bytes from {self.peer}, got {len(buffer)} and the end") from None
            except (trio.Cancelled, StreamTimeout):
                self._unread = bytes(buffer)  # nothing is lost: the next call starts with them
                raise
        return bytes(buffer)

    async def send(self, data: bytes) -> None:
        """Sends one frame, or without frames the bytes; waits while the peer takes none. Cancelled half way, it breaks
        the stream (and nothing else), since the peer couldn't tell where the next frame starts.

        Raises StreamTimeout, StreamReset, and ValueError for a frame over the protocol's bound.
        """
        payload = data if self.protocol.max_frame is None else encode_frame(data, self.protocol.max_frame)
        await self._let_others_run()
        if not self._send_lock.locked():
            self._need_whole()
            if self._raw.send_nowait(payload):
                self._worked += 1 + len(payload) // YIELD_BYTES
                return
        async with self._send_lock:
            self._need_whole()
            self._broken = True
            try:
                with trio.fail_after(self._send_timeout):
                    await self._raw.send_all(payload)
            except trio.TooSlowError:
                raise self._timed_out("take", self._send_timeout) from None
            self._broken = False

    def send_nowait(self, data: bytes) -> bool:
        """Whether it took a frame (or the bytes) without waiting; else it took nothing of it. Raises as `send`."""
        payload = data if self.protocol.max_frame is None else encode_frame(data, self.protocol.max_frame)
        if self._send_lock.locked():
            return False
        self._need_whole()
        return self._raw.send_nowait(payload)

    async def send_eof(self) -> None:
        """Says that we send no more; what the peer sends can still be received."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._send_lock.acquire_nowait()  # no turn of the event loop: it goes with what was sent last
        except trio.WouldBlock:
            await self._send_lock.acquire()
        try:
            self._need_whole()
            await self._raw.send_eof()
        finally:
            self._send_lock.release()

    async def close(self) -> None:
        """Closes the stream properly, or resets it if a send was cut off. Idempotent, and safe to cancel."""
        if self._broken:
            await self.reset()
        elif not self._closed:
            self._closed = True
            await self._raw.aclose()

    async def reset(self) -> None:
        """Gives the stream up: the peer sees a reset. Idempotent, and safe to cancel."""
        self._broken = True
        if not self._closed:
            self._closed = True
            await self._raw.reset()

    def __aiter__(self) -> Stream:
        """The frames (or bytes) until the peer's proper end."""
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.receive()
        except EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await (self.close() if error is None else self.reset())

    async def _read(self, max_bytes: int) -> bytes:
        if self._closed:
            raise StreamError(f"the stream of {self.protocol.id} with {self.peer} is closed")
        await self._let_others_run()
        data = self._raw.receive_nowait(max_bytes)
        if data:
            self._worked += 1 + len(data) // YIELD_BYTES
            return data
        try:
            return await self._raw.receive_some(max_bytes, self.protocol.timeout)
        except trio.TooSlowError:
            raise self._timed_out("send", self.protocol.timeout) from None

    async def _let_others_run(self) -> None:
        """What needs no waiting still lets others run: now and then for small pieces, each time for large ones."""
        if self._worked < YIELD_AFTER:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._worked = 0
            await trio.lowlevel.checkpoint()

    def _timed_out(self, what: str, timeout: float | None) -> StreamTimeout:
        return StreamTimeout(f"{self.peer} did not {what} anything on {self.protocol.id} for {timeout:g} s")

    def _need_bytes(self, name: str) -> None:
        if self._decoder is not None:
            raise TypeError(f"{name}() is for protocols without frames; {self.protocol.id} has frames: use receive()")

    def _need_whole(self) -> None:
        if self._closed or self._broken:
            raise StreamError(f"the stream of {self.protocol.id} with {self.peer} is closed or was cut off in a send")

    def __repr__(self) -> str:
        return f"<Stream {self.protocol.id} with {self.peer}>"


class Network(typing.Protocol):
    """What the client side of a protocol is given: a node, or the in-memory network of the tests."""

    @property
    def peer_id(self) -> str:
        """Our own peer ID."""

    def connected_peers(self) -> Sequence[str]:
        """The peers that are admitted now."""

    def stream(self, peer: str, protocol: Protocol) -> AbstractAsyncContextManager[Stream]:
        """Opens a stream and closes it after the block. Raises StreamError if the peer can't be had."""
