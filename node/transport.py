"""TCP for the node: py-libp2p's dialler, and a listener that shares its port with nobody.

py-libp2p's listener sets SO_REUSEPORT (two nodes on one port would share its connections without an error), binds IPv4
through IPv6, and runs in a system task, where an error would end the whole process. This one lives in the nursery that
the swarm gives it, and reports addresses in full.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import ifaddr
import trio
from libp2p.abc import IListener, IRawConnection
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP
from libp2p.utils.multiaddr_utils import extract_ip_from_multiaddr
from multiaddr import Multiaddr

BACKLOG = 256
DIALLED = ("ip4", "ip6", "dns", "dns4", "dns6")
READ_SIZE = 64 * 1024
# of a name's IP addresses: how many are tried, for how many seconds each before the next
MAX_IPS = 4
NEXT_IP = 2.0

Handler = Callable[[TrioTCPStream], Awaitable[None]]


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


class Tcp(TCP):
    """py-libp2p's TCP transport with our listener and stream."""

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        raw = await self._dial_first(await by_ip(maddr))
        if isinstance(raw, RawConnection) and isinstance(raw.stream, TrioTCPStream):
            raw.stream = with_address(BufferedTcpStream(raw.stream.stream))
        return raw

    async def _dial_first(self, addrs: Sequence[Multiaddr]) -> IRawConnection:
        """Tries the addresses of one name in turn, or the only one there is."""
        for addr in addrs[:-1]:
            try:
                with trio.fail_after(NEXT_IP):
                    return await super().dial(addr)
            except (OpenConnectionError, trio.TooSlowError):
                continue
        return await super().dial(addrs[-1])

    def can_dial(self, maddr: Multiaddr) -> bool:
        names = [protocol.name for protocol in maddr.protocols()]
        return names[:1] != [] and names[0] in DIALLED and "p2p-circuit" not in names and super().can_dial(maddr)

    def can_listen(self, maddr: Multiaddr) -> bool:
        # a name would be taken for all interfaces
        return str(maddr).startswith(("/ip4/", "/ip6/")) and self.can_dial(maddr)

    def create_listener(self, handler_function: Any) -> Any:
        return TcpListener(handler_function)


class TcpListener(IListener):
    """Accepts connections on one multiaddr, in the nursery named by `background_nursery`."""

    background_nursery: trio.Nursery

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._listeners: Sequence[trio.SocketListener] = ()
        self._scope = trio.CancelScope()

    async def listen(self, maddr: Multiaddr) -> None:
        """Binds and starts to accept. Raises OpenConnectionError with the system's reason."""
        host, port = extract_ip_from_multiaddr(maddr), int(str(maddr.value_for_protocol("tcp")))
        try:
            self._listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
        except OSError as error:
            raise OpenConnectionError(f"can't listen on {maddr}: {error.strerror or error}") from error
        self.background_nursery.start_soon(self._serve)

    async def _serve(self) -> None:
        with self._scope:
            await trio.serve_listeners(self._accepted, list(self._listeners))

    async def _accepted(self, stream: trio.SocketStream) -> None:
        await self._handler(with_address(BufferedTcpStream(stream)))

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        """The addresses that are bound, the real port in them; a wildcard stays one."""
        return tuple(_address(listener.socket.getsockname()) for listener in self._listeners)

    async def close(self) -> None:
        """Accepts no more. Connections that it accepted are the swarm's. Idempotent."""
        self._scope.cancel()
        for listener in self._listeners:
            await listener.aclose()
        self._listeners = ()


S = TypeVar("S", bound=TrioTCPStream)


def with_address(stream: S) -> S:
    """The stream, knowing its remote address: py-libp2p's own look-up fails for IPv6."""
    try:
        host, port = stream.stream.socket.getpeername()[:2]
    except OSError:
        return stream  # the peer is gone already; the first read will say so
    stream._cached_remote_address = host, port
    return stream


async def by_ip(maddr: Multiaddr) -> list[Multiaddr]:
    """The address itself, or where it begins with a name (/dns, /dns4, /dns6) one for each of that name's IP addresses,
    by the system's resolver, MAX_IPS at most. Raises OpenConnectionError.

    py-libp2p's transport takes such addresses and then finds no IP address in them.
    """
    _, kind, name, rest = str(maddr).split("/", 3)
    family = FAMILIES.get(kind)
    if family is None:
        return [maddr]
    try:
        found = await trio.socket.getaddrinfo(name, None, family=family, type=trio.socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise OpenConnectionError(f"{name} isn't resolved: {error}") from error
    hosts = dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found)
    return [Multiaddr(f"/{'ip6' if ':' in host else 'ip4'}/{host}/{rest}") for host in list(hosts)[:MAX_IPS]]


FAMILIES = {"dns": trio.socket.AF_UNSPEC, "dns4": trio.socket.AF_INET, "dns6": trio.socket.AF_INET6}


def _address(name: tuple[Any, ...]) -> Multiaddr:
    host, port = name[0].partition("%")[0], name[1]
    return Multiaddr(f"/ip6/{host}/tcp/{port}" if ":" in host else f"/ip4/{host}/tcp/{port}")


def expand_wildcard(addr: Multiaddr) -> list[Multiaddr]:
    """The addresses that others can dial: one for each interface where `addr` stands for all of them.

    Link-local IPv6 addresses are left out: they mean nothing without the name of an interface.
    """
    text = str(addr)
    for wildcard, family in (("/ip4/0.0.0.0/", "ip4"), ("/ip6/::/", "ip6")):
        if text.startswith(wildcard):
            rest = text[len(wildcard) :]
            return [Multiaddr(f"/{family}/{host}/{rest}") for host in _interface_hosts(family)]
    return [addr]


def _interface_hosts(family: str) -> list[str]:
    hosts: list[str] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if ip.is_IPv4 and family == "ip4":
                hosts.append(str(ip.ip))
            elif ip.is_IPv6 and family == "ip6" and not ip.ip[0].startswith("fe80:"):
                hosts.append(ip.ip[0])
    # what reaches furthest first, the machine itself last
    return sorted(dict.fromkeys(hosts), key=lambda host: host == "::1" or host.startswith("127."))
