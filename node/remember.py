"""What happens to connections goes into the address book.

    Admitted      seen; worked, where we dialled         Disconnected  seen
    Identified    what it says of itself, its addresses  Refused       failed, as a whole
    the dialler's failures: failed, address by address
    our signed record's number is kept, others' are looked up there

Connected peers count as seen every REFRESH seconds, so that a node that is killed finds those again that it had last.
"""

from __future__ import annotations

from pathlib import Path

import trio

from node.config import Config
from node.dialer import Dialer
from node.errors import UsageError
from node.events import Admitted, Disconnected, Event, Events, Identified, Refused
from node.identify import IdentifyService
from node.identity import Identity, load_key
from node.peers.addressbook import AddressBook
from node.records import Records

REFRESH = 300.0


class Remember:
    """Feeds `book` from the node's events. `run` keeps it true."""

    def __init__(
        self, book: AddressBook, events: Events, dialer: Dialer, identify: IdentifyService, records: Records
    ) -> None:
        self._book = book
        self._identify = identify
        self._connected: set[str] = set()
        book.book.connected = self._connected.__contains__
        dialer.on_failed = book.failed
        records.known_seq = self._known_seq
        records.last_seq, records.on_own = lambda: book.own_seq, book.keep_own_seq
        events.subscribe(self._on_event)

    def _known_seq(self, peer: str) -> int:
        entry = self._book.get(peer)
        return 0 if entry is None else entry.record_seq

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await trio.sleep(REFRESH)
            for peer in self._connected:
                self._book.seen(peer)

    def _on_event(self, event: Event) -> None:
        match event:
            case Admitted(peer, addr, direction):
                self._connected.add(peer)
                if direction == "outbound":
                    self._book.succeeded(peer, addr)
                self._book.seen(peer)
            case Disconnected(peer):
                self._connected.discard(peer)
                self._book.seen(peer)
            case Identified(peer, agent, protocols):
                known = self._identify.known.get(peer)
                record = known.record or None if known else None
                self._book.learn(peer, known.addrs if known else (), "identify", record=record)
                self._book.describe(peer, protocols=protocols, agent=agent)
            case Refused(peer):
                self._book.failed(peer, "")


def book_path(config: Config, identity: Identity) -> Path | None:
    """The address book's file; None for one in memory. With "auto" the data directory belongs to its key: a node with
    an identity of its own leaves no trace there.
    """
    if config.addressbook == "auto":
        try:
            if load_key(config.key_path).peer_id != identity.peer_id:
                return None
        except UsageError:
            return None
    return None if config.addressbook == "memory" else config.addressbook_path
