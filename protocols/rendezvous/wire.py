"""Rendezvous' messages between bytes and values, as libp2p's specification and rust-libp2p have them.

    frame = varint length, Message                     on /rendezvous/1.0.0
    REGISTER -> REGISTER_RESPONSE      UNREGISTER -> nothing      DISCOVER -> DISCOVER_RESPONSE

Decoding gives a value or a `ProtocolError`; of a question whose form is right and whose namespace isn't, a `Refused`,
which is an answer. Whether a record is the peer's own and a cookie ours is `rules`' to say.
Source: https://github.com/libp2p/specs/tree/master/rendezvous
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from google.protobuf.message import DecodeError

from protocols.errors import ProtocolError
from protocols.rendezvous import rendezvous_pb2 as pb

PROTOCOL_ID = "/rendezvous/1.0.0"
MAX_NAMESPACE = 255
MAX_RECORD = 4 * 1024
MAX_COOKIE = 512
# a question holds a namespace and a record or a cookie; what rust-libp2p takes for an answer is a megabyte
MAX_QUESTION = 8 * 1024
MAX_ANSWER = 1024 * 1024
MAX_TEXT = 256
HOUR = 3600
DEFAULT_TTL, MIN_TTL, MAX_TTL = 2 * HOUR, 2 * HOUR, 72 * HOUR

_REGISTER, _REGISTER_RESPONSE, _UNREGISTER, _DISCOVER, _DISCOVER_RESPONSE = range(5)


class Status(IntEnum):
    """What became of a question. An answer may hold other numbers, which are errors too."""

    OK = 0
    INVALID_NAMESPACE = 100
    INVALID_SIGNED_PEER_RECORD = 101
    INVALID_TTL = 102
    INVALID_COOKIE = 103
    NOT_AUTHORIZED = 200
    INTERNAL_ERROR = 300
    UNAVAILABLE = 400


class Refused(Exception):
    """A question that is answered with an error. `discover` says in which of the two answers."""

    def __init__(self, status: int, text: str, *, discover: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.discover = discover


@dataclass(frozen=True)
class Register:
    """A question: `ttl` in seconds. In an answer to Discover: somebody's registration, and the seconds it has left."""

    namespace: str
    record: bytes
    ttl: int | None = None


@dataclass(frozen=True)
class Unregister:
    """A question without an answer."""

    namespace: str


@dataclass(frozen=True)
class Discover:
    """A question: all namespaces without one, as many as the point likes without a limit, or 0."""

    namespace: str | None = None
    cookie: bytes = b""
    limit: int | None = None


@dataclass(frozen=True)
class Registered:
    """An answer: it holds for `ttl` seconds."""

    ttl: int


@dataclass(frozen=True)
class Discovered:
    """An answer: `cookie` asks for what comes after these."""

    registrations: tuple[Register, ...]
    cookie: bytes


Question = Register | Unregister | Discover
Answer = Registered | Discovered


def encode_question(question: Question) -> bytes:
    """The message's bytes, without the frame's length."""
    match question:
        case Register():
            message = pb.Message(type=_REGISTER, register=_register(question))
        case Unregister(namespace):
            message = pb.Message(type=_UNREGISTER, unregister=pb.Unregister(ns=namespace.encode()))
        case Discover(namespace, cookie, limit):
            discover = pb.Discover(ns=None if namespace is None else namespace.encode(), limit=limit)
            if cookie:
                discover.cookie = cookie
            message = pb.Message(type=_DISCOVER, discover=discover)
    return message.SerializeToString(deterministic=True)


def decode_question(data: bytes) -> Question:
    """What a client asks. Raises ProtocolError for what is none, and Refused for one with a wrong namespace, no record
    or a cookie that is none of ours for sure."""
    message = _message(data)
    kind = message.type if message.HasField("type") else None
    if kind == _REGISTER and message.HasField("register"):
        body = message.register
        if not body.signed_peer_record or len(body.signed_peer_record) > MAX_RECORD:
            raise Refused(
                Status.INVALID_SIGNED_PEER_RECORD,
                f"expected a signed peer record of 1 to {MAX_RECORD} bytes, got {len(body.signed_peer_record)}",
            )
        return Register(_namespace(body.ns), body.signed_peer_record, body.ttl if body.HasField("ttl") else None)
    if kind == _UNREGISTER and message.HasField("unregister"):
        return Unregister(_namespace(message.unregister.ns))
    if kind == _DISCOVER and message.HasField("discover"):
        asked = message.discover
        namespace = _namespace(asked.ns, discover=True) if asked.ns else None
        if len(asked.cookie) > MAX_COOKIE:
            text = f"expected a cookie of at most {MAX_COOKIE} bytes, got {len(asked.cookie)}"
            raise Refused(Status.INVALID_COOKIE, text, discover=True)
        return Discover(namespace, asked.cookie, asked.limit if asked.HasField("limit") else None)
    raise ProtocolError(f"expected REGISTER, UNREGISTER or DISCOVER with its content, got type {kind}")


