"""One connection for each peer: both sides let go of the same ones."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from node.peers.single import surplus

SMALL, LARGE = b"\0$\x08\x01\x12 a", b"\0$\x08\x01\x12 b"


@dataclass(frozen=True)
class Side:
    """One side's view of a connection."""

    number: int
    initiated: bool
    shaken: bool = True


def seen_from(peer: bytes, connections: list[tuple[int, bytes, bool]]) -> list[Side]:
    return [Side(number, initiator == peer, shaken) for number, initiator, shaken in connections]


def kept(peer: bytes, other: bytes, connections: list[tuple[int, bytes, bool]]) -> set[int]:
    going = surplus(seen_from(peer, connections), peer, other)
    return {number for number, *_ in connections} - {side.number for side in going}


def one_by_one(peer: bytes, other: bytes, connections: list[tuple[int, bytes, bool]]) -> set[int]:
    """What is left when the rule is applied at each admission, to those that aren't on their way out."""
    open_now: list[Side] = []
    for side in seen_from(peer, connections):
        open_now.append(side)
        going = surplus(open_now, peer, other)
        open_now = [connection for connection in open_now if connection not in going]
    return {side.number for side in open_now}


connection_lists = st.lists(st.tuples(st.sampled_from([SMALL, LARGE]), st.booleans()), max_size=8).map(
    lambda items: [(number, initiator, shaken) for number, (initiator, shaken) in enumerate(items)]
)


def test_one_connection_stays():
    assert surplus([], SMALL, LARGE) == []
    assert surplus([Side(1, True)], SMALL, LARGE) == []


def test_the_one_that_the_smaller_peer_initiated_stays_whichever_came_first():
    ours, theirs = Side(1, initiated=True), Side(2, initiated=False)
    for connections in ([ours, theirs], [theirs, ours]):
        assert surplus(connections, SMALL, LARGE) == [theirs]
        assert surplus(connections, LARGE, SMALL) == [ours]


def test_of_two_by_the_same_initiator_the_newer_stays():
    for initiated in (True, False):
        older, newer = Side(1, initiated), Side(2, initiated)
        for ours, other in ((SMALL, LARGE), (LARGE, SMALL)):
            assert surplus([older, newer], ours, other) == [older]


def test_peer_ids_are_compared_as_bytes_and_not_as_text():
    # base58 sorts these the other way round
    low, high = b"\x7f\xff", b"\x80\x00\x00"
    assert surplus([Side(1, True), Side(2, False)], low, high) == [Side(2, False)]


def test_connections_without_a_handshake_are_left_alone():
    plain = [Side(number, True, shaken=False) for number in range(3)]
    assert surplus(plain, SMALL, LARGE) == []
    assert surplus([*plain, Side(9, False)], SMALL, LARGE) == []
    assert surplus([plain[0], Side(8, False), plain[1], Side(9, False)], SMALL, LARGE) == [Side(8, False)]


@given(connection_lists)
def test_both_sides_keep_the_same_and_exactly_one_that_was_shaken(connections):
    ours, theirs = kept(SMALL, LARGE, connections), kept(LARGE, SMALL, connections)
    assert ours == theirs
    shaken = {number for number, _, shaken in connections if shaken}
    assert len(ours & shaken) == min(1, len(shaken))
    assert ours >= {number for number, *_ in connections} - shaken


@given(connection_lists, st.randoms(use_true_random=False))
def test_both_sides_keep_the_same_when_admissions_cross_on_the_way(connections, rng):
    # each side sees an initiator's connections in the order of their making, but the two initiators' in any order
    queues = [[item for item in connections if item[1] == initiator] for initiator in (SMALL, LARGE)]
    crossed = []
    while any(queues):
        crossed.append(rng.choice([queue for queue in queues if queue]).pop(0))
    result = kept(SMALL, LARGE, connections)
    assert kept(LARGE, SMALL, crossed) == result
    assert one_by_one(SMALL, LARGE, connections) == one_by_one(LARGE, SMALL, crossed) == result
