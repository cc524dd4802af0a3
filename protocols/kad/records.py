"""What a node keeps for others: values, and who provides what. Rules only, no I/O; `now` is wall time.

    value      valid, and no worse than the one that is there  --> kept `value_age`
    provider   told by itself                                  --> kept `provider_age`

Bounded for each key, each sender and in all. A value that finds everything full takes the place of the one whose key is
farthest from us, if its own is nearer: what is near is ours to keep, and a flood elsewhere gets no place. A provider
that finds its key, or everything, full takes the place of the oldest of the subnet that is most crowded there, if its
own is less crowded; our own never goes. Each change is noted in `changed`, for whoever writes it down.

Source: libp2p/specs, kad-dht/README.md (48 h for provider records, republished after 22 h).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from protocols.kad.keyspace import point
from protocols.kad.validators import Validators
from protocols.kad.wire import Peer

HOUR = 3600.0


class RecordRefusedError(ValueError):
    """There is no place for the record, or a better one."""


@dataclass(frozen=True, kw_only=True)
class RecordParams:
    """Bounds; ages in seconds, `max_bytes` of all values' keys and values."""

    value_age: float = 48 * HOUR
    provider_age: float = 48 * HOUR
    republish: float = 22 * HOUR
    max_values: int = 4096
    max_bytes: int = 16 << 20
    max_values_per_peer: int = 256
    max_provided: int = 16_384
    max_provided_per_peer: int = 1024
    max_providers_per_key: int = 64
    max_own: int = 4096


@dataclass(frozen=True, slots=True)
class Value:
    """A value that is kept. `sender`: who put it here last."""

    key: bytes
    value: bytes
    sender: bytes
    received: float


@dataclass(frozen=True, slots=True)
class Provider:
    """A peer that says it has what the key stands for."""

    key: bytes
    peer: bytes
    addrs: tuple[bytes, ...]
    received: float
    subnet: str | None = None


@dataclass(slots=True)
class Own:
    """What this node put or provides itself, to do it again. `value` is None for what it provides."""

    key: bytes
    value: bytes | None
    published: float


@dataclass(slots=True)
class Changed:
    """What to write down: keys of values and own records, (key, peer) of providers."""

    values: set[bytes] = field(default_factory=set)
    providers: set[tuple[bytes, bytes]] = field(default_factory=set)
    own: set[tuple[bytes, bool]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.values or self.providers or self.own)


