"""Dialling a peer: which address when, one dial at a time for each peer, and not again too soon.

    dial(peer) -> its connection, if there is one
               -> BackoffError: it refused us lately (or, for dials that nobody asked for, couldn't be reached)
               -> waits for a dial to it that is under way
               -> tries its addresses: the next one when the last has failed, or after HEAD_START; the first wins

A dial takes as long as the network takes, `dial_timeout` at most over everything: its turn, TCP, security, muxer,
handshake.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from node.config import Config
from node.connection import Connection
from node.errors import BackoffError, DialError, LimitError, RefusedError
from node.events import Admitted, Event, Refused
from node.log import get_logger
from node.peers.backoff import Backoff
from node.peers.budget import DialBudget
from node.peers.choice import host
from node.swarm import Swarm
from protocols.histogram import Histogram

HEAD_START = 0.25
# that one dial tries
MAX_ADDRESSES = 8
# for dials that no user asked for (lookups and the like), after a peer couldn't be reached
UNREACHABLE_FIRST = 2.0
UNREACHABLE_LONGEST = 120.0

log = get_logger("dialer")


class Dialer:
    """Turns peers into connections. `outcomes` counts what became of dials, `seconds` of those that succeeded."""

    def __init__(self, swarm: Swarm, config: Config) -> None:
        self.swarm = swarm
        self.config = config
        self.refused = Backoff(config.refused_backoff_min, config.refused_backoff_max, capacity=config.max_known_peers)
        self.unreachable = Backoff(UNREACHABLE_FIRST, UNREACHABLE_LONGEST, capacity=config.max_known_peers)
        self.budget = DialBudget()  # for dials on a stranger's word, whoever makes them
        self.limiter = trio.CapacityLimiter(config.max_dials)
        self.outcomes: Counter[str] = Counter()
        self.seconds = Histogram()
        self._under_way: dict[ID, trio.Event] = {}
        # told of each address that didn't lead to its peer, and with "" of a peer that none did, unless it was only a
        # stranger's word that it is there
        self.on_failed: Callable[[str, str], None] = lambda _peer, _addr: None
        swarm.dial_known = self.dial_known
        swarm.events.subscribe(self._on_event)

    async def dial_known(self, peer_id: ID) -> Connection:
        """Dials a peer by the addresses that are known of it. For dials that no user asked for."""
        wait = self.unreachable.remaining(str(peer_id), trio.current_time())
        if wait:
            self.outcomes["backoff"] += 1
            raise BackoffError(f"{peer_id} couldn't be reached lately and isn't dialled for another {wait:.0f} s")
        try:
            addrs = self.swarm.peerstore.addrs(peer_id)
        except Exception as error:  # py-libp2p's store raises several kinds for a peer that it doesn't know
            raise DialError(f"no address of {peer_id} is known") from error
        return await self.dial(peer_id, addrs)

    async def dial(
        self,
        peer_id: ID,
        addrs: Sequence[Multiaddr],
        *,
        timeout: float | None = None,
        budget: DialBudget | None = None,
    ) -> Connection:
        """An admitted connection to the peer, by one of `addrs`, within `timeout` seconds (at most and by default
        `dial_timeout`). Where these are a stranger's word, each that is dialled is charged to `budget`, and what this
        doesn't allow isn't dialled. Safe to cancel.

        Raises RefusedError, BackoffError, LimitError (also where the budget allows none of the addresses), and
        DialError naming what each address answered.
        """
        if peer_id == self.swarm.self_id:
            raise DialError(f"{peer_id} is this node itself")
        timeout = min(timeout or self.config.dial_timeout, self.config.dial_timeout)
        failures: list[Exception] = []
        unanswered: list[Multiaddr] = []
        try:
            with trio.fail_after(timeout):
                return await self._dial(peer_id, addrs, budget, failures, unanswered, trio.current_time() + timeout)
        except trio.TooSlowError:
            pass
        failures.append(DialError(f"no answer within {timeout:g} s"))
        if unanswered:  # and not only its turn that didn't come
            self.unreachable.failed(str(peer_id), trio.current_time())
            for addr in unanswered:
                self._failed(peer_id, addr, budget)
            if budget is None:
                self.on_failed(str(peer_id), "")
        raise DialError(f"{peer_id} can't be reached: " + "; ".join(map(str, failures)))

    async def _dial(
        self,
        peer_id: ID,
        addrs: Sequence[Multiaddr],
        budget: DialBudget | None,
        failures: list[Exception],
        unanswered: list[Multiaddr],
        deadline: float,
    ) -> Connection:
        while True:
            connection = self.swarm.connection(peer_id)
            if connection is not None:
                return connection
            other = self._under_way.get(peer_id)
            if other is None:
                break
            await other.wait()
        peer = str(peer_id)
        wait = self.refused.remaining(peer, trio.current_time())
        if wait:
            self.outcomes["backoff"] += 1
            raise BackoffError(f"{peer} and this node refused each other lately: no dial for another {wait:.0f} s")
        done = self._under_way[peer_id] = trio.Event()
        began, outcome = trio.current_time(), "given_up"
        try:
            async with self.limiter:
                connection = await self._race(peer_id, addrs, budget, failures, unanswered)
            outcome = "connected"
            self.seconds.observe(trio.current_time() - began)
        except RefusedError:
            outcome = "refused"
            raise  # counted when it was told, see _on_event
        except DialError:
            outcome = "failed"
            self.unreachable.failed(peer, trio.current_time())
            if budget is None:
                self.on_failed(peer, "")
            raise
        except LimitError:
            outcome = "limit"
            raise
        finally:
            self.outcomes["timeout" if outcome == "given_up" and trio.current_time() >= deadline else outcome] += 1
            del self._under_way[peer_id]
            done.set()
        return connection

    def _on_event(self, event: Event) -> None:
        # whoever dialled: a peer that one of us has refused isn't dialled, one that is admitted may be again
        if isinstance(event, Refused):
            self.refused.failed(event.peer, trio.current_time())
        elif isinstance(event, Admitted):
            self.refused.succeeded(event.peer)
            self.unreachable.succeeded(event.peer)

    def _failed(self, peer_id: ID, addr: Multiaddr, budget: DialBudget | None) -> None:
        """An address didn't answer, or didn't lead to the peer."""
        self.on_failed(str(peer_id), str(addr))
        if budget is not None:
            budget.failed(host(str(addr)), trio.current_time())

    async def _race(
        self,
        peer_id: ID,
        addrs: Sequence[Multiaddr],
        budget: DialBudget | None,
        failures: list[Exception],
        unanswered: list[Multiaddr],
    ) -> Connection:
        usable = _ranked([addr for addr in addrs if self.swarm.can_dial(addr)])
        if not usable:
            got = f", got {', '.join(map(str, addrs[:MAX_ADDRESSES]))}" if addrs else ""
            raise DialError(f"no address of {peer_id} is known that this node can dial{got}")
        # asked one by one, when its turn has come: what isn't dialled costs nothing
        allowed = (addr for addr in usable if budget is None or budget.take(host(str(addr)), trio.current_time()))
        won: list[Connection] = []
        tried: list[Multiaddr] = []

        def answered(at: Multiaddr) -> None:
            """Whoever answers as itself is no victim, on none of its ports."""
            for addr in tried:
                if budget is not None and host(str(addr)) == host(str(at)):
                    budget.succeeded(host(str(addr)), trio.current_time())

        async def attempt(addr: Multiaddr, failed: trio.Event) -> None:
            unanswered.append(addr)
            try:
                won.append(await self.swarm.dial_address(addr, peer_id))
            except (DialError, LimitError) as error:
                unanswered.remove(addr)
                log.debug("dial_failed", peer=str(peer_id), addr=str(addr), error=str(error))
                failures.append(error)
                failed.set()
                if isinstance(error, RefusedError):
                    answered(addr)
                    nursery.cancel_scope.cancel()  # it is the peer that refuses, not its address
                elif isinstance(error, DialError):
                    self._failed(peer_id, addr, budget)
            else:
                answered(addr)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for addr in islice(allowed, MAX_ADDRESSES):
                tried.append(addr)
                failed = trio.Event()
                nursery.start_soon(attempt, addr, failed)
                with trio.move_on_after(HEAD_START):
                    await failed.wait()
        if won:
            # two addresses may have won at once, and then one of the two connections is on its way out
            return self.swarm.connection(peer_id) or won[0]
        for failure in failures:
            if isinstance(failure, RefusedError | LimitError):
                raise failure
        if not tried:
            raise LimitError(f"{peer_id}: its addresses were dialled so often that it has to wait")
        raise DialError(f"{peer_id} can't be reached: " + "; ".join(map(str, failures)))


def _ranked(addrs: Sequence[Multiaddr]) -> list[Multiaddr]:
    """Each of them once, loopback last: it is the nearest by far, or somebody else's.

    The first of each transport come before the second of any: many addresses of one that is blocked on the way don't
    keep another from being tried.
    """
    ranks: Counter[tuple[bool, str]] = Counter()
    ranked: list[tuple[bool, int, Multiaddr]] = []
    for addr in dict.fromkeys(addrs):
        text = str(addr)
        is_loopback, transport = text.startswith(("/ip4/127.", "/ip6/::1/")), "".join(text.split("/")[3:4])
        ranked.append((is_loopback, ranks[is_loopback, transport], addr))
        ranks[is_loopback, transport] += 1
    ranked.sort(key=lambda entry: entry[:2])
    return [addr for _, _, addr in ranked]
