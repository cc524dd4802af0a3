"""When each peer is asked for others."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from node.discovery.rounds import FIRST, Rounds


def rounds(interval=100.0, hungry_pause=10.0):
    return Rounds(interval, hungry_pause=hungry_pause, rng=random.Random(1))


def asked(one, now):
    found = []
    while (peer := one.begin(now)) is not None:
        one.ended(peer, now)
        found.append(peer)
    return found


def test_a_new_peer_is_asked_soon_and_then_at_intervals():
    one = rounds()
    assert one.next_at == math.inf
    one.met("a", 0.0)
    assert 0 <= one.next_at <= FIRST
    assert asked(one, FIRST) == ["a"]
    one.met("a", FIRST)
    assert asked(one, FIRST + 74) == []
    assert FIRST + 75 <= one.next_at <= FIRST + 125
    assert asked(one, FIRST + 125) == ["a"]


def test_hunger_asks_sooner_but_not_too_often_and_who_waited_longest_first():
    one = rounds(interval=1000.0)
    one.met("a", 0.0)
    assert asked(one, 1.0) == ["a"]
    one.met("b", 1.0)
    assert asked(one, 5.0) == ["b"]
    assert one.hungry(6.0) == 2
    assert one.next_at == 11.0
    assert asked(one, 6.0) == []
    assert asked(one, 15.0) == ["a", "b"]
    assert one.hungry(15.0) == 2
    assert one.hungry(16.0) == 0  # they are due soon already
    assert asked(one, 24.9) == []
    assert asked(one, 25.0) == ["a", "b"]


def test_one_question_at_a_time_and_none_to_who_is_gone():
    one = rounds()
    one.met("a", 0.0)
    assert one.begin(1.0) == "a"
    one.hungry(50.0)
    assert one.begin(500.0) is None
    one.gone("a")
    one.ended("a", 501.0)
    assert one.begin(1000.0) is None
    assert len(one) == 0


@given(st.lists(st.tuples(st.sampled_from(["met", "gone", "hungry", "ask"]), st.integers(0, 3), st.floats(0, 20))))
def test_nobody_is_asked_more_often_than_the_pause_says(steps):
    one = rounds(interval=50.0, hungry_pause=10.0)
    now, last = 0.0, {}
    for action, number, pause in steps:
        now += pause
        peer = f"p{number}"
        if action == "met":
            one.met(peer, now)
        elif action == "gone":
            one.gone(peer)
            last.pop(peer, None)
        elif action == "hungry":
            one.hungry(now)
        else:
            for other in asked(one, now):
                assert now - last.get(other, -math.inf) >= 10.0 - 1e-6
                last[other] = now
