"""The messages of libp2p's Kademlia, between bytes and values.

    frame = varint length, Message (dht.proto)          a question and its answer, over and over, on one stream

    FIND_NODE      key: a peer ID          -> closer peers
    GET_VALUE      key                     -> the record if there is one, closer peers
    PUT_VALUE      key, record             -> the same message
    GET_PROVIDERS  key: a multihash        -> providers, closer peers
    ADD_PROVIDER   key, providers          -> nothing
    PING                                   -> the same message (old implementations)

Decoding gives a `Message` within the limits, or a `ProtocolError`; nothing else, whatever the bytes. An answer may name
`MAX_PEERS` peers: what comes after them isn't looked at, and peers whose ID is none are left out.

Source: libp2p/specs, kad-dht/README.md ("RPC messages").
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from protocols.errors import ProtocolError
from protocols.kad import dht_pb2
from protocols.kad.keyspace import is_peer_id

# what we take: twenty peers with many addresses each; what we send: rust-libp2p takes no more by default
MAX_FRAME = 128 * 1024
MAX_SENT = 16 * 1024 - 64
MAX_KEY = 256
MAX_VALUE = 12 * 1024
MAX_PEERS = 20
MAX_ADDRS = 16
MAX_ADDR = 256


class Type(enum.IntEnum):
    """What a message is."""

    PUT_VALUE = 0
    GET_VALUE = 1
    ADD_PROVIDER = 2
    GET_PROVIDERS = 3
    FIND_NODE = 4
    PING = 5


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer that a message names: its ID and addresses, in bytes. Nothing of it is proven."""

    id: bytes
    addrs: tuple[bytes, ...] = ()
    connected: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """A value. `received` is RFC 3339 text of whoever stored it, for information."""

    key: bytes
    value: bytes
    received: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message, either way."""

    type: Type
    key: bytes = b""
    record: Record | None = None
    closer: tuple[Peer, ...] = ()
    providers: tuple[Peer, ...] = ()


def encode(message: Message) -> bytes:
    """The message's bytes, without the frame's length; at most MAX_SENT of them.

    Of what names too much, peers lose addresses first, and then the last peers are left out. Raises ValueError if the
    key and record alone are too long.
    """
    for addrs in (MAX_ADDRS, 8, 4, 2, 1):
        data = _encode(message, addrs, MAX_PEERS)
        if len(data) <= MAX_SENT:
            return data
    for peers in (8, 2, 0):
        data = _encode(message, 1, peers)
        if len(data) <= MAX_SENT:
            return data
    raise ValueError(f"expected a message of at most {MAX_SENT} bytes, got {len(data)}")


def _encode(message: Message, addrs: int, peers: int) -> bytes:
    wire = dht_pb2.Message(type=message.type, key=message.key)
    if message.record is not None:
        record = message.record
        wire.record.key = record.key
        wire.record.value = record.value
        wire.record.time_received = record.received.encode()
    for field, named in ((wire.closer_peers, message.closer), (wire.provider_peers, message.providers)):
        for peer in named[:peers]:
            field.add(id=peer.id, addrs=peer.addrs[:addrs], connection=int(peer.connected))
    return wire.SerializeToString()


def decode(data: bytes) -> Message:
    """The message of a frame. Raises ProtocolError."""
    if len(data) > MAX_FRAME:
        raise ProtocolError(f"expected a Kademlia message of at most {MAX_FRAME} bytes, got {len(data)}")
    wire = dht_pb2.Message()
    try:
        wire.ParseFromString(data)
    except DecodeError as error:
        raise ProtocolError(f"expected a Kademlia message: {error}") from None
    try:
        kind = Type(wire.type)
    except ValueError:
        raise ProtocolError(f"expected a Kademlia message of type 0 to 5, got {wire.type}") from None
    if len(wire.key) > MAX_KEY:
        raise ProtocolError(f"expected a key of at most {MAX_KEY} bytes, got {len(wire.key)}")
    return Message(
        kind,
        wire.key,
        _record(wire.record) if wire.HasField("record") else None,
        _peers(wire.closer_peers),
        _peers(wire.provider_peers),
    )


def _record(wire: dht_pb2.Record) -> Record:
    if len(wire.key) > MAX_KEY or len(wire.value) > MAX_VALUE:
        raise ProtocolError(
            f"expected a record of at most {MAX_KEY} bytes of key and {MAX_VALUE} of value, "
            f"got {len(wire.key)} and {len(wire.value)}"
        )
    return Record(wire.key, wire.value, wire.time_received[:64].decode("ascii", "replace"))


def _peers(named: Iterable[dht_pb2.Peer]) -> tuple[Peer, ...]:
    found: dict[bytes, Peer] = {}
    for index, wire in enumerate(named):
        if index == MAX_PEERS:
            break
        if is_peer_id(wire.id):
            addrs = tuple(addr for addr in wire.addrs[:MAX_ADDRS] if 0 < len(addr) <= MAX_ADDR)
            found.setdefault(wire.id, Peer(wire.id, addrs, wire.connection == 1))
    return tuple(found.values())
