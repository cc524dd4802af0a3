"""The in-memory network of the tests: many hosts in one process, in simulated time.

    async with MemNet(seed=1, latency=0.02) as net:
        a, b = mem_node(net, "10.0.0.1"), mem_node(net, "10.0.0.2")       whole nodes, on MemTransport
        x, y = net.node("10.0.1.1", [PING]), net.node("10.0.1.2", [PING]) light ones, without libp2p

    Node  -- libp2p, Noise, Yamux -- MemTransport --+
                                                    +-- MemNet: connect, listen -- memlink: pipes, loss, partitions
    MemNode -- the node's own Registry -- PipeBytes-+

Use it under pytest-trio's `autojump_clock`, which each test names itself: pytest-trio doesn't see it behind a fixture.
Three forms, from the nearest to the real thing to the cheapest: a `Node` over
`net.transport(ip)` runs everything but the kernel's TCP; a `MemNode` runs the protocols and the registry with its
bounds, each stream on a pipe of its own (a simulation may have thousands); `net.pipe` gives two ends and nothing else.

The net draws its own chance from `seed`. Trio shuffles its tasks, and nodes draw chance of their own: who wants a whole
run to repeat itself exactly wraps it in `scheduling(seed)` and gives its parts seeds too.
"""

from __future__ import annotations

import errno
import hashlib
import math
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import trio
from libp2p.abc import IListener, IRawConnection, ITransport
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

from node import Config, Identity, Node
from node.errors import DialError
from node.registry import Registry, StreamLimitError
from protocols import (
    NotConnected,
    NotSupported,
    Protocol,
    ProtocolError,
    Stream,
    StreamError,
    StreamReset,
    StreamTimeout,
)
from protocols.framing import FrameDecoder, encode_frame
from protocols.gossip import GossipParams
from tests.memlink import WINDOW, Link, Links, PipeEnd

__all__ = [
    "WINDOW",
    "Link",
    "MemListener",
    "MemNet",
    "MemNode",
    "MemTransport",
    "PipeBytes",
    "PipeEnd",
    "mem_node",
    "scheduling",
]

PORT = 4001
FIRST_FREE_PORT = 49152
NEGOTIATION_TIMEOUT = 10.0
SOME_DAY = 1.8e9

_YES, _NO = b"\x01", b"\x00"

Accept = Callable[[PipeEnd], None]


class MemNet(Links):
    """The network. As an async context manager it owns the tasks of its light nodes; none is left at its end."""

    nursery: trio.Nursery

    def __init__(self, *args: Any, **more: Any) -> None:
        """Takes what `Links` takes: seed, latency, loss, bandwidth, give_up, window."""
        super().__init__(*args, **more)
        self.nodes: dict[str, MemNode] = {}
        self._listening: dict[tuple[str, int], Accept] = {}
        self._last_port: Counter[str] = Counter()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    async def __aenter__(self) -> MemNet:
        self._manager = trio.open_nursery()
        self.nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self.nursery.cancel_scope.cancel()
        try:
            if isinstance(error, Exception):  # the block's own: it goes on as it is, not in a group
                await self._manager.__aexit__(None, None, None)
                return False
            return await self._manager.__aexit__(kind, error, trace)
        finally:
            if self._folder is not None:
                self._folder.cleanup()

    def folder(self, ip: str) -> Path:
        """A data folder for a host's node; it goes with the net."""
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="memnet-")
        return Path(self._folder.name) / ip

    # connections

    def listen(self, ip: str, port: int, accept: Accept) -> int:
        """Calls `accept` with each connection to the port, of which 0 means a free one. The port. Raises OSError."""
        port = port or self._free_port(ip)
        if (ip, port) in self._listening:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self._listening[ip, port] = accept
        return port

    def unlisten(self, ip: str, port: int) -> None:
        """Frees the port; connections go on. Idempotent."""
        self._listening.pop((ip, port), None)

    async def connect(self, source: str, target: str, port: int) -> PipeEnd:
        """A connection, after one round trip. Hangs while a partition is in the way, for `give_up` seconds at most.

        Raises ConnectionRefusedError after one round trip if nobody listens there, TimeoutError.
        """
        deadline = trio.current_time() + self.give_up
        with trio.CancelScope(deadline=deadline):
            while True:
                if not self.cut(source, target):
                    await trio.sleep(2 * self.link(source, target).latency)
                    if not self.cut(source, target):
                        break
                await self._changed.wait()
            accept = self._listening.get((target, port))
            if accept is None:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
            ours, theirs = self.pipe(source, target, a_port=self._free_port(source), b_port=port)
            accept(theirs)
            return ours
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    def _free_port(self, ip: str) -> int:
        while True:
            port = FIRST_FREE_PORT + self._last_port[ip] % (65536 - FIRST_FREE_PORT)
            self._last_port[ip] += 1
            if (ip, port) not in self._listening:
                return port

    # what runs on the hosts

    def transport(self, ip: str) -> MemTransport:
        """The host's network card, for a `Node`."""
        return MemTransport(self, ip)

    def node(self, ip: str, protocols: Iterable[Protocol] = ()) -> MemNode:
        """A light node on a host that has none yet. It listens at once."""
        return MemNode(self, ip, protocols)


