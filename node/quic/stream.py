"""A stream of a QUIC connection, in the shape that py-libp2p gives one.

    half-close: FIN, the other way goes on      reset: RESET_STREAM and STOP_SENDING      close: FIN and STOP_SENDING

A write goes to the connection's queue and returns; it waits while much of the stream's hasn't been sent. One of more
than the queue takes goes in pieces; cancelled between two it leaves a hole, and the stream can only be reset. A read
takes bytes and awaits nothing afterwards, so that cancelling it loses none. What has come before the peer's reset or
STOP_SENDING can still be read.
"""

from __future__ import annotations

import math
import typing
from collections import deque
from contextlib import suppress
from types import TracebackType

import trio
from libp2p.abc import IMuxedConn, IMuxedStream
from libp2p.stream_muxer.exceptions import MuxedStreamClosed, MuxedStreamEOF, MuxedStreamReset

from node.quic.owners import StreamOwner
from node.upgrade.chunks import Chunk, join

# what is queued of one stream; a window of the peer's is sent from it without a pause
MAX_UNSENT = 256 * 1024
PIECE = 64 * 1024
# small payloads are gathered up to this size: a chunk for each byte would cost forty times what it holds
CHUNK = 4096
# pieces of that size wait for the next turn: there may be more, and then it goes out in one call
AT_ONCE = 16 * 1024


