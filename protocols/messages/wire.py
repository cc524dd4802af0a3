"""`Message` and `SignedMessage` between bytes and values. No keys, no clock: those are `rules`.

    SignedMessage = 0A length Message, 12 length signature      signed: "vouch-message:1:" + Message, byte for byte
    Message       = author, network_id, client_version, protocol, type, kind, request_id, timestamp_ms, payload,
                    recipient, more                              see docs/wire.md, "Signed messages"

Decoding gives values whose fields are valid by themselves, or a `MalformedError` that names the field; nothing else,
whatever the bytes. Whether a message fits this node, its stream and the time is left to `rules`.
"""

from __future__ import annotations

import builtins
import enum
import re

import msgspec
from google.protobuf.message import DecodeError

from protocols.framing import encode_uvarint
from protocols.handshake.wire import MAX_FRAME as MAX_HELLO
from protocols.handshake.wire import MAX_NETWORK_ID, parse_client_version
from protocols.messages import messages_pb2
from protocols.messages.authors import MAX_SIGNATURE_BYTES
from protocols.messages.errors import MalformedError

SIGNED_PREFIX = b"vouch-message:1:"
MAX_FRAME = 2 << 20
MAX_GOSSIP = (1 << 20) - 4096
# of a frame: all that isn't payload, with an RSA key's 1.1 kB as author and its 1 kB as signature
MAX_OVERHEAD = 4096
ERROR_TYPE = 0xFFFFFFFF
MAX_ERROR_TEXT = 1024

_NAME = re.compile(r"[a-z0-9._-]{1,64}", re.ASCII)
_MAX_TYPE = 0xFFFFFFFF
_known_versions: set[str] = set()
_MAX_KNOWN_VERSIONS = 1024


class Kind(enum.IntEnum):
    """What a message is to its recipient."""

    ONE_WAY = 0
    REQUEST = 1
    RESPONSE = 2


ONE_WAY, REQUEST, RESPONSE = Kind.ONE_WAY, Kind.REQUEST, Kind.RESPONSE
_KINDS = (ONE_WAY, REQUEST, RESPONSE)


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message. `peer` is the author's peer ID as text; `author` its public key; `timestamp_ms` Unix time."""

    protocol: str
    payload: bytes
    type: int = 0
    kind: Kind = ONE_WAY
    request_id: int = 0
    timestamp_ms: int = 0
    more: bool = False
    author: bytes = b""
    network_id: bytes = b""
    client_version: str = ""
    recipient: bytes = b""
    peer: str = ""

    @property
    def is_error(self) -> bool:
        """Whether it is an answer that says the handler failed, with a reason in UTF-8 as its payload."""
        return self.type == ERROR_TYPE and self.kind == RESPONSE


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A `SignedMessage`: the message's own bytes, and the signature over them."""

    message: bytes
    signature: bytes


def check_name(name: str) -> str:
    """`name` if it can name a sub-protocol or topic. Raises ValueError."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"expected a name of 1 to 64 of a-z, 0-9, '.', '_' and '-', got {name[:80]!r}")
    return name


def encode_message(message: Message) -> bytes:
    """The bytes of a `Message`, fields in their order."""
    return Template(
        message.author, message.network_id, message.client_version, message.protocol, message.recipient
    ).encode(
        message.payload,
        type=message.type,
        kind=message.kind,
        request_id=message.request_id,
        timestamp_ms=message.timestamp_ms,
        more=message.more,
    )


class Template:
    """What all messages of one author to one recipient begin and end with, encoded once."""

    __slots__ = ("_head", "_more", "_tail")

    def __init__(self, author: bytes, network_id: bytes, client_version: str, protocol: str, recipient: bytes) -> None:
        pb = messages_pb2.Message
        self._head = pb(
            author=author, network_id=network_id, client_version=client_version, protocol=protocol
        ).SerializeToString(deterministic=True)
        self._tail = pb(recipient=recipient).SerializeToString(deterministic=True)
        self._more = self._tail + b"\x58\x01"

    def encode(
        self, payload: bytes, *, type: int, kind: Kind, request_id: int, timestamp_ms: int, more: bool = False
    ) -> bytes:
        """The bytes of a message with these fields."""
        middle = messages_pb2.Message(
            type=type,
            kind=kind,  # type: ignore[arg-type]  # protobuf's own enum has the same numbers
            request_id=request_id,
            timestamp_ms=timestamp_ms,
            payload=payload,
        )
        return self._head + middle.SerializeToString() + (self._more if more else self._tail)


def encode_signed(message: bytes, signature: bytes) -> bytes:
    """The one form of a `SignedMessage`."""
    out = b"\x0a" + encode_uvarint(len(message)) + message
    return out + b"\x12" + encode_uvarint(len(signature)) + signature if signature else out


def decode_signed(data: bytes, peer: str) -> Envelope:
    """The envelope in `data`. Raises MalformedError."""
    signed = messages_pb2.SignedMessage()
    try:
        signed.ParseFromString(data)
    except DecodeError:
        raise MalformedError(peer, "a SignedMessage, got other bytes", "signed_message") from None
    envelope = Envelope(signed.message, signed.signature)
    if not envelope.message:
        raise MalformedError(peer, "a message, got none", "message")
    if len(envelope.signature) > MAX_SIGNATURE_BYTES:
        text = f"a signature of at most {MAX_SIGNATURE_BYTES} bytes, got {len(envelope.signature)}"
        raise MalformedError(peer, text, "signature")
    return envelope


def decode_signed_strictly(data: bytes, peer: str) -> Envelope:
    """As `decode_signed`, but only in the form that `encode_signed` gives: gossip's IDs are made of the bytes."""
    envelope = decode_signed(data, peer)
    if encode_signed(envelope.message, envelope.signature) != data:
        raise MalformedError(peer, "field 1, then field 2, and nothing else", "signed_message")
    return envelope


