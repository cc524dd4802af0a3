"""Kademlia on light nodes of the in-memory network: ours, and py-libp2p's beside it on the same hosts and links.

    async with MemNet(seed=1) as net:
        hosts = [KadHost(net, ip) for ip in ips]          ours; StockHost is py-libp2p's
        await join(hosts)                                 all know the first, then look around
        die(net, hosts, dead)                             these answer nothing any more; their links time out

A connection costs one round trip, a stream one more. A peer that couldn't be dialled isn't dialled again before its
backoff is over, as the node's dialler has it, for both.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from node.dialer import UNREACHABLE_FIRST, UNREACHABLE_LONGEST
from node.errors import DialError
from node.peers.backoff import Backoff
from node.peers.reach import subnet_of
from node.peers.store import BoundedPeerStore
from node.streams import AsNetStream
from protocols import NotConnected, Protocol, StreamError, StreamTimeout
from protocols.kad.keyspace import point, to_bytes, to_text
from protocols.kad.service import Kademlia
from tests.memnet import PORT, MemNet, MemNode

PROTOCOL = "/vouch/test/kad/1.0.0"
DIAL_TIMEOUT = 15.0
NEVER = 7 * 24 * 3600


def addr_of(ip: str) -> bytes:
    """The address of a light node."""
    return b"\x04" + ipaddress.IPv4Address(ip).packed + b"\x06" + PORT.to_bytes(2, "big")


def ip_of(addr: bytes) -> str:
    """The light node that has an address; "" if none can."""
    return str(ipaddress.IPv4Address(addr[1:5])) if len(addr) >= 5 and addr[0] == 4 else ""


class _Base:
    """A light node with a dialler's memory."""

    def __init__(self, net: MemNet, ip: str) -> None:
        self.net = net
        self.ip = ip
        self.node = MemNode(net, ip)
        self.id = to_bytes(self.node.peer_id)
        self.unreachable = Backoff(UNREACHABLE_FIRST, UNREACHABLE_LONGEST, capacity=10_000, rng=random.Random(ip))
        self.dials = 0

    async def dial(self, peer: bytes, addrs: Iterable[bytes]) -> None:
        name = to_text(peer)
        if name in self.node.connected_peers():
            return
        if self.unreachable.remaining(name, trio.current_time()):
            raise NotConnected(f"{name} couldn't be reached lately")
        ips = [ip_of(addr) for addr in addrs]
        other = next((node for ip in ips if (node := self.net.nodes.get(ip)) and node.peer_id == name), None)
        self.dials += 1
        reached = False
        try:
            with trio.move_on_after(DIAL_TIMEOUT):
                if other is None:
                    raise StreamError(f"nobody is {name} at {ips}")
                await self.node.connect(other)
                reached = True
        except DialError as error:
            raise StreamError(str(error)) from error
        finally:
            if not reached:
                self.unreachable.failed(name, trio.current_time())
        if not reached:
            raise StreamTimeout(f"{name} can't be reached")
        self.unreachable.succeeded(name)
        await self.met(peer)
        host = HOSTS[self.net].get(name)
        if host is not None:
            await host.met(self.id)

    async def met(self, peer: bytes) -> None:
        """Both have said which protocols they serve."""


HOSTS: dict[MemNet, dict[str, _Base]] = {}


def _register(net: MemNet, host: _Base) -> None:
    HOSTS.setdefault(net, {})[host.node.peer_id] = host


class KadHost(_Base):
    """A light node with our Kademlia; it is its own `Links`."""

    def __init__(self, net: MemNet, ip: str, **options: Any) -> None:
        super().__init__(net, ip)
        self.heard: dict[bytes, tuple[bytes, ...]] = {}
        self.kad = Kademlia(
            self.node, self, PROTOCOL, **{"rng": random.Random(ip), "wall": trio.current_time} | options
        )
        if self.kad.serves:
            self.node.registry.add(self.kad.protocol)
        _register(net, self)

    async def met(self, peer: bytes) -> None:
        host = HOSTS[self.net].get(to_text(peer))
        if not isinstance(host, KadHost) or host.kad.serves:
            self.kad.serving(peer)

    async def look_up(self, key: bytes) -> list[bytes]:
        return await self.kad.closest(key)

    async def refresh(self) -> None:
        await self.kad.refresh(0.0)

    # Links

    def is_connected(self, peer: bytes) -> bool:
        return to_text(peer) in self.node.connected_peers()

    def told(self, peer: bytes, asker: bytes) -> tuple[bytes, ...]:
        host = HOSTS[self.net].get(to_text(peer))
        return (addr_of(host.ip),) if host is not None else self.heard.get(peer, ())

    def shown(self, addrs: Sequence[bytes], asker: bytes) -> tuple[bytes, ...]:
        return tuple(addrs)

    def believed(self, addrs: Sequence[bytes], sender: bytes) -> tuple[bytes, ...]:
        return tuple(addrs)

    def subnet(self, peer: bytes) -> str | None:
        host = HOSTS[self.net].get(to_text(peer))
        return subnet_of(host.ip) if host is not None and ipaddress.ip_address(host.ip).is_global else None

    def own_addrs(self) -> tuple[bytes, ...]:
        return (addr_of(self.ip),)

    async def connect(self, peer: bytes, addrs: Sequence[bytes]) -> None:
        await self.dial(peer, addrs)

    def found(self, peer: bytes, addrs: Sequence[bytes], sender: bytes) -> None:
        self.heard[peer] = tuple(addrs)