@contextmanager
def scheduling(seed: int) -> Iterator[None]:
    """Makes trio run its tasks in an order that depends on `seed` alone (trio's own switch for testing tools)."""
    runner: Any = trio._core._run
    before, state = runner._ALLOW_DETERMINISTIC_SCHEDULING, runner._r.getstate()
    runner._ALLOW_DETERMINISTIC_SCHEDULING = True
    runner._r.seed(seed)
    try:
        yield
    finally:
        runner._ALLOW_DETERMINISTIC_SCHEDULING = before
        runner._r.setstate(state)


# for whole nodes


def mem_node(
    net: MemNet,
    ip: str,
    *,
    protocols: Iterable[Protocol] = (),
    identity: Identity | None = None,
    gossip_params: GossipParams | None = None,
    **config: Any,
) -> Node:
    """A `Node` on the host, listening on port 4001, without heartbeats and pool, unless `config` says otherwise. Run it
    with `async with`.
    """
    settings = {
        "listen": (f"/ip4/{ip}/tcp/{PORT}",),
        "data_dir": net.folder(ip),
        "heartbeat": "off",
        "pool": "off",
        "dht_store": "memory",  # a clock that jumps knows nothing of threads
    } | config
    return Node(
        Config(**settings),
        identity=identity or Identity.generate(),
        protocols=protocols,
        transports=[net.transport(ip)],
        gossip_params=gossip_params,
        clock=_unix_time,
    )


def _unix_time() -> float:
    """Simulated: some day, and what has passed since on trio's clock."""
    try:
        return SOME_DAY + trio.current_time()
    except RuntimeError:
        return SOME_DAY  # nothing runs yet


class MemTransport(ITransport):
    """A host's transport over /ip4/IP/tcp/PORT. Its streams are py-libp2p's `TrioTCPStream`s, on pipes for sockets."""

    def __init__(self, net: MemNet, ip: str) -> None:
        self.net = net
        self.ip = ip

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        """One round trip. Raises OpenConnectionError."""
        host, port = _host_and_port(maddr)
        try:
            end = await self.net.connect(self.ip, host, port)
        except OSError as error:
            raise OpenConnectionError(f"can't dial {maddr}: {error.strerror}") from error
        return RawConnection(TrioTCPStream(end), True)  # type: ignore[arg-type]

    def create_listener(self, handler_function: Callable[[TrioTCPStream], Awaitable[None]]) -> MemListener:
        return MemListener(self.net, self.ip, handler_function)

    def can_dial(self, maddr: Multiaddr) -> bool:
        return [protocol.name for protocol in maddr.protocols()][:2] == ["ip4", "tcp"]

    def can_listen(self, maddr: Multiaddr) -> bool:
        return self.can_dial(maddr)

    def protocols(self) -> list[str]:
        return ["tcp"]


class MemListener(IListener):
    """Accepts connections on one port of its host; each handler runs in `background_nursery`, as TcpListener's do."""

    background_nursery: trio.Nursery

    def __init__(self, net: MemNet, ip: str, handler: Callable[[TrioTCPStream], Awaitable[None]]) -> None:
        self._net = net
        self._ip = ip
        self._handler = handler
        self._port: int | None = None

    async def listen(self, maddr: Multiaddr) -> None:
        """Starts to accept. Raises OpenConnectionError for a port in use, or an address that isn't the host's."""
        host, port = _host_and_port(maddr)
        try:
            if host not in (self._ip, "0.0.0.0"):
                raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
            self._port = self._net.listen(self._ip, port, self._accept)
        except OSError as error:
            raise OpenConnectionError(f"can't listen on {maddr}: {error.strerror}") from error
        await trio.lowlevel.checkpoint()

    def _accept(self, end: PipeEnd) -> None:
        self.background_nursery.start_soon(self._handler, TrioTCPStream(end))  # type: ignore[arg-type]

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        """The address that is bound, the real port in it."""
        return () if self._port is None else (Multiaddr(f"/ip4/{self._ip}/tcp/{self._port}"),)

    async def close(self) -> None:
        """Accepts no more. Idempotent."""
        if self._port is not None:
            self._net.unlisten(self._ip, self._port)
            self._port = None
        await trio.lowlevel.checkpoint()


def _host_and_port(maddr: Multiaddr) -> tuple[str, int]:
    return str(maddr.value_for_protocol("ip4")), int(str(maddr.value_for_protocol("tcp")))


# light nodes


