"""A stream of a `Muxer`, in the shape that py-libp2p gives one.

A write goes to the session's queue and returns; it waits while the queue is full. One of more than the queue holds
goes in pieces; cancelled between two it leaves a hole, and the stream can only be reset. A read takes bytes and awaits
nothing afterwards, so that cancelling it loses none.
"""

from __future__ import annotations

import math
import typing
from types import TracebackType

import trio
from libp2p.abc import IMuxedConn, IMuxedStream
from libp2p.stream_muxer.exceptions import MuxedStreamClosed, MuxedStreamEOF, MuxedStreamReset

from node.upgrade.secure import SecureConn
from node.upgrade.yamux import Session
from node.upgrade.yamux_state import Stream

# pieces of that size wait for the next turn: there may be more, and then it goes out in one call
AT_ONCE = 16 * 1024


class Owner(typing.Protocol):
    """What a stream needs of its connection, the `Muxer`."""

    secured_conn: SecureConn
    session: Session
    lost: bool
    round_trip: float

    def flush_soon(self) -> None:
        """There is something to write."""

    def flush_now_or_soon(self) -> None:
        """There is, and it is whole in itself."""

    def flush_before_waiting(self) -> None:
        """Somebody goes to wait for an answer."""

    def woken(self) -> None:
        """A reader that was woken runs."""

    def watch(self, deadline: float) -> None:
        """Somebody waits until then: `MuxedStream.expire` is called when it is over."""

    def forget_gone(self, stream: MuxedStream) -> None:
        """The stream may be over on both sides."""


class MuxedStream(IMuxedStream):
    """One stream. One task may read while another writes; writers take turns."""

    def __init__(self, conn: Owner, state: Stream) -> None:
        self.muxed_conn = typing.cast("IMuxedConn", conn)
        self.conn = conn
        self.stream_id = state.number
        self.state = state
        self.closed_at: float | None = None
        self.left = 0  # unsent bytes when it was last looked at
        self._changed: trio.Event | None = None  # somebody waits to read
        self._deadline = math.inf  # how long it waits
        self._room: trio.Event | None = None  # somebody waits to write
        self._write_lock = trio.Lock()
        self._partial = False  # some pieces of a write are sent, others aren't
        self._hole = False  # and never will be

    def wake(self) -> bool:
        """Something has changed for whoever reads; at the stream's end, for whoever writes too. Whether one read."""
        if self.state.reset or self.conn.lost:
            self.wake_writer()
        if self._changed is None:
            return False
        self._changed.set()
        self._changed = None
        return True

    def wake_writer(self) -> None:
        """There is room for whoever writes."""
        if self._room is not None:
            self._room.set()
            self._room = None

    def expire(self, now: float) -> float:
        """Wakes a reader whose time is over. The deadline of one that goes on waiting, infinity if there is none."""
        if self._changed is None:
            return math.inf
        if self._deadline <= now:
            self.wake()
            return math.inf
        return self._deadline

    def read_nowait(self, n: int) -> bytes:
        """Up to `n` bytes that have come, b"" if there are none: `read` knows whether more will."""
        state, session = self.state, self.conn.session
        data = session.take(state, n)
        if session.owes(state):
            session.credit(state, trio.current_time(), self.conn.round_trip)
            self.conn.flush_soon()
        return data

    async def read(self, n: int | None = None, timeout: float | None = None) -> bytes:
        """Up to `n` bytes, at least one.

        Raises MuxedStreamEOF at the peer's end, MuxedStreamReset, and TooSlowError after `timeout` seconds: cheaper
        than a cancel scope around it, since only the first of many deadlines needs a timer.
        """
        if n == 0:
            return b""
        await trio.lowlevel.checkpoint_if_cancelled()
        state, conn = self.state, self.conn
        deadline = math.inf
        while not state.size:
            if state.reset or conn.lost:
                raise MuxedStreamReset("the stream was reset, or its connection is lost")
            if state.ended:
                raise MuxedStreamEOF("the peer has ended the stream")
            if state.abandoned:
                raise MuxedStreamClosed("the stream is closed")
            if not state.announced:
                conn.session.announce(state)
                conn.flush_soon()
            conn.flush_before_waiting()
            if timeout is not None:
                now = trio.current_time()
                if deadline == math.inf:
                    deadline = now + timeout
                elif now >= deadline:
                    raise trio.TooSlowError
                conn.watch(deadline)
            self._deadline = deadline
            if self._changed is None:
                self._changed = trio.Event()
            changed = self._changed
            try:
                await changed.wait()
            finally:
                if self._changed is changed:
                    self._changed = None  # cancelled, and not woken
                else:
                    conn.woken()
        return self.read_nowait(state.size if n is None or n < 0 else n)

    def write_nowait(self, data: bytes, *, now: bool = False) -> bool:
        """Takes all of `data` for sending, or nothing. Raises as `write`. With `now` nothing is likely to follow it."""
        session, state = self.conn.session, self.state
        self._need_open()
        if len(data) > session.limits.max_unsent or self._write_lock.locked() or not session.has_room(state):
            return False
        session.send(state, data if isinstance(data, bytes) else bytes(data))
        if now and len(data) < AT_ONCE:
            self.conn.flush_now_or_soon()
        else:
            self.conn.flush_soon()
        return True

    async def write(self, data: bytes) -> None:
        """Returns when all of `data` is on its way or in the queue. Raises MuxedStreamClosed, MuxedStreamReset."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.write_nowait(data):
            return
        session, state = self.conn.session, self.state
        view, piece = memoryview(bytes(data)), session.limits.max_unsent
        async with self._write_lock:
            try:
                for start in range(0, len(view), piece):
                    self._need_open()
                    while not session.has_room(state):
                        self._partial = start > 0
                        state.wanted = True
                        self._room = trio.Event()
                        await self._room.wait()
                        self._need_open()
                    session.send(state, view[start : start + piece])  # type: ignore[arg-type]  # of bytes, no others
                    self.conn.flush_soon()
            except trio.Cancelled:
                self._hole = self._partial
                raise
            finally:
                self._partial = False

    async def close_write(self) -> None:
        """Says that we send no more."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._hole or self._partial:
            await self.reset()
        else:
            self.conn.session.end(self.state)
            self.conn.flush_soon()

    async def close(self) -> None:
        """Ends our side and reads no more. Idempotent."""
        self.close_nowait()
        await trio.lowlevel.checkpoint()

    def close_nowait(self) -> None:
        if self.closed_at is None:
            self.closed_at = trio.current_time()
            self.conn.session.abandon(self.state)
            if self._hole or self._partial:
                self.conn.session.reset(self.state)
            else:
                self.conn.session.end(self.state)
            self.conn.forget_gone(self)
            self.conn.flush_soon()
            self.wake()

    async def reset(self) -> None:
        """Ends both sides at once. Idempotent."""
        self.reset_nowait()
        await trio.lowlevel.checkpoint()

    def reset_nowait(self) -> None:
        self.conn.session.reset(self.state)
        self.state.reset = True
        self.conn.forget_gone(self)
        self.conn.flush_soon()
        self.wake()

    def set_deadline(self, ttl: int) -> None:
        raise NotImplementedError("deadlines are the caller's: use trio.fail_after")

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.conn.secured_conn.get_remote_address()

    def _need_open(self) -> None:
        if self.state.reset or self.conn.lost:
            raise MuxedStreamReset("the stream was reset, or its connection is lost")
        if self.state.end_wanted or self._hole:
            raise MuxedStreamClosed("the stream is closed for writing, or a write to it was cut off")

    async def __aenter__(self) -> MuxedStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
