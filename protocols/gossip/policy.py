"""How messages are signed, and what makes one good before anybody is asked about it.

    own networks      data = a SignedMessage of ours; pubsub itself unsigned (StrictNoSign); ID = SHA-256 of the content
    foreign networks  data as it is; pubsub signs (StrictSign): from, seqno, signature over "libp2p-pubsub:" + message

A policy makes messages, and opens those that come: `admit` is asked before an ID is marked seen and must be cheap or
necessary, `open` before a message is handed on. The forwarder pays for what they refuse. Sources: docs/wire.md,
"Signed messages"; libp2p/specs, pubsub/README.md ("Message Signing").
"""

from __future__ import annotations

import hashlib
import time
import typing
from dataclasses import dataclass

from protocols.gossip import rpc_pb2
from protocols.gossip.rpc import PubsubMessage
from protocols.gossip.seen import Seen
from protocols.gossip.state import MessageId, content_id, origin_id
from protocols.messages.authors import Signer, author_of, peer_id_of
from protocols.messages.errors import MalformedError, MessageDropped
from protocols.messages.rules import Rules
from protocols.messages.wire import (
    MAX_GOSSIP,
    MAX_OVERHEAD,
    ONE_WAY,
    SIGNED_PREFIX,
    check_name,
    check_outgoing,
    decode_signed,
    encode_signed,
)

SIGN_PREFIX = b"libp2p-pubsub:"
_MAX_TOPIC = 256
_INLINE_KEY = b"\x00\x24"  # an identity multihash of 36 bytes, which holds an Ed25519 key


@dataclass(frozen=True)
class Opened:
    """What a good message holds. `author` is a peer ID; `type` is 0 and `timestamp_ms` None in foreign networks."""

    author: str
    payload: bytes
    type: int = 0
    timestamp_ms: int | None = None


class Policy(typing.Protocol):
    """One way to sign."""

    message_id: MessageId
    max_payload: int

    def check_topic(self, topic: str) -> None:
        """Raises ValueError for what can't be a topic here."""

    def make(self, topic: str, payload: bytes, type: int) -> PubsubMessage:
        """Our message. Raises ValueError."""

    def admit(self, message: PubsubMessage) -> bool:
        """Whether the message may be looked at."""

    def open(self, message: PubsubMessage, forwarder: str, now: float) -> Opened:
        """What is in it. Raises MessageError (reject it) or MessageDropped (ignore it)."""


class OwnNetwork:
    """Signed messages of ours. `seen_ttl` and `max_seen` bound what is remembered of those that were opened."""

    def __init__(self, rules: Rules, seen_ttl: float, max_seen: int) -> None:
        self.message_id: MessageId = content_id
        self.max_payload = MAX_GOSSIP - MAX_OVERHEAD
        self._rules = rules
        self._seen: Seen[None] = Seen(seen_ttl, max_seen)

    def check_topic(self, topic: str) -> None:
        check_name(topic)

    def make(self, topic: str, payload: bytes, type: int) -> PubsubMessage:
        check_outgoing(payload, type, self.max_payload)
        message = self._rules.template(topic).encode(
            payload, type=type, kind=ONE_WAY, request_id=0, timestamp_ms=time.time_ns() // 1_000_000
        )
        return PubsubMessage(topic, encode_signed(message, self._rules.signer.sign(SIGNED_PREFIX + message)))

    def admit(self, message: PubsubMessage) -> bool:
        return (
            message.from_ is None
            and message.seqno is None
            and message.signature is None
            and message.key is None
            and len(message.data) <= MAX_GOSSIP
        )

    def open(self, message: PubsubMessage, forwarder: str, now: float) -> Opened:
        found = self._rules.check_gossip(message.data, forwarder, message.topic, time.time_ns() // 1_000_000)
        # of the part that is signed, which has the author in it: the same message may come with another signature
        digest = hashlib.sha256(decode_signed(message.data, forwarder).message).digest()
        self._seen.expire(now)  # each time, as nobody else does: it would fill up, and be emptied all at once
        if digest in self._seen.marks:
            raise MessageDropped("seen", forwarder, "expected a new message, got one that was signed anew")
        if self._seen.full(now):
            raise MessageDropped("seen_full", forwarder, "expected room to remember another message, there is none")
        self._seen.add(now, digest, None)
        return Opened(found.peer, found.payload, found.type, found.timestamp_ms)


class ForeignNetwork:
    """Plain libp2p pubsub, StrictSign."""

    def __init__(self, signer: Signer, max_payload: int = MAX_GOSSIP - MAX_OVERHEAD) -> None:
        self.message_id: MessageId = origin_id
        self.max_payload = max_payload
        self._signer = signer
        self._from = peer_id_of(signer.public_key)
        self._sequence = time.time_ns()

    def check_topic(self, topic: str) -> None:
        if not 1 <= len(topic.encode()) <= _MAX_TOPIC:
            raise ValueError(f"expected a topic of 1 to {_MAX_TOPIC} bytes, got {len(topic.encode())}")

    def make(self, topic: str, payload: bytes, type: int) -> PubsubMessage:
        if type:
            raise ValueError(f"expected no type (0): foreign networks have none, got {type}")
        check_outgoing(payload, type, self.max_payload)
        self._sequence += 1
        message = PubsubMessage(topic, payload, self._from, self._sequence.to_bytes(8, "big"))
        message.signature = self._signer.sign(SIGN_PREFIX + signed_part(message))
        if not self._from.startswith(_INLINE_KEY):
            message.key = self._signer.public_key
        return message

    def admit(self, message: PubsubMessage) -> bool:
        if not message.from_ or not message.seqno or not message.signature:
            return False
        key = message.from_[2:] if message.from_.startswith(_INLINE_KEY) else message.key
        if not key or peer_id_of(key) != message.from_ or (message.key and message.key != key):
            return False
        try:
            author = author_of(key)
        except ValueError:
            return False
        return author.verify(message.signature, SIGN_PREFIX + signed_part(message))

    def open(self, message: PubsubMessage, forwarder: str, now: float) -> Opened:
        key = message.from_[2:] if message.from_ and message.from_.startswith(_INLINE_KEY) else message.key
        if not key:
            raise MalformedError(forwarder, "an author, got none", "from")
        return Opened(author_of(key).peer, message.data)


def signed_part(message: PubsubMessage) -> bytes:
    """The bytes of a message without its signature and key."""
    wire = rpc_pb2.Message(topic=message.topic.encode(), seqno=message.seqno)
    if message.has_data:
        wire.data = message.data
    if message.from_ is not None:
        setattr(wire, "from", message.from_)
    return wire.SerializeToString(deterministic=True)
