"""`/dnsaddr/NAME`: the addresses that a name's owner keeps in the DNS (libp2p's addressing specification).

    /dnsaddr/example.org/p2p/PEER  -->  TXT of _dnsaddr.example.org
                                            "dnsaddr=/ip4/192.0.2.1/tcp/4001/p2p/PEER"
                                            "dnsaddr=/dnsaddr/eu.example.org/p2p/PEER"  -->  TXT ...

What follows the name must stand at the end of what it resolves to: with /p2p/PEER only that peer's addresses count.
A name's owner decides what comes back, so all is bounded: MAX_DEPTH names deep, MAX_LOOKUPS names in all, each asked
once (so loops end), MAX_ADDRS addresses and names, `timeout` seconds over everything. A name that can't be resolved, or
a record that is no address, doesn't hide what others gave. Left to the caller: whether an address can be dialled, and
asking again later.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable

import trio
from multiaddr import Multiaddr

from node.errors import VouchError
from node.log import get_logger

MAX_DEPTH = 4
MAX_LOOKUPS = 32
MAX_ADDRS = 64
MAX_TEXTS = 128
TIMEOUT = 10.0

_PREFIX = "dnsaddr="
_NAMED = re.compile(r"/dnsaddr/([^/\s]{1,253})((?:/[!-.0-~]+)*)")
_ADDR = re.compile(r"(?:/[!-.0-~]+)+")

log = get_logger("dnsaddr")


class ResolveError(VouchError):
    """A name gave no address; the text says which, and what came instead."""


class Resolver(typing.Protocol):
    """Asks the DNS."""

    async def txt(self, name: str) -> list[str]:
        """The TXT records of a name, each with its strings joined. Raises ResolveError."""
        ...


class DnsResolver:
    """dnspython's, with the servers that the system names, or those given."""

    def __init__(self, servers: Iterable[str] = (), port: int = 53) -> None:
        """`servers` are IP addresses."""
        self._servers = list(servers)
        self._port = port

    async def txt(self, name: str) -> list[str]:
        import dns.asyncresolver  # 200 ms, which nodes without such names needn't spend
        import dns.exception

        try:
            resolver = dns.asyncresolver.Resolver(configure=not self._servers)
            if self._servers:
                resolver.nameservers = list(self._servers)
                resolver.port = self._port
            answer = await resolver.resolve(f"{name}.", "TXT")
        except (dns.exception.DNSException, OSError) as error:
            raise ResolveError(f"{name}: {error}") from error
        return [b"".join(record.strings).decode("utf-8", "replace") for record in answer]


def is_named(addr: str) -> bool:
    """Whether an address is a name that `resolve` resolves."""
    return addr.startswith("/dnsaddr/")


async def resolve(addr: str, resolver: Resolver | None = None, *, timeout: float = TIMEOUT) -> list[str]:
    """The addresses that a multiaddr stands for, in the order of the records.

    That is itself if it doesn't begin with /dnsaddr/. `timeout` is in seconds; what was found within it is returned.
    Raises ResolveError if nothing was.
    """
    if not is_named(addr):
        return [addr]
    search = _Search(resolver or DnsResolver())
    with trio.move_on_after(timeout) as scope:
        await search.follow(addr, search.found, 1)
    if scope.cancelled_caught:
        search.failures.append(f"no answer within {timeout:g} s")
    found = list(dict.fromkeys(_flat(search.found)))
    if not found:
        reason = "; ".join(dict.fromkeys(search.failures)) or "its TXT records hold no address that fits"
        raise ResolveError(f"{addr}: expected addresses, got none: {reason}")
    for failure in search.failures:
        log.debug("dnsaddr_in_part", addr=addr, error=failure)
    return found


# addresses, and in the place of a name what it gives, so that the order doesn't depend on who answers first
_Found: typing.TypeAlias = "list[str | _Found]"


def _flat(found: _Found) -> Iterable[str]:
    for one in found:
        if isinstance(one, str):
            yield one
        else:
            yield from _flat(one)


class _Search:
    """One resolution: what was found, and what was asked."""

    def __init__(self, resolver: Resolver) -> None:
        self.found: _Found = []
        self.failures: list[str] = []
        self._resolver = resolver
        self._followed: set[str] = set()
        self._asked: dict[str, _Texts] = {}
        self._room = MAX_ADDRS

    async def follow(self, addr: str, into: _Found, depth: int) -> None:
        """Adds what one name gives."""
        match = _NAMED.fullmatch(addr)
        if match is None:
            self._fail(f"expected /dnsaddr/NAME, got {addr[:300]!r}")
            return
        name, suffix = match[1].rstrip(".").lower(), match[2]
        if depth > MAX_DEPTH:
            self._fail(f"{name}: more than {MAX_DEPTH} names deep")
            return
        if addr in self._followed:
            return
        self._followed.add(addr)
        names: list[tuple[str, _Found]] = []
        for text in await self._texts(name):
            target = text.removeprefix(_PREFIX)
            if target == text or not target.endswith(suffix) or self._room == 0:
                continue
            self._room -= 1
            if is_named(target):
                names.append((target, []))
                into.append(names[-1][1])
            elif _is_addr(target):
                into.append(target)
            else:
                self._fail(f"{name}: expected an address in its records, got {target[:300]!r}")
        async with trio.open_nursery() as nursery:
            for target, place in names:
                nursery.start_soon(self.follow, target, place, depth + 1)

    async def _texts(self, name: str) -> list[str]:
        """A name's records, asked for once."""
        texts = self._asked.get(name)
        if texts is not None:
            await texts.ready.wait()
            return texts.records
        if len(self._asked) >= MAX_LOOKUPS:
            self._fail(f"more than {MAX_LOOKUPS} names")
            return []
        texts = self._asked[name] = _Texts()
        try:
            texts.records = (await self._resolver.txt(f"_dnsaddr.{name}"))[:MAX_TEXTS]
        except ResolveError as error:
            self._fail(str(error))
        texts.ready.set()
        return texts.records

    def _fail(self, why: str) -> None:
        if len(self.failures) < MAX_LOOKUPS:
            self.failures.append(why)


def _is_addr(text: str) -> bool:
    if not _ADDR.fullmatch(text):
        return False
    try:
        Multiaddr(text)
    except Exception:  # each codec of the library fails in its own way
        return False
    return True


class _Texts:
    def __init__(self) -> None:
        self.ready = trio.Event()
        self.records: list[str] = []
