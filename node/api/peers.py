"""What can be asked of a running node about its peers: who is banned, static or protected.

`peers` itself is in `functions`: its rows carry what the pool knows of each.
"""

from __future__ import annotations

import msgspec

from node.errors import UsageError
from node.node import Node


class Ban(msgspec.Struct, forbid_unknown_fields=True):
    """`target`: a peer ID, an IP address or a network (CIDR); `seconds`: None for ever."""

    target: str
    reason: str = "by the operator"
    seconds: float | None = None


class Target(msgspec.Struct, forbid_unknown_fields=True):
    """What was banned, as `bans` tells it."""

    target: str


class NoQuery(msgspec.Struct, forbid_unknown_fields=True):
    """No parameters."""


class Banned(msgspec.Struct):
    """A ban that holds. `since` and `until` are Unix time in seconds, `until` None for ever."""

    target: str
    reason: str
    since: float
    until: float | None


class Bans(msgspec.Struct):
    """All of them."""

    bans: list[Banned]


class AddPeer(msgspec.Struct, forbid_unknown_fields=True):
    """`address`: a multiaddr that ends in /p2p/PEERID; a `static` peer is kept connected for ever."""

    address: str
    static: bool = False


class PeerTag(msgspec.Struct, forbid_unknown_fields=True):
    """A peer, and the tag that protects it."""

    peer: str
    tag: str = "user"


class Done(msgspec.Struct):
    """It is done."""


async def ban(node: Node, params: Ban) -> Done:
    """Bans; it is on disk when this returns."""
    if not params.reason:
        raise UsageError("expected a reason for the ban, got none")
    await node.peers.ban(params.target, params.reason, seconds=params.seconds)
    return Done()


async def unban(node: Node, params: Target) -> Done:
    """Takes a ban back."""
    if not await node.peers.unban(params.target):
        raise UsageError(f"{params.target} isn't banned; `bans` tells what is")
    return Done()


async def bans(node: Node, _params: NoQuery) -> Bans:
    """Who is banned."""
    rows = [Banned(ban.target, ban.reason, ban.since, ban.until) for ban in node.addressbook.bans()]
    return Bans(sorted(rows, key=lambda row: row.target))


async def add_peer(node: Node, params: AddPeer) -> Done:
    """Tells the pool of a peer."""
    await node.peers.add(params.address, static=params.static)
    return Done()


async def remove_peer(node: Node, params: PeerTag) -> Done:
    """Forgets a peer and closes its connections."""
    await node.peers.remove(params.peer)
    return Done()


async def protect_peer(node: Node, params: PeerTag) -> Done:
    """The pool doesn't drop that peer."""
    node.peers.protect(params.peer, params.tag)
    return Done()


async def unprotect_peer(node: Node, params: PeerTag) -> Done:
    """It may again."""
    node.peers.unprotect(params.peer, params.tag)
    return Done()
