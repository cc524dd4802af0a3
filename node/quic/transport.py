"""QUIC for the node: `/ip4/…/udp/PORT/quic-v1`, to listen on and to dial, beside TCP.

Dials leave from a socket that listens, if there is one at the address from which the system would reach the peer, so
that the peer sees where we can be dialled; else from one socket for each family, which stays.
"""

from __future__ import annotations

import hmac
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from libp2p.abc import IListener, IRawConnection, ITransport
from libp2p.crypto.keys import KeyPair
from libp2p.peer.id import ID
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

from node.config import Config
from node.quic.configurations import Configurations, Limits
from node.quic.connection import QuicConnection
from node.quic.datagrams import Address, Datagrams
from node.quic.endpoint import Endpoint
from node.transport import NEXT_IP, by_ip
from node.upgrade.certificate import make_credentials
from protocols import ProtocolError

IPS = ("ip4", "ip6")
NAMES = ("dns", "dns4", "dns6")
# of what a connection may send ahead, what one stream may, and what comes at once
MAX_WINDOW = 8 << 20

Handler = Callable[[Any], Awaitable[None]]


class Quic(ITransport):
    """The QUIC transport of one identity. Its tasks run in `background_nursery`, the swarm's."""

    provides_native_muxing = True
    background_nursery: trio.Nursery | None = None

    def __init__(self, key_pair: KeyPair, config: Config, *, idle_timeout: float = 30.0) -> None:
        window = min(MAX_WINDOW, config.max_connection_window // 2)
        limits = Limits(
            streams=2 * config.max_streams,
            window=window,
            stream_window=min(window, config.max_stream_window) // 2,
            idle_timeout=idle_timeout,
        )
        reset_key = hmac.digest(key_pair.private_key.to_bytes(), b"QUIC stateless reset", "sha256")
        self._configurations = Configurations(make_credentials(key_pair), limits, reset_key)
        self._limits = {
            "max_streams": 2 * config.max_streams,
            "max_unread": config.max_connection_window - window,
            "max_unsent": config.max_unsent,
        }
        self._listening: list[Endpoint] = []
        self._dialling: dict[bool, Endpoint] = {}

    def protocols(self) -> list[str]:
        return ["quic-v1"]

    def set_background_nursery(self, nursery: trio.Nursery) -> None:
        self.background_nursery = nursery

    def can_dial(self, maddr: Multiaddr) -> bool:
        return _is_quic(maddr, (*IPS, *NAMES))

    def can_listen(self, maddr: Multiaddr) -> bool:
        return _is_quic(maddr, IPS)

    def create_listener(self, handler_function: Any) -> Any:
        return QuicListener(self, handler_function)

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        raise OpenConnectionError("QUIC dials a peer, not an address: use dial_peer")

    async def dial_peer(self, maddr: Multiaddr, peer: ID) -> QuicConnection:
        """A secured connection with that peer at that address. Raises OpenConnectionError, ProtocolError."""
        return await self._dial_first([_address(found) for found in await by_ip(maddr)], peer)

    async def _dial_first(self, addrs: Sequence[Address], peer: ID) -> QuicConnection:
        """Tries the addresses of one name in turn, or the only one there is."""
        for addr in addrs[:-1]:
            try:
                with trio.fail_after(NEXT_IP):
                    return await self._from(addr).dial(addr, peer)
            except (OpenConnectionError, ProtocolError, trio.TooSlowError):
                continue
        return await self._from(addrs[-1]).dial(addrs[-1], peer)

    def _from(self, addr: Address) -> Endpoint:
        is_ip6, source = ":" in addr[0], _source(addr)
        for endpoint in self._listening:
            if endpoint.socket.address[0] in (source, "::" if is_ip6 else "0.0.0.0"):
                return endpoint
        found = self._dialling.get(is_ip6)
        if found is not None:
            return found
        if self.background_nursery is None:
            raise OpenConnectionError("this node isn't running")
        try:
            bound = Datagrams.bind("::" if is_ip6 else "0.0.0.0", 0)
        except OSError as error:
            raise OpenConnectionError(f"can't dial {addr[0]}: {error.strerror or error}") from error
        endpoint = self._dialling[is_ip6] = Endpoint(bound, self._configurations, self._limits)
        self.background_nursery.start_soon(self._run_dialling, is_ip6, endpoint)
        return endpoint

    async def _run_dialling(self, is_ip6: bool, endpoint: Endpoint) -> None:
        try:
            await endpoint.run()
        finally:
            if self._dialling.get(is_ip6) is endpoint:
                del self._dialling[is_ip6]

    def listen(self, host: str, port: int, accept: Callable[[QuicConnection], None]) -> Endpoint:
        """A bound endpoint, to be run. Raises OSError."""
        endpoint = Endpoint(Datagrams.bind(host, port), self._configurations, self._limits, accept)
        self._listening.append(endpoint)
        return endpoint

    def forget(self, endpoint: Endpoint) -> None:
        if endpoint in self._listening:
            self._listening.remove(endpoint)


class QuicListener(IListener):
    """Accepts connections on one multiaddr, in the nursery named by `background_nursery`."""

    background_nursery: trio.Nursery

    def __init__(self, transport: Quic, handler: Handler) -> None:
        self._transport = transport
        self._handler = handler
        self._endpoint: Endpoint | None = None

    async def listen(self, maddr: Multiaddr) -> None:
        """Binds and starts to accept. Raises OpenConnectionError with the system's reason."""
        host, port = _address(maddr)
        try:
            endpoint = self._endpoint = self._transport.listen(host, port, self._accepted)
        except OSError as error:
            raise OpenConnectionError(f"can't listen on {maddr}: {error.strerror or error}") from error
        self.background_nursery.start_soon(self._run, endpoint)
        await trio.lowlevel.checkpoint()

    async def _run(self, endpoint: Endpoint) -> None:
        try:
            await endpoint.run()
        finally:
            self._transport.forget(endpoint)

    def _accepted(self, conn: QuicConnection) -> None:
        self.background_nursery.start_soon(self._handler, conn)

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        """The address that is bound, the real port in it; a wildcard stays one."""
        if self._endpoint is None:
            return ()
        host, port = self._endpoint.socket.address[:2]
        return (Multiaddr(f"/{'ip6' if ':' in host else 'ip4'}/{host}/udp/{port}/quic-v1"),)

    async def close(self) -> None:
        """Accepts no more; the socket stays until its connections, which are the swarm's, have ended. Idempotent."""
        if self._endpoint is not None:
            self._transport.forget(self._endpoint)
            self._endpoint.close()
        await trio.lowlevel.checkpoint()


def _is_quic(maddr: Multiaddr, hosts: tuple[str, ...]) -> bool:
    names = [protocol.name for protocol in maddr.protocols()]
    return names[1:3] == ["udp", "quic-v1"] and names[0] in hosts and names[3:] in ([], ["p2p"])


def _address(maddr: Multiaddr) -> Address:
    """Of `/ip4/HOST/udp/PORT/…`."""
    _, _, host, _, port, *_ = str(maddr).split("/")
    return host, int(port)


def _source(addr: Address) -> str:
    """The address from which the system would send to `addr`. Raises OpenConnectionError if there is no way there."""
    with socket.socket(socket.AF_INET6 if ":" in addr[0] else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(addr)  # sends nothing
        except OSError as error:
            raise OpenConnectionError(f"can't dial {addr[0]}: {error.strerror or error}") from error
        return str(probe.getsockname()[0])
