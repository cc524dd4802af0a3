"""Promises: who advertises a message (IHAVE) and is asked for it (IWANT) owes it.

Of each RPC that we answer with an IWANT, one ID, drawn at random, is watched. If the message comes in time, from
whomever, all who promised it are free; if not, each has broken a promise (P7). Source: gossipsub v1.1, "Spam Protection
Measures".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

Peer = Hashable


class Promises:
    """What is watched. Bounded by the IHAVEs that are taken of a peer in a heartbeat, for `followup` seconds."""

    __slots__ = ("_followup", "_watched")

    def __init__(self, followup: float) -> None:
        self._followup = followup
        # deadlines in the order they were set, which is the order in which they come
        self._watched: OrderedDict[bytes, dict[Peer, float]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._watched.values()))

    def add(self, now: float, peer: Peer, message_id: bytes) -> None:
        """The peer owes the message. Asking again doesn't put the deadline off."""
        self._watched.setdefault(message_id, {}).setdefault(peer, now + self._followup)

    def kept(self, message_id: bytes) -> None:
        """The message has come."""
        if self._watched:
            self._watched.pop(message_id, None)

    def broken(self, now: float) -> dict[Peer, int]:
        """Who has broken how many promises since the last call."""
        found: dict[Peer, int] = {}
        for message_id, deadlines in list(self._watched.items()):
            for peer in [peer for peer, deadline in deadlines.items() if deadline < now]:
                del deadlines[peer]
                found[peer] = found.get(peer, 0) + 1
            if not deadlines:
                del self._watched[message_id]
        return found
