"""Whom a call is about: a peer that is connected, or one to connect with."""

from __future__ import annotations

from libp2p.peer.id import ID

from node.errors import NotConnectedError
from node.names import parse_peer_id
from node.node import Node


async def reach(node: Node, target: str) -> ID:
    """The ID of a connected peer, or of the one at a multiaddr, once it is. Raises NotConnectedError, and as
    `Node.connect` does.
    """
    if target.startswith("/"):
        return (await node.connect(target)).peer_id
    peer_id = parse_peer_id(target)
    if node.swarm.connection(peer_id) is None:
        raise NotConnectedError(f"there is no connection to {target}: give its address, or `vouch connect` first")
    return peer_id
