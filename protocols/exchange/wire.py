"""The exchange's four messages, between bytes and values.

    frame = varint length (at most 64 KiB), ExchangeMessage { one of Ping, Pong, GetAddresses, Addresses }
                                                               on /vouch/peer-exchange/1.0.0, see docs/wire.md

Decoding gives one of them within its bounds, or a `ProtocolError`; nothing else, whatever the bytes. Multiaddrs and
records are bytes here: whether they can be read is for whoever uses them. Which message is due is `engine`'s to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from protocols.errors import ProtocolError
from protocols.exchange import exchange_pb2

PROTOCOL_ID = "/vouch/peer-exchange/1.0.0"
MAX_FRAME = 64 * 1024
MAX_MULTIADDRS = 16
MAX_RECORDS = 100
# what a frame holds beside the records' own bytes: the message's two lengths
_OVERHEAD = 16
_RECORD_OVERHEAD = 4


@dataclass(frozen=True)
class Alive:
    """Who speaks, where it can be dialled (at most 16 multiaddrs), and a number to be sent back (64 bits)."""

    peer_id: bytes
    multiaddrs: tuple[bytes, ...] = ()
    nonce: int = 0

    def __post_init__(self) -> None:
        if len(self.multiaddrs) > MAX_MULTIADDRS:
            raise ValueError(f"expected at most {MAX_MULTIADDRS} multiaddrs, got {len(self.multiaddrs)}")
        if not 0 <= self.nonce < 1 << 64:
            raise ValueError(f"expected a nonce between 0 and 2^64-1, got {self.nonce}")


@dataclass(frozen=True)
class Ping(Alive):
    """The first message, of who asks."""


@dataclass(frozen=True)
class Pong(Alive):
    """Its answer, with the same nonce."""


@dataclass(frozen=True)
class GetAddresses:
    """Asks for at most `limit` records, which is at most 100."""

    limit: int

    def __post_init__(self) -> None:
        if not 0 <= self.limit <= MAX_RECORDS:
            raise ValueError(f"expected a limit of at most {MAX_RECORDS}, got {self.limit}")


@dataclass(frozen=True)
class Addresses:
    """Signed peer records, at most 100."""

    records: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if len(self.records) > MAX_RECORDS:
            raise ValueError(f"expected at most {MAX_RECORDS} records, got {len(self.records)}")


Message = Ping | Pong | GetAddresses | Addresses


def encode(message: Message) -> bytes:
    """The message's bytes, without the frame's length."""
    wire = exchange_pb2.ExchangeMessage()
    match message:
        case Alive():
            alive = wire.ping if isinstance(message, Ping) else wire.pong
            alive.SetInParent()
            alive.peer_id, alive.nonce = message.peer_id, message.nonce
            alive.multiaddrs.extend(message.multiaddrs)
        case GetAddresses(limit):
            wire.get_addresses.SetInParent()
            wire.get_addresses.limit = limit
        case Addresses(records):
            wire.addresses.SetInParent()
            wire.addresses.signed_peer_records.extend(records)
    return wire.SerializeToString(deterministic=True)


def decode(data: bytes) -> Message:
    """The message in `data`. Raises ProtocolError if there is none."""
    wire = exchange_pb2.ExchangeMessage()
    try:
        wire.ParseFromString(data)
        match wire.WhichOneof("body"):
            case "ping":
                return Ping(wire.ping.peer_id, tuple(wire.ping.multiaddrs), wire.ping.nonce)
            case "pong":
                return Pong(wire.pong.peer_id, tuple(wire.pong.multiaddrs), wire.pong.nonce)
            case "get_addresses":
                return GetAddresses(wire.get_addresses.limit)
            case "addresses":
                return Addresses(tuple(wire.addresses.signed_peer_records))
    except (DecodeError, ValueError) as error:
        raise ProtocolError(f"expected an ExchangeMessage: {error}") from None
    raise ProtocolError("expected an ExchangeMessage with a body, got one without")


def fitting(records: list[bytes], limit: int) -> tuple[bytes, ...]:
    """The first of the records that fit into one answer, `limit` of them at most."""
    room, taken = MAX_FRAME - _OVERHEAD, list[bytes]()
    for record in records:
        room -= len(record) + _RECORD_OVERHEAD
        if room < 0 or len(taken) == limit:
            break
        taken.append(record)
    return tuple(taken)
