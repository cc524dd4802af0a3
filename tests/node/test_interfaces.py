"""Which addresses belong to which interface."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from node.discovery import interfaces as rules
from node.discovery.interfaces import Interface, addrs_on, near


def interface(*nets):
    return Interface("eth0", 2, tuple(map(ipaddress.ip_interface, nets)))


ETH0 = interface("192.168.1.7/24", "fe80::1/64", "2001:db8:1::7/64")


def test_a_wildcard_stands_for_the_interfaces_own_addresses():
    assert addrs_on(ETH0, ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4002"]) == [
        "/ip4/192.168.1.7/tcp/4001",
        "/ip6/2001:db8:1::7/tcp/4002",
    ]


def test_other_interfaces_addresses_are_left_out():
    assert addrs_on(ETH0, ["/ip4/192.168.1.7/tcp/1", "/ip4/192.168.1.8/tcp/1", "/ip4/127.0.0.1/tcp/1"]) == [
        "/ip4/192.168.1.7/tcp/1"
    ]
    assert (
        addrs_on(
            ETH0, ["/dns4/example.org/tcp/1", "/ip4/0.0.0.0", "nonsense", "", "/ip4/x/tcp/1", "/ip6/1.2.3.4/tcp/1"]
        )
        == []
    )


def test_what_is_heard_must_lie_on_the_link_or_be_the_senders():
    told = [
        "/ip4/192.168.1.9/tcp/1",
        "/ip4/172.17.0.2/tcp/1",  # the sender's own containers: on this machine they would be ours
        "/ip4/203.0.113.1/tcp/1",  # somebody whom it wants to have dialled
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/224.0.0.1/tcp/1",
        "/ip4/0.0.0.0/tcp/1",
        "/ip6/2001:db8:1::9/tcp/1",
        "/ip6/2001:db8:2::9/tcp/1",
        "/ip6/fe80::2/tcp/1",
        "/dns4/example.org/tcp/1",
    ]
    assert near(ETH0, told, "192.168.1.9") == ["/ip4/192.168.1.9/tcp/1", "/ip6/2001:db8:1::9/tcp/1"]
    assert near(ETH0, ["/ip4/10.9.9.9/tcp/1"], "10.9.9.9") == ["/ip4/10.9.9.9/tcp/1"]


def test_a_link_without_a_router_has_addresses_too():
    adhoc = interface("169.254.7.7/16", "fe80::1/64")
    assert addrs_on(adhoc, ["/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1"]) == ["/ip4/169.254.7.7/tcp/1"]
    assert near(adhoc, ["/ip4/169.254.9.9/tcp/1", "/ip6/fe80::2/tcp/1"], "") == ["/ip4/169.254.9.9/tcp/1"]


def test_an_address_by_dhcp_has_its_links_prefix():
    assert near(interface("2001:db8:1::7/128"), ["/ip6/2001:db8:1::9/tcp/1"], "") == ["/ip6/2001:db8:1::9/tcp/1"]


def test_the_machines_own_are_without_loopback():
    for one in rules.interfaces():
        assert one.index > 0
        assert one.nets
        assert not any(net.ip.is_loopback for net in one.nets)


@given(
    st.lists(st.one_of(st.text(max_size=40), st.from_regex(r"/ip[46]/[0-9a-f:.%]{0,20}(/[a-z0-9]*){0,3}"))),
    st.text(max_size=9),
)
def test_any_text_is_an_address_or_none(texts, sender):
    assert set(near(ETH0, texts, sender)) <= set(texts)
    addrs_on(ETH0, texts)
