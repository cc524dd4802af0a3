"""Bootstrap by name: /dnsaddr/ names among the bootstrap peers, and to connect with."""

from __future__ import annotations

import pytest
import trio

from node import Config, UsageError
from node.discovery.bootstrap import RENEW
from node.discovery.dnsaddr import DnsResolver, ResolveError
from tests.dnsserver import serving
from tests.memnet import MemNet, mem_node
from tests.node.test_dnsaddr import Records, named
from tests.nodes import eventually, running

A, B = "10.0.0.1", "10.0.0.2"
NAME = "/dnsaddr/example.org"
ON = {"dht": "off", "gossip": "off", "pool": "on"}


async def test_the_peers_behind_a_name_are_dialled_and_an_answer_that_comes_late_counts(autojump_clock):
    async with MemNet() as net, mem_node(net, A, **ON) as a:
        records = Records({})
        b = mem_node(net, B, bootstrap=(NAME,), **ON)
        b.bootstrap.resolver = records
        async with b:
            await trio.sleep(20)
            assert b.connected_peers() == []
            assert 3 <= len(records.asked) <= 8, "again, after growing pauses"
            records.texts |= named(**{"example.org": [a.addrs[0], "/ip4/10.0.0.9/tcp/1", f"/unix/x/p2p/{a.peer_id}"]})
            await trio.sleep(60)
            assert b.connected_peers() == [a.peer_id]
            asked = len(records.asked)
            await trio.sleep(RENEW)
            assert len(records.asked) == asked + 1, "names change"


@pytest.mark.parametrize(
    "bad", ["/ip4/999.1.1.1/tcp/1/p2p/{}", "/nosuch/1/p2p/{}", "/ip4/10.0.0.9/tcp/1/p2p/nobody", "/ip4/10.0.0.9/p2p/"]
)
async def test_a_record_that_is_no_address_hides_nothing_else(autojump_clock, bad):
    async with MemNet() as net, mem_node(net, A, **ON) as a:
        records = Records(named(**{"example.org": [bad.format(a.peer_id), a.addrs[0]]}))
        b = mem_node(net, B, bootstrap=(NAME,), **ON)
        b.bootstrap.resolver = records
        async with b:
            await trio.sleep(60)
            assert b.connected_peers() == [a.peer_id]
            assert len(records.asked) == 1
            assert (await b.connect(f"{NAME}/p2p/{a.peer_id}")).peer == a.peer_id


async def test_connect_by_name(autojump_clock):
    async with MemNet() as net, mem_node(net, A) as a, mem_node(net, B) as b:
        b.bootstrap.resolver = Records(named(**{"example.org": [a.addrs[0]]}))
        connection = await b.connect(f"{NAME}/p2p/{a.peer_id}")
        assert connection.peer == a.peer_id
        with pytest.raises(ResolveError, match=r"nowhere\.org"):
            await b.connect(f"/dnsaddr/nowhere.org/p2p/{a.peer_id}")


async def test_over_a_real_dns_server():
    async with running() as a, serving({"_dnsaddr.example.org": [f"dnsaddr={a.addrs[0]}"]}) as server:
        b = running(bootstrap=(NAME,))
        async with b as node:
            node.bootstrap.resolver = DnsResolver(["127.0.0.1"], server.port)
            connection = await node.connect(f"{NAME}/p2p/{a.peer_id}")
            assert connection.peer == a.peer_id
            await eventually(lambda: a.connected_peers() == [node.peer_id])


@pytest.mark.parametrize("server", ["", "dns.example.org", "192.0.2.1:53"])
def test_dns_servers_are_ip_addresses(server):
    with pytest.raises(UsageError, match="dns_servers: expected an IP address"):
        Config(dns_servers=(server,))
