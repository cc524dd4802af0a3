"""The token bucket, in its own time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.rate import TokenBucket


def test_a_burst_is_free_and_what_follows_waits_its_turn():
    bucket = TokenBucket(rate=2, burst=3, now=100)
    assert [bucket.take(100) for _ in range(6)] == [0, 0, 0, 0.5, 1.0, 1.5]


def test_tokens_flow_in_and_what_is_over_the_burst_is_lost():
    bucket = TokenBucket(rate=2, burst=3, now=0)
    for _ in range(3):
        bucket.take(0)
    assert bucket.take(0.5) == 0
    assert bucket.take(0.5) == 0.5
    assert [bucket.take(1000) for _ in range(4)] == [0, 0, 0, 0.5]


def test_more_than_one_token_may_be_taken_at_once_on_credit():
    bucket = TokenBucket(rate=10, burst=1, now=0)
    assert bucket.take(0, tokens=101) == pytest.approx(10)
    assert bucket.take(10, tokens=1) == pytest.approx(0.1)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0), (1, 0.5)])
def test_rate_and_burst_must_let_something_through(rate, burst):
    with pytest.raises(ValueError, match="expected rate > 0 and burst >= 1"):
        TokenBucket(rate, burst, now=0)


@given(
    st.floats(0.1, 1000),
    st.floats(1, 100),
    st.lists(st.floats(0, 10), min_size=1, max_size=100),
)
def test_who_waits_as_told_never_exceeds_rate_and_burst(rate, burst, pauses):
    bucket, now = TokenBucket(rate, burst, now=0), 0.0
    for taken, pause in enumerate(pauses, 1):
        now += pause
        now += bucket.take(now)
        assert taken <= burst + now * rate + 1e-6 * (taken + now * rate)
