"""A UDP socket that moves many datagrams with one call, where the kernel can (Linux: GSO and GRO).

Nothing here waits but `wait_readable` and `wait_writable`.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

import trio

from node.log import get_logger

# of what a peer may send ahead much comes at once
BUFFER = 4 << 20
MAX_DATAGRAM = 65535
MAX_SEGMENTS = 64
MAX_RUN = 65000
UDP_SEGMENT, UDP_GRO = 103, 104
_SIZE = struct.Struct("=H")
_GRO = struct.Struct("=i")
_SPACE = socket.CMSG_SPACE(_GRO.size)

Address = tuple[Any, ...]

log = get_logger("quic")


class Datagrams:
    """A bound socket. `max_run` is how many datagrams of one size one call sends."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)  # the kernel gives what it allows
        self.max_run = MAX_SEGMENTS if _has(sock, UDP_SEGMENT, 0) else 1
        _has(sock, UDP_GRO, 1)

    @classmethod
    def bind(cls, host: str, port: int) -> Datagrams:
        """A socket on that address; port 0 for any. Raises OSError."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            if ":" in host:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, port))
            return cls(sock)
        except BaseException:
            sock.close()
            raise

    @property
    def address(self) -> Address:
        """Where it is bound."""
        return tuple(self._socket.getsockname())

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket.fileno())
            self._socket.close()

    async def wait_readable(self) -> None:
        await trio.lowlevel.wait_readable(self._socket.fileno())

    async def wait_writable(self) -> None:
        await trio.lowlevel.wait_writable(self._socket.fileno())

    def receive(self) -> tuple[bytes, int, Address] | None:
        """Datagrams of one sender, one behind the other, the size of each but the last, and the sender; None if none.

        Raises OSError.
        """
        try:
            data, more, _, addr = self._socket.recvmsg(MAX_DATAGRAM, _SPACE)
        except (BlockingIOError, InterruptedError):
            return None
        segment = len(data)
        for level, kind, value in more:
            if level == socket.IPPROTO_UDP and kind == UDP_GRO:
                segment = _GRO.unpack_from(value)[0] or segment
        return data, segment, addr

    def send(self, run: list[bytes], addr: Address) -> bool:
        """Sends datagrams, all of the first's size but the last; False if the socket is full. What the kernel refuses
        is lost, as datagrams are.
        """
        try:
            if len(run) > 1:
                size = _SIZE.pack(len(run[0]))
                self._socket.sendmsg(run, [(socket.IPPROTO_UDP, UDP_SEGMENT, size)], 0, addr)
            else:
                self._socket.sendto(run[0], addr)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if len(run) > 1 and error.errno in (errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.ENOPROTOOPT):
                if error.errno != errno.EMSGSIZE:
                    self.max_run = 1  # this device doesn't do it
                return all(self.send([data], addr) for data in run)
            log.debug("datagram_lost", addr=str(addr), error=error.strerror)
        return True


def _has(sock: socket.socket, option: int, value: int) -> bool:
    try:
        sock.setsockopt(socket.IPPROTO_UDP, option, value)
    except OSError:
        return False
    return True
