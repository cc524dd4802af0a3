"""mDNS: peers on the same link, found by multicast and offered to the pool like any others.

    interfaces, looked at each WATCH seconds --come--> a link for IPv4, one for IPv6: its socket, its engine
                                             --go----> the link ends;  other addresses: told anew

Port 5353 is shared with whatever else speaks mDNS on the machine. A link's socket is bound to the group and to its
interface: it hears nothing that was sent to another's address or on another link. An interface on which the node
listens at no address is left alone, unless it listens nowhere, and then it only asks. Loopback is always left alone.

By default the service's name is the network's own, the form that the specification keeps for private networks: other
networks' nodes neither hear of us nor we of them. Rules: `protocols/mdns`, `node/discovery/interfaces.py`.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import trio
from multiaddr import Multiaddr

from node.config import Config
from node.discovery.interfaces import Interface, addrs_on, interfaces, near
from node.discovery.source import Feed
from node.hostport import as_multiaddr
from node.log import get_logger
from node.repeats import worth_a_warning
from node.transports import innermost
from protocols.mdns.engine import Engine, Params
from protocols.mdns.wire import MAX_PACKET, Found

PORT = 5353
GROUPS = {4: "224.0.0.251", 6: "ff02::fb"}
HOPS = 255
# seconds between looks at the interfaces; a link that failed is left alone for RETRY
WATCH = 3.0
RETRY = 30.0
# seconds between two times that the pool's want makes us ask
ASK_PAUSE = 10.0
MAX_INTERFACES = 32
# Linux gives a socket what any other has joined, on any interface, unless told not to; Python names neither
_IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 49, 29

log = get_logger("mdns")

Key = tuple[str, int, int]


def private_service(network_id: bytes) -> str:
    """The service name of a network: `_p2p-X._udp.local`, X being 16 hex digits of the SHA-256 of its ID."""
    return f"_p2p-{hashlib.sha256(network_id).hexdigest()[:16]}._udp.local"


@dataclass
class Link:
    """An interface and an IP version."""

    interface: Interface
    version: int
    engine: Engine
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    changed: trio.Event = field(default_factory=trio.Event)

    def tell(self) -> None:
        """The engine may want to wake at another time."""
        self.changed.set()
        self.changed = trio.Event()


class Mdns:
    """The source `mdns`."""

    name = "mdns"

    def __init__(
        self,
        peer: str,
        listening: Callable[[], Sequence[str]],
        config: Config,
        *,
        look: Callable[[], Sequence[Interface]] = interfaces,
        rng: random.Random | None = None,
    ) -> None:
        """`listening` gives the multiaddrs that the node is bound to, wildcards as they are."""
        self.peer = peer
        self.service = config.mdns_service or private_service(config.network_id_bytes)
        self.params = Params(interval=config.mdns_interval, max_peers=config.mdns_max_peers)
        self.links: dict[Key, Link] = {}
        self._listening = listening
        self._look = look
        self._rng = rng or random.Random()
        self._failed: dict[Key, float] = {}
        self._failures: Counter[Key] = Counter()  # in a row

    async def run(self, feed: Feed) -> None:
        """Runs until cancelled; says goodbye then."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._answer_want, feed)
            while True:
                self._match(nursery, feed)
                await trio.sleep(WATCH)

    async def _answer_want(self, feed: Feed) -> None:
        """The pool wants more: those known already once more, and a question for the others."""
        while True:
            await feed.wanted()
            now = trio.current_time()
            for link in self.links.values():
                for found in link.engine.known(now):
                    feed.found(found.peer, found.addrs)
                link.engine.ask_now(now)
                link.tell()
            await trio.sleep(ASK_PAUSE)

    def _match(self, nursery: trio.Nursery, feed: Feed) -> None:
        """Links for the interfaces that are there, none for others."""
        now = trio.current_time()
        there = {interface.name: interface for interface in self._usable()}
        for link in self.links.values():
            current = there.get(link.interface.name)
            if current is None or current.index != link.interface.index or not current.has(link.version):
                link.scope.cancel()
                continue
            link.interface = current
            link.engine.check_addrs(now)
            link.tell()
        self._failed = {key: until for key, until in self._failed.items() if until > now}
        for key in [key for key in self._failures if key[0] not in there]:
            del self._failures[key]
        for interface in there.values():
            for version in GROUPS:
                key = interface.name, interface.index, version
                if interface.has(version) and key not in self.links and key not in self._failed:
                    nursery.start_soon(self._keep, key, self._link(interface, version), feed)

    def _usable(self) -> Iterable[Interface]:
        listening = self._listening()
        there = [one for one in self._look() if not listening or addrs_on(one, listening)]
        return there[:MAX_INTERFACES]

    def _link(self, interface: Interface, version: int) -> Link:
        def ours() -> list[str]:
            return addrs_on(link.interface, self._listening())

        engine = Engine(self.service, self.peer, ours, now=trio.current_time(), params=self.params, rng=self._rng)
        link = Link(interface, version, engine)
        self.links[interface.name, interface.index, version] = link
        return link

    async def _keep(self, key: Key, link: Link, feed: Feed) -> None:
        about = {"interface": link.interface.name, "version": link.version}
        try:
            with link.scope, open_socket(link.interface, link.version) as sock:
                self._failures.pop(key, None)
                log.info("mdns_link", service=self.service, **about)
                await self._serve(link, sock, feed)
        except* OSError as failed:
            # an interface that can't multicast, that has gone meanwhile, or whose port somebody keeps to themselves
            error = innermost(failed)
            self._failures[key] += 1
            tell = log.warning if worth_a_warning(self._failures[key]) else log.debug
            tell("mdns_link_failed", error=error, retry_in=RETRY, **about)
            self._failed[key] = trio.current_time() + RETRY
        finally:
            del self.links[key]

    async def _serve(self, link: Link, sock: trio.socket.SocketType, feed: Feed) -> None:
        group = _group(link.interface, link.version)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive, link, sock, feed)
                while True:
                    changed = link.changed
                    with trio.move_on_at(link.engine.next_wakeup):
                        await changed.wait()
                    for packet in link.engine.wake(trio.current_time()):
                        await _send(sock, packet, group)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 0.1):
                for packet in link.engine.goodbye():
                    await _send(sock, packet, group)

    async def _receive(self, link: Link, sock: trio.socket.SocketType, feed: Feed) -> None:
        while True:
            data, sender = await sock.recvfrom(MAX_PACKET + 1)
            before = link.engine.next_wakeup
            source = sender[0].partition("%")[0]

            def usable(found: Found, source: str = source) -> list[str]:
                return [addr for addr in near(link.interface, found.addrs, source) if _is_addr(addr)]

            for found in link.engine.received(data, trio.current_time(), source, usable):
                log.debug("mdns_found", peer=found.peer, addrs=found.addrs, interface=link.interface.name)
                feed.found(found.peer, found.addrs)
            if link.engine.next_wakeup < before:
                link.tell()


