"""The RPC of libp2p's pubsub, between bytes and values.

    frame = varint length (at most RpcLimits.max_size), Rpc (rpc.proto)     one stream for each direction

Decoding gives an `Rpc` within the limits, or a `ProtocolError`; nothing else, whatever the bytes. What the values mean
is `engine`'s. Values are shared between the peers that they are sent to: nobody changes one once it is made.

A message's absent fields are None, and `has_data` tells data that is absent from data that is empty: a signature is
made over the difference, so a relay must keep it. Unknown fields are dropped.

Source: libp2p/specs, pubsub/README.md ("The RPC"), pubsub/gossipsub v1.0, v1.1 (backoff, peer exchange), v1.2
(IDONTWANT).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from protocols.errors import ProtocolError
from protocols.gossip import rpc_pb2
from protocols.gossip.params import RpcLimits

DEFAULT_LIMITS = RpcLimits()


@dataclass(slots=True)
class Subscription:
    topic: str
    subscribe: bool


@dataclass(slots=True)
class PubsubMessage:
    """A message as it travels. `from_` is the author's peer ID; all but topic and data serve signed networks."""

    topic: str
    data: bytes
    from_: bytes | None = None
    seqno: bytes | None = None
    signature: bytes | None = None
    key: bytes | None = None
    has_data: bool = True


@dataclass(slots=True)
class IHave:
    topic: str
    message_ids: tuple[bytes, ...]


@dataclass(slots=True)
class IWant:
    message_ids: tuple[bytes, ...]


@dataclass(slots=True)
class Graft:
    topic: str


@dataclass(slots=True)
class PeerInfo:
    """A peer that a PRUNE names: its ID as bytes, and its signed record, which may be empty."""

    peer_id: bytes
    record: bytes = b""


@dataclass(slots=True)
class Prune:
    """`backoff` is whole seconds; None where the peer names none."""

    topic: str
    peers: tuple[PeerInfo, ...] = ()
    backoff: int | None = None


@dataclass(slots=True)
class IDontWant:
    message_ids: tuple[bytes, ...]


@dataclass(slots=True)
class Control:
    ihave: tuple[IHave, ...] = ()
    iwant: tuple[IWant, ...] = ()
    graft: tuple[Graft, ...] = ()
    prune: tuple[Prune, ...] = ()
    idontwant: tuple[IDontWant, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ihave or self.iwant or self.graft or self.prune or self.idontwant)


@dataclass(slots=True)
class Rpc:
    subscriptions: tuple[Subscription, ...] = ()
    publish: tuple[PubsubMessage, ...] = ()
    control: Control | None = None

    def __bool__(self) -> bool:
        return bool(self.subscriptions or self.publish or self.control)


def encode(rpc: Rpc) -> bytes:
    """The RPC's bytes, without the frame's length. Limits aren't checked: `fragments` makes what fits them."""
    wire = rpc_pb2.Rpc()
    for subscription in rpc.subscriptions:
        wire.subscriptions.add(subscribe=subscription.subscribe, topic=subscription.topic.encode())
    for message in rpc.publish:
        added = wire.publish.add(topic=message.topic.encode(), seqno=message.seqno, signature=message.signature)
        if message.has_data:
            added.data = message.data
        if message.from_ is not None:
            setattr(added, "from", message.from_)
        if message.key is not None:
            added.key = message.key
    if rpc.control:
        _fill(wire.control, rpc.control)
    return wire.SerializeToString(deterministic=True)


def encode_control(control: Control) -> bytes:
    """The bytes inside the RPC's field for control messages: some of them one after the other are one valid field."""
    wire = rpc_pb2.Control()
    _fill(wire, control)
    return wire.SerializeToString(deterministic=True)


