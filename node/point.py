"""The node as a rendezvous point: `protocols.rendezvous` on this node's peers, settings, file and events.

    REGISTER --> Point --> RegistrationFile (rendezvous.db in the data directory) --> event Registered
    its TTL is over, or UNREGISTER ----------------------------------------------> event Unregistered

A peer of rust-libp2p takes no answer with a record in RFC 0003's form, so it is given those in its own alone. It is
known by what it calls itself, by telling no signed record where others do, or by what it has registered.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection

import trio
from libp2p.peer.id import ID

from node.config import Config
from node.envelopes import open_record
from node.errors import UsageError
from node.events import Events, Registered, Unregistered
from node.identify import IdentifyService
from node.log import get_logger
from node.peers.reach import Reach, seen_at, subnet_of
from node.registrations import FILE, RegistrationFile
from node.registry import Registry
from node.tasks import TaskStatus
from protocols.rendezvous.rules import BOTH, KEY_BYTES, Form, Limits, Rates, Registrations, Row
from protocols.rendezvous.service import Change, Point

# a peer that comes with a namespace for each of its parts registers them all at once
BURST = 32.0
_LEGACY = frozenset({Form.LEGACY})

log = get_logger("rendezvous")


class RendezvousPoint:
    """Runs a point on the node. `registrations` are there once it runs."""

    def __init__(
        self,
        registry: Registry,
        identify: IdentifyService,
        events: Events,
        config: Config,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self._registry, self._identify, self._events, self._config = registry, identify, events, config
        self._point: Point | None = None

    @property
    def registrations(self) -> Registrations:
        """Who is registered. Raises UsageError if the node doesn't run."""
        if self._point is None:
            raise UsageError("the rendezvous point doesn't run yet")
        return self._point.registrations

    @property
    def running(self) -> bool:
        """Whether it runs, and has registrations."""
        return self._point is not None

    @property
    def refused(self) -> int:
        """How many questions were answered with an error."""
        return self._point.refused if self._point is not None else 0

    async def run(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Opens the file and answers until cancelled. Raises UsageError for a file that can't be used."""
        config = self._config
        limits = Limits(
            max_registrations=config.max_registrations,
            max_per_peer=config.max_registrations_per_peer,
            max_per_namespace=config.max_registrations_per_namespace,
            max_per_subnet=config.max_registrations_per_subnet,
        )
        file = None
        if config.rendezvous_point == "on":
            file = RegistrationFile(config.data_dir / FILE)
            await trio.to_thread.run_sync(file.open)
            registrations = Registrations(limits, file.key, file.rows, file.next_number)
        else:
            registrations = Registrations(limits, secrets.token_bytes(KEY_BYTES))
        self._point = point = Point(
            registrations,
            open_record=open_record,
            rates=Rates(config.rendezvous_rate, BURST),
            store=file,
            reads=self._reads,
            subnet=self._subnet,
            on_change=self._changed,
            clock=self.clock,
        )
        self._registry.add(point.protocol)
        log.info("rendezvous_point", registrations=len(registrations), file=str(file.path) if file is not None else "")
        try:
            async with trio.open_nursery() as nursery:
                if file is not None:
                    await nursery.start(file.run)
                nursery.start_soon(point.run)
                task_status.started()
        finally:
            self._registry.remove(point.protocol.id)

    def _reads(self, peer: str) -> Collection[Form]:
        known = self._identify.known.get(peer)
        if known is not None and (known.agent.startswith("rust-libp2p") or not known.record):
            return _LEGACY
        forms = self.registrations.forms(peer)
        return _LEGACY if forms == _LEGACY else BOTH

    def _subnet(self, peer: str) -> str:
        ip = self._identify.swarm.ip_of(ID.from_base58(peer))
        return subnet_of(ip) if seen_at(ip) is Reach.PUBLIC else ""

    def _changed(self, change: Change, row: Row) -> None:
        if change == "registered":
            self._events.emit(Registered(row.peer, row.namespace, round(row.expires - self.clock(), 3)))
        else:
            self._events.emit(Unregistered(row.peer, row.namespace, change))
