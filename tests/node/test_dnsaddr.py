"""`/dnsaddr/` names: in simulated time with a resolver of the test's, and with a DNS server on loopback."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from node.discovery import dnsaddr
from node.discovery.dnsaddr import MAX_ADDRS, MAX_DEPTH, MAX_LOOKUPS, DnsResolver, ResolveError, resolve
from tests.dnsserver import serving

A = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"
B = "12D3KooWJWEKvSFbben74C7H4YtKjhPMTDxd7gP7zxWSUEeF27st"


class Records:
    """A resolver from a table: name -> texts, with the seconds that each answer takes."""

    def __init__(self, texts, delays=None):
        self.texts = texts
        self.delays = delays or {}
        self.asked = []

    async def txt(self, name):
        self.asked.append(name)
        await trio.sleep(self.delays.get(name, 0.0))
        if name not in self.texts:
            raise ResolveError(f"{name}: no such name")
        return list(self.texts[name])


def named(**names):
    return {f"_dnsaddr.{name}": [f"dnsaddr={text}" for text in texts] for name, texts in names.items()}


async def test_an_address_without_a_name_is_itself():
    assert await resolve("/ip4/192.0.2.1/tcp/1", Records({})) == ["/ip4/192.0.2.1/tcp/1"]


async def test_a_name_stands_for_what_its_records_say():
    records = Records(
        {
            "_dnsaddr.example.org": [
                "dnsaddr=/ip4/192.0.2.1/tcp/1",
                "v=spf1",
                "dnsaddr=",
                "dnsaddr=no",
                "/ip4/192.0.2.2/tcp/1",
            ]
        }
    )
    assert await resolve("/dnsaddr/Example.ORG.", records) == ["/ip4/192.0.2.1/tcp/1"]
    assert records.asked == ["_dnsaddr.example.org"]


async def test_only_the_named_peers_addresses_count():
    records = Records(
        named(net=[f"/ip4/192.0.2.1/tcp/1/p2p/{A}", f"/ip4/192.0.2.2/tcp/1/p2p/{B}", "/ip4/192.0.2.3/tcp/1"])
    )
    assert await resolve(f"/dnsaddr/net/p2p/{B}", records) == [f"/ip4/192.0.2.2/tcp/1/p2p/{B}"]


async def test_names_lead_to_names_in_the_order_of_the_records(autojump_clock):
    records = Records(
        named(
            net=[f"/dnsaddr/a/p2p/{A}", "/ip4/192.0.2.9/tcp/1", f"/dnsaddr/b/p2p/{B}"],
            a=[f"/ip4/192.0.2.1/tcp/1/p2p/{A}", f"/ip4/192.0.2.66/tcp/1/p2p/{B}"],
            b=[f"/ip4/192.0.2.2/tcp/1/p2p/{B}"],
        ),
        {"_dnsaddr.a": 3.0, "_dnsaddr.b": 1.0},
    )
    began = trio.current_time()
    assert await resolve("/dnsaddr/net", records) == [
        f"/ip4/192.0.2.1/tcp/1/p2p/{A}",
        "/ip4/192.0.2.9/tcp/1",
        f"/ip4/192.0.2.2/tcp/1/p2p/{B}",
    ]
    assert trio.current_time() - began == pytest.approx(3)  # side by side


async def test_one_name_for_two_peers_is_asked_for_once(autojump_clock):
    both = [f"/ip4/192.0.2.1/tcp/1/p2p/{A}", f"/ip4/192.0.2.2/tcp/1/p2p/{B}"]
    records = Records(named(net=[f"/dnsaddr/x/p2p/{A}", f"/dnsaddr/x/p2p/{B}"], x=both), {"_dnsaddr.x": 1.0})
    assert await resolve("/dnsaddr/net", records) == both
    assert records.asked == ["_dnsaddr.net", "_dnsaddr.x"]


async def test_loops_end():
    records = Records(
        named(a=["/dnsaddr/b", "/ip4/192.0.2.1/tcp/1"], b=["/dnsaddr/a", "/dnsaddr/b", "/ip4/192.0.2.2/tcp/1"])
    )
    assert await resolve("/dnsaddr/a", records) == ["/ip4/192.0.2.2/tcp/1", "/ip4/192.0.2.1/tcp/1"]
    assert len(records.asked) == 2
    with pytest.raises(ResolveError, match="expected addresses, got none"):
        await resolve("/dnsaddr/a", Records(named(a=["/dnsaddr/a"])))


async def test_depth_is_bounded():
    chain = {f"n{depth}": [f"/dnsaddr/n{depth + 1}"] for depth in range(1, 50)}
    records = Records(named(**chain))
    with pytest.raises(ResolveError, match=f"more than {MAX_DEPTH} names deep"):
        await resolve("/dnsaddr/n1", records)
    assert len(records.asked) == MAX_DEPTH


async def test_names_and_addresses_are_bounded():
    wide = {"net": [f"/dnsaddr/n{number}" for number in range(100)]}
    wide |= {f"n{number}": [f"/ip4/192.0.2.{number}/tcp/{port}" for port in range(1, 100)] for number in range(100)}
    records = Records(named(**wide))
    with pytest.raises(ResolveError):
        await resolve("/dnsaddr/net", records)  # its names alone are too many
    assert len(records.asked) <= MAX_LOOKUPS
    records = Records(named(**wide))
    assert len(await resolve("/dnsaddr/n1", records)) == MAX_ADDRS


async def test_what_came_in_time_counts(autojump_clock):
    records = Records(named(net=["/dnsaddr/slow", "/ip4/192.0.2.1/tcp/1"], slow=[]), {"_dnsaddr.slow": 1000})
    assert await resolve("/dnsaddr/net", records, timeout=5) == ["/ip4/192.0.2.1/tcp/1"]
    with pytest.raises(ResolveError, match="no answer within 5 s"):
        await resolve("/dnsaddr/slow", records, timeout=5)


async def test_a_name_that_fails_hides_no_other():
    records = Records(named(net=["/dnsaddr/gone", "/dnsaddr/", "/ip4/192.0.2.1/tcp/1"]))
    assert await resolve("/dnsaddr/net", records) == ["/ip4/192.0.2.1/tcp/1"]
    with pytest.raises(ResolveError, match=r"_dnsaddr.gone: no such name"):
        await resolve("/dnsaddr/gone", records)


@given(
    st.lists(
        st.one_of(
            st.text(max_size=30),
            st.text(max_size=30).map("dnsaddr=/dnsaddr/".__add__),
            st.text(max_size=30).map("dnsaddr=/ip4/".__add__),
        )
    )
)
def test_any_texts_give_addresses_or_one_error(texts):
    class Same:
        async def txt(self, name):
            return texts

    async def main():
        try:
            found = await resolve("/dnsaddr/x", Same())
        except ResolveError:
            return
        assert 1 <= len(found) <= MAX_ADDRS
        assert all(addr.startswith("/") and not dnsaddr.is_named(addr) for addr in found)

    trio.run(main)


async def test_a_real_server():
    long = (
        "/ip4/192.0.2.1/udp/1/quic-v1/webtransport"
        + "/certhash/uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g" * 4
        + f"/p2p/{A}"
    )
    records = {
        "_dnsaddr.example.test": [f"dnsaddr=/dnsaddr/eu.example.test/p2p/{A}", "dnsaddr=/ip4/192.0.2.2/tcp/1"],
        "_dnsaddr.eu.example.test": [f"dnsaddr={long}"],
        "_dnsaddr.silent.test": None,
    }
    async with serving(records) as server:
        resolver = DnsResolver(["127.0.0.1"], server.port)
        assert set(await resolve("/dnsaddr/example.test", resolver)) == {long, "/ip4/192.0.2.2/tcp/1"}
        assert server.asked == ["_dnsaddr.example.test", "_dnsaddr.eu.example.test"]
        with pytest.raises(ResolveError, match=r"_dnsaddr.missing.test: .*does not exist"):
            await resolve("/dnsaddr/missing.test", resolver)
        with pytest.raises(ResolveError, match=r"no answer within 0.5 s"):
            await resolve("/dnsaddr/silent.test", resolver, timeout=0.5)
        for odd in ("/dnsaddr/" + "a" * 70, "/dnsaddr/a..b", "/dnsaddr/\u00e4"):
            with pytest.raises(ResolveError):
                await resolve(odd, resolver)
