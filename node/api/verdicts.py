"""Verdicts by whoever subscribes from outside: messages that wait for a call, each under an ID.

    subscribe(decide=True) --"verdict_id"--> the client --`verdict`, from any connection--> the router

What a client that goes has left undecided is ignored, and nobody pays. What waits is bounded by the router, which gives
each message a deadline and holds no more than its parameters say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from weakref import WeakKeyDictionary

import msgspec
import trio

from node.errors import NotFoundError
from node.node import Node
from protocols.gossip import GossipMessage


class GiveVerdict(msgspec.Struct, forbid_unknown_fields=True):
    """`id`: the `verdict_id` of a message. accept: it travels on; reject: it doesn't, and who sent it pays; ignore: it
    doesn't, and nobody pays. `reason` is for the node's counts.
    """

    id: str
    verdict: Literal["accept", "reject", "ignore"]
    reason: str = ""


class VerdictGiven(msgspec.Struct):
    """`counted`: the verdict came in time."""

    id: str
    counted: bool


class Undecided:
    """A node's messages that wait for a client's verdict."""

    def __init__(self) -> None:
        self._messages: dict[str, GossipMessage] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: GossipMessage) -> str:
        """The ID to decide it by: the message's own, and a number behind it if another topic has one of the same."""
        key = message.message_id.hex()
        number = 1
        while key in self._messages:
            number += 1
            key = f"{message.message_id.hex()}-{number}"
        self._messages[key] = message
        return key

    def take(self, key: str) -> GossipMessage | None:
        """The message, once."""
        return self._messages.pop(key, None)

    @contextmanager
    def client(self) -> Iterator[Client]:
        """One client's share; what is left of it at the end is ignored."""
        client = Client(self)
        try:
            yield client
        finally:
            client.leave()


class Client:
    """The messages that one client was told of and hasn't decided on."""

    def __init__(self, undecided: Undecided) -> None:
        self._undecided = undecided
        self._keys: dict[str, float] = {}

    def add(self, message: GossipMessage) -> str:
        """As `Undecided.add`; forgets those whose time is over or that are decided."""
        now = trio.current_time()
        for key, deadline in list(self._keys.items()):
            if now < deadline and key in self._undecided._messages:
                break
            self._undecided.take(key)
            del self._keys[key]
        key = self._undecided.add(message)
        self._keys[key] = message.deadline
        return key

    def leave(self) -> None:
        """Ignores what is undecided."""
        for key in self._keys:
            message = self._undecided.take(key)
            if message is not None and message.verdict is None:
                message.ignore()
        self._keys.clear()


_undecided: WeakKeyDictionary[Node, Undecided] = WeakKeyDictionary()


def undecided(node: Node) -> Undecided:
    """What waits at a node."""
    return _undecided.setdefault(node, Undecided())


async def verdict(node: Node, params: GiveVerdict) -> VerdictGiven:
    """Gives the verdict of a message that a subscriber was told of. Raises NotFoundError for one that doesn't wait."""
    message = undecided(node).take(params.id)
    if message is None or message.verdict is not None:
        raise NotFoundError(
            f"no message waits for a verdict under {params.id[:80]!r}: "
            "it has one, its time is over, or its subscriber has gone"
        )
    match params.verdict:
        case "accept":
            counted = message.accept()
        case "reject":
            counted = message.reject(params.reason or "api")
        case _:
            counted = message.ignore()
    return VerdictGiven(params.id, counted)
