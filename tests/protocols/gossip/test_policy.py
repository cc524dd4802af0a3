"""What the policy of own networks remembers, and for whom it makes room."""

from __future__ import annotations

import pytest

from protocols.gossip.policy import OwnNetwork
from protocols.messages.authors import Ed25519Signer
from protocols.messages.errors import MessageDropped
from protocols.messages.rules import Rules
from protocols.messages.wire import SIGNED_PREFIX, decode_signed, encode_signed


def own_network(secret, max_seen=3):
    return OwnNetwork(
        Rules(signer=Ed25519Signer(secret), network_id=b"harbour", client_version="vouch/0.1.0"),
        seen_ttl=60.0,
        max_seen=max_seen,
    )


def test_a_flood_of_well_signed_messages_does_not_keep_others_out():
    """Keys cost nothing, so whoever sends enough would make the node deaf for as long as IDs are remembered."""
    ours, theirs = own_network(b"1" * 32), own_network(b"2" * 32)
    for number in range(10):
        opened = ours.open(theirs.make("t", b"junk %d" % number, 0), "forwarder", 1.0)
        assert opened.payload == b"junk %d" % number
    assert len(ours._seen) == 3


def test_the_same_message_signed_anew_is_taken_once():
    ours, theirs = own_network(b"1" * 32), own_network(b"2" * 32)
    first = theirs.make("t", b"hello", 0)
    ours.open(first, "forwarder", 1.0)
    part = decode_signed(first.data, "forwarder").message
    first.data = encode_signed(part, Ed25519Signer(b"2" * 32).sign(SIGNED_PREFIX + part))
    with pytest.raises(MessageDropped, match="signed anew"):
        ours.open(first, "forwarder", 2.0)
