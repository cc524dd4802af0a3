"""Connection limits: exact bounds, and slots that come back however a connection ends."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import LimitError
from node.peers.limits import ConnectionLimiter, Limits, ip_group


def limiter(**bounds: int) -> ConnectionLimiter:
    generous = dict.fromkeys(
        ("max_connections", "max_inbound", "max_half_open", "max_half_open_per_ip", "max_connections_per_ip"), 100
    )
    return ConnectionLimiter(Limits(**generous | bounds))


def state(limits: ConnectionLimiter) -> tuple:
    return (
        limits.total,
        limits.inbound,
        limits.half_open,
        dict(limits._by_group),
        dict(limits._half_open_by_group),
    )


EMPTY = state(limiter())


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_what_counts_as_one_address(host, group):
    assert ip_group(host) == group


@given(st.text())
def test_any_text_has_a_group(text):
    assert isinstance(ip_group(text), str)


@pytest.mark.parametrize("name", ["max_connections", "max_inbound", "max_half_open"])
def test_each_limit_holds_exactly_over_all_addresses(name):
    limits = limiter(**{name: 3})
    leases = [limits.accept(f"10.0.0.{number}") for number in range(3)]
    before = state(limits)
    with pytest.raises(LimitError, match=f"{name} is 3"):
        limits.accept("10.0.0.9")
    assert state(limits) == before
    assert limits.refused == {name: 1}
    leases[0].release()
    limits.accept("10.0.0.9")


@pytest.mark.parametrize("name", ["max_half_open_per_ip", "max_connections_per_ip"])
def test_each_limit_for_an_address_leaves_other_addresses_alone(name):
    limits = limiter(**{name: 2})
    lease = limits.accept("2001:db8::1")
    limits.accept("2001:db8::2")
    with pytest.raises(LimitError, match=rf"2001:db8::/64, and {name} is 2"):
        limits.accept("2001:db8::3")
    limits.accept("2001:db8:0:1::1")
    lease.release()
    limits.accept("2001:db8::3")


def test_admission_frees_the_half_open_place_and_keeps_the_connections():
    limits = limiter(max_half_open=1, max_connections_per_ip=2)
    for _ in range(2):
        lease = limits.accept("10.0.0.1")
        for _ in range(2):
            lease.established()
        assert (limits.half_open, lease.half_open) == (0, False)
    with pytest.raises(LimitError, match="max_connections_per_ip"):
        limits.accept("10.0.0.1")


def test_connections_that_we_open_are_never_inbound_or_half_open():
    limits = limiter(max_inbound=1, max_half_open=1, max_half_open_per_ip=1, max_connections=3)
    limits.accept("10.0.0.1")
    lease = limits.dialled("10.0.0.1")
    limits.dialled("10.0.0.1")
    assert (limits.total, limits.inbound, limits.half_open) == (3, 1, 1)
    with pytest.raises(LimitError, match="max_connections is 3"):
        limits.dialled("10.0.0.2")
    lease.established()
    lease.release()
    assert (limits.total, limits.inbound, limits.half_open) == (2, 1, 1)


def test_releasing_twice_frees_one_place():
    limits = limiter()
    other = limits.accept("10.0.0.1")
    lease = limits.accept("10.0.0.1")
    for _ in range(3):
        lease.release()
    lease.established()
    assert (limits.total, limits.inbound, limits.half_open) == (1, 1, 1)
    other.release()
    assert state(limits) == EMPTY


operations = st.lists(
    st.tuples(st.sampled_from(["accept", "dialled", "established", "release"]), st.integers(0, 20)), max_size=200
)


@given(operations)
def test_counts_stay_within_bounds_and_end_at_nothing(steps):
    limits = limiter(
        max_connections=6, max_inbound=5, max_half_open=4, max_half_open_per_ip=2, max_connections_per_ip=3
    )
    leases = []
    for what, number in steps:
        if what in ("accept", "dialled"):
            with contextlib.suppress(LimitError):
                leases.append(getattr(limits, what)(f"10.0.0.{number % 3}"))
        elif leases:
            getattr(leases[number % len(leases)], what)()
        alive = [lease for lease in leases if not lease.released]
        assert limits.total == len(alive) <= 6
        assert limits.inbound == sum(lease.inbound for lease in alive) <= 5
        assert limits.half_open == sum(lease.half_open for lease in alive) <= 4
        assert all(0 < count <= 3 for count in limits._by_group.values())
        assert all(0 < count <= 2 for count in limits._half_open_by_group.values())
    for lease in leases:
        lease.release()
    assert state(limits) == EMPTY
