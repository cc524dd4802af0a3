"""What the engine asks its caller to do, and what it tells.

Send      put an RPC in the peers' queues          Deliver   ask the program for a verdict
Connect   dial a peer that a PRUNE named           Redial    dial a direct peer that is missing
Dropped   a delivered message needs no verdict any more
Grafted, Pruned                                    for metrics
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass

from protocols.gossip.rpc import PeerInfo, PubsubMessage, Rpc

Peer = Hashable


class Priority(enum.IntEnum):
    """Which of a peer's RPCs goes first, and is dropped last where its queue is full: the lower.

    What the peer asked for goes before what it didn't: we have promised it, and pay (P7) if it doesn't come in time.
    """

    CONTROL = 0  # subscriptions and everything in `Control`
    PUBLISH = 1  # our own messages
    ANSWER = 2  # other people's, to who asked (IWANT)
    RELAY = 3  # other people's, to everybody else


@dataclass(slots=True)
class Send:
    """The RPC is one value for all the peers, so it needs to be encoded only once. It may be larger than a frame.

    message_id: of the message in it, where it is a single one that is relayed.
    """

    peers: tuple[Peer, ...]
    rpc: Rpc
    priority: Priority
    message_id: bytes = b""


@dataclass(slots=True)
class Deliver:
    """A message at first sight: `Engine.verdict` is asked for, until `deadline`."""

    topic: str
    message: PubsubMessage
    message_id: bytes
    forwarder: Peer
    received_at: float
    deadline: float


@dataclass(slots=True)
class Connect:
    """`via` has named the peer `info`; its record hasn't been looked at."""

    info: PeerInfo
    via: Peer


@dataclass(slots=True)
class Redial:
    peer: Peer


@dataclass(slots=True)
class Dropped:
    """A message that was delivered is ignored without a verdict. `reason` is one of a few fixed words:
    timeout, no_room, unsubscribed."""

    topic: str
    message_id: bytes
    reason: str


@dataclass(slots=True)
class Grafted:
    peer: Peer
    topic: str


@dataclass(slots=True)
class Pruned:
    """`reason` is one of a few fixed words: score, excess, left (we did), theirs (the peer's PRUNE), unsubscribed
    (the peer has), gone."""

    peer: Peer
    topic: str
    reason: str


Action = Send | Deliver | Connect | Redial | Dropped | Grafted | Pruned
