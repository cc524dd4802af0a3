"""A peer's queue: what it says together is what was put in, in an order that readers take right, and within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.gossip.actions import Priority
from protocols.gossip.outbound import FILL, MAX_CONTROL, MAX_IDONTWANT_IDS, MAX_UNWANTED, Outbound, encode_pieces
from protocols.gossip.params import RpcLimits
from protocols.gossip.rpc import (
    Control,
    Graft,
    IHave,
    IWant,
    Prune,
    PubsubMessage,
    Rpc,
    Subscription,
    decode,
    encode,
)
from tests.protocols.gossip.test_rpc import flat, rpcs

MIB = 1 << 20


def drained(queue):
    found = []
    while queue:
        data = queue.next()
        assert data
        found.append(decode(data, RpcLimits()))
    assert queue.next() == b""
    assert queue.bytes == 0
    return found


def put(queue, rpc, priority=Priority.RELAY):
    for message in rpc.publish:
        assert queue.put_message(encode(Rpc(publish=(message,))), priority)
    rest = Rpc(rpc.subscriptions, (), rpc.control)
    if rest:
        for piece in encode_pieces(rest, MIB):
            assert queue.put_control(piece)


def message(size, fill=0):
    return Rpc(publish=(PubsubMessage("t", bytes([fill]) * size),))


@given(st.lists(rpcs, max_size=6))
def test_what_comes_out_says_what_was_put_in(several):
    queue = Outbound(MIB)
    for rpc in several:
        put(queue, rpc)
    assert flat(drained(queue)) == flat(several)


def test_control_goes_first_then_our_own_then_answers_then_what_others_said():
    queue = Outbound(MIB)
    for priority, fill in ((Priority.RELAY, 4), (Priority.ANSWER, 3), (Priority.PUBLISH, 2)):
        put(queue, message(30_000, fill), priority)
    put(queue, Rpc(control=Control(graft=(Graft("t"),))))
    first, second = drained(queue)
    assert first.control.graft
    assert [one.data[0] for one in first.publish] == [2, 3]
    assert [one.data[0] for one in second.publish] == [4]


def test_small_rpcs_go_together_and_large_ones_alone():
    queue = Outbound(4 * MIB)
    for _ in range(100):
        put(queue, message(1000))
    put(queue, message(900_000))
    sizes = [sum(len(one.data) for one in rpc.publish) for rpc in drained(queue)]
    assert all(size <= FILL for size in sizes[:-1])
    assert len(sizes) == 3
    assert sizes[-1] == 900_000


def unwanted(rpcs):
    return [[i for one in (rpc.control or Control()).idontwant for i in one.message_ids] for rpc in rpcs]


def test_idontwants_together_are_no_more_than_go_reads():
    queue = Outbound(MIB)
    ids = [b"%d" % number for number in range(25)]
    for start in range(0, 25, 5):
        queue.put_unwanted(ids[start : start + 5])
    queue.put_unwanted(ids[:5])
    found = unwanted(drained(queue))
    assert [len(some) for some in found] == [10, 10, 5]
    assert [one for some in found for one in some] == ids
    assert MAX_IDONTWANT_IDS == 10


def test_a_small_message_says_itself_that_we_have_it():
    queue = Outbound(MIB)
    queue.put_unwanted([b"small", b"large", b"not relayed"])
    queue.put_message(encode(message(1_000)), Priority.RELAY, b"small")
    queue.put_message(encode(message(100_000)), Priority.RELAY, b"large")
    found = drained(queue)
    assert unwanted(found) == [[b"large", b"not relayed"], []]
    assert [len(rpc.publish) for rpc in found] == [1, 1]


def test_idontwants_beyond_the_bound_are_dropped():
    queue = Outbound(MIB)
    queue.put_unwanted([b"%d" % number for number in range(MAX_UNWANTED + 3)])
    assert queue.dropped == {"control": 1}
    assert sum(map(len, unwanted(drained(queue)))) == MAX_UNWANTED


def test_a_graft_after_a_prune_has_an_rpc_of_its_own():
    """A reader takes the GRAFTs of an RPC first, and would end with the PRUNE."""
    prune, graft = Rpc(control=Control(prune=(Prune("t"),))), Rpc(control=Control(graft=(Graft("t"),)))
    for several, expected in (((prune, graft), 2), ((graft, prune), 1)):
        queue = Outbound(MIB)
        for rpc in several:
            put(queue, rpc)
        assert len(drained(queue)) == expected


def test_control_of_several_rpcs_is_one_field():
    """Some readers take the last such field, and would lose the others."""
    queue = Outbound(MIB)
    put(queue, Rpc(control=Control(graft=(Graft("a"),))))
    put(queue, Rpc((Subscription("b", True),), (), Control(ihave=(IHave("a", (b"1",)),))))
    (data,) = [queue.next()]
    assert not queue
    assert data.count(b"\x1a") >= 1
    assert decode(data) == Rpc(
        (Subscription("b", True),), (), Control(ihave=(IHave("a", (b"1",)),), graft=(Graft("a"),))
    )


def test_a_full_queue_drops_what_others_said_first_and_counts_it():
    queue = Outbound(10_000)
    relayed, own = (encode(message(3_000)), encode(message(3_000, 1)))
    assert all(queue.put_message(relayed, Priority.RELAY) for _ in range(3))
    assert not queue.put_message(relayed, Priority.RELAY)
    assert queue.put_message(own, Priority.PUBLISH)
    assert queue.put_message(own, Priority.ANSWER)
    assert queue.dropped == {"message": 3}
    assert queue.bytes <= 10_000
    assert [one.data[0] for rpc in drained(queue) for one in rpc.publish] == [1, 1, 0]


def test_one_message_always_has_room():
    queue = Outbound(10)
    assert queue.put_message(encode(message(3_000)), Priority.RELAY)


def test_control_that_may_be_lost_is_dropped_and_the_rest_is_an_error():
    queue = Outbound(MIB)
    (ihave,) = encode_pieces(Rpc(control=Control(ihave=(IHave("t", (bytes(200),) * 500),))), MIB)
    while queue.put_control(ihave):
        pass
    assert queue.dropped == {"control": 1}
    (graft,) = encode_pieces(Rpc(control=Control(graft=(Graft("t" * 200),) * 500)), MIB)
    with pytest.raises(OverflowError, match=str(MAX_CONTROL)):
        queue.put_control(graft)


def test_what_is_put_together_stays_within_a_frame():
    queue = Outbound(MIB)
    large = Rpc(control=Control(iwant=(IWant(tuple(b"%0256d" % number for number in range(4040))),)))
    pieces = list(encode_pieces(large, MIB))
    assert len(pieces) == 1
    assert queue.put_control(pieces[0])
    queue.put_unwanted(b"%0256d" % number for number in range(MAX_IDONTWANT_IDS))
    sizes = []
    while queue:
        sizes.append(len(queue.next()))
    assert max(sizes) <= MIB, sizes
