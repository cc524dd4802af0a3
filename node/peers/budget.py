"""How often one IP address is dialled because of what strangers say of it. Rules only: `now` comes from the caller.

    each IP: `burst` dials at once, one more every `period` seconds
    a dial that succeeds is given back: whoever answers as itself is no victim
    a dial that fails doubles the period, up to `longest`; not that of names

A signed record proves who wrote it, not that the addresses in it are its writer's: without this, anybody could aim a
whole network at a victim, or have us try one port after the other. It counts by IP address, and an IPv6 /64 as one,
whatever the peer and the port; a name counts as its last two labels, since whoever has a domain has any number of names
in it, and all may lead to one victim. Under some of them (co.uk, duckdns.org, libp2p.direct) are many who don't know
each other: there a stranger's failures slow nobody down, and whoever succeeds gives back what it took. Loopback is
exempt: those dials reach nobody else. The table is bounded: past `capacity` the address that was dialled longest ago
is forgotten.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from node.peers.limits import ip_group
from node.peers.reach import CACHED, Reach, reach_of_ip


@lru_cache(maxsize=CACHED)
def _group(host: str) -> str:
    """What has one account."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ".".join(host.lower().rstrip(".").split(".")[-2:])
    return ip_group(host)


@dataclass(slots=True)
class _Account:
    tokens: float
    at: float
    period: float


class DialBudget:
    """Says whether an IP address may be dialled now. `refused` counts the noes, for metrics.

    Only for addresses that others have named and nobody has tested; those that worked, and an operator's own, are free.
    """

    def __init__(
        self, *, burst: int = 4, period: float = 60.0, longest: float = 3600.0, capacity: int = 10_000
    ) -> None:
        if burst < 1 or period <= 0 or longest < period or capacity < 1:
            raise ValueError(f"expected burst, period and capacity above 0, longest >= {period}, got {longest}")
        self.burst = burst
        self.period = period
        self.longest = longest
        self.capacity = capacity
        self.refused = 0
        self._accounts: dict[str, _Account] = {}

    def take(self, ip: str, now: float) -> bool:
        """Whether `ip` may be dialled now; if so, that is counted."""
        if reach_of_ip(ip) is Reach.LOOPBACK:
            return True
        group = _group(ip)
        account = self._settled(group, now)
        if account.tokens < 1:
            self.refused += 1
            return False
        account.tokens -= 1
        # to the end: the order is that of the last dial
        self._accounts.pop(group, None)
        if len(self._accounts) >= self.capacity:
            del self._accounts[next(iter(self._accounts))]
        self._accounts[group] = account
        return True

    def wait(self, ip: str, now: float) -> float:
        """Seconds until `ip` may be dialled; 0 if it may now."""
        if reach_of_ip(ip) is Reach.LOOPBACK:
            return 0.0
        account = self._settled(_group(ip), now)
        return max(0.0, 1 - account.tokens) * account.period

    def succeeded(self, ip: str, now: float) -> None:
        """A dial that was taken has led to the peer that was meant: it is given back, failures are forgotten."""
        account = self._accounts.get(_group(ip))
        if account is not None:
            self._settle(account, now)
            account.tokens = min(float(self.burst), account.tokens + 1)
            account.period = self.period

    def failed(self, ip: str, now: float) -> None:
        """A dial that was taken has led nowhere, or to somebody else."""
        account = self._accounts.get(_group(ip))
        if account is not None and reach_of_ip(ip) is not None:
            self._settle(account, now)
            account.period = min(self.longest, 2 * account.period)

    def forgive(self, since: float) -> None:
        """Forgets what was dialled at `since` or later: it was our own network that was away."""
        for group in [group for group, account in self._accounts.items() if account.at >= since]:
            del self._accounts[group]

    def _settled(self, group: str, now: float) -> _Account:
        account = self._accounts.get(group)
        if account is None:
            return _Account(float(self.burst), now, self.period)
        self._settle(account, now)
        return account

    def _settle(self, account: _Account, now: float) -> None:
        account.tokens = min(float(self.burst), account.tokens + max(0.0, now - account.at) / account.period)
        account.at = max(account.at, now)

    def __len__(self) -> int:
        return len(self._accounts)
