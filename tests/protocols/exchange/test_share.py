"""Whom we tell of which peers, and how often."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.exchange.share import Candidate, Share, ShareParams

WORLD, NETWORK, MACHINE = 2, 1, 0


class Known:
    """A directory of so many peers, all seen now unless `ages` tells."""

    def __init__(self, count=0, *, ages=None, reach=WORLD, near=WORLD, prefix="p"):
        self.peers = {}
        for number in range(count):
            age = ages[number] if ages else 0.0
            self.add(f"{prefix}{number}", -age, reach, near)

    def add(self, peer, last_seen=0.0, reach=WORLD, near=WORLD):
        self.peers[peer] = Candidate(peer, b"record of " + peer.encode(), last_seen, reach, near)

    def candidates(self):
        return list(self.peers.values())

    def candidate(self, peer):
        return self.peers.get(peer)


def share(seed=1, **params):
    return Share(ShareParams(**params), rng=random.Random(seed))


def told(one, known, *, limit=100, asker="asker", group="group", reach=WORLD, now=0.0):
    drawn = one.draw(limit, known, asker=asker, group=group, reach=reach, now=now)
    assert len(drawn) <= limit
    assert len(set(drawn)) == len(drawn)
    return {record.removeprefix(b"record of ").decode() for record in drawn}


def test_nobody_reads_the_whole_book_however_often_they_ask():
    one, known = share(), Known(10_000)
    seen = set()
    answers = [frozenset(told(one, known, asker=f"sybil {number}")) for number in range(300)]
    for answer in answers:
        assert len(answer) == 100
        seen |= answer
    assert len(seen) == 500  # one group, one window
    assert len(set(answers)) == 300  # and yet each answer is another part of it
    other = set().union(*(told(one, known, group="other") for _ in range(50)))
    assert len(other) <= 500
    assert other != seen
    later = set().union(*(told(one, known, now=3600.0) for _ in range(50)))
    assert later != seen


def test_a_small_book_is_told_whole_and_grows_into_the_window():
    one, known = share(), Known(3)
    assert told(one, known) == {"p0", "p1", "p2"}
    for number in range(200):
        known.add(f"new {number}")
    more = set().union(*(told(one, known) for _ in range(50)))
    assert len(more) == 100  # `least`
    assert more >= {"p0", "p1", "p2"}


def test_the_recently_seen_are_favoured_and_others_told_too():
    ages = [0.0] * 200 + [48 * 3600.0] * 200
    known = Known(400, ages=ages)
    counts = Counter()
    for seed in range(40):
        counts.update(told(share(seed), known, limit=50))
    recent = sum(counts[f"p{number}"] for number in range(200))
    old = sum(counts[f"p{number}"] for number in range(200, 400))
    assert recent > 10 * old > 0


def test_peers_that_are_known_no_more_are_told_no_more():
    one, known = share(), Known(10)
    assert len(told(one, known)) == 10
    del known.peers["p3"]
    assert told(one, known) == {f"p{number}" for number in range(10) if number != 3}


def test_nobody_is_told_of_itself():
    one, known = share(), Known(3)
    assert told(one, known, asker="p1", group="a") == {"p0", "p2"}
    assert told(one, known, asker="p0", group="a") == {"p1", "p2"}  # in its window, though


@pytest.mark.parametrize(
    ("asker", "heard"),
    [(WORLD, {"world"}), (NETWORK, {"world", "network", "both"}), (MACHINE, {"world", "network", "both", "machine"})],
)
def test_private_addresses_are_for_private_peers(asker, heard):
    known = Known()
    known.add("world", reach=WORLD, near=WORLD)
    known.add("network", reach=NETWORK, near=NETWORK)
    known.add("both", reach=WORLD, near=MACHINE)  # a record with private addresses beside public ones
    known.add("machine", reach=MACHINE, near=MACHINE)
    assert told(share(), known, reach=asker) == heard


def test_an_answer_is_no_larger_than_a_frame():
    known = Known()
    for number in range(100):
        known.peers[f"p{number}"] = Candidate(f"p{number}", b"%03d" % number + bytes(4000), 0.0, WORLD, WORLD)
    drawn = share().draw(100, known, asker="a", group="g", reach=WORLD, now=0.0)
    assert len(drawn) == 16


# how often


def test_a_peer_may_ask_a_few_times_and_then_each_pause():
    one = share(pause=10, burst=5)
    assert [one.ask("a", 0.0) for _ in range(5)] == [None] * 5
    assert one.ask("a", 0.0).wait == 10
    assert one.ask("b", 0.0) is None  # each peer by itself
    assert one.ask("a", 10.0) is None
    assert one.ask("a", 10.0) is not None


def test_a_flood_is_told_once_and_isnt_rewarded():
    one = share(pause=10, burst=5, flood_after=10)
    refusals = [one.ask("a", 0.0) for _ in range(10_000)]
    assert sum(refusal is None for refusal in refusals) == 5
    assert sum(refusal is not None and refusal.flood for refusal in refusals) == 1
    assert one.refused == 9_995
    assert one.ask("a", 10.0) is None  # what was refused isn't owed


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0, 30, allow_nan=False)), max_size=200))
def test_tables_are_bounded_and_rates_hold_whatever_the_order(asks):
    one = share(max_askers=8, max_groups=4, pause=10, burst=2)
    known = Known(5)
    now, answered = 0.0, Counter()
    for number, pause in asks:
        now += pause
        if one.ask("same", now) is None:
            answered["same"] += 1
        one.ask(f"a{number}", now)
        told(one, known, group=f"g{number}", asker=f"a{number}", now=now)
        assert len(one._askers) <= 8
        assert len(one._windows) <= 4
    assert answered["same"] <= 2 + now / 10 + 1e-6


def test_a_clock_that_was_set_back_begins_a_new_window():
    one, known = share(least=1, most=1), Known(50)
    first = told(one, known, now=1e9)
    assert told(one, known, now=1e9 + 10) == first
    answers = {frozenset(told(share(seed, least=1, most=1), known)) for seed in range(10)}
    assert len(answers) > 1
    told(one, known, now=0.0)
    assert one._windows["group"].ends == 3600.0


@pytest.mark.parametrize("wrong", [{"pause": 0}, {"least": 9, "most": 8}, {"share": 0}, {"share": 2}, {"burst": 0}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        ShareParams(**wrong)