def decode_message(data: bytes, peer: str) -> Message:
    """The message in `data`. Its `peer` is the sender: nobody has looked at the author. Raises MalformedError."""
    pb = messages_pb2.Message()
    try:
        pb.ParseFromString(data)
    except DecodeError:
        raise MalformedError(peer, "a Message, got other bytes") from None
    kind, request_id = int(pb.kind), pb.request_id
    if not 0 <= kind <= 2:
        raise MalformedError(peer, f"0, 1 or 2, got {kind}", "kind")
    if kind != RESPONSE and pb.more:
        raise MalformedError(peer, "it in a RESPONSE only", "more")
    if kind == ONE_WAY and request_id:
        raise MalformedError(peer, f"0 in a ONE_WAY, got {request_id}", "request_id")
    network_id, version, protocol = pb.network_id, pb.client_version, pb.protocol
    if not 1 <= len(network_id) <= MAX_NETWORK_ID:
        raise MalformedError(peer, f"1 to {MAX_NETWORK_ID} bytes, got {len(network_id)}", "network_id")
    if version not in _known_versions:
        _check_version(version, peer)
    if _NAME.fullmatch(protocol) is None:
        raise MalformedError(peer, "1 to 64 of a-z, 0-9, '.', '_' and '-', got something else", "protocol")
    return Message(
        protocol=protocol,
        payload=pb.payload,
        type=pb.type,
        kind=_KINDS[kind],
        request_id=request_id,
        timestamp_ms=pb.timestamp_ms,
        more=pb.more,
        author=pb.author,
        network_id=network_id,
        client_version=version,
        recipient=pb.recipient,
        peer=peer,
    )


def check_outgoing(payload: bytes, type: int, max_payload: int) -> None:
    """Raises ValueError or TypeError for what can't be sent: our own caller's mistake."""
    if not isinstance(payload, bytes):
        raise TypeError(f"payload: expected bytes, got {builtins.type(payload).__name__}")
    if not isinstance(type, int):
        raise TypeError(f"type: expected a number, got {type!r}")
    if len(payload) > max_payload:
        raise ValueError(f"payload: expected at most {max_payload} bytes, got {len(payload)}")
    if not 0 <= type < _MAX_TYPE:
        raise ValueError(f"type: expected 0 to {_MAX_TYPE - 1} (the next says that an answer is an error), got {type}")


def error_payload(text: str) -> bytes:
    """What an error answer carries: `text` as UTF-8, cut off between two characters after at most 1 KiB."""
    data = text.encode("utf-8", "replace")
    return data if len(data) <= MAX_ERROR_TEXT else data[:MAX_ERROR_TEXT].decode("utf-8", "ignore").encode()


def error_text(payload: bytes) -> str:
    """And back, for a reader who may print it: without control characters."""
    text = payload[:MAX_ERROR_TEXT].decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _check_version(version: str, peer: str) -> None:
    if len(version) > MAX_HELLO:  # its author couldn't have shown it in a handshake, and it goes into logs
        raise MalformedError(peer, f"at most {MAX_HELLO} bytes, got {len(version)}", "client_version")
    try:
        parse_client_version(version)
    except ValueError as error:
        raise MalformedError(peer, str(error).removeprefix("expected "), "client_version") from None
    if len(_known_versions) < _MAX_KNOWN_VERSIONS:
        _known_versions.add(version)
