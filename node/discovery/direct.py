"""A feed without a pool: whoever is found is dialled at once, while there are few connections and few dials."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from node.dialer import Dialer
from node.errors import VouchError
from node.log import get_logger
from node.swarm import Swarm

MAX_PEERS = 40
MAX_DIALS = 8

log = get_logger("found")


class DialFeed:
    """A `Feed` that never wants more than it is told. Its dials run in `nursery`."""

    def __init__(self, swarm: Swarm, dialer: Dialer, nursery: trio.Nursery) -> None:
        self._swarm = swarm
        self._dialer = dialer
        self._nursery = nursery
        self._dials = 0

    def found(
        self, peer: str, addrs: Sequence[str], *, record: bytes | None = None, addrs_trusted: bool = False
    ) -> None:
        if self._dials < MAX_DIALS and len(self._swarm.connections) < MAX_PEERS:
            self._dials += 1
            self._nursery.start_soon(self._dial, peer, addrs)

    async def wanted(self) -> int:
        await trio.sleep_forever()
        raise AssertionError

    async def _dial(self, peer: str, addrs: Sequence[str]) -> None:
        try:
            await self._dialer.dial(ID.from_base58(peer), [Multiaddr(addr) for addr in addrs])
        except (VouchError, ValueError) as error:
            log.debug("not_dialled", peer=peer, error=str(error))
        finally:
            self._dials -= 1
