"""TCP for the node: py-libp2p's dialler, by name too, and our listeners (`node.ports`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ifaddr
import trio
from libp2p.abc import IRawConnection
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from node.ports import Kind, Opener, Ports, TcpListener, kind_of, no_opening
from node.tcp_stream import BufferedTcpStream, with_address

# of a name's IP addresses: how many are tried, for how many seconds each before the next
MAX_IPS = 4
NEXT_IP = 2.0


class Tcp(TCP):
    """py-libp2p's TCP transport with our listener and stream. `ports` are shared with those that stand on TCP."""

    kinds: Sequence[Kind] = (Kind.TCP,)

    def __init__(self, ports: Ports | None = None) -> None:
        super().__init__()
        self.ports = ports or Ports()

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
        return kind_of(maddr) in self.kinds

    def can_listen(self, maddr: Multiaddr) -> bool:
        # a name would be taken for all interfaces
        return str(maddr).startswith(("/ip4/", "/ip6/")) and self.can_dial(maddr)

    def create_listener(self, handler_function: Any) -> Any:
        return TcpListener(self.ports, self.opener, handler_function)

    def opener(self, kind: Kind) -> Opener:
        """What makes a stream of an accepted connection of that kind. Raises OpenConnectionError if nothing can."""
        return no_opening


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