def encode_answer(answer: Answer | Refused) -> bytes:
    """The message's bytes, without the frame's length."""
    match answer:
        case Registered(ttl):
            done = pb.RegisterResponse(status=Status.OK, ttl=ttl)
            message = pb.Message(type=_REGISTER_RESPONSE, register_response=done)
        case Discovered(registrations, cookie):
            found = pb.DiscoverResponse(registrations=map(_register, registrations), cookie=cookie, status=Status.OK)
            message = pb.Message(type=_DISCOVER_RESPONSE, discover_response=found)
        case Refused(discover=True):
            none = pb.DiscoverResponse(status=answer.status, status_text=_cut(answer.text))
            message = pb.Message(type=_DISCOVER_RESPONSE, discover_response=none)
        case Refused():
            refused = pb.RegisterResponse(status=answer.status, status_text=_cut(answer.text))
            message = pb.Message(type=_REGISTER_RESPONSE, register_response=refused)
    return message.SerializeToString(deterministic=True)


def decode_answer(data: bytes) -> Answer | Refused:
    """What a point answers. Raises ProtocolError. Registrations whose namespace or record can't be are left out."""
    message = _message(data)
    kind = message.type if message.HasField("type") else None
    if kind == _REGISTER_RESPONSE and message.HasField("register_response"):
        response = message.register_response
        if response.status:
            return Refused(response.status, _text(response.status_text))
        if not response.HasField("ttl"):
            raise ProtocolError("expected a REGISTER_RESPONSE with its TTL, got none")
        return Registered(response.ttl)
    if kind == _DISCOVER_RESPONSE and message.HasField("discover_response"):
        found = message.discover_response
        if found.status:
            return Refused(found.status, _text(found.status_text), discover=True)
        if len(found.cookie) > MAX_COOKIE:
            raise ProtocolError(f"expected a cookie of at most {MAX_COOKIE} bytes, got {len(found.cookie)}")
        return Discovered(tuple(filter(None, map(_read_register, found.registrations))), found.cookie)
    raise ProtocolError(f"expected REGISTER_RESPONSE or DISCOVER_RESPONSE with its content, got type {kind}")


def check_namespace(namespace: str) -> str:
    """`namespace`, if it is one. Raises ValueError, also for text that UTF-8 can't hold."""
    size = len(namespace.encode())
    if not 1 <= size <= MAX_NAMESPACE:
        raise ValueError(f"expected a namespace of 1 to {MAX_NAMESPACE} bytes, got {size}")
    return namespace


def _message(data: bytes) -> pb.Message:
    message = pb.Message()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise ProtocolError(f"expected a rendezvous message: {error}") from None
    return message


def _register(registration: Register) -> pb.Register:
    return pb.Register(ns=registration.namespace.encode(), signed_peer_record=registration.record, ttl=registration.ttl)


def _read_register(body: pb.Register) -> Register | None:
    try:
        namespace = _namespace(body.ns)
    except Refused:
        return None
    if not 0 < len(body.signed_peer_record) <= MAX_RECORD:
        return None
    return Register(namespace, body.signed_peer_record, body.ttl if body.HasField("ttl") else None)


def _namespace(data: bytes, *, discover: bool = False) -> str:
    try:
        return check_namespace(data.decode())
    except UnicodeDecodeError:
        text = "expected a namespace in UTF-8, got other bytes"
    except ValueError as error:
        text = str(error)
    raise Refused(Status.INVALID_NAMESPACE, text, discover=discover)


def _text(data: bytes) -> str:
    return data[:MAX_TEXT].decode("utf-8", "replace")


def _cut(text: str) -> bytes:
    return text.encode("utf-8", "replace")[:MAX_TEXT].decode("utf-8", "ignore").encode()
