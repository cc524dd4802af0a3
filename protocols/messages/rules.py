"""Whether a message may be taken: everything that docs/wire.md, "Signed messages", rejects. No I/O, no clock.

    bytes --parse--> fields valid --> our network --> this stream's name --> author --> recipient, kind --> in time
          --> signature --> Message
    any step but time:  MessageError, the sender's fault        time: MessageDropped, nobody's

What costs most, the signature, comes last; so nothing that only a valid signature would prove is acted upon before
it. What becomes of a stream after an error is left to the caller, and so is the clock: `wall_ms` is Unix time in
milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from protocols.messages.authors import Author, Signer, author_of, peer_id_bytes, peer_id_of
from protocols.messages.errors import (
    AuthorError,
    KindError,
    MessageDropped,
    NetworkError,
    RecipientError,
    SignatureError,
    WrongProtocolError,
)
from protocols.messages.wire import (
    ONE_WAY,
    SIGNED_PREFIX,
    Envelope,
    Message,
    Template,
    decode_message,
    decode_signed,
    decode_signed_strictly,
)

MAX_AGE = 600.0
MAX_AHEAD = 30.0


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Who we are, and what we take.

    signatures: whether direct messages are signed, and must be.
    max_age, max_ahead: seconds that a message's timestamp may lie before or after our clock.
    """

    signer: Signer
    network_id: bytes
    client_version: str
    signatures: bool = True
    max_age: float = MAX_AGE
    max_ahead: float = MAX_AHEAD
    peer_id: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "peer_id", peer_id_of(self.signer.public_key))

    def template(self, protocol: str, recipient: str = "") -> Template:
        """For our messages of one sub-protocol to one peer, or of one topic to everybody."""
        to = peer_id_bytes(recipient) if recipient else b""
        return Template(self.signer.public_key, self.network_id, self.client_version, protocol, to)

    def sign(self, message: bytes) -> bytes:
        """Our signature over an encoded `Message`; nothing with signatures off."""
        return self.signer.sign(SIGNED_PREFIX + message) if self.signatures else b""

    def check_direct(self, data: bytes, peer: str, protocol: str, wall_ms: int) -> Message:
        """The message that `peer` sent us itself, on the stream of `protocol`. Raises MessageError, MessageDropped."""
        envelope = decode_signed(data, peer)
        message = self._decode(envelope, peer, protocol)
        author = _author(message, peer)
        if author.peer != peer:
            raise AuthorError(peer, f"the connection's peer, got {author.peer}")
        if message.recipient != self.peer_id:
            raise RecipientError(peer, "this node, got another peer's ID or none")
        self._check_time(message, peer, wall_ms)
        if self.signatures or envelope.signature:
            _check_signature(author, envelope, peer)
        return message

    def check_gossip(self, data: bytes, forwarder: str, topic: str, wall_ms: int) -> Message:
        """The message in the data of a pubsub message. Raises MessageError (reject it), MessageDropped (ignore it)."""
        envelope = decode_signed_strictly(data, forwarder)
        message = self._decode(envelope, forwarder, topic)
        author = _author(message, forwarder)
        if message.recipient:
            raise RecipientError(forwarder, "none in gossip, got one")
        if message.kind != ONE_WAY:
            raise KindError(forwarder, f"ONE_WAY in gossip, got {message.kind.name}")
        self._check_time(message, forwarder, wall_ms)
        _check_signature(author, envelope, forwarder)
        return msgspec.structs.replace(message, peer=author.peer)

    def _decode(self, envelope: Envelope, peer: str, protocol: str) -> Message:
        message = decode_message(envelope.message, peer)
        if message.network_id != self.network_id:
            raise NetworkError(peer, f"our network, got {message.network_id.hex()}")
        if message.protocol != protocol:
            raise WrongProtocolError(peer, f"{protocol!r}, got {message.protocol!r}")
        return message

    def _check_time(self, message: Message, peer: str, wall_ms: int) -> None:
        age = (wall_ms - message.timestamp_ms) / 1000
        if not -self.max_ahead <= age <= self.max_age:
            where = f"{age:.0f} s old" if age > 0 else f"{-age:.0f} s ahead"
            text = f"expected a message of the last {self.max_age:g} s by our clock, got one {where}"
            raise MessageDropped("timestamp", peer, text)


def _author(message: Message, peer: str) -> Author:
    try:
        return author_of(message.author)
    except ValueError as error:
        raise AuthorError(peer, str(error).removeprefix("expected ")) from None


def _check_signature(author: Author, envelope: Envelope, peer: str) -> None:
    if not envelope.signature:
        raise SignatureError(peer, "one, got none")
    if not author.verify(envelope.signature, SIGNED_PREFIX + envelope.message):
        raise SignatureError(peer, f"one by {author.peer}, got another")