class Records:
    """Values, providers, and what is our own."""

    def __init__(self, local: bytes, validators: Validators, params: RecordParams | None = None) -> None:
        self.params = params or RecordParams()
        self.validators = validators
        self.changed = Changed()
        self.own: dict[tuple[bytes, bool], Own] = {}  # by key, and whether it is a value
        self._local = local
        self._point = point(local)
        self._values: dict[bytes, Value] = {}
        self._bytes = 0
        self._by_distance: list[tuple[int, bytes]] = []  # of values, farthest last
        self._senders: Counter[bytes] = Counter()
        self._providers: dict[bytes, dict[bytes, Provider]] = {}
        self._provides: Counter[bytes] = Counter()
        self._provided = 0
        # by subnet, each in the order in which they were told last
        self._crowds: dict[str | None, dict[tuple[bytes, bytes], None]] = {}
        self.no_room: Counter[str] = Counter()  # "values", "providers": refused, as there was no room

    def sizes(self) -> tuple[int, int, int]:
        """Values, their bytes, providers."""
        return len(self._values), self._bytes, self._provided

    # values

    def value(self, key: bytes, now: float) -> Value | None:
        """The value under a key, unless it is too old."""
        kept = self._values.get(key)
        return kept if kept is not None and now - kept.received < self.params.value_age else None

    def stored(self, key: bytes) -> Value | None:
        """The value under a key, however old."""
        return self._values.get(key)

    def put(self, key: bytes, value: bytes, sender: bytes, now: float) -> None:
        """Keeps a value. Raises InvalidValueError, RecordRefusedError if a better one is there, or no place."""
        self.validators.validate(key, value)
        kept = self.value(key, now)
        if kept is not None and kept.value != value and self.validators.best(key, [kept.value, value]) != value:
            raise RecordRefusedError(f"expected a value better than the one that is kept, got an older: {key[:64]!r}")
        # who renews a value that is there takes no place of their own
        sender = kept.sender if kept is not None and kept.value == value else sender
        counted = self._values.get(key)
        if (counted is None or counted.sender != sender) and self._senders[sender] >= self.params.max_values_per_peer:
            raise RecordRefusedError(f"expected at most {self.params.max_values_per_peer} values of one peer, got more")
        self.forget_value(key)
        try:
            self._make_room(key, len(key) + len(value))
        except RecordRefusedError:
            if counted is not None:
                self._keep(counted)
            raise
        self._keep(Value(key, value, sender, now))
        self.changed.values.add(key)

    def forget_value(self, key: bytes) -> None:
        """Drops a value."""
        kept = self._values.pop(key, None)
        if kept is None:
            return
        self._bytes -= len(kept.key) + len(kept.value)
        _decrement(self._senders, kept.sender)
        where = self._distance(key), key
        del self._by_distance[bisect_left(self._by_distance, where)]
        self.changed.values.add(key)

    def _keep(self, value: Value) -> None:
        self._values[value.key] = value
        self._bytes += len(value.key) + len(value.value)
        self._senders[value.sender] += 1
        insort(self._by_distance, (self._distance(value.key), value.key))

    def _make_room(self, key: bytes, size: int) -> None:
        while len(self._values) >= self.params.max_values or self._bytes + size > self.params.max_bytes:
            if not self._by_distance or self._by_distance[-1] < (self._distance(key), key):
                self.no_room["values"] += 1
                raise RecordRefusedError(f"expected room for a value, got {len(self._values)} values that are nearer")
            self.forget_value(self._by_distance[-1][1])

    def _distance(self, key: bytes) -> int:
        return point(key) ^ self._point

    # providers

    def providers(self, key: bytes, now: float) -> list[Provider]:
        """Who provides a key, the latest first."""
        fresh = [p for p in self._providers.get(key, {}).values() if now - p.received < self.params.provider_age]
        return sorted(fresh, key=lambda provider: -provider.received)

    def provider(self, key: bytes, peer: bytes) -> Provider | None:
        """One provider of a key."""
        return self._providers.get(key, {}).get(peer)

    def all_providers(self) -> Iterator[Provider]:
        return (provider for providers in self._providers.values() for provider in providers.values())

    def provide(self, key: bytes, peer: Peer, now: float, subnet: str | None = None) -> None:
        """Notes a provider. The caller has made sure that the peer itself says so. Raises RecordRefusedError."""
        providers = self._providers.get(key, {})
        if peer.id not in providers:
            if self._provides[peer.id] >= self.params.max_provided_per_peer:
                raise RecordRefusedError(
                    f"expected at most {self.params.max_provided_per_peer} keys that one peer provides, got more"
                )
            if len(providers) >= self.params.max_providers_per_key:
                self._make_place(key, providers, subnet)
            elif self._provided >= self.params.max_provided:
                self._make_place_in_all(subnet)
        self._note(Provider(key, peer.id, peer.addrs, now, subnet))
        self.changed.providers.add((key, peer.id))

    def forget_provider(self, key: bytes, peer: bytes) -> None:
        """Drops a provider."""
        providers = self._providers.get(key, {})
        gone = providers.pop(peer, None)
        if gone is None:
            return
        if not providers:
            del self._providers[key]
        self._leave_crowd(gone)
        _decrement(self._provides, peer)
        self._provided -= 1
        self.changed.providers.add((key, peer))

    def _note(self, provider: Provider) -> None:
        providers = self._providers.setdefault(provider.key, {})
        known = providers.get(provider.peer)
        if known is None:
            self._provides[provider.peer] += 1
            self._provided += 1
        else:
            self._leave_crowd(known)
        providers[provider.peer] = provider
        self._crowds.setdefault(provider.subnet, {})[provider.key, provider.peer] = None

    def _leave_crowd(self, provider: Provider) -> None:
        crowd = self._crowds[provider.subnet]
        del crowd[provider.key, provider.peer]
        if not crowd:
            del self._crowds[provider.subnet]

    def _make_place(self, key: bytes, providers: dict[bytes, Provider], subnet: str | None) -> None:
        crowds = Counter(provider.subnet for provider in providers.values())
        crowd, size = max(crowds.items(), key=lambda item: item[1])
        if crowds[subnet] + 1 >= size:
            raise RecordRefusedError(f"expected at most {len(providers)} providers of one key, got more")
        others = [p for p in providers.values() if p.subnet == crowd and p.peer != self._local]
        self.forget_provider(key, min(others, key=lambda provider: provider.received).peer)

    def _make_place_in_all(self, subnet: str | None) -> None:
        largest = max(self._crowds.values(), key=len)
        oldest = next((where for where in largest if where[1] != self._local), None)
        if oldest is None or len(self._crowds.get(subnet, ())) + 1 >= len(largest):
            self.no_room["providers"] += 1
            raise RecordRefusedError(f"expected at most {self.params.max_provided} providers in all, got more")
        self.forget_provider(*oldest)

    # our own

    def add_own(self, key: bytes, value: bytes | None, now: float) -> None:
        """Notes what we put or provide, now. Raises RecordRefusedError."""
        where = key, value is not None
        if where not in self.own and len(self.own) >= self.params.max_own:
            raise RecordRefusedError(f"expected at most {self.params.max_own} records of our own, got more")
        self.own[where] = Own(key, value, now)
        self.changed.own.add(where)

    def forget_own(self, key: bytes) -> bool:
        """Publishes it no more; whether we did."""
        found = False
        for where in ((key, True), (key, False)):
            if self.own.pop(where, None) is not None:
                self.changed.own.add(where)
                found = True
        return found

    def due(self, now: float) -> list[Own]:
        """What of our own is to be published again, the longest waiting first."""
        waiting = [own for own in self.own.values() if not 0 <= now - own.published < self.params.republish]
        return sorted(waiting, key=lambda own: own.published)

    # time, and the disk

    def expire(self, now: float) -> None:
        """Drops what is too old, and what is from the future: then the clock was wrong."""
        for value in [v for v in self._values.values() if not _fresh(v.received, self.params.value_age, now)]:
            self.forget_value(value.key)
        for gone in [p for p in self.all_providers() if not _fresh(p.received, self.params.provider_age, now)]:
            self.forget_provider(gone.key, gone.peer)

    def restore(self, item: Value | Provider | Own) -> None:
        """Takes back what was written down, save values that no validator takes: the program isn't there (yet)."""
        match item:
            case Value():
                try:
                    self.validators.validate(item.key, item.value)
                    self._make_room(item.key, len(item.key) + len(item.value))
                except ValueError:
                    return
                if item.key not in self._values:
                    self._keep(item)
            case Provider():
                if len(self._providers.get(item.key, {})) < self.params.max_providers_per_key:
                    self._note(item)
            case Own():
                self.own[item.key, item.value is not None] = item


def _fresh(received: float, age: float, now: float) -> bool:
    return -HOUR <= now - received < age


def _decrement(counter: Counter[bytes], key: bytes) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
