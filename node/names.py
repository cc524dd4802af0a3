"""Peers as users name them: a peer ID, or an address that ends in one."""

from __future__ import annotations

from functools import lru_cache

import multihash
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

from node.errors import UsageError


@lru_cache(maxsize=1024)
def parse_peer_id(text: str) -> ID:
    """A peer ID from its text. Raises UsageError."""
    try:
        peer_id = ID.from_base58(text)
        multihash.decode(peer_id.to_bytes())  # the library takes any base58 for a peer ID
    except (ValueError, TypeError):
        raise UsageError(f"expected a peer ID such as 12D3KooW…, got {text!r}") from None
    return peer_id


def parse_peer_addr(text: str) -> tuple[ID, Multiaddr]:
    """A peer and its address from a multiaddr that ends in /p2p/PEERID. Raises UsageError."""
    try:
        addr = Multiaddr(text)
        return info_from_p2p_addr(addr).peer_id, addr
    except Exception as error:  # two libraries, a dozen kinds of error for bad text; all mean the same to a caller
        raise UsageError(
            f"expected an address such as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…, got {text!r}: {error}"
        ) from None


@lru_cache(maxsize=4096)
def is_peer_id(text: str) -> bool:
    """Whether a text is a peer ID."""
    try:
        parse_peer_id(text)
    except UsageError:
        return False
    return True
