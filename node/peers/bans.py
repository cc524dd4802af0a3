"""Who is banned: peers, IP addresses, networks. Rules only: `now` is wall time in seconds, from the caller.

A ban ends at `until`, or never. A new ban of the same target replaces the old one. There are at most `places`: when
they are taken the ban that ends first gives way, but one without an end never does.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from node.errors import LimitError, UsageError

MAX_BANS = 10_000
MAX_REASON = 256

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_PEER = re.compile(r"[A-Za-z0-9]{1,128}")


@dataclass(frozen=True, slots=True)
class Ban:
    """`target` is a peer ID or a network (CIDR; an address alone is written without its length). `since` and `until`
    are wall time in seconds, `until` None for ever.
    """

    target: str
    reason: str
    since: float
    until: float | None = None


class Bans:
    """A bounded table of bans; looking one up costs as much as there are lengths of prefixes in it."""

    def __init__(self, places: int = MAX_BANS) -> None:
        self.places = places
        self.no_room = 0  # how often one gave way, or was refused
        self._bans: dict[str, Ban] = {}
        # (IP version, length of prefix) -> number of the network -> target
        self._networks: dict[tuple[int, int], dict[int, str]] = {}

    def add(self, ban: Ban, now: float) -> list[Ban]:
        """Keeps a ban; those that gave way to it. Raises UsageError for a bad target, LimitError if none gives way."""
        target = parse_target(ban.target)
        reason = ban.reason[:MAX_REASON].encode(errors="replace").decode()
        ban = Ban(target, reason, ban.since, ban.until)
        gone: list[Ban] = []
        if target not in self._bans and len(self._bans) >= self.places:
            gone = self.expire(now)
            if not gone:
                self.no_room += 1
                ending = [other for other in self._bans.values() if other.until is not None]
                if not ending:
                    raise LimitError(f"there are {len(self._bans)} bans without an end, and max_bans is {self.places}")
                gone = [min(ending, key=lambda other: other.until or 0.0)]
                self.remove(gone[0].target)
        self._bans[target] = ban
        network = _network(target)
        if network is not None:
            self._networks.setdefault(_place(network), {})[int(network.network_address)] = target
        return gone

    def remove(self, target: str) -> bool:
        """Whether the target was banned. Raises UsageError for a bad one."""
        target = parse_target(target)
        if self._bans.pop(target, None) is None:
            return False
        network = _network(target)
        if network is not None:
            known = self._networks[_place(network)]
            del known[int(network.network_address)]
            if not known:
                del self._networks[_place(network)]
        return True

    def expire(self, now: float) -> list[Ban]:
        """Takes those out that have ended."""
        ended = [ban for ban in self._bans.values() if ban.until is not None and ban.until <= now]
        for ban in ended:
            self.remove(ban.target)
        return ended

    def of(self, now: float, *, peer: str | None = None, ip: str | None = None) -> Ban | None:
        """The ban that holds for a peer or an address, if there is one. Text that is no IP is banned by nobody."""
        if not self._bans:
            return None
        if peer is not None and (ban := self._holding(peer, now)):
            return ban
        try:
            address = _address(ip) if ip is not None else None
        except ValueError:
            address = None
        if address is None:
            return None
        number, bits = int(address), address.max_prefixlen
        for (version, length), known in self._networks.items():
            if version == address.version:
                target = known.get(number >> (bits - length) << (bits - length))
                if target is not None and (ban := self._holding(target, now)):
                    return ban
        return None

    def get(self, target: str) -> Ban | None:
        """The ban of exactly that target, ended or not."""
        return self._bans.get(target)

    def __iter__(self) -> Iterator[Ban]:
        return iter(list(self._bans.values()))

    def __len__(self) -> int:
        return len(self._bans)

    def _holding(self, target: str, now: float) -> Ban | None:
        ban = self._bans.get(target)
        return ban if ban is not None and (ban.until is None or now < ban.until) else None


def parse_target(text: str) -> str:
    """A peer ID, IP or CIDR in the one form that it is kept in. Raises UsageError."""
    try:
        network = _network(text)
    except ValueError:
        raise UsageError(f"expected a peer ID, an IP address or a network (CIDR), got {text!r}") from None
    if network is None:
        return text
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _network(target: str) -> Network | None:
    """None for a peer ID. Raises ValueError."""
    if _PEER.fullmatch(target) and not target.isdigit():
        return None
    host, slash, length = target.partition("/")
    address = _address(host)
    if not slash:
        return ipaddress.ip_network(address)
    if address.version == 4 and ":" in host:  # a mapped address, whose length counts the 96 bits before it
        length = str(int(length) - 96)
    return ipaddress.ip_network(f"{address}/{length}", strict=False)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _place(network: Network) -> tuple[int, int]:
    return network.version, network.prefixlen
