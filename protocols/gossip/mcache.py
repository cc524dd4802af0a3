"""Accepted messages that peers may still ask for, in windows of a heartbeat each.

    put -> [window 0 | 1 | 2 | 3 | 4] -> forgotten         shift, at each heartbeat, moves everything by one
            `-- gossip ---'  these are advertised

Nothing is in here before it is accepted. Where the messages exceed `max_bytes`, the oldest go before their time.
Source: gossipsub v1.0, "Message Cache"; the count of retransmissions, v1.1, "Spam Protection Measures".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from protocols.gossip.rpc import PubsubMessage

Peer = Hashable


class MessageCache:
    """Messages by ID, and their IDs by topic and window."""

    __slots__ = ("_asked", "_gossip", "_max_bytes", "_messages", "_windows", "bytes", "evicted")

    def __init__(self, history_length: int, history_gossip: int, max_bytes: int) -> None:
        self._gossip, self._max_bytes = history_gossip, max_bytes
        self._messages: OrderedDict[bytes, PubsubMessage] = OrderedDict()
        self._asked: dict[bytes, dict[Peer, int]] = {}
        self._windows: list[dict[str, list[bytes]]] = [{} for _ in range(history_length)]
        self.bytes = 0
        self.evicted = 0  # before their time

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message_id: bytes, message: PubsubMessage) -> None:
        if message_id in self._messages:
            return
        self._messages[message_id] = message
        self._windows[0].setdefault(message.topic, []).append(message_id)
        self.bytes += len(message.data)
        while self.bytes > self._max_bytes:
            self.evicted += 1
            self._forget(next(iter(self._messages)))

    def get(self, message_id: bytes) -> PubsubMessage | None:
        return self._messages.get(message_id)

    def ask(self, message_id: bytes, peer: Peer) -> tuple[PubsubMessage | None, int]:
        """The message that the peer asks for, and how often it has asked for it, this time included."""
        message = self._messages.get(message_id)
        if message is None:
            return None, 0
        counts = self._asked.setdefault(message_id, {})
        counts[peer] = counts.get(peer, 0) + 1
        return message, counts[peer]

    def gossip_ids(self, topic: str) -> list[bytes]:
        """IDs of the topic that are advertised, the newest window's first."""
        found: list[bytes] = []
        for window in self._windows[: self._gossip]:
            if ids := window.get(topic):
                found += ids
        return [one for one in found if one in self._messages] if found else found

    def shift(self) -> None:
        """A heartbeat has passed."""
        if not self._messages and not any(self._windows):
            return
        for ids in self._windows.pop().values():
            for message_id in ids:
                self._forget(message_id)
        self._windows.insert(0, {})

    def _forget(self, message_id: bytes) -> None:
        message = self._messages.pop(message_id, None)
        if message is not None:
            self.bytes -= len(message.data)
            self._asked.pop(message_id, None)
