"""From where an address can be reached: from its own machine, from its network, or from anywhere. Rules only, no I/O.

    LOOPBACK  127.0.0.0/8, ::1, localhost
    PRIVATE   10/8, 172.16/12, 192.168/16, 100.64/10, link-local and unique local IPv6, names in .local; what else isn't
              global
    PUBLIC    all else, other names too
    None      nobody can dial it: unspecified, multicast, reserved, port 0, or neither an IP address nor a name first

A name that is an IP address (/dns4/10.0.0.1) counts as that address. What a resolver takes for another way to write one
(0x7f.1, 2130706433, digits that aren't ASCII) is no name that anybody has: no top-level domain is a number, and in the
DNS all names are ASCII.

An address is of use to a peer that is seen at `reach` only if its own reach is at least that: a public peer can do
nothing with private addresses, and shouldn't learn them; one on our machine can dial whatever we can.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

CACHED = 8192
_NAMES = ("dns", "dns4", "dns6", "dnsaddr")
_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)|.*:.*")


class Reach(enum.IntEnum):
    """From how far away; the further, the greater."""

    LOOPBACK = 0
    PRIVATE = 1
    PUBLIC = 2


@lru_cache(maxsize=CACHED)
def reach_of(addr: str) -> Reach | None:
    """The reach of a multiaddr in its text form; None if nobody can dial it."""
    parts = addr.split("/")
    if len(parts) < 3 or parts[0]:
        return None
    if len(parts) > 4 and parts[3] in ("tcp", "udp") and parts[4] == "0":
        return None
    if parts[1] in ("ip4", "ip6"):
        return reach_of_ip(parts[2])
    if parts[1] not in _NAMES or not parts[2]:
        return None
    name = parts[2].lower().rstrip(".")
    if not name.isascii() or _NUMBER.fullmatch(name):
        return reach_of_ip(name)
    if name == "localhost" or name.endswith(".localhost"):
        return Reach.LOOPBACK
    return Reach.PRIVATE if name.endswith(".local") else Reach.PUBLIC


@lru_cache(maxsize=CACHED)
def reach_of_ip(host: str) -> Reach | None:
    """The reach of an IP address; None if nobody can dial it, or it is none."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback:
        return Reach.LOOPBACK
    if ip.is_unspecified or ip.is_multicast or (ip.version == 4 and int(ip) >= 240 << 24):
        return None
    return Reach.PUBLIC if ip.is_global else Reach.PRIVATE


def seen_at(ip: str) -> Reach:
    """How far away somebody is whose connection comes from that IP address; the world, where it doesn't show."""
    reach = reach_of_ip(ip)
    return Reach.PUBLIC if reach is None else reach


def of_use(addrs: Iterable[str], reach: int) -> tuple[str, ...]:
    """The addresses that somebody seen at that reach can dial, and may name: one in the world that names addresses in
    private networks wants something dialled there."""
    return tuple(addr for addr in addrs if (known := reach_of(addr)) is not None and known >= reach)


def widest(addrs: Iterable[str]) -> list[str]:
    """Those of a node's own addresses that its record names: the public ones if there are any, else those of its
    networks, else its machine's.

    A record can't be told in part: with a private address in it, it couldn't be told to public peers at all.
    """
    known = [(addr, reach_of(addr)) for addr in addrs]
    most = max((reach for _, reach in known if reach is not None), default=None)
    return [addr for addr, reach in known if reach is not None and reach == most]


def subnet_of(ip: str) -> str:
    """The network that an address counts with where many addresses of one owner count once: an IPv4 /16, an IPv6 /32.
    Text that is no IP counts as itself.
    """
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ip
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, 32), strict=False))
        address = address.ipv4_mapped
    return str(ipaddress.ip_network((address, 16), strict=False))
