"""Listening TCP sockets, each for one kind of connection or for several that are told apart by their first byte.

    first byte    0x13, a multistream line of 19 bytes    TCP, which is for libp2p alone
                  a capital letter, of an HTTP method     WebSocket
                  0x16, a TLS record                      WebSocket over TLS

Whoever says nothing for `TELL_TIMEOUT` is taken for TCP where that is offered: such a peer may wait for us to begin.
py-libp2p's listener sets SO_REUSEPORT (two nodes on one port would share its connections without an error), binds IPv4
through IPv6, and runs in a system task, where an error would end the whole process. These live in the nursery that the
swarm gives them, share a port only within one `Ports`, and report addresses in full.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import trio
from libp2p.abc import IListener
from libp2p.io.abc import ReadWriteCloser
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.utils.multiaddr_utils import extract_ip_from_multiaddr
from multiaddr import Multiaddr

from node.tcp_stream import BufferedTcpStream, with_address

BACKLOG = 256
TELL_TIMEOUT = 3.0
HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")


class Kind(enum.Enum):
    """What is spoken on a TCP connection."""

    TCP = "tcp"
    WS = "ws"
    WSS = "wss"


_KINDS = {
    (): Kind.TCP,
    ("ws",): Kind.WS,
    ("wss",): Kind.WSS,
    ("tls", "ws"): Kind.WSS,
    ("tls", "sni", "ws"): Kind.WSS,
}

Opener = Callable[[BufferedTcpStream], Awaitable[ReadWriteCloser]]
Handler = Callable[[ReadWriteCloser], Awaitable[None]]


async def no_opening(stream: BufferedTcpStream) -> ReadWriteCloser:
    """TCP is open as it is."""
    return stream


def kind_of(maddr: Multiaddr) -> Kind | None:
    """What an address of a host and a TCP port stands for, its peer's ID aside; None for all others."""
    names = [protocol.name for protocol in maddr.protocols()]
    if names[1:2] != ["tcp"] or names[0] not in HOSTS:
        return None
    return _KINDS.get(tuple(names[2:-1] if names[-1] == "p2p" else names[2:]))


class Ports:
    """The ports of one node."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], Port] = {}

    async def open(self, host: str, number: int) -> Port:
        """That port, bound; with number 0 a new one. Raises OSError."""
        port = self._open.get((host, number))
        if port is None:
            port = Port(self, host, await trio.open_tcp_listeners(number, host=host, backlog=BACKLOG))
            self._open[host, port.number] = port
        return port

    def forget(self, port: Port) -> None:
        """It is closed."""
        self._open.pop((port.host, port.number), None)


class Port:
    """A bound port and what is accepted on it: `takers` has what opens a connection of each kind, and takes it over."""

    def __init__(self, ports: Ports, host: str, listeners: Sequence[trio.SocketListener]) -> None:
        self.host = host
        self.names = [listener.socket.getsockname() for listener in listeners]
        self.number: int = self.names[0][1]
        self.takers: dict[Kind, tuple[Opener, Handler]] = {}
        self.serving = False
        self._ports = ports
        self._listeners = listeners
        self._scope = trio.CancelScope()

    async def serve(self, nursery: trio.Nursery) -> None:
        """Accepts until it is closed; what it has accepted goes on in `nursery`."""
        with self._scope:
            await trio.serve_listeners(self._accepted, list(self._listeners), handler_nursery=nursery)

    async def _accepted(self, socket: trio.SocketStream) -> None:
        takers = dict(self.takers)
        if not takers:
            return  # closed in the same turn of the event loop
        stream = with_address(BufferedTcpStream(socket))
        _, handler = next(iter(takers.values()))
        await handler(stream if list(takers) == [Kind.TCP] else Incoming(stream, takers))

    async def close(self) -> None:
        """Accepts no more. Connections that it accepted are the swarm's."""
        self._ports.forget(self)
        self._scope.cancel()
        for listener in self._listeners:
            await listener.aclose()


class Incoming(ReadWriteCloser):
    """An accepted connection that isn't opened yet, nor perhaps known what it is. `handshake` comes first."""

    def __init__(self, stream: BufferedTcpStream, takers: Mapping[Kind, tuple[Opener, Handler]]) -> None:
        self._tcp = stream
        self._stream: ReadWriteCloser = stream
        self._takers = takers

    async def handshake(self) -> None:
        """Sees what it is, and opens it. The deadline is the caller's. Raises what the opening raises."""
        kind = next(iter(self._takers)) if len(self._takers) == 1 else await _tell(self._tcp, list(self._takers))
        opener, _ = self._takers[kind]
        self._stream = await opener(self._tcp)

    @property
    def link(self) -> Any:
        return getattr(self._stream, "link", None)

    @property
    def addrs(self) -> list[Multiaddr] | None:
        """Where the peer is, if it isn't just TCP."""
        return getattr(self._stream, "addrs", None)

    async def read(self, n: int | None = None) -> bytes:
        return await self._stream.read(n)

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    async def close(self) -> None:
        await self._stream.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._tcp.get_remote_address()


async def _tell(stream: BufferedTcpStream, kinds: list[Kind]) -> Kind:
    first = b""
    with trio.move_on_after(TELL_TIMEOUT):
        first = await stream.peek()
    kind = Kind.WSS if first == b"\x16" else Kind.WS if b"A" <= first <= b"Z" else Kind.TCP
    return kind if kind in kinds else kinds[0]


class TcpListener(IListener):
    """Accepts connections of one multiaddr, in the nursery named by `background_nursery`."""

    background_nursery: trio.Nursery

    def __init__(self, ports: Ports, opener: Callable[[Kind], Opener], handler: Handler) -> None:
        self._ports = ports
        self._opener = opener
        self._handler = handler
        self._port: Port | None = None
        self._kind = Kind.TCP
        self._suffix = ""

    async def listen(self, maddr: Multiaddr) -> None:
        """Binds and starts to accept. Raises OpenConnectionError with the reason."""
        host, number = extract_ip_from_multiaddr(maddr), int(str(maddr.value_for_protocol("tcp")))
        kind = kind_of(maddr)
        if host is None or kind is None:
            raise OpenConnectionError(f"can't listen on {maddr}: expected an IP address and a TCP port")
        opener = self._opener(kind)
        try:
            port = await self._ports.open(host, number)
        except OSError as error:
            raise OpenConnectionError(f"can't listen on {maddr}: {error.strerror or error}") from error
        if kind in port.takers:
            raise OpenConnectionError(f"can't listen on {maddr}: this node listens there already")
        port.takers[kind] = opener, self._handler
        self._port, self._kind, self._suffix = port, kind, str(maddr).split(f"/tcp/{number}", 1)[1].split("/p2p/")[0]
        if not port.serving:
            port.serving = True
            self.background_nursery.start_soon(port.serve, self.background_nursery)

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        """The addresses that are bound, the real port in them; a wildcard stays one."""
        return tuple(_address(name, self._suffix) for name in self._port.names) if self._port else ()

    async def close(self) -> None:
        """Accepts no more. Connections that it accepted are the swarm's. Idempotent."""
        port, self._port = self._port, None
        if port is not None:
            port.takers.pop(self._kind, None)
            if not port.takers:
                await port.close()
        await trio.lowlevel.checkpoint()


def _address(name: tuple[Any, ...], suffix: str) -> Multiaddr:
    host, port = name[0].partition("%")[0], name[1]
    return Multiaddr(f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}{suffix}")
