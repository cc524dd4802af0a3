"""How many connections there may be: in all, inbound, half-open, and for each IP. Rules only, no I/O.

    accepted --> half-open --lease.established()--> established --lease.release()--> free
                     \\---------------lease.release()-------------------------------^

Every connection holds one `Lease`, whose release is idempotent and belongs into a `finally`: that is what frees a slot
however the connection ends. An IPv6 address counts as its /64, since that is what one customer gets. Outbound
connections are counted from the moment their socket is open; they are never half-open, since we chose them.
The caller closes what is refused, before a byte of it is read.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass

from node.errors import LimitError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds; their defaults are `Config`'s."""

    max_connections: int = 256
    max_inbound: int = 192
    max_half_open: int = 32
    max_half_open_per_ip: int = 8
    max_connections_per_ip: int = 16


def ip_group(host: str) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 address's /64. Text that is no IP counts as itself."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 6:
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class Lease:
    """One connection's place. `host`: the other end's IP address, as the socket has it."""

    __slots__ = ("_limiter", "group", "half_open", "host", "inbound", "released")

    def __init__(self, limiter: ConnectionLimiter, host: str, *, inbound: bool) -> None:
        self._limiter = limiter
        self.host = host
        self.group = ip_group(host)
        self.inbound = inbound
        self.half_open = inbound
        self.released = False

    def established(self) -> None:
        """The connection is admitted: it is half-open no longer."""
        if self.half_open and not self.released:
            self.half_open = False
            self._limiter._half_open_ended(self.group)

    def release(self) -> None:
        """The connection has ended. Idempotent."""
        if not self.released:
            self.established()
            self.released = True
            self._limiter._ended(self)


class ConnectionLimiter:
    """Counts connections and says no. `refused` counts the noes by limit, for metrics."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.total = 0
        self.inbound = 0
        self.half_open = 0
        self.refused: Counter[str] = Counter()
        self._by_group: Counter[str] = Counter()
        self._half_open_by_group: Counter[str] = Counter()

    @property
    def most_of_ip(self) -> int:
        """Connections of the IP address (or /64) that has most."""
        return max(self._by_group.values(), default=0)

    @property
    def most_half_open_of_ip(self) -> int:
        """The same of those that aren't admitted yet."""
        return max(self._half_open_by_group.values(), default=0)

    def accept(self, host: str) -> Lease:
        """A place for a connection that `host` has opened to us. Raises LimitError."""
        group, limits = ip_group(host), self.limits
        self._check("max_inbound", self.inbound, limits.max_inbound, "inbound connections")
        self._check("max_half_open", self.half_open, limits.max_half_open, "connections not yet admitted")
        self._check(
            "max_half_open_per_ip",
            self._half_open_by_group[group],
            limits.max_half_open_per_ip,
            f"connections not yet admitted from {group}",
        )
        lease = self._new(host, inbound=True)
        self.inbound += 1
        self.half_open += 1
        self._half_open_by_group[group] += 1
        return lease

    def dialled(self, host: str) -> Lease:
        """A place for a connection that we have opened to `host`. Raises LimitError."""
        return self._new(host, inbound=False)

    def _new(self, host: str, *, inbound: bool) -> Lease:
        group, limits = ip_group(host), self.limits
        self._check("max_connections", self.total, limits.max_connections, "connections")
        self._check(
            "max_connections_per_ip", self._by_group[group], limits.max_connections_per_ip, f"connections with {group}"
        )
        self.total += 1
        self._by_group[group] += 1
        return Lease(self, host, inbound=inbound)

    def _check(self, name: str, used: int, limit: int, what: str) -> None:
        if used >= limit:
            self.refused[name] += 1
            raise LimitError(f"there are {used} {what}, and {name} is {limit}")

    def _half_open_ended(self, group: str) -> None:
        self.half_open -= 1
        _decrement(self._half_open_by_group, group)

    def _ended(self, lease: Lease) -> None:
        self.total -= 1
        if lease.inbound:
            self.inbound -= 1
        _decrement(self._by_group, lease.group)


def _decrement(counter: Counter[str], key: str) -> None:
    """Counts down and forgets zeros, so that the table is no larger than what is open."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
