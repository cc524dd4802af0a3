"""One QUIC connection, in the shape that py-libp2p gives a muxer: its streams, on a `Link`.

How much of what the peer sends is taken, and with that its credit, is up to `Credit`. When the connection is lost every
stream is reset.
"""

from __future__ import annotations

from contextlib import suppress

import trio
from libp2p.abc import IMuxedStream
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError, MuxedStreamReset

from node.quic.credit import Credit
from node.quic.link import NO_ERROR, Link
from node.quic.native import Address, Event, Native
from node.quic.owners import ConnectionOwner
from node.quic.stream import MAX_UNSENT, QuicStream
from protocols.handshake.engine import MAX_HELD_BYTES

# a stream that we have closed and the peer hasn't is reset after so long
LINGER = 60.0


class QuicConnection(Link):
    """A connection: a muxer already. `handshake` secures it, `start` runs as long as it lives."""

    def __init__(
        self,
        owner: ConnectionOwner,
        addr: Address,
        *,
        is_initiator: bool,
        max_streams: int,
        max_unread: int,
        max_unsent: int,
    ) -> None:
        super().__init__(owner, addr, is_initiator=is_initiator)
        self.streams: dict[int, QuicStream] = {}
        self._max_streams, self._max_unsent = max_streams, max_unsent
        self._accepted: dict[int, QuicStream] = {}  # opened by the peer, and not taken yet
        self._writers: set[QuicStream] = set()
        self._held: int | None = 0  # bytes received before admission
        self._credit = Credit(max_unread)

    @classmethod
    def dialled(cls, owner: ConnectionOwner, addr: Address, peer: ID, **limits: int) -> QuicConnection:
        """A connection that we open."""
        conn = cls(owner, addr, is_initiator=True, **limits)
        conn._expected = peer
        return conn

    @classmethod
    def accepted(
        cls, owner: ConnectionOwner, addr: Address, original: bytes, retried: bytes | None, first: bytes, **limits: int
    ) -> QuicConnection:
        """One that a client opens with its `first` datagram, on which no work is spent before `handshake`."""
        conn = cls(owner, addr, is_initiator=False, **limits)
        conn._server = original, retried
        conn._early.append(first)
        return conn

    # what py-libp2p asks of a muxer

    def admitted(self) -> None:
        """The peer is admitted: it may send more than what is held."""
        self._held = None

    async def open_stream(self) -> IMuxedStream:
        """A new stream. Waits while the peer takes no more.

        Raises MuxedConnUnavailable, and MuxedStreamError at the limit.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if self.lost or self._native is None or not self._established:
                raise MuxedConnUnavailable("the connection takes no new streams")
            if len(self.streams) >= self._max_streams:
                raise MuxedStreamError(f"there are {self._max_streams} streams open, which is the limit")
            if self._native.may_open():
                break
            self.flush_soon()
            await self._changed.wait()
        try:
            return self._new(self._native.open())
        except (ValueError, RuntimeError) as error:
            raise MuxedConnUnavailable(f"the connection takes no new streams: {error}") from error

    async def accept_stream(self) -> IMuxedStream:
        """The next stream that the peer has opened. Raises MuxedConnUnavailable at the connection's end."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._accepted:
            if self.lost:
                raise MuxedConnUnavailable("the connection has ended")
            await self._changed.wait()
        return self._accepted.pop(next(iter(self._accepted)))

    # what its streams ask

    def room(self, stream: QuicStream) -> bool:
        native = self._native
        assert native is not None
        if self.lost:
            return True  # no use in waiting
        if native.unsent(stream.stream_id) >= MAX_UNSENT or (
            len(self.streams) * MAX_UNSENT > self._max_unsent and native.unsent() >= self._max_unsent
        ):
            self._writers.add(stream)
            return False
        return True

    def queue(self, stream: QuicStream, data: bytes | memoryview, *, fin: bool = False) -> None:
        native = self._native
        assert native is not None
        try:
            native.send(stream.stream_id, data, fin=fin)
        except (ValueError, RuntimeError) as error:
            stream.stopped = True
            raise MuxedStreamReset(f"the stream is over: {error}") from error

    def has_read(self, count: int) -> None:
        native = self._native
        if self._credit.read(count) and native is not None and native.paused:
            self._with_native(native.drain)
            self.flush_soon()

    def say_reset(self, stream: QuicStream) -> None:
        self._tell_over(stream, reset=True)

    def say_stop(self, stream: QuicStream) -> None:
        self._tell_over(stream, reset=False)

    def _tell_over(self, stream: QuicStream, *, reset: bool) -> None:
        native = self._native
        if native is None or self.lost or stream.finished:
            return
        for tell in ([native.reset] if reset else []) + [native.stop]:
            with suppress(ValueError, RuntimeError):  # that side of it may be over already
                tell(stream.stream_id, NO_ERROR)

    def forget_gone(self, stream: QuicStream) -> None:
        if stream.finished:
            self.streams.pop(stream.stream_id, None)  # what has come can still be read
        if stream.was_reset:
            self._accepted.pop(stream.stream_id, None)

    # what the link tells

    @property
    def stream_deadline(self) -> float:
        return self._credit.resume_at

    def stream_tick(self, native: Native, now: float) -> None:
        if now >= self._credit.resume_at:
            self._credit.give_in()
            native.drain()

    def stream_beat(self, now: float) -> None:
        for stream in list(self.streams.values()):
            if now - stream.closed_at > LINGER:
                if stream.was_reset:  # qh3 forgets that when data that was sent before is found lost
                    stream.closed_at = now
                    self.say_reset(stream)
                else:
                    stream.reset_nowait()

    def streams_may_write(self) -> None:
        if self._writers:
            for stream in [stream for stream in self._writers if self.lost or self.room(stream)]:
                self._writers.discard(stream)
                stream.wake_writer()

    def streams_lost(self) -> None:
        for stream in list(self.streams.values()):
            stream.wake()
            stream.wake_writer()
        self.streams.clear()
        self._writers.clear()

    def stream_event(self, event: Event) -> None:
        kind = event[0]
        if kind == "stream_data":
            self._take_data(event[1], event[2], event[3])
            return
        if kind == "streams_available":
            self._wake()
            return
        stream = self.streams.get(event[1]) if kind in ("stream_reset", "stop_sending", "stream_finished") else None
        if stream is None:
            if kind == "stream_reset" and self._native is not None:
                # one of which nothing else has come, and nothing will; or one that is over
                with suppress(ValueError, RuntimeError):
                    self._native.reset(event[1], NO_ERROR)
        elif kind == "stream_reset":
            stream.reset_by_peer = True
            stream.wake()
            if event[1] in self._accepted:
                stream.reset_nowait()  # before anybody has taken it
        elif kind == "stop_sending":
            stream.stopped = True
            stream.wake_writer()
        else:
            stream.finished = True
            stream.wake()
            stream.wake_writer()
            self.forget_gone(stream)

    def _take_data(self, number: int, data: bytes, fin: bool) -> None:
        stream = self._stream(number)
        if stream is None:
            return
        if self._held is not None:
            self._held += len(data)
            if self._held > MAX_HELD_BYTES and not self.lost:
                self.fault = f"expected at most {MAX_HELD_BYTES} bytes before admission, got more"
                self._lose(self.fault)
                return
        kept = stream.feed(data, fin)
        if kept and self._native is not None:
            self._native.paused = self._credit.came(kept, trio.current_time())

    def _stream(self, number: int) -> QuicStream | None:
        """The stream of that number, made if the peer opens it now; None for one that is over."""
        stream = self.streams.get(number)
        if stream is None and not self.lost and (number & 1) == self._is_initiator and not number & 2:
            stream = self._accepted[number] = self._new(number)
            self._wake()
        return stream

    def _new(self, number: int) -> QuicStream:
        stream = self.streams[number] = QuicStream(self, number)
        return stream
