"""The watch: who is admitted is watched by heartbeats, from its admission to its disconnection.

    Admitted --> watched --PeerFlaky, PeerSteady ...--> Disconnected
                    |
                    +--PeerLost: its connections are closed, for the reason "lost"

A watch goes on where one of a peer's connections takes another's place. Peers that don't speak the heartbeat aren't
watched; the muxer still finds out that their link is dead, a little later. What a heartbeat means is
`protocols.heartbeat.engine`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import trio
from libp2p.peer.id import ID

from node.events import Admitted, Disconnected, Event, PeerFlaky, PeerLost, PeerSteady
from node.swarm import Swarm
from node.tasks import TaskStatus
from protocols import Network
from protocols.heartbeat.engine import Change, Flaky, Lost, Monitor, Params, Steady
from protocols.heartbeat.service import watch


@dataclass
class _Watched:
    monitor: Monitor
    scope: trio.CancelScope


class Watch:
    """Watches the admitted peers of one node."""

    def __init__(self, network: Network, swarm: Swarm, params: Params, *, rng: random.Random | None = None) -> None:
        self._network = network
        self._swarm = swarm
        self._params = params
        self._rng = rng or random.Random()
        self._peers: dict[str, _Watched] = {}

    def monitor(self, peer: str) -> Monitor | None:
        """What is known of a peer, if it is watched now."""
        watched = self._peers.get(peer)
        return watched.monitor if watched else None

    def monitors(self) -> list[Monitor]:
        """Of the peers that are watched now."""
        return [watched.monitor for watched in self._peers.values()]

    async def run(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until cancelled; owns one task for each peer. Started before the node takes connections."""
        async with trio.open_nursery() as nursery:

            def on_event(event: Event) -> None:
                if isinstance(event, Admitted):
                    nursery.start_soon(self._watch, event.peer, self._begin(event.peer))
                elif isinstance(event, Disconnected) and event.peer in self._peers:
                    self._peers.pop(event.peer).scope.cancel()

            unsubscribe = self._swarm.events.subscribe(on_event)
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                unsubscribe()

    def _begin(self, peer: str) -> _Watched:
        # the first beats are spread over an interval, or all that connect at once would beat at once for ever
        first = self._rng.uniform(0, self._params.interval)
        watched = _Watched(Monitor(self._params, trio.current_time(), first), trio.CancelScope())
        self._peers[peer] = watched
        return watched

    async def _watch(self, peer: str, watched: _Watched) -> None:
        with watched.scope:
            await watch(self._network, peer, watched.monitor, lambda change: self._tell(peer, change))
        if self._peers.get(peer) is watched:
            del self._peers[peer]
            if watched.monitor.lost:
                await self._swarm.close_peer(ID.from_base58(peer), "lost")

    def _tell(self, peer: str, change: Change) -> None:
        match change:
            case Flaky(missed, window):
                self._swarm.events.emit(PeerFlaky(peer, missed, window))
            case Steady():
                self._swarm.events.emit(PeerSteady(peer))
            case Lost(silent):
                self._swarm.events.emit(PeerLost(peer, silent))
