"""Each field of our messages, as py-libp2p's own definitions of the same protocols read and write it: of those too that
no peer is seen to act on.
"""

from __future__ import annotations

import pytest
from libp2p.discovery.rendezvous.pb import rendezvous_pb2 as their_rendezvous
from libp2p.kad_dht.pb import kademlia_pb2
from libp2p.pubsub.pb import rpc_pb2 as their_gossip

from protocols.gossip import rpc_pb2
from protocols.gossip.outbound import Outbound
from protocols.kad import dht_pb2
from protocols.rendezvous import rendezvous_pb2

PAIRS = {
    rpc_pb2.Rpc: their_gossip.RPC,
    rpc_pb2.Subscription: their_gossip.RPC.SubOpts,
    rpc_pb2.Message: their_gossip.Message,
    rpc_pb2.Control: their_gossip.ControlMessage,
    rpc_pb2.IHave: their_gossip.ControlIHave,
    rpc_pb2.IWant: their_gossip.ControlIWant,
    rpc_pb2.Graft: their_gossip.ControlGraft,
    rpc_pb2.Prune: their_gossip.ControlPrune,
    rpc_pb2.PeerInfo: their_gossip.PeerInfo,
    rpc_pb2.IDontWant: their_gossip.ControlIDontWant,
    dht_pb2.Message: kademlia_pb2.Message,
    dht_pb2.Peer: kademlia_pb2.Message.Peer,
    dht_pb2.Record: kademlia_pb2.Record,
    rendezvous_pb2.Message: their_rendezvous.Message,
    rendezvous_pb2.Register: their_rendezvous.Message.Register,
    rendezvous_pb2.RegisterResponse: their_rendezvous.Message.RegisterResponse,
    rendezvous_pb2.Unregister: their_rendezvous.Message.Unregister,
    rendezvous_pb2.Discover: their_rendezvous.Message.Discover,
    rendezvous_pb2.DiscoverResponse: their_rendezvous.Message.DiscoverResponse,
}
# what is called otherwise there, beside the style of the names
OTHER_NAMES = {
    "Subscription.topic": "topicid",
    "Message.from": "from_id",
    "Message.topic": "topicIDs",
    "Message.cluster_level": "clusterLevelRaw",
    "IHave.topic": "topicID",
    "Graft.topic": "topicID",
    "Prune.topic": "topicID",
}
# theirs names a peer where the specification, and others, have a signed record
LEFT_OUT = (rendezvous_pb2.Register, "signed_peer_record")


def fields():
    for ours, theirs in PAIRS.items():
        for field in ours.DESCRIPTOR.fields:
            if (ours, field.name) == LEFT_OUT:
                continue
            module = ours.DESCRIPTOR.file.name.split("/")[1]
            yield pytest.param(ours, theirs, field.name, id=f"{module}.{ours.DESCRIPTOR.name}.{field.name}")


def their_name(ours, name):
    first, *rest = name.split("_")
    camel = first + "".join("ID" + part[2:] if part[:2] == "id" else part.title() for part in rest)
    return (OTHER_NAMES.get(f"{ours.DESCRIPTOR.name}.{name}"), name, camel, camel.replace("Id", "ID"))


@pytest.mark.parametrize(("ours", "theirs", "name"), [*fields()])
def test_a_field_goes_both_ways(ours, theirs, name):
    known = theirs.DESCRIPTOR.fields_by_name
    there = next(known[one] for one in their_name(ours, name) if one in known)
    here = ours.DESCRIPTOR.fields_by_name[name]
    for kind, field, other, read in ((ours, here, theirs, there), (theirs, there, ours, here)):
        read_back = other.FromString(one_field(kind, field).SerializeToString())
        assert [(found.name, plain(value)) for found, value in read_back.ListFields()] == [
            (read.name, plain(sample(field)))
        ]


def sample(field):
    """What is in the field: something that is told from its absence; None is a message without fields."""
    if field.message_type is not None:
        return [None] if field.is_repeated else None
    value = {field.CPPTYPE_STRING: "harbour", field.CPPTYPE_BOOL: True}.get(field.cpp_type, 1)
    if field.type == field.TYPE_BYTES:
        value = b"harbour"
    return [value] if field.is_repeated else value


def one_field(kind, field):
    message = kind()
    if field.message_type is not None:
        holder = getattr(message, field.name)
        _ = holder.add() if field.is_repeated else holder.SetInParent()
    elif field.is_repeated:
        getattr(message, field.name).extend(sample(field))
    else:
        setattr(message, field.name, sample(field))
    return message


def plain(value):
    """Without what two definitions may differ in: text or bytes, one or several."""
    values = value if isinstance(value, list) or hasattr(value, "extend") else [value]
    return [one.encode() if isinstance(one, str) else one if isinstance(one, bytes | int) else None for one in values]


def test_what_is_put_together_by_hand():
    queue = Outbound(1 << 20)
    queue.put_unwanted([b"one", b"two"])
    (idontwant,) = their_gossip.RPC.FromString(queue.next()).control.idontwant
    assert list(idontwant.messageIDs) == [b"one", b"two"]


def test_all_messages_are_here():
    modules = (rpc_pb2, dht_pb2, rendezvous_pb2)
    ours = {name for module in modules for name in module.DESCRIPTOR.message_types_by_name}
    assert ours == {kind.DESCRIPTOR.name for kind in PAIRS}
