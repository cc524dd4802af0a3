"""py-libp2p's TCP stream with ways to use the socket that wait first, and then read or send without waiting."""

from __future__ import annotations

import os
from typing import TypeVar

import trio
from libp2p.io.trio import TrioTCPStream

READ_SIZE = 64 * 1024


class BufferedTcpStream(TrioTCPStream):
    """py-libp2p's stream, with two ways to use the socket. One reader and one writer at a time, as it is there.

    `read` and `write` are py-libp2p's, for the beginning of a connection; they read by the buffer rather than by the
    field, or each would be a turn of the event loop. What comes after it waits first and then reads or sends without
    waiting, into and from buffers of its own: nothing is allocated or copied here.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._unread = b""
        self._at = 0

    async def read(self, n: int | None = None) -> bytes:
        if self._at == len(self._unread):
            self._unread, self._at = await super().read(READ_SIZE), 0
        end = len(self._unread) if n is None else min(self._at + n, len(self._unread))
        data = self._unread[self._at : end]
        self._at = end
        return data

    @property
    def link(self) -> BufferedTcpStream | None:
        """Itself, as what carries secured messages without waiting. Windows has no reads into buffers by file
        descriptor."""
        return self if hasattr(os, "readv") else None

    async def peek(self) -> bytes:
        """The first of the bytes that come next, b"" at the end. It stays to be read. Safe to cancel."""
        if self._at == len(self._unread):
            self._unread, self._at = await super().read(READ_SIZE), 0
        return self._unread[self._at : self._at + 1]

    async def wait_readable(self) -> None:
        """Returns when `receive_nowait` has something to say. Raises ClosedResourceError, OSError."""
        if self._at == len(self._unread):
            await trio.lowlevel.wait_readable(self._fileno())

    def receive_nowait(self, into: memoryview) -> int | None:
        """Fills `into` with what has come: how many bytes, 0 at the end, None if there are none. Raises OSError."""
        if self._at < len(self._unread):
            count = min(len(into), len(self._unread) - self._at)
            into[:count] = self._unread[self._at : self._at + count]
            self._at += count
            if self._at == len(self._unread):
                self._unread, self._at = b"", 0
            return count
        try:
            return os.readv(self.stream.socket.fileno(), (into,))
        except (BlockingIOError, InterruptedError):
            return None

    async def wait_writable(self, data: memoryview) -> None:
        """Returns when the socket may take some of `data`. Raises ClosedResourceError, OSError."""
        await trio.lowlevel.wait_writable(self._fileno())

    def send_nowait(self, data: memoryview) -> int:
        """How many of the bytes the socket took, 0 if it is full. Raises OSError."""
        try:
            # not the socket's own method: trio shows only those that wait
            return os.write(self.stream.socket.fileno(), data)
        except (BlockingIOError, InterruptedError):
            return 0

    def _fileno(self) -> int:
        number = self.stream.socket.fileno()
        if number < 0:
            raise trio.ClosedResourceError("the socket was closed")
        return number


S = TypeVar("S", bound=TrioTCPStream)


def with_address(stream: S) -> S:
    """The stream, knowing its remote address: py-libp2p's own look-up fails for IPv6."""
    try:
        host, port = stream.stream.socket.getpeername()[:2]
    except OSError:
        return stream  # the peer is gone already; the first read will say so
    stream._cached_remote_address = host, port
    return stream
