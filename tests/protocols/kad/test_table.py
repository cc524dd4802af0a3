"""The routing table: who is in it, who isn't, and that nobody can push anybody out."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from protocols.kad.keyspace import common_prefix, point, random_key
from protocols.kad.table import Table, TableParams
from tests.protocols.kad.test_wire import peer_id

LOCAL = peer_id(0)


def in_bucket(index, count, seed=1):
    rng = random.Random(seed)
    return [random_key(rng, point(LOCAL), index) for _ in range(count)]


def test_the_nearest_first():
    table = Table(LOCAL)
    added = [peer for number in range(1, 200) if table.add(peer := peer_id(number), 0.0)]
    target = point(b"somewhere")
    nearest = sorted(added, key=lambda peer: point(peer) ^ target)
    assert table.closest(target, 20) == nearest[:20]
    assert table.closest(target, 20, exclude=nearest[:5]) == nearest[5:25]
    assert LOCAL not in table
    assert not table.add(LOCAL, 0.0)


def test_newcomers_take_nobodys_place_who_answers():
    table = Table(LOCAL)
    old, new = in_bucket(0, 20), in_bucket(0, 500, seed=2)
    assert all(table.add(peer, 0.0) for peer in old)
    assert not any(table.add(peer, 1.0 + number) for number, peer in enumerate(new))
    assert set(table.closest(0, 100)) == set(old)


def test_who_fails_or_is_silent_makes_room():
    table = Table(LOCAL, TableParams(stale=100.0))
    old, new = in_bucket(0, 20), in_bucket(0, 3, seed=2)
    for peer in old:
        table.add(peer, 0.0)
    table.failed(old[3], 1.0)
    assert table.add(new[0], 2.0)
    assert old[3] not in table
    for peer in old:
        table.seen(peer, 90.0)
    assert not table.add(new[1], 101.0)
    assert table.add(new[2], 102.0)  # new[0] has been silent for a hundred seconds
    assert new[0] not in table


def test_a_spare_comes_in_when_a_peer_goes_out():
    table = Table(LOCAL)
    old, new = in_bucket(3, 20), in_bucket(3, 40, seed=2)
    for peer in (*old, *new):
        table.add(peer, 0.0)
    assert [table.failed(old[0], 1.0 + n) for n in range(3)] == [False, False, True]
    assert new[-1] in table
    table.remove(old[1], 5.0)
    assert new[-2] in table
    table.failed(new[-3], 6.0)  # a spare that fails is none
    table.remove(old[2], 7.0)
    assert new[-4] in table
    assert len(table) == 20


def test_who_failed_is_named_last_and_not_to_others():
    table = Table(LOCAL)
    peers = in_bucket(0, 5)
    for peer in peers:
        table.add(peer, 0.0)
    for peer in peers:
        table.failed(peer, 1.0)
    # our own network may have been what failed
    assert table.closest(0, 10) == []
    assert set(table.closest(0, 10, failing=True)) == set(peers)
    table.add(peers[0], 2.0)
    assert table.closest(0, 10) == [peers[0]]


def test_a_subnet_gets_few_places():
    table = Table(LOCAL)
    for index in range(8):
        for peer in in_bucket(index, 50, seed=index):
            table.add(peer, 0.0, "198.51.0.0/16")
    assert len(table) == 10
    for index in range(8):
        here = [e for e in table if common_prefix(e.point, table.point) == index]
        assert len(here) <= 2
    honest = in_bucket(0, 18, seed=99)
    assert all(table.add(peer, 0.0, None) for peer in honest)
    # one that leaves makes room for one of its own
    gone = next(entry.peer for entry in table if entry.subnet)
    table.remove(gone, 1.0)
    assert sum(entry.subnet is not None for entry in table) == 10


def test_which_buckets_are_due():
    table = Table(LOCAL)
    assert table.due(0.0, 10.0, 12) == []
    for index in (0, 4):
        table.add(in_bucket(index, 1)[0], 0.0)
    assert table.depth() == 4
    assert table.due(0.0, 10.0, 12) == [1, 2, 3]
    for index in range(5):
        table.refreshed(index, 5.0)
    assert table.due(14.0, 10.0, 12) == []
    assert table.due(15.0, 10.0, 2) == [0, 1, 2]


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "seen", "failed", "remove"]),
        st.integers(1, 60),
        st.sampled_from([None, "a", "b"]),
        st.floats(0, 2000),
    ),
    max_size=200,
)


@given(steps)
def test_bounds_hold_whatever_happens(events):
    params = TableParams(k=4, per_bucket_subnet=1, per_table_subnet=3, stale=1000.0)
    table, now = Table(LOCAL, params), 0.0
    for what, number, subnet, later in events:
        now += later
        peer = peer_id(number)
        if what == "add":
            assert table.add(peer, now, subnet) == (peer in table)
        elif what == "seen":
            table.seen(peer, now)
        elif what == "failed":
            table.failed(peer, now)
        else:
            table.remove(peer, now)
        buckets: dict[int, list] = {}
        for entry in table:
            buckets.setdefault(common_prefix(entry.point, table.point), []).append(entry)
        assert sum(map(len, buckets.values())) == len(table)
        for entries in buckets.values():
            assert len(entries) <= 4
            for name in ("a", "b"):
                assert sum(entry.subnet == name for entry in entries) <= 1
        for name in ("a", "b"):
            assert sum(entry.subnet == name for entry in table) == table._subnets.get(name, 0) <= 3
