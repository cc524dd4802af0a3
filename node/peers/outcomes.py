"""What the pool says, done: dials, tests and drops. What became of each is told to the pool, to the address book, and,
of peers that an operator has named, to the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from node.dialer import Dialer
from node.errors import DialError, RefusedError, VouchError
from node.log import get_logger
from node.peers.actions import Dial, Drop, Probe
from node.peers.addressbook import AddressBook
from node.peers.pool import Pool
from node.repeats import worth_a_warning
from node.swarm import Swarm

# a peer that was dialled only to see whether its address works may say who it is before it is let go
FEELER_STAY = 1.0

log = get_logger("peers")


class Outcomes:
    """Of one pool. `timeout`: seconds that a dial of the pool's own choice may take; `bootstraps`: whom operators named
    as such; `changed` is called when the pool may have more to say. Nothing is raised but cancellation.
    """

    def __init__(
        self,
        pool: Pool,
        swarm: Swarm,
        dialer: Dialer,
        book: AddressBook,
        *,
        timeout: float,
        bootstraps: Container[str],
        changed: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._swarm, self._dialer, self._book = swarm, dialer, book
        self._timeout = timeout
        self._bootstraps = bootstraps
        self._changed = changed
        self._failures: Counter[str] = Counter()  # in a row, of those whom an operator has named

    async def dial(self, dial: Dial) -> None:
        """Dials a peer; one that was dialled only to test its address is let go again."""
        if self._book.ban_of(peer=dial.peer) is not None:
            self._pool.failed(trio.current_time(), dial.peer)
            return
        # whom an operator names may be far away; of the others there are many
        timeout = self._timeout if dial.why in ("pool", "feeler") else None
        try:
            await self._dialer.dial(ID.from_base58(dial.peer), self._read(dial.peer, dial.addrs), timeout=timeout)
        except VouchError as error:
            self._failed(dial, error)
        else:
            self._failures.pop(dial.peer, None)
            drop = self._pool.done(trio.current_time(), dial.peer)
            if drop is not None:
                await trio.sleep(FEELER_STAY)
                await self.drop(drop)
        self._changed()

    def _failed(self, dial: Dial, error: VouchError) -> None:
        now = trio.current_time()
        wait = self._pool.failed(now, dial.peer, answered=_answered(error))
        wait = max(wait, self._dialer.refused.remaining(dial.peer, now))
        if dial.peer in self._bootstraps or dial.why == "static":
            self._failures[dial.peer] += 1
            tell = log.warning if worth_a_warning(self._failures[dial.peer]) else log.debug
            if dial.peer in self._bootstraps:
                tell("bootstrap_unreachable", peer=dial.peer, error=str(error), retry_in=round(wait, 1))
            else:
                tell("static_peer_unreachable", peer=dial.peer, error=str(error), retry_in=round(wait, 1))

    async def test(self, test: Probe) -> None:
        """Sees whether a peer answers at an address."""
        ok = False
        for addr in self._read(test.peer, (test.addr,)):
            try:
                await self._swarm.probe(addr, ID.from_base58(test.peer))
            except DialError as error:
                log.debug("address_failed", peer=test.peer, addr=test.addr, error=str(error))
                self._book.failed(test.peer, test.addr)
            else:
                ok = True
                self._book.succeeded(test.peer, test.addr)
        self._pool.tested(trio.current_time(), test.peer, test.addr, ok=ok)
        self._changed()

    async def drop(self, drop: Drop) -> None:
        """Closes a peer's connections, unless somebody has come to want it since."""
        if self._pool.roster.is_dropping(drop.peer):
            log.debug("dropped", peer=drop.peer, reason=drop.reason)
            await self._swarm.close_peer(ID.from_base58(drop.peer), drop.reason)

    def _read(self, peer: str, addrs: Iterable[str]) -> list[Multiaddr]:
        """Those of a peer's addresses that are any: a file that another version wrote may have others."""
        found: list[Multiaddr] = []
        for addr in addrs:
            try:
                found.append(Multiaddr(addr))
            except Exception as error:  # each codec of py-multiaddr fails in its own way
                log.debug("address_failed", peer=peer, addr=addr, error=str(error))
                self._book.failed(peer, addr)
        return found


def _answered(error: VouchError) -> bool:
    """Whether somebody said no: then the network is there."""
    return isinstance(error, RefusedError) or (isinstance(error, DialError) and "refused" in str(error).lower())
