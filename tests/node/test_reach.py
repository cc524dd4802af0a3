"""From where an address can be reached, and how often one is dialled on a stranger's word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.peers.budget import DialBudget
from node.peers.reach import Reach, reach_of, reach_of_ip, subnet_of, widest

PUBLIC = "93.184.216.34"


@pytest.mark.parametrize(
    ("addr", "reach"),
    [
        ("/ip4/127.0.0.1/tcp/4001", Reach.LOOPBACK),
        ("/ip6/::1/tcp/4001", Reach.LOOPBACK),
        ("/dns4/localhost/tcp/4001", Reach.LOOPBACK),
        ("/ip6/::ffff:127.0.0.1/tcp/4001", Reach.LOOPBACK),
        ("/ip4/10.1.2.3/tcp/4001", Reach.PRIVATE),
        ("/ip4/192.168.1.1/tcp/4001", Reach.PRIVATE),
        ("/ip4/100.64.0.1/tcp/4001", Reach.PRIVATE),
        ("/ip4/169.254.1.1/tcp/4001", Reach.PRIVATE),
        ("/ip6/fd00::1/tcp/4001", Reach.PRIVATE),
        ("/ip6/fe80::1/tcp/4001", Reach.PRIVATE),
        ("/dns/printer.local/tcp/80", Reach.PRIVATE),
        (f"/ip4/{PUBLIC}/tcp/4001", Reach.PUBLIC),
        ("/ip6/2606:2800:220:1::1/tcp/4001", Reach.PUBLIC),
        ("/dns4/node.example.org/tcp/4001", Reach.PUBLIC),
        ("/dns4/4.example.org/tcp/4001", Reach.PUBLIC),
        ("/dns4/10.0.0.1/tcp/22", Reach.PRIVATE),
        ("/dns/127.0.0.1/tcp/22", Reach.LOOPBACK),
        ("/dns6/::1/tcp/22", Reach.LOOPBACK),
        ("/dns4/127.1/tcp/22", None),
        ("/dns4/0x7f.0x1/tcp/22", None),
        ("/dns4/2130706433/tcp/22", None),
        ("/dns4/127.0.0.1\uff11/tcp/22", None),
        ("/ip4/0.0.0.0/tcp/4001", None),
        ("/ip6/::/tcp/4001", None),
        ("/ip4/224.0.0.1/tcp/4001", None),
        ("/ip4/255.255.255.255/tcp/4001", None),
        (f"/ip4/{PUBLIC}/tcp/0", None),
        ("/ip4/256.1.1.1/tcp/1", None),
        ("/p2p-circuit", None),
        ("/unix/tmp/x", None),
        ("", None),
    ],
)
def test_each_address_has_its_reach(addr, reach):
    assert reach_of(addr) == reach


@given(st.text(max_size=80))
def test_any_text_has_a_reach_or_none(text):
    assert reach_of(text) in (None, *Reach)
    assert reach_of_ip(text) in (None, *Reach)
    assert isinstance(subnet_of(text), str)


def test_a_record_names_the_addresses_of_widest_reach():
    loopback, private, public = "/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", f"/ip4/{PUBLIC}/tcp/1"
    assert widest([loopback, private, public, "/ip4/0.0.0.0/tcp/1"]) == [public]
    assert widest([loopback, private]) == [private]
    assert widest([loopback]) == [loopback]
    assert widest([]) == []


def test_subnets():
    assert subnet_of("10.1.2.3") == "10.1.0.0/16"
    assert subnet_of("::ffff:10.1.2.3") == "10.1.0.0/16"
    assert subnet_of("2001:db8:1:2::3") == "2001:db8::/32"


# the dial budget


def test_an_address_is_dialled_a_few_times_and_then_seldom():
    budget = DialBudget(burst=4, period=60)
    assert [budget.take(PUBLIC, 0.0) for _ in range(6)] == [True] * 4 + [False] * 2
    assert budget.refused == 2
    assert budget.wait(PUBLIC, 0.0) == 60.0
    assert not budget.take(PUBLIC, 59.0)
    assert budget.take(PUBLIC, 60.0)
    assert budget.take("93.184.216.35", 0.0)  # another address is another account
    assert all(budget.take("127.0.0.1", 0.0) for _ in range(100))
    assert budget.wait("127.0.0.1", 0.0) == 0.0


def test_a_dial_that_succeeds_is_given_back_and_one_that_fails_doubles_the_wait():
    budget = DialBudget(burst=1, period=60, longest=200)
    for _ in range(50):
        assert budget.take(PUBLIC, 0.0)
        budget.succeeded(PUBLIC, 0.0)
    waits = []
    now = 0.0
    for _ in range(4):
        assert budget.take(PUBLIC, now)
        budget.failed(PUBLIC, now)
        waits.append(budget.wait(PUBLIC, now))
        now += waits[-1]
    assert waits == [120.0, 200.0, 200.0, 200.0]
    assert budget.take(PUBLIC, now)
    budget.succeeded(PUBLIC, now)
    assert budget.take(PUBLIC, now)
    assert budget.wait(PUBLIC, now) == 60.0


def test_names_of_one_domain_count_as_one_address():
    budget = DialBudget(burst=2)
    names = ["a.example.org", "b.example.org", "c.d.Example.org.", "example.org", "a.example.net"]
    assert [budget.take(name, 0.0) for name in names] == [True, True, False, False, True]


def test_a_strangers_failures_do_not_keep_others_of_a_shared_domain_out():
    budget = DialBudget(burst=2, period=60)
    for _ in range(2):
        assert budget.take("bad.duckdns.org", 0.0)
        budget.failed("bad.duckdns.org", 0.0)
    assert not budget.take("good.duckdns.org", 59.0)
    for _ in range(50):
        assert budget.take("good.duckdns.org", 60.0)
        budget.succeeded("good.duckdns.org", 60.0)


def test_a_network_of_ipv6_counts_as_one_address():
    budget = DialBudget(burst=2)
    taken = [budget.take(f"2606:2800:220:1::{number:x}", 0.0) for number in range(1, 6)]
    assert taken == [True, True, False, False, False]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "succeeded", "failed"]), st.integers(0, 5), st.floats(0, 100, allow_nan=False)
        ),
        max_size=200,
    )
)
def test_the_table_is_bounded_and_says_how_long_to_wait_whatever_the_order(steps):
    budget = DialBudget(burst=3, period=10, longest=100, capacity=4)
    now = 0.0
    for action, number, pause in steps:
        now += pause
        ip = f"93.184.216.{number}"
        wait = budget.wait(ip, now)
        assert 0 <= wait <= 100
        if action == "take":
            assert budget.take(ip, now) == (wait == 0)
        else:
            getattr(budget, action)(ip, now)
        assert len(budget) <= 4


@given(st.lists(st.floats(0, 30, allow_nan=False), max_size=100), st.booleans())
def test_a_victim_is_dialled_no_more_than_the_budget_says(pauses, fails):
    budget = DialBudget(burst=3, period=10, longest=100)
    now, dialled = 0.0, 0
    for pause in pauses:
        now += pause
        if budget.take(PUBLIC, now):
            dialled += 1
            if fails:
                budget.failed(PUBLIC, now)
    assert dialled <= 3 + now / 10 + 1e-6
