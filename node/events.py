"""What happens in a node, as values: for logs, for whoever subscribes, later for metrics.

An event is told to each listener in the order of their subscription, at once and synchronously: a listener must not
block and must not raise. What takes longer starts a task of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


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


Event = MessageRejected | Admitted | Refused | Disconnected | Identified | Listening
Listener = Callable[[Event], None]


class Events:
    """Tells events to listeners."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener` with each event from now on; the returned function ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def emit(self, event: Event) -> None:
        """Tells `event` to everybody."""
        for listener in tuple(self._listeners):
            listener(event)
