"""What happens in a node, as values: for users, for logs, later for metrics.

    async with node.events.listen(Admitted, Disconnected) as events:      # no classes: everything
        async for event in events: ...                                    # ends when the node has closed
        events.missed                                                     # what was dropped for a slow listener

`listen` is for users: it keeps what happens until they come to it, up to a limit, and costs others nothing. Where the
limit is reached the oldest event is dropped: how things are is worth more than how they were.
`subscribe` is for the node's own parts: each event is told to each of them in the order of their subscription, at once
and synchronously. Such a listener must not block and must not raise. What takes longer starts a task of its own.

    Connected --> Admitted --> Identified, PeerFlaky, PeerSteady ... [PeerLost] --> Disconnected
              +-> Refused
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar, cast, get_args, overload

import trio

from node.log import get_logger

log = get_logger("events")

DEFAULT_LIMIT = 256


@dataclass(frozen=True)
class Connected:
    """A connection is secured: the peer is who it says, and nothing more is known. It is admitted or refused next."""

    peer: str
    addr: str
    direction: str


@dataclass(frozen=True)
class Admitted:
    """A peer is connected and admitted. `client_version` is empty when it was admitted without a handshake."""

    peer: str
    addr: str
    direction: str
    client_version: str = ""


@dataclass(frozen=True)
class Refused:
    """A peer was secured but not admitted. `reason` is a fixed word, `detail` a sentence."""

    peer: str
    addr: str
    direction: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Disconnected:
    """The last connection to an admitted peer has ended."""

    peer: str
    addr: str
    direction: str
    reason: str


@dataclass(frozen=True)
class Identified:
    """A peer has told, or told anew, what it is."""

    peer: str
    agent: str
    protocols: tuple[str, ...]


@dataclass(frozen=True)
class Listening:
    """The node accepts connections on `addr`, which is complete with /p2p/PEERID."""

    addr: str


@dataclass(frozen=True)
class MessageRejected:
    """A peer's message broke the rules: its stream ends. `reason` is a fixed word: malformed, oversize, signature,
    network_id, protocol, author, recipient, kind. Or it is nobody's fault, and only `dropped`: timestamp, unasked."""

    peer: str
    protocol: str
    reason: str
    detail: str = ""
    dropped: bool = False


@dataclass(frozen=True)
class GossipRejected:
    """A gossiped message broke the rules: who forwarded it (`peer`) pays. Reasons are those of `MessageRejected`, and
    seen where it was only `dropped`."""

    peer: str
    topic: str
    reason: str
    detail: str = ""
    dropped: bool = False


@dataclass(frozen=True)
class Misbehaved:
    """A peer broke a protocol's rules, and its stream ended: who keeps count of peers makes it pay. `reason` is a fixed
    word: protocol, flood, bad_record."""

    peer: str
    protocol: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class PeerFlaky:
    """`missed` of the last `window` heartbeats weren't answered in time."""

    peer: str
    missed: int
    window: int


@dataclass(frozen=True)
class PeerSteady:
    """A peer that was flaky answers again."""

    peer: str


@dataclass(frozen=True)
class PeerLost:
    """Nothing has come from a peer for `silent` seconds. Its connections are closed."""

    peer: str
    silent: float


@dataclass(frozen=True)
class Registered:
    """A peer has registered, or registered again, at this rendezvous point, for `ttl` seconds."""

    peer: str
    namespace: str
    ttl: float


@dataclass(frozen=True)
class Unregistered:
    """A peer's registration at this rendezvous point has ended. `reason`: unregistered (by itself), expired."""

    peer: str
    namespace: str
    reason: str


@dataclass(frozen=True)
class Banned:
    """A peer ID, IP address or network is banned, for `seconds` or for ever."""

    target: str
    reason: str
    seconds: float | None = None


@dataclass(frozen=True)
class Unbanned:
    """A ban was taken back before its end."""

    target: str


@dataclass(frozen=True)
class PoolLow:
    """The node has lost peers and is below `low` now. It looks for others."""

    peers: int
    low: int


Event = (
    Connected
    | Admitted
    | Banned
    | Refused
    | Unbanned
    | Disconnected
    | GossipRejected
    | Identified
    | Listening
    | MessageRejected
    | Misbehaved
    | PeerFlaky
    | PeerSteady
    | PoolLow
    | PeerLost
    | Registered
    | Unregistered
)
Listener = Callable[[Event], None]

