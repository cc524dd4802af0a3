"""When to take what a peer has sent: the bound holds in any order, and nothing stalls once it has been read."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from node.quic.credit import PATIENCE, SOME, Credit

MOST = 8 * SOME
EVENT = 64 * 1024


def test_a_pause_ends_by_reading():
    credit = Credit(MOST)
    assert not credit.came(SOME, 1.0)
    assert credit.came(EVENT, 1.0)
    assert credit.resume_at == 1.0 + PATIENCE
    assert not credit.read(EVENT)
    assert credit.read(SOME // 2)
    assert credit.resume_at == math.inf
    assert not credit.came(EVENT, 1.0)


def test_a_pause_ends_by_patience_but_not_for_ever():
    credit = Credit(MOST)
    pauses = 0
    while credit.unread < MOST:
        if credit.came(EVENT, 1.0):
            if credit.resume_at == math.inf:
                break
            pauses += 1
            credit.give_in()
    assert pauses == MOST // SOME - 1
    assert MOST <= credit.unread <= MOST + EVENT
    assert credit.read(SOME)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, EVENT)), max_size=400), st.integers(1, 3 * SOME))
def test_no_more_than_most_waits_and_nothing_stalls(steps, most):
    credit, paused = Credit(most), False
    for comes, count in steps:
        if comes and not paused:
            paused = credit.came(count, 0.0)
        elif comes and credit.resume_at < math.inf:
            credit.give_in()
            paused = False
        elif credit.unread:
            paused &= not credit.read(min(count, credit.unread))
        assert credit.unread <= most + EVENT
    if credit.unread:
        paused &= not credit.read(credit.unread)
    assert not paused  # all has been read