def _is_addr(text: str) -> bool:
    try:
        return "p2p-circuit" not in text and bool(str(Multiaddr(text)))
    except Exception:  # each codec of the library fails in its own way
        return False


async def _send(sock: trio.socket.SocketType, packet: bytes, group: tuple[str | int, ...]) -> None:
    try:
        await sock.sendto(packet, group)
    except OSError as error:
        # no route yet, an address that isn't ready: the next packet goes out soon, and a link that has gone is noticed
        log.debug("mdns_not_sent", error=error.strerror or str(error), addr=as_multiaddr(str(group[0])))


def _group(interface: Interface, version: int) -> tuple[str | int, ...]:
    return (GROUPS[4], PORT) if version == 4 else (GROUPS[6], PORT, 0, interface.index)


def open_socket(interface: Interface, version: int) -> trio.socket.SocketType:
    """A socket that speaks with the mDNS group on one interface. Raises OSError."""
    sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        (_join_4 if version == 4 else _join_6)(sock, interface)
        sock.bind(_bound(version, interface))
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return trio.socket.from_stdlib_socket(sock)


def _join_4(sock: socket.socket, interface: Interface) -> None:
    here = next(net.ip.packed for net in interface.nets if net.version == 4)
    group = socket.inet_aton(GROUPS[4])
    if sys.platform == "linux":
        request = group + here + struct.pack("@i", interface.index)  # ip_mreqn: the index decides
        sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
    else:
        request = group + here
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, HOPS)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)


def _join_6(sock: socket.socket, interface: Interface) -> None:
    index = struct.pack("@I", interface.index)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOPS)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
    group = socket.inet_pton(socket.AF_INET6, GROUPS[6])
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + index)


def _bound(version: int, interface: Interface) -> tuple[str | int, ...]:
    """The group itself, so that what was sent to the machine's own port 5353 stays with who else is there."""
    if os.name != "nt":  # which binds no group
        return _group(interface, version)
    return ("", PORT) if version == 4 else ("::", PORT, 0, interface.index)
