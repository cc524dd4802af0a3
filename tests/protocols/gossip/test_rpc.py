"""The RPC's codec, and fragments: examples, and then any bytes."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import ProtocolError
from protocols.framing import encode_uvarint
from protocols.gossip.fragments import fragments, size
from protocols.gossip.params import RpcLimits
from protocols.gossip.rpc import (
    Control,
    Graft,
    IDontWant,
    IHave,
    IWant,
    PeerInfo,
    Prune,
    PubsubMessage,
    Rpc,
    Subscription,
    decode,
    encode,
)


def field(number: int, data: bytes) -> bytes:
    return encode_uvarint(number << 3 | 2) + encode_uvarint(len(data)) + data


topics = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
ids = st.lists(st.binary(max_size=40), max_size=6).map(tuple)
some_ids = st.lists(st.binary(max_size=40), min_size=1, max_size=6).map(tuple)
maybe = st.none() | st.binary(max_size=70)


def messages(data):
    return st.builds(PubsubMessage, topics, data, maybe, maybe, maybe, maybe)


infos = st.builds(PeerInfo, st.binary(max_size=40), st.binary(max_size=80))
prunes = st.builds(Prune, topics, st.lists(infos, max_size=4).map(tuple), st.none() | st.integers(0, 2**64 - 1))


def tuples(one, most=4):
    return st.lists(one, max_size=most).map(tuple)


controls = st.builds(
    Control,
    tuples(st.builds(IHave, topics, some_ids)),
    tuples(st.builds(IWant, some_ids)),
    tuples(st.builds(Graft, topics)),
    tuples(prunes),
    tuples(st.builds(IDontWant, some_ids)),
)
rpcs = st.builds(
    Rpc, tuples(st.builds(Subscription, topics, st.booleans())), tuples(messages(st.binary(max_size=300))), controls
)


# the codec


def test_the_field_numbers_are_those_of_the_specification():
    rpc = Rpc(
        (Subscription("t", True),),
        (PubsubMessage("t", b"data", b"from", b"seqno", b"sig", b"key"),),
        Control(
            (IHave("t", (b"1",)),),
            (IWant((b"2",)),),
            (Graft("t"),),
            (Prune("t", (PeerInfo(b"peer", b"record"),), 60),),
            (IDontWant((b"3",)),),
        ),
    )
    message = field(1, b"from") + field(2, b"data") + field(3, b"seqno") + field(4, b"t") + field(5, b"sig")
    control = field(1, field(1, b"t") + field(2, b"1")) + field(2, field(1, b"2")) + field(3, field(1, b"t"))
    control += field(4, field(1, b"t") + field(2, field(1, b"peer") + field(2, b"record")) + b"\x18\x3c")
    control += field(5, field(1, b"3"))
    wire = field(1, b"\x08\x01" + field(2, b"t")) + field(2, message + field(6, b"key")) + field(3, control)
    assert encode(rpc) == wire
    assert decode(wire) == rpc


def test_an_empty_rpc_is_no_bytes():
    assert encode(Rpc()) == b""
    assert decode(b"") == Rpc()
    assert not Rpc(control=Control())


@given(rpcs)
def test_what_is_encoded_decodes_to_the_same(rpc):
    back = decode(encode(rpc))
    if not rpc.control:
        assert not back.control
        rpc.control = back.control = None
    assert back == rpc


@given(st.binary(max_size=200))
def test_any_bytes_are_an_rpc_or_one_error(data):
    try:
        rpc = decode(data)
    except ProtocolError:
        return
    decode(encode(rpc))


@given(rpcs, st.data())
def test_spoiled_bytes_are_an_rpc_or_one_error(rpc, data):
    wire = bytearray(encode(rpc))
    for _ in range(data.draw(st.integers(1, 4))):
        if wire:
            wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        decode(bytes(wire))


def test_data_that_is_absent_stays_absent():
    """A signature is made over the difference, so a relay that changed it would spoil the message."""
    absent, empty = field(2, field(4, b"t")), field(2, field(2, b"") + field(4, b"t"))
    assert encode(decode(absent)) == absent
    assert encode(decode(empty)) == empty
    assert decode(absent).publish[0].data == decode(empty).publish[0].data == b""


def test_unknown_fields_are_dropped():
    known = field(4, b"t")
    assert encode(decode(field(2, known + field(9, b"x" * 1000)))) == field(2, known)
    assert decode(field(10, b"x")) == Rpc()


def test_message_ids_need_not_be_text():
    rpc = Rpc(control=Control(iwant=(IWant((b"\xff\xfe",)),)))
    assert decode(encode(rpc)) == rpc


@pytest.mark.parametrize(
    "wire",
    [
        field(2, field(2, b"no topic")),
        field(1, b"\x08\x01"),
        field(3, field(3, b"")),
        field(2, field(4, b"\xff")),
        b"\x0a",
        b"\x0a\x05abc",
    ],
)
def test_an_rpc_that_says_nothing_sensible_is_an_error(wire):
    with pytest.raises(ProtocolError, match="expected"):
        decode(wire)


LIMITS = RpcLimits(
    max_size=600,
    max_subscriptions=2,
    max_messages=2,
    max_control=3,
    max_ids=4,
    max_topic=5,
    max_message_id=6,
    max_px_peers=2,
    max_record=7,
)


@pytest.mark.parametrize(
    ("rpc", "what"),
    [
        (Rpc((Subscription("t", True),) * 3), "2 subscriptions"),
        (Rpc(publish=(PubsubMessage("t", b""),) * 3), "2 messages"),
        (Rpc(publish=(PubsubMessage("t", b"x" * 600),)), "600 bytes"),
        (Rpc(control=Control(graft=(Graft("t"),) * 4)), "3 control"),
        (Rpc(control=Control(iwant=(IWant((b"i",) * 3),), ihave=(IHave("t", (b"i",) * 2),))), "4 message IDs"),
        (Rpc(control=Control(idontwant=(IDontWant((b"i",) * 5),))), "4 message IDs"),
        (Rpc(control=Control(graft=(Graft("too long"),))), "5 bytes of a topic"),
        (Rpc(control=Control(iwant=(IWant((b"too long",)),))), "6 bytes of a message ID"),
        (Rpc(control=Control(prune=(Prune("t", (PeerInfo(b"p"),) * 3),))), "2 peers"),
        (Rpc(control=Control(prune=(Prune("t", (PeerInfo(b"p", b"too long"),)),))), "7 bytes of a signed record"),
        (Rpc(control=Control(prune=(Prune("t", (PeerInfo(b"too long"),)),))), "6 bytes of a peer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_more_than_the_limits_allow_is_an_error(rpc, what):
    with pytest.raises(ProtocolError, match=f"at most {what}"):
        decode(encode(rpc), LIMITS)


# fragments


def flat(rpcs):
    """Everything that the RPCs say, in order, as far as the order matters."""
    said = {name: [] for name in ("subscriptions", "publish", "ihave", "iwant", "graft", "prune", "idontwant")}
    said["pruned"] = set()  # the same PRUNE twice may become one
    for rpc in rpcs:
        said["subscriptions"] += rpc.subscriptions
        said["publish"] += rpc.publish
        control = rpc.control or Control()
        said["ihave"] += [(one.topic, i) for one in control.ihave for i in one.message_ids]
        said["iwant"] += [i for one in control.iwant for i in one.message_ids]
        said["graft"] += control.graft
        said["prune"] += [
            (one.topic, one.backoff, dataclasses.astuple(peer)) for one in control.prune for peer in one.peers
        ]
        said["pruned"] |= {(one.topic, one.backoff) for one in control.prune}
        said["idontwant"] += [i for one in control.idontwant for i in one.message_ids]
    for name in ("ihave", "prune"):  # these are put together by topic
        said[name].sort(key=repr)
    return said


@given(rpcs)
def test_the_size_is_never_below_the_bytes(rpc):
    assert len(encode(rpc)) <= size(rpc)


@given(rpcs, st.integers(800, 3000))
def test_fragments_keep_everything_and_stay_below_the_limit(rpc, limit):
    parts = fragments(rpc, limit)
    assert all(len(encode(part)) <= limit for part in parts)
    assert flat(parts) == flat([rpc])


def test_a_single_message_above_the_limit_is_refused():
    with pytest.raises(ValueError, match="expected nothing above 1000 bytes, got a message"):
        fragments(Rpc(publish=(PubsubMessage("t", bytes(1000)),)), 1000)
