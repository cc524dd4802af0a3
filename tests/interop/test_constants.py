"""Our wire's numbers and texts as docs/wire.md and py-libp2p have them: those too that no peer is seen to act on.

What peers do act on is changed a byte at a time by `interop.matrix.mutations`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor
from libp2p.crypto.ed25519 import create_new_key_pair as new_ed25519
from libp2p.crypto.pb import crypto_pb2
from libp2p.crypto.rsa import create_new_key_pair as new_rsa
from libp2p.crypto.secp256k1 import create_new_key_pair as new_secp256k1
from libp2p.discovery.rendezvous.pb import rendezvous_pb2 as their_rendezvous
from libp2p.identity.identify.identify import PROTOCOL_VERSION
from libp2p.kad_dht.pb import kademlia_pb2
from libp2p.peer import envelope, peer_record
from libp2p.peer.id import ID
from libp2p.stream_muxer.yamux import yamux as their_yamux
from multiaddr import Multiaddr

from node import identify, records
from node.discovery.mdns import private_service
from node.peers.record import record_seq
from node.quic import link
from node.upgrade import frame_meter, muxer, yamux_state
from protocols.exchange import exchange_pb2
from protocols.exchange import wire as exchange
from protocols.gossip.rpc import PubsubMessage
from protocols.gossip.state import content_id
from protocols.handshake import handshake_pb2
from protocols.handshake import wire as handshake
from protocols.heartbeat import heartbeat_pb2
from protocols.heartbeat import wire as heartbeat
from protocols.kad import keyspace
from protocols.kad import wire as kad
from protocols.kad.validators import PublicKeys
from protocols.mdns import wire as mdns
from protocols.messages import authors, messages_pb2
from protocols.messages import wire as messages
from protocols.rendezvous.wire import Status

PAGE = (Path(__file__).parents[2] / "docs/wire.md").read_text()
MODULES = (handshake_pb2, messages_pb2, exchange_pb2, heartbeat_pb2)
PEER = "12D3KooWE8KRFjkb1u39gFPTEFTzs44RgYpa3PYm1Uc2QnjiEfF4"
# libp2p's own, which the page names and doesn't spell
NOT_ON_THE_PAGE = {"PublicKey"}

MESSAGE = re.compile(r"message (\w+)\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
FIELD = re.compile(r"(repeated )?(\w+)\s+(\w+)\s*=\s*(\d+)\s*;")
ENUM = re.compile(r"enum \w+ \{([^}]*)\}")


def on_the_page():
    """Each message of the page: its fields by name, as (number, type, whether repeated); and its enum's values."""
    for block in re.findall(r"```proto\n(.*?)```", PAGE, re.DOTALL):
        for name, body in MESSAGE.findall(re.sub(r"//.*", "", block)):
            enum = ENUM.search(body)
            values = dict(re.findall(r"(\w+) = (\d+);", enum[1])) if enum else {}
            fields = {
                field: (int(number), kind, bool(repeated))
                for repeated, kind, field, number in FIELD.findall(ENUM.sub("", body))
            }
            yield name, fields, {value: int(number) for value, number in values.items()}


def type_of(field):
    if field.message_type is not None:
        return field.message_type.name
    if field.enum_type is not None:
        return field.enum_type.name
    names = {getattr(FieldDescriptor, name): name for name in dir(FieldDescriptor) if name.startswith("TYPE_")}
    return names[field.type].removeprefix("TYPE_").lower()


def test_our_messages_are_those_of_the_page():
    ours = {kind.name: kind for module in MODULES for kind in module.DESCRIPTOR.message_types_by_name.values()}
    page = {name: (fields, values) for name, fields, values in on_the_page()}
    assert set(ours) - NOT_ON_THE_PAGE == set(page)
    for name, (fields, values) in page.items():
        kind = ours[name]
        assert {field.name: (field.number, type_of(field), field.is_repeated) for field in kind.fields} == fields, name
        enums = [field.enum_type for field in kind.fields if field.enum_type is not None]
        assert {value.name: value.number for enum in enums for value in enum.values} == values


@pytest.mark.parametrize(
    ("heading", "bound"),
    [
        (f"## `{handshake.PROTOCOL_ID}` · bound 256 bytes · deadline 5 s", handshake.MAX_FRAME - 256),
        ("## Signed messages · bound 2 MiB direct, 1 MiB − 4 KiB by gossip", messages.MAX_FRAME - (2 << 20)),  # noqa: RUF001 - the page's sign
        ("## Signed messages · bound 2 MiB direct, 1 MiB − 4 KiB by gossip", messages.MAX_GOSSIP - (1 << 20) + 4096),  # noqa: RUF001
        (f"## `{exchange.PROTOCOL_ID}` · bound 64 KiB · deadline 10 s", exchange.MAX_FRAME - 64 * 1024),
        (f"## `{heartbeat.PROTOCOL_ID}` · bound 64 bytes", heartbeat.MAX_FRAME - 64),
    ],
)
def test_bounds_are_those_of_the_page(heading, bound):
    assert f"\n{heading}\n" in PAGE
    assert bound == 0


