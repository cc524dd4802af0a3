"""The node that the programs run: one that takes part in any libp2p network, by settings alone.

Its peers have no handshake of ours (`admission = "open"`), so it asks none of the network's services: no pool, no
exchange, no heartbeat. A peer that dials us is admitted once identify has told that it lists no handshake; one that we
dial, once it has answered `na` to ours: a round trip more than the others of the field take (docs/contracts.md).
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from libp2p.abc import ITransport
from multiaddr import Multiaddr

from interop.contract.failing import UnsupportedError
from interop.contract.redis import Redis
from interop.contract.variables import Variables
from node.config import Config
from node.identity import Identity
from node.node import Node
from node.websocket.transport import WebSocket
from protocols import Protocol
from protocols.gossip import GossipParams

# no node of these programs keeps a file: its key is its own, so nothing is read or written there
NOWHERE = Path("/nonexistent")
MANY = 1024
ALONE: dict[str, Any] = {
    "data_dir": NOWHERE,
    "admission": "open",
    "pool": "off",
    "exchange": "off",
    "heartbeat": "off",
    "dht": "off",
    "gossip": "off",
    # all the machines of a test may be one
    "max_connections": MANY,
    "max_inbound": MANY,
    "max_connections_per_ip": MANY,
    "max_half_open": MANY,
    "max_half_open_per_ip": MANY,
}


def make_node(
    *,
    identity: Identity | None = None,
    protocols: Sequence[Protocol] = (),
    transports: Sequence[ITransport] | None = None,
    gossip_params: GossipParams | None = None,
    **settings: Any,
) -> Node:
    """A node as ALONE says, but for `settings`. Raises UsageError for a setting that makes no sense."""
    return Node(
        Config(**{**ALONE, **settings}),
        identity=identity or Identity.generate(),
        protocols=protocols,
        transports=transports,
        gossip_params=gossip_params,
    )


@asynccontextmanager
async def node_for(variables: Variables, *protocols: Protocol) -> AsyncIterator[Node]:
    """The running node of one program of transport or perf; only a listener listens. Raises UnsupportedError and what
    the node raises.

    The certificates of the suites' WSS listeners are their own, and none is checked: peers prove who they are within.
    """
    settings: dict[str, Any] = {"listen": () if variables.is_dialer else (variables.listen,)}
    if variables.security:
        settings["security"] = variables.security
    with TemporaryDirectory() as folder:
        transports = None
        if variables.transport == "wss":
            file = Path(folder) / "certificate.pem"
            file.write_bytes(self_signed())
            transports = [WebSocket(certificate=file, check=False)]
        node = make_node(protocols=protocols, transports=transports, **settings)
        if not node.swarm.can_dial(Multiaddr(variables.listen)):
            raise UnsupportedError(f"TRANSPORT: expected one that this node offers, got {variables.transport}")
        async with node:
            yield node


def self_signed() -> bytes:
    """A new certificate that nobody has signed but itself, and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vouch")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none)
    return builder.sign(key, hashes.SHA256()).public_bytes(pem) + private


def own_address(addrs: Sequence[str], redis: Redis) -> str:
    """Of a listener's addresses, the one that the other programs of a test reach: it leads to where Redis is; else one
    that isn't the machine itself. Raises UnsupportedError if there is none at all.
    """
    if not addrs:
        raise UnsupportedError("expected an address to listen on, got none")

    def far(addr: str) -> tuple[bool, bool]:
        ip = ipaddress.ip_address(addr.split("/")[2])
        return ip.is_loopback, str(ip) != redis.own_ip

    return min(addrs, key=far)
