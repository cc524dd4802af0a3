"""What a server answers. Rules only, no I/O; `now` is wall time.

    FIND_NODE, GET_VALUE, GET_PROVIDERS   what is asked for, and the k peers of the table that are nearest to it
    PUT_VALUE                             kept if its namespace's rules take it and there is room; else the stream ends
    ADD_PROVIDER                          kept of the sender itself, and of nobody else

A peer is never named to itself, nor are we.
"""

from __future__ import annotations

import time
import typing
from collections import Counter
from collections.abc import Sequence

from protocols.errors import ProtocolError
from protocols.kad.cid import MAX_KEY as MAX_PROVIDER_KEY
from protocols.kad.keyspace import is_peer_id, point
from protocols.kad.records import Provider, RecordRefusedError, Records
from protocols.kad.table import Table
from protocols.kad.validators import InvalidValueError
from protocols.kad.wire import MAX_PEERS, Message, Peer, Record, Type


class Addresses(typing.Protocol):
    """What is known of where peers are, and of what may be said of it to whom. Peers and addresses are bytes."""

    def told(self, peer: bytes, asker: bytes) -> tuple[bytes, ...]:
        """A peer's addresses, as they are told to `asker`."""
        ...

    def shown(self, addrs: Sequence[bytes], asker: bytes) -> tuple[bytes, ...]:
        """Of addresses that a peer told of itself, those that may be told to `asker`."""
        ...

    def believed(self, addrs: Sequence[bytes], sender: bytes) -> tuple[bytes, ...]:
        """Of addresses that `sender` names, those that we take."""
        ...

    def is_connected(self, peer: bytes) -> bool:
        """Whether the peer is admitted now."""
        ...

    def subnet(self, peer: bytes) -> str | None:
        """The subnet that a connected peer counts for; None for private and loopback addresses."""
        ...


class Engine:
    """Answers questions from a table and records. `counts` counts what was asked, and by reason what was refused."""

    def __init__(self, table: Table, records: Records, addresses: Addresses) -> None:
        self.table = table
        self.records = records
        self.addresses = addresses
        self.counts: Counter[str] = Counter()

    def answer(self, sender: bytes, message: Message, now: float) -> Message | None:
        """The answer to a peer's message; None where there is none. Raises ProtocolError."""
        self.counts[message.type.name.lower()] += 1
        if message.type is Type.PING:
            return Message(Type.PING)
        if not message.key:
            raise ProtocolError(f"expected a {message.type.name} with a key, got none")
        match message.type:
            case Type.PUT_VALUE:
                return self._put(sender, message, now)
            case Type.ADD_PROVIDER:
                self._add_provider(sender, message, now)
                return None
            case Type.GET_VALUE:
                value = self.records.value(message.key, now)
                record = Record(value.key, value.value, _rfc3339(value.received)) if value is not None else None
                return Message(Type.GET_VALUE, message.key, record, self._closer(sender, message.key))
            case Type.GET_PROVIDERS:
                known = self.records.providers(message.key, now)
                providers = tuple(self._provider(sender, provider) for provider in known[:MAX_PEERS])
                return Message(Type.GET_PROVIDERS, message.key, None, self._closer(sender, message.key), providers)
        return Message(Type.FIND_NODE, message.key, None, self._closer(sender, message.key))

    def _put(self, sender: bytes, message: Message, now: float) -> Message:
        record = message.record
        if record is None or record.key != message.key:
            raise self._refused("put_value", f"expected a record of the key {message.key[:64]!r}, got another or none")
        try:
            self.records.put(message.key, record.value, sender, now)
        except (InvalidValueError, RecordRefusedError) as error:
            raise self._refused("put_value", str(error)) from None
        return Message(Type.PUT_VALUE, message.key, record)

    def _add_provider(self, sender: bytes, message: Message, now: float) -> None:
        if len(message.key) > MAX_PROVIDER_KEY:
            raise self._refused(
                "add_provider", f"expected a key of at most {MAX_PROVIDER_KEY} bytes, got {len(message.key)}"
            )
        own = next((peer for peer in message.providers if peer.id == sender), None)
        if own is None:
            raise self._refused("add_provider", "expected the sender as provider, got others or none")
        peer = Peer(sender, self.addresses.believed(own.addrs, sender))
        try:
            self.records.provide(message.key, peer, now, self.addresses.subnet(sender))
        except RecordRefusedError as error:
            raise self._refused("add_provider", str(error)) from None

    def _provider(self, asker: bytes, provider: Provider) -> Peer:
        addrs = self.addresses.shown(provider.addrs, asker) or self.addresses.told(provider.peer, asker)
        return Peer(provider.peer, addrs, self.addresses.is_connected(provider.peer))

    def _closer(self, sender: bytes, key: bytes) -> tuple[Peer, ...]:
        local = self.table.local
        found = self.table.closest(point(key), MAX_PEERS, exclude=(sender, local))
        # who is looked for is told even if it serves nothing, and so isn't in the table
        if key not in found and key not in (sender, local) and is_peer_id(key) and self.addresses.is_connected(key):
            found = [key, *found[: MAX_PEERS - 1]]
        return tuple(Peer(peer, self.addresses.told(peer, sender), self.addresses.is_connected(peer)) for peer in found)

    def _refused(self, what: str, text: str) -> ProtocolError:
        self.counts[f"{what}_refused"] += 1
        return ProtocolError(text)


def _rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
