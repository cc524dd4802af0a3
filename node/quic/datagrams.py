"""A UDP socket that moves many datagrams with one call, where the kernel can (Linux: GSO and GRO).

A socket on all addresses answers from the one that it was written to: the kernel would choose another where a host has
several, and a client takes no answer from there. `Local` is that address.

Nothing here waits but `wait_readable` and `wait_writable`.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

import trio

from node.hostport import as_multiaddr
from node.log import get_logger
from node.sockets import bound

# of what a peer may send ahead much comes at once
BUFFER = 4 << 20
MAX_DATAGRAM = 65535
MAX_SEGMENTS = 64
MAX_RUN = 65000
UDP_SEGMENT, UDP_GRO = 103, 104
# Linux's numbers, where Python has no names
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
IP_PKTINFO, IPV6_RECVPKTINFO, IPV6_PKTINFO = 8, 49, 50
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, MTU_PROBE = 10, 23, 3
_SIZE = struct.Struct("=H")
_GRO = struct.Struct("=i")
_INFO4 = struct.Struct("=i4s4s")
_INFO6 = struct.Struct("=16si")
_SPACE = socket.CMSG_SPACE(_GRO.size) + socket.CMSG_SPACE(_INFO6.size)

Address = tuple[Any, ...]
Local = tuple[int, int, bytes]  # as the kernel takes it with a datagram
Received = tuple[bytes, int, Address, Local | None]

log = get_logger("quic")


class Datagrams:
    """A bound socket. `max_run` is how many datagrams of one size one call sends."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.setblocking(False)
        for allowed, forced in ((socket.SO_RCVBUF, SO_RCVBUFFORCE), (socket.SO_SNDBUF, SO_SNDBUFFORCE)):
            if not _has(sock, socket.SOL_SOCKET, forced, BUFFER):  # for root
                sock.setsockopt(socket.SOL_SOCKET, allowed, BUFFER)  # the kernel gives what it allows
        self.max_run = MAX_SEGMENTS if _has(sock, socket.IPPROTO_UDP, UDP_SEGMENT, 0) else 1
        _has(sock, socket.IPPROTO_UDP, UDP_GRO, 1)
        # datagrams arrive whole or not at all: that is how a path's size is found out
        if sock.family == socket.AF_INET6:
            _has(sock, socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, MTU_PROBE)
        else:
            _has(sock, socket.IPPROTO_IP, IP_MTU_DISCOVER, MTU_PROBE)
        if self.address[0] == "0.0.0.0":
            _has(sock, socket.IPPROTO_IP, IP_PKTINFO, 1)
        elif self.address[0] == "::":
            _has(sock, socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)

    @classmethod
    def bind(cls, host: str, port: int) -> Datagrams:
        """A socket on that address; port 0 for any. Raises OSError."""
        sock = bound(host, port, socket.SOCK_DGRAM)
        try:
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

    def receive(self) -> Received | None:
        """Datagrams of one sender, one behind the other, the size of each but the last, the sender, and from where to
        answer; None if there are none. Raises OSError.
        """
        try:
            data, more, _, addr = self._socket.recvmsg(MAX_DATAGRAM, _SPACE)
        except (BlockingIOError, InterruptedError):
            return None
        segment = len(data)
        local: Local | None = None
        for level, kind, value in more:
            if level == socket.IPPROTO_UDP and kind == UDP_GRO:
                segment = _GRO.unpack_from(value)[0] or segment
            elif level == socket.IPPROTO_IP and kind == IP_PKTINFO:
                _, ours, _ = _INFO4.unpack_from(value)
                local = level, kind, _INFO4.pack(0, ours, bytes(4))
            elif level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
                ours, interface = _INFO6.unpack_from(value)
                # only a link's own addresses belong to one interface
                local = level, kind, _INFO6.pack(ours, interface if ours[:2] == b"\xfe\x80" else 0)
        if "%" in addr[0]:  # it is in the tuple's fourth place too
            addr = addr[0].partition("%")[0], *addr[1:]
        return data, segment, addr, local

    def send(self, run: list[bytes], addr: Address, local: Local | None = None) -> bool:
        """Sends datagrams, all of the first's size but the last; False if the socket is full. What the kernel refuses
        is lost, as datagrams are.
        """
        more = [] if local is None else [local]
        try:
            if len(run) > 1:
                more.append((socket.IPPROTO_UDP, UDP_SEGMENT, _SIZE.pack(len(run[0]))))
            self._socket.sendmsg(run, more, 0, addr)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if len(run) > 1:
                if error.errno in (errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP):
                    self.max_run = 1  # this device doesn't do it
                # else it may be that way's: too narrow for the size
                return all(self.send([data], addr, local) for data in run)
            log.debug("datagram_lost", addr=as_multiaddr(*addr[:2]), error=error.strerror)
        return True


def _has(sock: socket.socket, level: int, option: int, value: int) -> bool:
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True
