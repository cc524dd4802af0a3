"""py-libp2p's peer store, bounded in addresses, which must be some, and unable to forget who we are (docs/upstream.md).

It holds what is known of peers in memory: addresses with a time to live, protocols, keys, signed records. What outlives
a restart is the address book's, not this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from libp2p.peer.id import ID
from libp2p.peer.peerdata import PeerData
from libp2p.peer.peerstore import PeerStore
from multiaddr import Multiaddr

MAX_ADDRESSES = 16
# when it is full a sixteenth goes at once, so that a flood of new peers doesn't sort the table for each
EVICT_SHARE = 16


def printable(addr: Multiaddr) -> bool:
    """Whether an address is one: the library takes any bytes for an address, and fails when they are looked at."""
    try:
        return bool(str(addr))
    except Exception:  # each codec fails in its own way
        return False


class BoundedPeerStore(PeerStore):
    """At most `max_peers` peers with at most MAX_ADDRESSES addresses each; `kept` says who is never evicted."""

    def __init__(self, max_peers: int) -> None:
        super().__init__(max_records=max_peers, max_peers=max_peers)
        self.kept: Callable[[ID], bool] = lambda _peer_id: False

    def add_addrs(self, peer_id: ID, addrs: Sequence[Multiaddr], ttl: int = 0) -> None:
        addrs = [addr for addr in addrs if printable(addr)]
        known = self.peer_data_map.get(peer_id)
        room = MAX_ADDRESSES - (len(known.get_addrs()) if known else 0)
        held = set(known.get_addrs()) if known else set()
        fresh = [addr for addr in dict.fromkeys(addrs) if addr not in held]
        super().add_addrs(peer_id, fresh[: max(0, room)], ttl)

    def _enforce_peer_limit(self) -> None:
        def worth(item: tuple[ID, PeerData]) -> tuple[bool, bool, int]:
            data = item[1]
            return bool(data.get_addrs()), not data.is_expired(), data.get_last_identified()

        candidates = [item for item in self.peer_data_map.items() if not self.kept(item[0])]
        candidates.sort(key=worth)
        surplus = len(self.peer_data_map) - self.max_peers + self.max_peers // EVICT_SHARE
        for peer_id, _ in candidates[: max(0, surplus)]:
            self.peer_record_map.pop(peer_id, None)
            del self.peer_data_map[peer_id]
