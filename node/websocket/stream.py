"""A WebSocket on a TCP stream, in the shapes that the upgrade path gives a stream: the shell around `session`.

`read` and `write` are for the beginning of a connection. What comes after it uses the stream as a `Link`: it waits
first, and then receives and sends without waiting.

    receive_nowait: socket --READ--> what wasn't looked at yet --PIECE--> session --> what wasn't taken yet --> caller
    send_nowait:    caller --MAX_FRAME--> session --> what the socket didn't take yet --> socket

Bytes count as sent when their whole frame is with the system: until then the caller offers them again, which is what
`SecureConn` does. So nothing waits here but one frame, and the answers to pings, which the session bounds.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress

import trio
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from multiaddr import Multiaddr

from node.tcp_stream import BufferedTcpStream
from node.websocket.session import MAX_FRAME, PIECE, Bytes, Session
from protocols import ProtocolError

READ = 256 * 1024
# after so many frames others run
MANY_FRAMES = 512
# answers to pings that a peer doesn't take
MAX_ANSWERS = 64 * 1024


class WebSocketStream(ReadWriteCloser):
    """One reader and one writer at a time. `addrs` is where the peer is."""

    def __init__(
        self, tcp: BufferedTcpStream, session: Session, addrs: list[Multiaddr], buffer: memoryview | None = None
    ) -> None:
        self.addrs = addrs
        self._buffer = buffer or memoryview(bytearray(READ))  # for one look at the socket, and shared with others
        self._tcp = tcp
        self._session = session
        self._raw = memoryview(b"")  # has come, and wasn't looked at yet
        self._received: deque[Bytes] = deque()
        self._taken = 0  # of the first of them
        self._unsent = memoryview(b"")
        self._framed = 0  # the caller's bytes in it
        self._done = 0  # the caller's bytes that have gone since it was told
        self._closed = False

    @property
    def link(self) -> WebSocketStream | None:
        """Itself, where sockets can be read into buffers."""
        return self if self._tcp.link else None

    async def open(self) -> None:
        """The opening, from either side. The deadline is the caller's. Raises ProtocolError, and as the socket does."""
        try:
            while True:
                await self._send_output()
                if self._session.opened:
                    return
                data = await self._tcp.read()
                if not data:
                    raise ConnectionClosedError("the peer ended the opening of a WebSocket")
                self._receive(data)
        except ProtocolError:
            await self._send_output()
            raise

    async def read(self, n: int | None = None) -> bytes:
        while not self._received:
            if self._session.ended:
                return b""
            data = self._raw or await self._tcp.read()
            self._raw = memoryview(b"")
            if not data:
                return b""
            self._receive(data)
            await self._send_output()
        size = len(self._received[0]) - self._taken
        into = memoryview(bytearray(size if n is None else min(n, size)))
        return bytes(into[: self._take(into)])

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_FRAME):
            self._session.send(data[start : start + MAX_FRAME])
            await self._send_output()

    async def close(self) -> None:
        """Says so, if that can be said at once, and closes. Idempotent."""
        if not self._closed:
            self._closed = True
            if not self._framed:
                self._session.end()
                with suppress(OSError, trio.ClosedResourceError):
                    self._push_nowait()
        await self._tcp.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._tcp.get_remote_address()

    # as a link

    async def wait_readable(self) -> None:
        if self._received or self._session.ended:
            return
        if self._raw:
            await trio.lowlevel.checkpoint()
        else:
            await self._tcp.wait_readable()

    def receive_nowait(self, into: memoryview) -> int | None:
        """Fills `into`: how many bytes, 0 at the end, None if there are none yet. Raises ProtocolError, OSError."""
        while not self._received and not self._session.ended:
            if not self._raw:
                count = self._tcp.receive_nowait(self._buffer)
                if not count:
                    return count
                self._raw = self._buffer[:count]
            data, self._raw = self._raw, memoryview(b"")
            try:
                self._receive(data)
            finally:
                self._push_nowait()
            if self._raw:
                break
        if self._received:
            return self._take(into)
        return 0 if self._session.ended else None

    async def wait_writable(self, data: memoryview) -> None:
        await self._tcp.wait_writable(data)

    def send_nowait(self, data: memoryview) -> int:
        """How many of the bytes are with the system; those that aren't must be offered again. Raises OSError."""
        sent = 0
        while True:
            pushed = self._push_nowait()
            sent += self._done
            self._done = 0
            if not pushed or sent == len(data):
                return sent
            piece = data[sent : sent + MAX_FRAME]
            self._session.send(piece)
            self._framed = len(piece)

    def _push_nowait(self) -> bool:
        """Sends what there is; whether all of it has gone."""
        more = self._session.output()
        if more:
            self._unsent = memoryview(bytes(self._unsent) + more) if self._unsent else memoryview(more)
        while self._unsent:
            count = self._tcp.send_nowait(self._unsent)
            if not count:
                return False
            self._unsent = self._unsent[count:]
        self._done += self._framed
        self._framed = 0
        return True

    # both ways

    async def _send_output(self) -> None:
        more = bytes(self._unsent) + self._session.output()
        self._unsent = memoryview(b"")
        if more:
            await self._tcp.write(more)

    def _receive(self, data: bytes | memoryview) -> None:
        """Looks at the beginning of `data`; the rest is left in `_raw`."""
        view = memoryview(data)
        now = trio.current_time()
        for at in range(0, len(view), PIECE):
            if len(self._received) > MANY_FRAMES:
                self._raw = memoryview(bytes(view[at:]))
                return
            self._received += self._session.receive(view[at : at + PIECE], now)
            if len(self._unsent) - self._framed > MAX_ANSWERS:
                raise ProtocolError("expected a peer that takes the answers to its pings")

    def _take(self, into: memoryview) -> int:
        """Moves what was received to `into`, as much as fits."""
        at = 0
        while self._received and at < len(into):
            first = self._received[0]
            part = memoryview(first)[self._taken : self._taken + len(into) - at]
            into[at : at + len(part)] = part
            at += len(part)
            self._taken += len(part)
            if self._taken == len(first):
                self._received.popleft()
                self._taken = 0
        return at
