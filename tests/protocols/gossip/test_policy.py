"""The two ways to sign: what is made is opened, and nothing else is."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from protocols.gossip.policy import SIGN_PREFIX, ForeignNetwork, OwnNetwork, signed_part
from protocols.gossip.rpc import PubsubMessage
from protocols.messages import MessageDropped, MessageError, Rules
from protocols.messages.authors import Ed25519Signer, author_of
from protocols.messages.wire import MAX_GOSSIP, SIGNED_PREFIX, decode_signed, encode_signed

TOPIC = "blocks"
ALICE, BOB = Ed25519Signer(b"a" * 32), Ed25519Signer(b"b" * 32)
FORWARDER = author_of(BOB.public_key).peer


def own(signer=ALICE, network_id=b"harbour", max_seen=100, **settings):
    return OwnNetwork(
        Rules(signer=signer, network_id=network_id, client_version="vouch/1.0.0", **settings), 630.0, max_seen
    )


@pytest.fixture(params=["own", "foreign"])
def policy(request):
    return own() if request.param == "own" else ForeignNetwork(ALICE)


def test_what_is_made_is_opened(policy):
    message = policy.make(TOPIC, b"payload", 0)
    assert policy.admit(message)
    opened = policy.open(message, FORWARDER, 0.0)
    assert (opened.author, opened.payload) == (author_of(ALICE.public_key).peer, b"payload")


def test_the_largest_payload_fits_an_rpc_and_one_more_byte_is_refused(policy):
    message = policy.make(TOPIC, bytes(policy.max_payload), 0)
    assert policy.admit(message)
    assert len(message.data) <= MAX_GOSSIP
    with pytest.raises(ValueError, match="payload"):
        policy.make(TOPIC, bytes(policy.max_payload + 1), 0)


def test_the_type_travels_in_own_networks_and_is_refused_in_foreign_ones():
    policy = own()
    assert policy.open(policy.make(TOPIC, b"", 7), FORWARDER, 0.0).type == 7
    with pytest.raises(ValueError, match="type"):
        ForeignNetwork(ALICE).make(TOPIC, b"", 7)


def test_own_networks_take_no_fields_of_signed_pubsub():
    policy = own()
    message = policy.make(TOPIC, b"payload", 0)
    for name in ("from_", "seqno", "signature", "key"):
        assert not policy.admit(dataclasses.replace(message, **{name: b"x"}))


def test_no_bit_of_an_own_message_can_be_changed():
    message = own().make(TOPIC, b"payload", 0)
    for position in range(len(message.data) * 8):
        data = bytearray(message.data)
        data[position // 8] ^= 1 << position % 8
        with pytest.raises((MessageError, MessageDropped)):
            own().open(PubsubMessage(TOPIC, bytes(data)), FORWARDER, 0.0)


def test_a_message_that_is_signed_anew_is_seen():
    """Another signature makes another message ID; the message is the same."""
    policy = own()
    message = policy.make(TOPIC, b"payload", 0)
    policy.open(message, FORWARDER, 0.0)
    with pytest.raises(MessageDropped) as dropped:
        policy.open(message, FORWARDER, 1.0)
    assert dropped.value.reason == "seen"


def test_a_forged_copy_does_not_hide_the_message():
    policy = own()
    message = policy.make(TOPIC, b"payload", 0)
    inner = decode_signed(message.data, "").message
    with pytest.raises(MessageError):
        policy.open(PubsubMessage(TOPIC, encode_signed(inner, BOB.sign(SIGNED_PREFIX + inner))), FORWARDER, 0.0)
    assert policy.open(message, FORWARDER, 0.0).payload == b"payload"


def test_when_there_is_no_room_new_messages_are_ignored_and_old_ones_stay_seen():
    policy = own(max_seen=1)
    first, second = policy.make(TOPIC, b"1", 0), policy.make(TOPIC, b"2", 0)
    policy.open(first, FORWARDER, 0.0)
    for message, reason in ((second, "seen_full"), (first, "seen")):
        with pytest.raises(MessageDropped) as dropped:
            policy.open(message, FORWARDER, 1.0)
        assert dropped.value.reason == reason
    assert policy.open(second, FORWARDER, 700.0).payload == b"2"


def test_what_was_opened_is_forgotten_after_its_time_though_there_is_room():
    policy = own()
    for number in range(100):
        policy.open(policy.make(TOPIC, b"%d" % number, 0), FORWARDER, 0.0)
    policy.open(policy.make(TOPIC, b"much later", 0), FORWARDER, 10_000.0)
    assert len(policy._seen) == 1


def test_another_networks_and_another_topics_messages_are_refused():
    message = own().make(TOPIC, b"payload", 0)
    with pytest.raises(MessageError) as other_network:
        own(network_id=b"ocean").open(message, FORWARDER, 0.0)
    assert other_network.value.reason == "network_id"
    with pytest.raises(MessageError) as other_topic:
        own().open(PubsubMessage("votes", message.data), FORWARDER, 0.0)
    assert other_topic.value.reason == "protocol"


def test_gossip_is_signed_where_direct_messages_are_not():
    policy = own(signatures=False)
    message = policy.make(TOPIC, b"payload", 0)
    assert decode_signed(message.data, "").signature
    assert own().open(message, FORWARDER, 0.0).payload == b"payload"
    inner = decode_signed(policy.make(TOPIC, b"other", 0).data, "").message
    with pytest.raises(MessageError):
        policy.open(PubsubMessage(TOPIC, encode_signed(inner, b"")), FORWARDER, 0.0)


def test_an_own_messages_id_is_of_its_content():
    message = own().make(TOPIC, b"payload", 0)
    assert own().message_id(message) == hashlib.sha256(b"blocks\0" + message.data).digest()[:20]


# foreign networks


def test_each_foreign_message_has_a_number_of_its_own():
    policy = ForeignNetwork(ALICE)
    first, second = policy.make(TOPIC, b"same", 0), policy.make(TOPIC, b"same", 0)
    assert policy.message_id(first) != policy.message_id(second)
    assert len(first.seqno) == 8


def test_nothing_of_a_foreign_message_can_be_changed():
    policy = ForeignNetwork(ALICE)
    message = policy.make(TOPIC, b"payload", 0)
    other = author_of(BOB.public_key)
    changes = [
        {"data": b"other"},
        {"topic": "votes"},
        {"seqno": bytes(8)},
        {"signature": bytes(64)},
        {"signature": None},
        {"from_": None},
        {"seqno": None},
        {"from_": ForeignNetwork(BOB).make(TOPIC, b"", 0).from_},
        {"key": BOB.public_key},
        {"from_": b"\x12\x20" + bytes(32)},
        {"from_": b""},
        {"from_": b"\x00\x24" + bytes(36)},
    ]
    for change in changes:
        assert not policy.admit(dataclasses.replace(message, **change)), change
    assert other.peer != author_of(ALICE.public_key).peer
    assert policy.admit(dataclasses.replace(message, key=ALICE.public_key))  # superfluous, as some send it


def test_data_that_is_absent_is_signed_as_such():
    policy = ForeignNetwork(ALICE)
    message = dataclasses.replace(policy.make(TOPIC, b"", 0), has_data=False)
    assert not policy.admit(message)
    message.signature = ALICE.sign(SIGN_PREFIX + signed_part(message))
    assert policy.admit(message)


@pytest.mark.parametrize("topic", ["", "x" * 257])
def test_what_is_no_topic_is_refused(policy, topic):
    with pytest.raises(ValueError):
        policy.check_topic(topic)


def test_topics_of_own_networks_are_names():
    with pytest.raises(ValueError, match="Blocks"):
        own().check_topic("Blocks")
    ForeignNetwork(ALICE).check_topic("Blocks and more")
