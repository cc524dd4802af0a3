"""Messages that await their verdict.

    first sight --add--> WAITING --take (a verdict)--> the caller's
                            |---- expired (the deadline) -> ignored
                            `---- add of another (no room) -> ignored

A message is charged to who brought it first, and to nobody else. What exceeds a peer's bounds isn't taken from that
peer (another may still bring it). What exceeds the bounds of all is made room for: the newest message of the peer that
holds most gives way; if that is the newcomer, it isn't taken. Bounds count messages and bytes of data.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from protocols.gossip.params import GossipParams
from protocols.gossip.rpc import PubsubMessage
from protocols.gossip.seen import Fate

Peer = Hashable


class VerdictError(Exception):
    """A second verdict, or one about a message that nobody was asked about."""


class Pending:
    """One message, from first sight until its verdict, and until the end of P3's window after that."""

    __slots__ = ("deadline", "fate", "forwarder", "forwarders", "message", "message_id", "timeout", "until", "unwanted")

    def __init__(
        self, message_id: bytes, message: PubsubMessage, forwarder: Peer, deadline: float, timeout: float
    ) -> None:
        self.message_id = message_id
        self.message = message
        self.forwarder = forwarder  # who brought it first
        self.forwarders = {forwarder}
        self.unwanted: set[Peer] | None = None  # who has told us that it has the message
        self.deadline, self.timeout = deadline, timeout
        self.fate: Fate | None = None  # None while it waits
        self.until = 0.0  # end of P3's window, once accepted


class _Account:
    """What one peer has brought that still waits."""

    __slots__ = ("bytes", "held")

    def __init__(self) -> None:
        self.bytes = 0
        self.held: dict[bytes, Pending] = {}  # the newest last


class Waiting:
    """All messages that await their verdict."""

    __slots__ = ("_accounts", "_params", "_queues", "bytes", "count")

    def __init__(self, params: GossipParams) -> None:
        self._params = params
        self._accounts: dict[Peer, _Account] = {}
        self._queues: dict[float, OrderedDict[bytes, Pending]] = {}  # by timeout, so that each is in order of deadlines
        self.count = self.bytes = 0

    def add(self, one: Pending) -> tuple[bool, list[Pending]]:
        """Whether the message was taken, and those that gave way for it."""
        params, size = self._params, len(one.message.data)
        account = self._accounts.get(one.forwarder)
        held, held_bytes = (len(account.held), account.bytes) if account else (0, 0)
        if held >= params.max_pending_messages_per_peer or held_bytes + size > params.max_pending_bytes_per_peer:
            return False, []
        gone: list[Pending] = []
        while self.count >= params.max_pending_messages or self.bytes + size > params.max_pending_bytes:
            by_count = self.count >= params.max_pending_messages
            busiest = max(self._accounts.values(), key=lambda one: len(one.held) if by_count else one.bytes)
            if (len(busiest.held) <= held + 1) if by_count else (busiest.bytes <= held_bytes + size):
                return False, gone
            newest = next(reversed(busiest.held.values()))
            self._remove(newest)
            gone.append(newest)
        if account is None or not account.held:
            account = self._accounts[one.forwarder] = _Account()
        account.held[one.message_id] = one
        account.bytes += size
        self.count += 1
        self.bytes += size
        self._queues.setdefault(one.timeout, OrderedDict())[one.message_id] = one
        return True, gone

    def busiest(self) -> tuple[int, int]:
        """The messages of the peer that has most waiting, and the bytes of the one that has most of those."""
        accounts = self._accounts.values()
        return max((len(one.held) for one in accounts), default=0), max((one.bytes for one in accounts), default=0)

    def take(self, one: Pending) -> None:
        """The message has its verdict."""
        self._remove(one)

    def next_deadline(self) -> float | None:
        """When `expired` next has something."""
        deadlines = [next(iter(queue.values())).deadline for queue in self._queues.values()]
        return min(deadlines) if deadlines else None

    def expired(self, now: float) -> list[Pending]:
        """Takes out what has waited too long."""
        found: list[Pending] = []
        for queue in list(self._queues.values()):
            while queue and (oldest := next(iter(queue.values()))).deadline <= now:
                self._remove(oldest)
                found.append(oldest)
        return found

    def of_topic(self, topic: str) -> list[Pending]:
        """What waits in one topic."""
        return [one for queue in self._queues.values() for one in queue.values() if one.message.topic == topic]

    def _remove(self, one: Pending) -> None:
        account, size = self._accounts[one.forwarder], len(one.message.data)
        del account.held[one.message_id]
        account.bytes -= size
        if not account.held:
            del self._accounts[one.forwarder]
        queue = self._queues[one.timeout]
        del queue[one.message_id]
        if not queue:
            del self._queues[one.timeout]
        self.count -= 1
        self.bytes -= size