class PipeBytes:
    """A pipe's end as a `protocols.ByteStream`, as `node.streams.ConnStream` is a muxer's stream."""

    leaving = False

    def __init__(self, end: PipeEnd) -> None:
        self.end = end

    def receive_nowait(self, max_bytes: int) -> bytes:
        return b""

    def send_nowait(self, data: bytes) -> bool:
        return False

    async def receive_some(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with trio.fail_after(math.inf if timeout is None else timeout):
            return await self._sure(self.end.receive_some(max_bytes))

    async def send_all(self, data: bytes) -> None:
        await self._sure(self.end.send_all(data))

    async def send_eof(self) -> None:
        await self._sure(self.end.send_eof())

    async def aclose(self) -> None:
        await self.end.aclose()

    async def reset(self) -> None:
        self.end.reset()
        await trio.lowlevel.checkpoint()

    async def _sure(self, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise StreamReset(f"the stream was reset: {error}") from error


class MemNode:
    """A node without libp2p: `protocols.Network` on one side, the node's own registry on the other.

    Connecting costs one round trip and needs no handshake; opening a stream costs one more, in which the protocol is
    agreed on. Its identity follows from its IP, so that it is the same in every run.
    """

    def __init__(self, net: MemNet, ip: str, protocols: Iterable[Protocol] = ()) -> None:
        if ip in net.nodes:
            raise ValueError(f"there is a node on {ip} already")
        self.net = net
        self.ip = ip
        self.identity = Identity(hashlib.sha256(f"memnet {ip}".encode()).digest())
        self.registry = Registry(protocols)
        self._connections: dict[str, PipeEnd] = {}
        net.listen(ip, PORT, self._accept)
        net.nodes[ip] = self

    @property
    def peer_id(self) -> str:
        """Its peer ID."""
        return self.identity.peer_id

    def connected_peers(self) -> Sequence[str]:
        """The peers that it is connected with now, in the order of connection."""
        for peer in [peer for peer, end in self._connections.items() if not end.alive]:
            del self._connections[peer]
            self.registry.forget(peer)
        return list(self._connections)

    async def connect(self, other: MemNode) -> None:
        """Connects the two, if they aren't yet. Raises DialError."""
        if other.peer_id in self.connected_peers():
            return
        try:
            end = await self.net.connect(self.ip, other.ip, PORT)
        except OSError as error:
            raise DialError(f"{other.peer_id} can't be reached: {error.strerror}") from error
        self._connections[other.peer_id] = end

    def disconnect(self, other: MemNode) -> None:
        """Resets everything between the two: here at once, there one latency later."""
        self.net.kill(self.ip, other.ip)

    @asynccontextmanager
    async def stream(self, peer: str, protocol: Protocol) -> AsyncIterator[Stream]:
        """A stream to a connected peer, closed at the block's end, reset if the block raises.

        Raises NotConnected, NotSupported if the peer doesn't answer the protocol, StreamError if it can't be had.
        """
        async with await self._open(peer, protocol) as stream:
            yield stream

    def _accept(self, end: PipeEnd) -> None:
        self._connections[self.net.nodes[end.remote[0]].peer_id] = end

    async def _open(self, peer: str, protocol: Protocol) -> Stream:
        if peer not in self.connected_peers():
            raise NotConnected(f"there is no connection to {peer}")
        other = self.net.nodes[self._connections[peer].remote[0]]
        ours, theirs = self.net.pipe(self.ip, other.ip)
        self.net.nursery.start_soon(other._answer, theirs, self.peer_id)
        raw = PipeBytes(ours)
        answer = None
        try:
            with trio.move_on_after(NEGOTIATION_TIMEOUT):
                await raw.send_all(encode_frame(protocol.id.encode(), WINDOW))
                answer = await raw.receive_some(1)
        finally:
            if answer != _YES:
                ours.reset()
        if answer is None:
            raise StreamTimeout(f"{peer} didn't agree on {protocol.id} within {NEGOTIATION_TIMEOUT:g} s")
        if answer != _YES:
            raise NotSupported(f"{peer} doesn't answer {protocol.id}")
        return Stream(raw, protocol, peer)

    async def _answer(self, end: PipeEnd, peer: str) -> None:
        """One stream that `peer` opens, from its negotiation to its end."""
        raw, decoder, proposals = PipeBytes(end), FrameDecoder(WINDOW), list[bytes]()
        slot = None
        try:
            while not proposals:
                proposals = decoder.feed(await raw.receive_some(WINDOW))
            slot = self.registry.open(peer, proposals[0].decode())
            await raw.send_all(_NO if slot is None else _YES)
            if slot is None:
                await raw.aclose()
            else:
                await self.registry.run(slot, raw)
        except (StreamLimitError, StreamError, ProtocolError):
            end.reset()
        finally:
            if slot is not None:
                slot.release()
