"""The node that the programs run: one that takes part in any libp2p network, by settings alone.

Its peers have no handshake of ours (`admission = "open"`), so it asks none of the network's services: no pool, no
exchange, no heartbeat. A peer that dials us is admitted once identify has told that it lists no handshake; one that we
dial, once it has answered `na` to ours: a round trip more than the others of the field take (docs/contracts.md).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multiaddr import Multiaddr

from interop.contract.failing import UnsupportedError
from interop.contract.redis import Redis
from interop.contract.variables import Variables
from node.config import SETTINGS, Config
from node.identity import Identity
from node.node import Node
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
    gossip_params: GossipParams | None = None,
    **settings: Any,
) -> Node:
    """A node as ALONE says, but for `settings`. Raises UnsupportedError for settings that this version hasn't."""
    missing = settings.keys() - SETTINGS.keys()
    if missing:
        raise UnsupportedError(f"expected a node with the settings {', '.join(sorted(missing))}, this one has none")
    config = Config(**{**ALONE, **settings})
    return Node(config, identity=identity or Identity.generate(), protocols=protocols, gossip_params=gossip_params)


def node_for(variables: Variables, *protocols: Protocol) -> Node:
    """The node of one program of transport or perf; only a listener listens. Raises UnsupportedError."""
    settings: dict[str, Any] = {"listen": () if variables.is_dialer else (variables.listen,)}
    if variables.security and (variables.security != "noise" or "security" in SETTINGS):
        settings["security"] = variables.security
    node = make_node(protocols=protocols, **settings)
    if not node.swarm.can_dial(Multiaddr(variables.listen)):
        raise UnsupportedError(f"TRANSPORT: expected one that this node offers, got {variables.transport}")
    return node


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
