"""The machine's network interfaces, and which addresses belong to which. Rules only, but for `interfaces()`.

What a node tells on an interface are its addresses there, and of what it hears only addresses there are worth a dial:
the others may be the sender's inner networks, which could be ours by number, or somebody whom it wants to have dialled.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import ifaddr

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Net = ipaddress.IPv4Interface | ipaddress.IPv6Interface

# an IPv6 address given by DHCP comes without the length of its link's prefix, which is this one nearly everywhere
LINK_PREFIX = 64


@dataclass(frozen=True)
class Interface:
    """One interface with its addresses. `index` is the system's number for it."""

    name: str
    index: int
    nets: tuple[Net, ...]

    def has(self, version: int) -> bool:
        """Whether it has an address of IPv4 or IPv6."""
        return any(net.version == version for net in self.nets)

    def is_near(self, ip: IP) -> bool:
        """Whether an address lies on the interface's own link, by its prefix."""
        return any(ip.version == net.version and ip in _link(net) for net in self.nets)


def _link(net: Net) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if net.version == 6 and net.network.prefixlen > LINK_PREFIX:
        return net.network.supernet(new_prefix=LINK_PREFIX)
    return net.network


def interfaces() -> list[Interface]:
    """The interfaces that have addresses now, but for loopback."""
    found: list[Interface] = []
    for adapter in ifaddr.get_adapters():
        nets = [_net(ip) for ip in adapter.ips]
        if not nets or any(net.ip.is_loopback for net in nets):
            continue
        try:
            index = adapter.index or socket.if_nametoindex(adapter.name)
        except OSError:
            continue  # gone since
        found.append(Interface(adapter.name, index, tuple(sorted(nets, key=str))))
    return found


def _net(ip: ifaddr.IP) -> Net:
    host = ip.ip if isinstance(ip.ip, str) else ip.ip[0].partition("%")[0]
    return ipaddress.ip_interface(f"{host}/{ip.network_prefix}")


def addrs_on(interface: Interface, listening: Iterable[str]) -> list[str]:
    """What others on the interface's link can dial, of the multiaddrs that a node is bound to.

    A wildcard becomes the interface's own addresses. Link-local IPv6 is left out: it means nothing without the name of
    the dialler's interface.
    """
    found: dict[str, None] = {}
    for addr in listening:
        host, rest = _split(addr)
        if host is None:
            continue
        for net in interface.nets:
            ip = net.ip
            if ip.version == host.version and not _needs_scope(ip) and host in (ip, _ANY[ip.version]):
                found[f"/ip{ip.version}/{ip}{rest}"] = None
    return list(found)


def near(interface: Interface, addrs: Sequence[str], sender: str) -> list[str]:
    """Those of a peer's multiaddrs that lie on the interface's link, or at the address that they were sent from."""
    found: list[str] = []
    for addr in addrs:
        host, _ = _split(addr)
        if host is None or _needs_scope(host) or host.is_loopback or host.is_multicast or host.is_unspecified:
            continue
        if interface.is_near(host) or str(host) == sender:
            found.append(addr)
    return found


def _needs_scope(ip: IP) -> bool:
    return ip.version == 6 and ip.is_link_local


_ANY: dict[int, IP] = {4: ipaddress.IPv4Address(0), 6: ipaddress.IPv6Address(0)}


def _split(addr: str) -> tuple[IP | None, str]:
    """The IP that a multiaddr begins with, and what follows it."""
    _, kind, host, *rest = [*addr.split("/", 3), "", ""]
    if kind not in ("ip4", "ip6"):
        return None, ""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None, ""
    return (ip, f"/{rest[0]}") if ip.version == int(kind[2:]) and rest[0] else (None, "")
