"""What can be asked of a running node's Kademlia: peers, providers, values. Keys and values are base64 in JSON."""

from __future__ import annotations

import msgspec

from node.discovery.dht import Dht
from node.errors import OffError, UsageError
from node.names import parse_peer_id
from node.node import Node
from protocols.kad.cid import multihash_of


class PeerName(msgspec.Struct, forbid_unknown_fields=True):
    """`peer`: a peer ID."""

    peer: str


class Found(msgspec.Struct):
    """The addresses of a peer; none if it wasn't found."""

    peer: str
    addrs: list[str]


class Content(msgspec.Struct, forbid_unknown_fields=True):
    """`cid`: a CID, whose multihash is the key."""

    cid: str


class ProvidersOf(msgspec.Struct, forbid_unknown_fields=True):
    """`cid`: a CID; `limit`: how many providers at most."""

    cid: str
    limit: int = 20


class Placed(msgspec.Struct):
    """On how many peers a record was placed; `table`: peers in the routing table."""

    peers: int
    table: int


class Providers(msgspec.Struct):
    """Who provides it, those first whom most peers have named."""

    providers: list[Found]


class Key(msgspec.Struct, forbid_unknown_fields=True):
    """A key as text: /NAMESPACE/REST, and of /pk/ a peer ID."""

    key: str


class KeyValue(msgspec.Struct, forbid_unknown_fields=True):
    """A key as text, and a value in base64."""

    key: str
    value: bytes


class Got(msgspec.Struct):
    """A value, in base64."""

    key: str
    value: bytes


class Withdrawn(msgspec.Struct):
    """Whether this node published it until now."""

    published: bool


async def find_peer(node: Node, params: PeerName) -> Found:
    """Looks a peer up in the network's Kademlia."""
    return Found(params.peer, await _dht(node).find_peer(parse_peer_id(params.peer)))


async def provide(node: Node, params: Content) -> Placed:
    """Tells the network that we have what a CID stands for."""
    dht = _dht(node)
    return Placed(await dht.provide(_multihash(params.cid)), len(dht.table()))


async def find_providers(node: Node, params: ProvidersOf) -> Providers:
    """Finds who has what a CID stands for."""
    if not 1 <= params.limit <= 1000:
        raise UsageError(f"expected a limit of 1 to 1000 providers, got {params.limit}")
    found = await _dht(node).find_providers(_multihash(params.cid), limit=params.limit)
    return Providers([Found(peer.peer, peer.addrs) for peer in found])


async def put(node: Node, params: KeyValue) -> Placed:
    """Stores a value in the network."""
    dht = _dht(node)
    return Placed(await dht.put(key_of(params.key), params.value), len(dht.table()))


async def get(node: Node, params: Key) -> Got:
    """The best value of a key. Raises NotFoundError."""
    return Got(params.key, await _dht(node).get(key_of(params.key)))


async def withdraw(node: Node, params: Key) -> Withdrawn:
    """Publishes a key or CID no more."""
    key = key_of(params.key) if params.key.startswith("/") else _multihash(params.key)
    return Withdrawn(_dht(node).withdraw(key))


def key_of(text: str) -> bytes:
    """A key's bytes from its text. Raises UsageError."""
    if not text.startswith("/"):
        raise UsageError(f"expected a key such as /pk/12D3KooW…, got {text!r}")
    if text.startswith("/pk/"):
        return b"/pk/" + parse_peer_id(text.removeprefix("/pk/")).to_bytes()
    return text.encode()


def _multihash(cid: str) -> bytes:
    try:
        return multihash_of(cid)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _dht(node: Node) -> Dht:
    if node.dht is None:
        raise OffError('expected dht = "server" or "client" for a look-up, this node runs with "off"')
    return node.dht
