"""Nodes over QUIC on loopback, and what is inside them."""

from __future__ import annotations

from contextlib import asynccontextmanager

from interop.rawbytes import BYTES, RESET
from node.config import Config
from node.identity import Identity
from node.node import Node, parse_peer_id
from node.quic.configurations import Configurations, Limits
from node.quic.native import Native
from node.quic.transport import Quic
from node.upgrade.certificate import make_credentials, peer_key
from tests.nodes import DEFAULTS, NOWHERE, running

QUIC = "/ip4/127.0.0.1/udp/0/quic-v1"
SERVING = (BYTES, RESET)


def quic(**values):
    return running(**{"listen": (QUIC,), "protocols": SERVING, "gossip": "off", **values})


@asynccontextmanager
async def impatient(idle_timeout: float, **values):
    """A node whose QUIC connections time out sooner."""
    config = Config(data_dir=NOWHERE, listen=(QUIC,), **DEFAULTS, **values)
    identity = Identity.generate()
    transport = Quic(identity.key_pair(), config, idle_timeout=idle_timeout)
    async with Node(config, identity=identity, protocols=SERVING, transports=[transport]) as node:
        yield node


def endpoint(node):
    """That of the one address that the node listens on."""
    (listener,) = node.swarm.listeners.values()
    return listener._endpoint


def muxed(node, other):
    """The node's connection with the other."""
    return node.swarm.connection(parse_peer_id(other.peer_id)).muxed_conn


def first_datagram() -> bytes:
    """What a new client begins with."""
    configurations = Configurations(make_credentials(Identity.generate().key_pair()), Limits())
    client = Native.client(configurations, peer_key, lambda event: None)
    client.start(("127.0.0.1", 1), 100.0)
    found = client.next_datagram(100.0)
    assert found is not None
    return found[0]
