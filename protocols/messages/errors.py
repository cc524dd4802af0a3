"""What can be wrong with a message, whose fault it is, and what a caller is told.

MessageError (a ProtocolError)   the sender broke the rules: it costs the stream, in gossip the sender's score
MessageDropped                   nobody's fault: the message is dropped and counted
RemoteError, AnswerError         the answer to a request is an error
"""

from __future__ import annotations

from protocols.errors import FrameTooLargeError, ProtocolError


class MessageError(ProtocolError):
    """A message that breaks the rules. `reason` is a fixed word, `field` the message's field, `peer` who sent it."""

    reason = "malformed"
    field = "message"

    def __init__(self, peer: str, text: str, field: str = "") -> None:
        super().__init__(f"{field or self.field}: expected {text}, from {peer}")
        self.peer = peer
        if field:
            self.field = field


class MalformedError(MessageError):
    """The bytes aren't a message, or one of its fields isn't valid."""


class OversizeError(MessageError):
    """The frame is larger than its sub-protocol allows."""

    reason = "oversize"


def oversize(error: FrameTooLargeError, peer: str) -> OversizeError:
    """What a stream says of a frame over the bound, as a message's error."""
    return OversizeError(peer, str(error).removeprefix("expected "), "frame")


class SignatureError(MessageError):
    """The signature isn't the author's, or there is none."""

    reason = "signature"
    field = "signature"


class NetworkError(MessageError):
    """The message was made for another network."""

    reason = "network_id"
    field = "network_id"


class WrongProtocolError(MessageError):
    """The message was made for another sub-protocol or topic."""

    reason = "protocol"
    field = "protocol"


class AuthorError(MessageError):
    """The author isn't who may send it here, or no key."""

    reason = "author"
    field = "author"


class RecipientError(MessageError):
    """The message was made for somebody else."""

    reason = "recipient"
    field = "recipient"


class KindError(MessageError):
    """A message of this kind has no place here."""

    reason = "kind"
    field = "kind"


class MessageDropped(Exception):  # nothing is wrong with it, or nobody can tell
    """A message that is dropped, and nobody is blamed. `reason` is a fixed word."""

    def __init__(self, reason: str, peer: str, text: str) -> None:
        super().__init__(f"{text}, from {peer}")
        self.reason = reason
        self.peer = peer


class RemoteError(Exception):
    """The peer answered a request with an error; `text` is what it said (at most 1 KiB of it)."""

    def __init__(self, peer: str, protocol: str, text: str) -> None:
        super().__init__(f"{peer} answered {protocol} with an error: {text}")
        self.peer = peer
        self.protocol = protocol
        self.text = text


class AnswerError(Exception):
    """For handlers to raise: the request is answered with this text as an error, and nothing is logged."""