class QuicStream(IMuxedStream):
    """One stream. One task may read while another writes; writers take turns."""

    def __init__(self, conn: StreamOwner, number: int) -> None:
        self.muxed_conn = typing.cast("IMuxedConn", conn)
        self.conn = conn
        self.stream_id = number
        self.size = 0  # bytes that have come and nobody has read
        self.ended = False  # the peer sends no more
        self.reset_by_peer = False
        self.was_reset = False  # by us
        self.stopped = False  # the peer reads no more
        self.end_wanted = False  # we send no more
        self.abandoned = False  # we read no more
        self.finished = False  # the connection is done with it
        self.closed_at = math.inf
        self._chunks: deque[Chunk] = deque()
        self._at = 0
        self._changed: trio.Event | None = None  # somebody waits to read
        self._room: trio.Event | None = None  # somebody waits to write
        self._write_lock = trio.Lock()
        self._partial = False  # some pieces of a write are sent, others aren't
        self._hole = False  # and never will be

    # what the connection tells

    def feed(self, data: bytes, fin: bool) -> int:
        """Bytes of the peer's, in order. How many of them wait for a reader now."""
        kept = 0
        if data and not (self.abandoned or self.was_reset):
            kept = len(data)
            self.size += kept
            last = self._chunks[-1] if self._chunks else b""
            if kept >= CHUNK:
                self._chunks.append(data)
            elif isinstance(last, bytearray) and len(last) < CHUNK:
                last += data
            else:
                self._chunks.append(bytearray(data))
        self.ended |= fin
        self.wake()
        return kept

    def discard(self) -> None:
        """Drops what nobody will read."""
        self.conn.has_read(self.size)
        self.size = self._at = 0
        self._chunks.clear()

    def wake(self) -> None:
        """Something has changed for whoever reads."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def wake_writer(self) -> None:
        """There is room for whoever writes, or no use in waiting."""
        if self._room is not None:
            self._room.set()
            self._room = None

    @property
    def writer_waits(self) -> bool:
        return self._room is not None

    # reading

    def read_nowait(self, n: int) -> bytes:
        """Up to `n` bytes that have come, b"" if there are none: `read` knows whether more will."""
        if not self.size or n <= 0:
            return b""
        data, self._at = join(self._chunks, self._at, min(n, self.size))
        self.size -= len(data)
        self.conn.has_read(len(data))
        return data

    async def read(self, n: int | None = None, timeout: float | None = None) -> bytes:
        """Up to `n` bytes, at least one.

        Raises MuxedStreamEOF at the peer's end, MuxedStreamReset, and TooSlowError after `timeout` seconds.
        """
        if n == 0:
            return b""
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self.size:
            if timeout is None:
                await self._wait_readable()
            else:
                with trio.fail_after(timeout):
                    await self._wait_readable()
        return self.read_nowait(self.size if n is None or n < 0 else n)

    async def _wait_readable(self) -> None:
        while not self.size:
            if self.ended:
                raise MuxedStreamEOF("the peer has ended the stream")
            if self.was_reset or self.reset_by_peer or self.conn.lost:
                raise MuxedStreamReset(self._why_over())
            if self.abandoned:
                raise MuxedStreamClosed("the stream is closed")
            if self._changed is None:
                self._changed = trio.Event()
            changed = self._changed
            try:
                await changed.wait()
            finally:
                if self._changed is changed:
                    self._changed = None  # cancelled, and not woken

    # writing

    def write_nowait(self, data: bytes, *, now: bool = False) -> bool:
        """Takes all of `data` for sending, or nothing. Raises as `write`. With `now` nothing is likely to follow it."""
        self._need_open()
        if len(data) > MAX_UNSENT or self._write_lock.locked() or not self.conn.room(self):
            return False
        self.conn.queue(self, data)
        if now and len(data) < AT_ONCE:
            self.conn.flush()
        else:
            self.conn.flush_soon()
        return True

    async def write(self, data: bytes) -> None:
        """Returns when all of `data` is on its way or in the queue. Raises MuxedStreamClosed, MuxedStreamReset."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.write_nowait(data):
            return
        view = memoryview(bytes(data))
        async with self._write_lock:
            try:
                for start in range(0, len(view), PIECE):
                    self._need_open()
                    while not self.conn.room(self):
                        self._partial = start > 0
                        self._room = trio.Event()
                        self.conn.flush_soon()
                        await self._room.wait()
                        self._need_open()
                    self.conn.queue(self, view[start : start + PIECE])
                self.conn.flush_soon()
            except trio.Cancelled:
                self._hole = self._partial
                raise
            finally:
                self._partial = False

    def _need_open(self) -> None:
        if self.stopped or self.was_reset or self.conn.lost or (self.finished and not self.end_wanted):
            raise MuxedStreamReset(self._why_over())
        if self.end_wanted or self._hole:
            raise MuxedStreamClosed("the stream is closed for writing, or a write to it was cut off")

    def _why_over(self) -> str:
        if self.conn.lost:
            return f"the connection is lost: {self.conn.reason}"
        if self.reset_by_peer:
            return "the peer has reset the stream"
        if self.stopped:
            return "the peer reads no more of the stream"
        return "the stream was reset by this side"

    # ends

    async def close_write(self) -> None:
        """Says that we send no more."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._end()
        self.conn.flush_soon()

    def _end(self) -> None:
        if self._hole or self._partial:
            self.reset_nowait()
        elif not (self.end_wanted or self.stopped or self.was_reset or self.conn.lost):
            self.end_wanted = True
            with suppress(MuxedStreamReset):  # the peer reads no more of it, which nobody has told us yet
                self.conn.queue(self, b"", fin=True)

    async def close(self) -> None:
        """Ends our side and reads no more. Idempotent."""
        self.close_nowait()
        await trio.lowlevel.checkpoint()

    def close_nowait(self) -> None:
        if self.closed_at < math.inf:
            return
        self.closed_at = trio.current_time()
        self._end()
        if not self.abandoned and not self.was_reset:
            self.abandoned = True
            self.discard()
            if not (self.ended or self.reset_by_peer):
                self.conn.say_stop(self)
        self.conn.forget_gone(self)
        self.conn.flush_soon()
        self.wake()

    async def reset(self) -> None:
        """Ends both sides at once. Idempotent."""
        self.reset_nowait()
        await trio.lowlevel.checkpoint()

    def reset_nowait(self) -> None:
        if not self.was_reset:
            self.was_reset = True
            self.closed_at = min(self.closed_at, trio.current_time())
            self.discard()
            self.conn.say_reset(self)
            self.conn.forget_gone(self)
            self.conn.flush_soon()
        self.wake()
        self.wake_writer()

    def set_deadline(self, ttl: int) -> None:
        raise NotImplementedError("deadlines are the caller's: use trio.fail_after")

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.conn.get_remote_address()

    async def __aenter__(self) -> QuicStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