class StockHost(_Base):
    """A light node with py-libp2p's Kademlia, which sees it as a host."""

    def __init__(self, net: MemNet, ip: str) -> None:
        super().__init__(net, ip)
        self.peer_id = ID(self.id)
        self.store = BoundedPeerStore(10_000)
        self.kad = KadDHT(self, DHTMode.SERVER, strict_validation=True)  # type: ignore[arg-type]
        # twelve at most are served, and refused ones would be counted as dead: the comparison is about look-ups
        self.kad._inbound_limiter.total_tokens = 1024
        _register(net, self)

    async def met(self, peer: bytes) -> None:
        host = HOSTS[self.net].get(to_text(peer))
        if host is not None:
            self.store.add_addrs(ID(peer), [Multiaddr(addr_of(host.ip))], NEVER)
            await self.kad.routing_table.add_peer(ID(peer), skip_server_mode_check=True)

    async def look_up(self, key: bytes) -> list[bytes]:
        found = await self.kad.peer_routing.find_closest_peers_network(key)
        return [peer.to_bytes() for peer in found]

    async def refresh(self) -> None:
        await self.kad.peer_routing.refresh_routing_table()

    # py-libp2p's host

    def get_id(self) -> ID:
        return self.peer_id

    def get_peerstore(self) -> BoundedPeerStore:
        return self.store

    def get_addrs(self) -> list[Multiaddr]:
        return [Multiaddr(addr_of(self.ip))]

    def get_connected_peers(self) -> list[ID]:
        return [ID.from_base58(peer) for peer in self.node.connected_peers()]

    def set_stream_handler(self, protocol: TProtocol, handler: Callable[[Any], Awaitable[None]]) -> None:
        async def handle(stream: Any) -> None:
            await handler(AsNetStream(stream, ID.from_base58(stream.peer)))

        self.node.registry.add(
            Protocol(str(protocol), max_frame=None, timeout=60.0, streams_per_peer=64, handler=handle)
        )

    async def connect(self, info: PeerInfo) -> None:
        await self.dial(info.peer_id.to_bytes(), [addr.to_bytes() for addr in info.addrs])

    async def new_stream(self, peer_id: ID, protocols: Sequence[TProtocol]) -> AsNetStream:
        if str(peer_id) not in self.node.connected_peers():
            await self.dial(peer_id.to_bytes(), [addr.to_bytes() for addr in self.store.addrs(peer_id)])
        protocol = Protocol(str(protocols[0]), max_frame=None, timeout=60.0)
        return AsNetStream(await self.node._open(str(peer_id), protocol), peer_id)


async def join(hosts: Sequence[Any], rounds: int = 2) -> None:
    """All connect with the first and look around, one after the other, `rounds` times."""
    for host in hosts[1:]:
        await host.dial(hosts[0].id, [addr_of(hosts[0].ip)])
    for _ in range(rounds):
        for host in hosts:
            await host.refresh()


def die(net: MemNet, hosts: Sequence[Any], dead: Sequence[Any]) -> None:
    """These are gone, without a word: who dials them waits."""
    gone = [host.ip for host in dead]
    net.partition([host.ip for host in hosts if host not in dead], *([ip] for ip in gone))
    for ip in gone:
        net.kill(ip)


def nearest(hosts: Iterable[Any], key: bytes, count: int = 20) -> list[bytes]:
    """Who is really nearest to a key."""
    return sorted((host.id for host in hosts), key=lambda peer: point(peer) ^ point(key))[:count]