def test_what_the_page_says_of_signed_messages():
    assert f'over "{messages.SIGNED_PREFIX.decode()}" + message' in PAGE
    assert f"answers with type `{messages.ERROR_TYPE}`" in PAGE


def test_the_id_of_a_message_is_what_the_page_says():
    """The first 20 bytes of SHA-256 over topic, a zero byte, and data."""
    assert content_id(PubsubMessage("harbour", b"ahoy")).hex() == "7d19f036767795c3ece1b7e6eae1ee3da408f59f"


def test_kademlias_types():
    assert {one.name: one.value for one in kad.Type} == dict(kademlia_pb2.Message.MessageType.items())


def test_rendezvous_statuses():
    theirs = {name.removeprefix("E_"): number for name, number in their_rendezvous.Message.ResponseStatus.items()}
    theirs["INVALID_SIGNED_PEER_RECORD"] = theirs.pop("INVALID_PEER_INFO")  # as the specification has it
    assert {one.name: one.value for one in Status} == theirs


@pytest.mark.parametrize("make", [new_rsa, new_ed25519, new_secp256k1])
def test_keys_and_the_peer_ids_that_are_made_of_them(make):
    pair = make()
    public = pair.public_key.serialize()
    peer = ID.from_pubkey(pair.public_key)
    kind = crypto_pb2.PublicKey.FromString(public).key_type
    assert authors.encode_key(kind, pair.public_key.to_bytes()) == public
    assert authors.peer_id_of(public) == peer.to_bytes()
    assert keyspace.is_peer_id(peer.to_bytes())
    PublicKeys().validate(b"/pk/" + peer.to_bytes(), public)
    author = authors.author_of(public)
    assert author.peer == str(peer)
    assert author.verify(pair.private_key.sign(b"ahoy"), b"ahoy")


def test_signed_records():
    assert records.DOMAIN.decode() == envelope.ENVELOPE_DOMAIN == peer_record.PEER_RECORD_ENVELOPE_DOMAIN
    assert records.PAYLOAD_TYPE == peer_record.PEER_RECORD_ENVELOPE_PAYLOAD_TYPE
    pair = new_ed25519()
    record = peer_record.PeerRecord(ID.from_pubkey(pair.public_key), [Multiaddr("/ip4/192.0.2.7/tcp/4001")], 7)
    sealed = envelope.seal_record(record, pair.private_key).marshal_envelope()
    assert record_seq(sealed, str(record.peer_id)) == 7


def test_yamux():
    assert their_yamux.YAMUX_HEADER_FORMAT.replace("!", ">").replace("I", "L") == yamux_state.HEADER.format
    assert frame_meter.HEADER.format == yamux_state.HEADER.format
    for name in ("DATA", "WINDOW_UPDATE", "PING", "GO_AWAY"):
        assert getattr(yamux_state, name) == getattr(their_yamux, f"TYPE_{name}")
    for name in ("SYN", "ACK", "FIN", "RST"):
        assert getattr(yamux_state, name) == getattr(their_yamux, f"FLAG_{name}")
    assert their_yamux.TYPE_DATA == frame_meter.TYPE_DATA
    assert their_yamux.DEFAULT_WINDOW_SIZE == yamux_state.INITIAL_WINDOW
    assert their_yamux.GO_AWAY_PROTOCOL_ERROR == muxer.PROTOCOL_ERROR == link.PROTOCOL_ERROR


def test_identify_says_which_protocol_it_is():
    assert identify.PROTOCOL_VERSION == PROTOCOL_VERSION


def test_mdns():
    """RFC 6762, 6763 and libp2p's specification of it; a network's own name is docs/peers.md's."""
    packet = mdns.answer("_p2p._udp.local", "harbour", PEER, ["/ip4/192.0.2.7/tcp/4001"], 120.0)
    text = f"dnsaddr=/ip4/192.0.2.7/tcp/4001/p2p/{PEER}".encode()
    assert packet[:12].hex() == "000084000000000100000003"
    assert (b"\x04_p2p\x04_udp\x05local\x00" + bytes.fromhex("000c000100000078")) in packet
    assert (
        bytes.fromhex("0010800100000078") + (1 + len(text)).to_bytes(2, "big") + bytes([len(text)]) + text
    ) in packet
    (found,) = mdns.decode(packet, "_p2p._udp.local")
    assert (found.peer, found.addrs, found.ttl) == (PEER, ("/ip4/192.0.2.7/tcp/4001",), 120)
    (asked,) = mdns.query("_p2p._udp.local")
    assert asked.hex() == "000000000001000000000000" + b"\x04_p2p\x04_udp\x05local\x00".hex() + "000c0001"
    digest = "aa74f6fd03bf68be"
    assert private_service(b"harbour") == f"_p2p-{digest}._udp.local"