def _fill(to: rpc_pb2.Control, control: Control) -> None:
    for have in control.ihave:
        to.ihave.add(topic=have.topic.encode(), message_ids=have.message_ids)
    for want in control.iwant:
        to.iwant.add(message_ids=want.message_ids)
    for graft in control.graft:
        to.graft.add(topic=graft.topic.encode())
    for prune in control.prune:
        peers = [rpc_pb2.PeerInfo(peer_id=p.peer_id, signed_peer_record=p.record or None) for p in prune.peers]
        to.prune.add(topic=prune.topic.encode(), peers=peers, backoff=prune.backoff)
    for unwanted in control.idontwant:
        to.idontwant.add(message_ids=unwanted.message_ids)


def decode(data: bytes, limits: RpcLimits = DEFAULT_LIMITS) -> Rpc:
    """The RPC in `data`. Raises ProtocolError if there is none, or if it holds more than `limits` allow."""
    _at_most("bytes", len(data), limits.max_size)
    wire = rpc_pb2.Rpc()
    try:
        wire.ParseFromString(data)
    except DecodeError as error:
        raise ProtocolError(f"expected a pubsub RPC: {error}") from None
    _at_most("subscriptions", len(wire.subscriptions), limits.max_subscriptions)
    _at_most("messages", len(wire.publish), limits.max_messages)
    return Rpc(
        tuple([Subscription(_topic(one.topic, limits), one.subscribe) for one in wire.subscriptions]),
        tuple([_message(one, limits) for one in wire.publish]),
        _control(wire.control, limits, len(data)) if wire.HasField("control") else None,
    )


def _message(wire: rpc_pb2.Message, limits: RpcLimits) -> PubsubMessage:
    return PubsubMessage(
        _topic(wire.topic, limits),
        wire.data,
        getattr(wire, "from") if wire.HasField("from") else None,
        wire.seqno if wire.HasField("seqno") else None,
        wire.signature if wire.HasField("signature") else None,
        wire.key if wire.HasField("key") else None,
        wire.HasField("data"),
    )


def _control(wire: rpc_pb2.Control, limits: RpcLimits, size: int) -> Control:
    if size > min(
        limits.max_control, limits.max_ids
    ):  # each takes two bytes at least, so a small RPC needn't be counted
        entries = len(wire.ihave) + len(wire.iwant) + len(wire.graft) + len(wire.prune) + len(wire.idontwant)
        _at_most("control messages", entries, limits.max_control)
        ids = sum(len(one.message_ids) for group in (wire.ihave, wire.iwant, wire.idontwant) for one in group)
        _at_most("message IDs", ids, limits.max_ids)
    return Control(
        tuple([IHave(_topic(one.topic, limits), _ids(one.message_ids, limits)) for one in wire.ihave]),
        tuple([IWant(_ids(one.message_ids, limits)) for one in wire.iwant]),
        tuple([Graft(_topic(one.topic, limits)) for one in wire.graft]),
        tuple([_prune(one, limits) for one in wire.prune]),
        tuple([IDontWant(_ids(one.message_ids, limits)) for one in wire.idontwant]),
    )


def _prune(wire: rpc_pb2.Prune, limits: RpcLimits) -> Prune:
    _at_most("peers in a PRUNE", len(wire.peers), limits.max_px_peers)
    for peer in wire.peers:
        _at_most("bytes of a peer's ID", len(peer.peer_id), limits.max_message_id)
        _at_most("bytes of a signed record", len(peer.signed_peer_record), limits.max_record)
    peers = tuple([PeerInfo(peer.peer_id, peer.signed_peer_record) for peer in wire.peers])
    return Prune(_topic(wire.topic, limits), peers, wire.backoff if wire.HasField("backoff") else None)


def _ids(ids: Iterable[bytes], limits: RpcLimits) -> tuple[bytes, ...]:
    found = tuple(ids)
    if found:
        _at_most("bytes of a message ID", max(map(len, found)), limits.max_message_id)
    return found


def _topic(data: bytes, limits: RpcLimits) -> str:
    if not data:
        raise ProtocolError("expected a topic, got none")
    _at_most("bytes of a topic", len(data), limits.max_topic)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ProtocolError(f"expected a topic in UTF-8, got {data[:32]!r}") from None


def _at_most(what: str, count: int, most: int) -> None:
    if count > most:
        raise ProtocolError(f"expected at most {most} {what}, got {count}")
