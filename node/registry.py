"""The protocol registry: which protocols a node answers, and the one place where their bounds are enforced.

    inbound stream, protocol agreed --open()--> Slot --run()--> handler(Stream) --> closed, or reset if it raised
                                   \\--> None: we don't have it ("na")
                                    \\-> StreamLimitError: past the peer's bound, the stream is reset

Frame size, time and rate are enforced by `protocols.Stream`, which is made here and nowhere else for inbound streams.
A handler that raises ends its own stream; it is logged once, with the peer and the protocol.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from importlib.metadata import entry_points

import trio

from node.errors import LimitError, UsageError
from node.log import get_logger
from protocols import ByteStream, Protocol, ProtocolError, Stream, StreamError
from protocols.messages import SubProtocol
from protocols.rate import TokenBucket

ENTRY_POINT_GROUP = "vouch.protocols"
# seconds that a stream past its peer's bound waits for a place before it is reset
GRACE = 0.25

log = get_logger("registry")


class StreamLimitError(LimitError):
    """The peer has as many streams of this protocol open as it may have."""


class Slot:
    """The place of one stream within its peer's bound. Release is idempotent."""

    __slots__ = ("_registry", "peer", "protocol", "released")

    def __init__(self, registry: Registry, peer: str, protocol: Protocol) -> None:
        self._registry = registry
        self.peer = peer
        self.protocol = protocol
        self.released = False

    def release(self) -> None:
        if not self.released:
            self.released = True
            self._registry._release(self)


class Registry:
    """Protocols by ID. For metrics, `refused` and `failed` count by protocol, and `unknown` the proposals that we don't
    answer."""

    def __init__(self, protocols: Iterable[Protocol] = ()) -> None:
        self._protocols: dict[str, Protocol] = {}
        self._open: Counter[tuple[str, str]] = Counter()
        self._buckets: dict[tuple[str, str], TokenBucket] = {}
        self._freed = trio.Event()
        self.refused: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.unknown = 0
        for protocol in protocols:
            self.add(protocol)

    def add(self, protocol: Protocol) -> None:
        """Answers `protocol` from now on. Raises UsageError if it has no handler, or its ID is taken."""
        if protocol.handler is None:
            raise UsageError(f"{protocol.id} has no handler: name one with @protocol.serve")
        if protocol.id in self._protocols:
            raise UsageError(f"two protocols have the ID {protocol.id}")
        self._protocols[protocol.id] = protocol

    def remove(self, protocol_id: str) -> None:
        """Answers it no longer; streams that are open go on."""
        self._protocols.pop(protocol_id, None)

    def get(self, protocol_id: str) -> Protocol | None:
        """The protocol of that ID, if we answer it."""
        return self._protocols.get(protocol_id)

    def ids(self) -> list[str]:
        """What we answer, in the order of registration."""
        return list(self._protocols)

    def streams(self, peer: str, protocol_id: str) -> int:
        """How many streams of a protocol a peer has open with us."""
        return self._open[peer, protocol_id]

    def most_streams(self) -> dict[str, int]:
        """By protocol, how many streams the peer has open that has most."""
        most: dict[str, int] = {}
        for (_, protocol_id), count in self._open.items():
            most[protocol_id] = max(most.get(protocol_id, 0), count)
        return most

    def open(self, peer: str, protocol_id: str) -> Slot | None:
        """A place for one more stream, or None if we don't answer that protocol. Raises StreamLimitError."""
        protocol = self._protocols.get(protocol_id)
        if protocol is None:
            self.unknown += 1
            return None
        if self._open[peer, protocol_id] >= protocol.streams_per_peer:
            self.refused[protocol_id] += 1
            raise StreamLimitError(
                f"{peer} may have {protocol.streams_per_peer} streams of {protocol_id} open, and has"
            )
        self._open[peer, protocol_id] += 1
        return Slot(self, peer, protocol)

    async def open_soon(self, peer: str, protocol_id: str) -> Slot | None:
        """As `open`, but waits a moment for a place: a handler may be yet to see that its stream was closed."""
        deadline = trio.current_time() + GRACE
        while True:
            try:
                return self.open(peer, protocol_id)
            except StreamLimitError:
                if trio.current_time() >= deadline:
                    raise
                self.refused[protocol_id] -= 1  # not refused yet
            with trio.move_on_at(deadline):
                await self._freed.wait()

    async def run(self, slot: Slot, raw: ByteStream) -> None:
        """Calls the handler with the stream, and ends the stream however the handler ends."""
        protocol, peer = slot.protocol, slot.peer
        assert protocol.handler is not None
        try:
            stream = Stream(raw, protocol, peer, self._bucket(peer, protocol))
            try:
                await protocol.handler(stream)
                await stream.close()
            except Exception as error:  # whatever a handler raises harms its own stream and nothing else
                self._report(error, protocol, peer)
                await stream.reset()
        finally:
            slot.release()

    def forget(self, peer: str) -> None:
        """Drops what is remembered of a peer that is gone."""
        for key in [key for key in self._buckets if key[0] == peer]:
            del self._buckets[key]

    def _report(self, error: Exception, protocol: Protocol, peer: str) -> None:
        if _is_peers(error):
            log.debug("stream_ended", peer=peer, protocol=protocol.id, error=str(error))
        else:
            self.failed[protocol.id] += 1
            log.error("handler_failed", peer=peer, protocol=protocol.id, exc_info=error)

    def _bucket(self, peer: str, protocol: Protocol) -> TokenBucket | None:
        if protocol.rate is None:
            return None
        key = peer, protocol.id
        if key not in self._buckets:
            bucket = protocol.bucket(trio.current_time())
            assert bucket is not None
            self._buckets[key] = bucket
        return self._buckets[key]

    def _release(self, slot: Slot) -> None:
        key = slot.peer, slot.protocol.id
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]
        self._freed.set()
        self._freed = trio.Event()


def _is_peers(error: BaseException) -> bool:
    """Whether an error is the peer's or the network's doing, and no fault of the handler."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_peers(inner) for inner in error.exceptions)
    return isinstance(error, ProtocolError | StreamError)


def installed_protocols() -> list[Protocol | SubProtocol]:
    """The protocols of installed packages: entry points in the group `vouch.protocols`, each a Protocol, a SubProtocol
    or several.

    Raises UsageError, naming the package, for one that can't be loaded or is something else.
    """
    found: list[Protocol | SubProtocol] = []
    for point in entry_points(group=ENTRY_POINT_GROUP):
        package = point.dist.name if point.dist else "?"
        try:
            value = point.load()
        except Exception as error:  # a package's import may raise anything; the operator must learn which one it was
            raise UsageError(f"the protocol {point.name!r} of package {package} can't be loaded: {error}") from error
        protocols = value if isinstance(value, list | tuple) else [value]
        for protocol in protocols:
            if not isinstance(protocol, Protocol | SubProtocol):
                kind = type(protocol).__name__
                raise UsageError(f"expected {point.value!r} of package {package} to be a Protocol, got {kind}")
            found.append(protocol)
    return found