E = TypeVar("E", bound=Event)
F = TypeVar("F", bound=Event)
G = TypeVar("G", bound=Event)


class EventStream(Generic[E]):
    """The events that one listener asked for, from the beginning of its block to its end. `missed` were dropped."""

    def __init__(self, events: Events, kinds: tuple[type[E], ...], limit: int) -> None:
        self.missed = 0
        self._events = events
        self._kinds = kinds
        self._waiting: deque[E] = deque(maxlen=limit)
        self._changed = trio.Event()
        self._unsubscribe: Callable[[], None] | None = None
        self._ended = False

    async def __aenter__(self) -> EventStream[E]:
        if self._unsubscribe is not None:
            raise RuntimeError("expected a new listen() for each block, this one was entered before")
        self._unsubscribe = self._events.subscribe(self._keep, ended=self._end)
        if self._events.closed:
            self._end()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.clear()
        self._end()

    def __aiter__(self) -> EventStream[E]:
        """The events, as they come; ends when the node has closed and all that was kept is told."""
        return self

    async def __anext__(self) -> E:
        if self._unsubscribe is None:
            raise RuntimeError("expected `async with node.events.listen(...) as events`, got a listen() without it")
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self._ended:
                raise StopAsyncIteration
            await self._changed.wait()
        return self._waiting.popleft()  # nothing is awaited after this: a cancelled wait loses no event

    def _keep(self, event: Event) -> None:
        if not isinstance(event, self._kinds):
            return
        self.missed += len(self._waiting) == self._waiting.maxlen
        self._waiting.append(cast("E", event))
        self._wake()

    def _end(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


class Events:
    """Tells events to listeners. `closed` once there will be no more."""

    def __init__(self) -> None:
        self.closed = False
        self._listeners: list[tuple[Listener, Callable[[], None]]] = []

    @overload
    def listen(self, *, limit: int = ...) -> EventStream[Event]: ...
    @overload
    def listen(self, one: type[E], /, *, limit: int = ...) -> EventStream[E]: ...
    @overload
    def listen(self, one: type[E], two: type[F], /, *, limit: int = ...) -> EventStream[E | F]: ...
    @overload
    def listen(self, one: type[E], two: type[F], three: type[G], /, *, limit: int = ...) -> EventStream[E | F | G]: ...
    @overload
    def listen(self, *kinds: type[Event], limit: int = ...) -> EventStream[Event]: ...

    def listen(self, *kinds: Any, limit: int = DEFAULT_LIMIT) -> EventStream[Any]:
        """The events of these classes (all without any) that happen in an `async with` block, `limit` of them kept.

        May be called before the node starts. Raises ValueError for what is no class of event, or a limit below 1.
        """
        for kind in kinds:
            if kind not in _KINDS:
                raise ValueError(f"expected classes of events such as Admitted, got {kind!r}")
        if limit < 1:
            raise ValueError(f"expected a limit of at least 1 event, got {limit}")
        return EventStream(self, kinds or _KINDS, limit)

    def subscribe(self, listener: Listener, *, ended: Callable[[], None] = lambda: None) -> Callable[[], None]:
        """Calls `listener` with each event from now on, and `ended` when there will be no more; the returned function
        ends that.
        """
        entry = (listener, ended)
        self._listeners.append(entry)
        return lambda: self._listeners.remove(entry) if entry in self._listeners else None

    def emit(self, event: Event) -> None:
        """Tells `event` to everybody. A listener that raises is logged: whoever tells has others to tell."""
        for listener, _ in tuple(self._listeners):
            try:
                listener(event)
            except Exception as error:
                log.error("listener_failed", kind=type(event).__name__, exc_info=error)

    def close(self) -> None:
        """There will be no more events: whoever listens is told what was kept, and then the end. Idempotent."""
        self.closed = True
        for _, ended in tuple(self._listeners):
            ended()


_KINDS: tuple[type[Event], ...] = get_args(Event)


def kind_of(event: type[Event]) -> str:
    """The name of a kind of event where it isn't Python that is spoken: peer_flaky for PeerFlaky."""
    return _NAMES[event]


KINDS: dict[str, type[Event]] = {re.sub(r"(?<!^)(?=[A-Z])", "_", one.__name__).lower(): one for one in _KINDS}
_NAMES = {one: name for name, one in KINDS.items()}
