"""Backoff: waits that grow, never shorter than promised, in a bounded table."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.peers.backoff import JITTER, Backoff


def plain(capacity: int = 10) -> Backoff:
    return Backoff(5, 600, capacity=capacity, jitter=0)


def test_waits_double_up_to_the_longest():
    backoff = plain()
    assert [backoff.failed("a", 0) for _ in range(9)] == [5, 10, 20, 40, 80, 160, 320, 600, 600]


@given(st.integers(0), st.integers(1, 100))
def test_chance_only_adds_and_at_most_a_quarter(seed, failures):
    backoff = Backoff(5, 600, capacity=10, rng=random.Random(seed))
    for number in range(failures):
        base = min(5 * 2**number, 600)
        wait = backoff.failed("a", 1000.0)
        assert base <= wait <= base * (1 + JITTER) == base * 1.25
        assert backoff.remaining("a", 1000.0) == pytest.approx(wait)


def test_chance_spreads_peers_and_repeats_for_a_seed():
    def waits(seed):
        backoff = Backoff(5, 600, capacity=100, rng=random.Random(seed))
        return [backoff.failed(str(peer), 0) for peer in range(20)]

    assert waits(1) == waits(1) != waits(2)
    assert len(set(waits(1))) == 20


def test_the_wait_runs_down_and_peers_that_never_failed_have_none():
    backoff = plain()
    assert backoff.remaining("a", 0) == 0
    backoff.failed("a", 100)
    assert [backoff.remaining("a", now) for now in (100, 103, 105, 1000)] == [5, 2, 0, 0]
    assert backoff.remaining("b", 100) == 0


def test_failures_in_a_row_count_even_after_the_wait_and_a_success_forgets_them():
    backoff = plain()
    backoff.failed("a", 0)
    assert backoff.failed("a", 1000) == 10
    backoff.succeeded("a")
    assert (backoff.remaining("a", 1000), len(backoff)) == (0, 0)
    assert backoff.failed("a", 1000) == 5
    backoff.succeeded("never seen")


def test_a_thousand_failures_do_not_overflow():
    backoff = plain()
    for _ in range(1100):
        wait = backoff.failed("a", 0)
    assert wait == 600


def test_past_capacity_the_peer_that_failed_longest_ago_is_forgotten():
    backoff = plain(capacity=3)
    for peer, now in (("b", 0), ("c", 10), ("a", 20)):
        backoff.failed(peer, now)
    backoff.failed("d", 21)
    assert len(backoff) == 3
    assert backoff.remaining("b", 0) == 0
    assert all(backoff.remaining(peer, 0) for peer in "acd")


def test_a_peer_that_fails_again_in_a_full_table_pushes_nobody_out():
    backoff = plain(capacity=2)
    backoff.failed("a", 0)
    backoff.failed("b", 0)
    assert backoff.failed("a", 0) == 10
    assert len(backoff) == 2
    assert backoff.remaining("b", 0) == 5


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans(), st.floats(0, 100)), max_size=100))
def test_the_table_never_outgrows_its_capacity(steps):
    backoff, now = plain(capacity=4), 0.0
    for peer, ok, pause in steps:
        now += pause
        if ok:
            backoff.succeeded(peer)
        else:
            backoff.failed(peer, now)
            assert backoff.remaining(peer, now) >= 5 - 1e-9
        assert len(backoff) <= 4
