"""Messages between nodes: signed, direct, asked and answered. `SubProtocol` is what an author declares."""

from __future__ import annotations

from protocols.messages.answer import Answer
from protocols.messages.channel import AnswerInPartsError
from protocols.messages.declare import Reply, SubProtocol
from protocols.messages.errors import AnswerError, MessageDropped, MessageError, RemoteError
from protocols.messages.rules import Rules
from protocols.messages.service import Messages
from protocols.messages.wire import Kind, Message

__all__ = [
    "Answer",
    "AnswerError",
    "AnswerInPartsError",
    "Kind",
    "Message",
    "MessageDropped",
    "MessageError",
    "Messages",
    "RemoteError",
    "Reply",
    "Rules",
    "SubProtocol",
]
