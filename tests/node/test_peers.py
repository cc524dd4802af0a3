"""node.peers on whole nodes over the in-memory network: bans, static and protected peers, sources, what is probed."""

from __future__ import annotations

import pytest
import trio

from node.discovery.source import Feed
from node.errors import BannedError, DialError, UsageError
from node.events import Admitted, Banned, Disconnected, Misbehaved, Unbanned
from node.identity import Identity
from node.peers.entry import Entry, KnownAddr
from tests.memnet import MemNet, mem_node
from tests.nodes import Recorder

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
QUIET = {"dht": "off", "gossip": "off"}
ON = {**QUIET, "pool": "on"}


async def test_a_ban_closes_connections_at_once_and_refuses_both_ways(autojump_clock):
    async with MemNet() as net, mem_node(net, A, **QUIET) as a, mem_node(net, B, **QUIET) as b:
        for target in (b.peer_id, B, "10.0.0.0/30"):
            recorder = Recorder(a)
            await a.connect(b.addrs[0])
            await a.peers.ban(target, "a test", seconds=3600)
            await recorder.next(Disconnected)
            assert recorder.of(Banned)[0].reason == "a test"
            assert recorder.of(Disconnected)[0].reason == "banned"
            await trio.sleep(1)  # until the other side sees it
            with pytest.raises((BannedError, DialError), match="banned"):
                await a.connect(b.addrs[0])
            with pytest.raises(DialError):
                await b.connect(a.addrs[0])
            assert len(recorder.of(Admitted)) == 1
            assert [ban.reason for ban in a.addressbook.bans()] == ["a test"]
            assert await a.peers.unban(target)
            assert not await a.peers.unban(target)
            assert recorder.of(Unbanned)
            await trio.sleep(700)  # their dialler's backoff


async def test_a_banned_address_costs_no_handshake(autojump_clock):
    async with MemNet() as net, mem_node(net, A, **QUIET) as a, mem_node(net, B, **QUIET) as b:
        await a.peers.ban(B, "a test")
        with pytest.raises(DialError):
            await b.connect(a.addrs[0])
        assert a.swarm.limits.refused["banned"] >= 1
        assert a.swarm.limits.total == 0


async def test_bad_targets_are_refused(autojump_clock):
    async with MemNet() as net, mem_node(net, A, **QUIET) as a:
        for target in ("", "ada lovelace", "ada", "10.0.0.0/99", a.peer_id, a.peer_id[:-1]):
            with pytest.raises(UsageError):
                await a.peers.ban(target, "a test")
        for addr in ("", "/ip4/10.0.0.2/tcp/1", f"/ip4/10.0.0.2/udp/1/p2p/{Identity.generate().peer_id}", a.addrs[0]):
            with pytest.raises(UsageError):
                await a.peers.add(addr)
        assert a.addressbook.bans() == []


async def test_a_static_peer_is_dialled_until_it_is_there_and_again_when_it_is_lost(autojump_clock):
    identity = Identity.generate()
    async with MemNet() as net, mem_node(net, A, **ON) as a:
        recorder = Recorder(a)
        await a.peers.add(f"/ip4/{B}/tcp/4001/p2p/{identity.peer_id}", static=True)
        await trio.sleep(100)
        for count in (1, 2):
            async with mem_node(net, B, identity=identity, **QUIET):
                await recorder.next(Admitted, count, timeout=90)
            await recorder.next(Disconnected, count, timeout=90)
        await a.peers.remove(identity.peer_id)
        async with mem_node(net, B, identity=identity, **QUIET):
            await trio.sleep(300)
        assert len(recorder.of(Admitted)) == 2


async def test_what_a_source_finds_is_dialled_and_one_that_fails_is_begun_again(autojump_clock):
    class Odd:
        name = "odd"
        runs = 0

        async def run(self, feed: Feed) -> None:
            self.runs += 1
            assert await feed.wanted() >= 1
            feed.found(other.peer_id, ["/ip4/10.0.0.2/tcp/4001", "nonsense", "/ip4/1/tcp", other.addrs[0]])
            feed.found("nobody", ["/ip4/10.0.0.2/tcp/4001"])
            if self.runs < 3:
                raise RuntimeError("odd")
            await trio.sleep_forever()

    async with MemNet() as net, mem_node(net, B, **QUIET) as other:
        node = mem_node(net, A, **ON)
        source = Odd()
        node.peers.sources.append(source)
        recorder = Recorder(node)
        async with node:
            assert (await recorder.next(Admitted)).peer == other.peer_id
            await trio.sleep(10)
            assert source.runs == 3
            assert "nobody" not in node.addressbook
            (row,) = node.peers.list()
            assert (row.source, row.direction, row.counts) == ("odd", "outbound", True)


async def test_an_address_in_the_book_that_is_none_ends_nothing(autojump_clock):
    async with MemNet() as net, mem_node(net, A, **ON) as a, mem_node(net, B, **QUIET) as b:
        plain = b.addrs[0].partition("/p2p/")[0]
        a.addressbook.restore(  # as a file that another version of the library wrote may have
            [
                Entry(b.peer_id, (KnownAddr("/nosuch/1", "x", 2.0), KnownAddr(plain, "x", 1.0)), last_seen=2.0),
                Entry(Identity.generate().peer_id, (KnownAddr("/nosuch/1", "x"),)),
            ]
        )
        await trio.sleep(30)
        assert a.connected_peers() == [b.peer_id]
        assert a.addressbook.get(b.peer_id).addrs[0].failures


async def test_a_feelers_peer_that_a_user_comes_to_want_is_not_let_go(autojump_clock):
    settings = ON | {"low_peers": 1, "target_peers": 1, "outbound_peers": 1, "feeler_interval": 5.0, "exchange": "off"}
    async with (
        MemNet() as net,
        mem_node(net, C, **QUIET) as c,
        mem_node(net, A, **settings, bootstrap=(c.addrs[0],)) as a,
        mem_node(net, B, **QUIET) as b,
    ):
        await trio.sleep(1)
        recorder = Recorder(a)
        a.addressbook.learn(b.peer_id, [b.addrs[0].partition("/p2p/")[0]], "x")
        assert (await recorder.next(Admitted)).peer == b.peer_id
        await trio.sleep(0.1)
        a.peers.protect(b.peer_id)
        await trio.sleep(60)
        assert b.peer_id in a.connected_peers()
        assert b.peer_id not in {event.peer for event in recorder.of(Disconnected)}


async def test_who_dialled_us_is_probed_at_the_address_that_it_names(autojump_clock):
    async with MemNet() as net, mem_node(net, A, **ON) as a, mem_node(net, B, **QUIET) as b:
        await b.connect(a.addrs[0])
        await trio.sleep(10)
        entry = a.addressbook.get(b.peer_id)
        assert [known.addr for known in entry.addrs if known.worked] == ["/ip4/10.0.0.2/tcp/4001"]
        assert len(b.swarm.running()) == 1


async def test_a_third_node_is_found_through_the_bootstrap_and_kept_without_it(autojump_clock):
    async with MemNet() as net:
        first = mem_node(net, C, **ON)
        known = (f"/ip4/{C}/tcp/4001/p2p/{first.peer_id}",)
        async with mem_node(net, A, bootstrap=known, **ON) as a, mem_node(net, B, bootstrap=known, **ON) as b:
            async with first:
                with trio.fail_after(60):
                    while b.peer_id not in a.connected_peers():  # noqa: ASYNC110
                        await trio.sleep(0.5)
            await a.disconnect(b.peer_id)
            await trio.sleep(60)
            assert a.connected_peers() == [b.peer_id]


async def test_a_peer_that_breaks_rules_again_and_again_is_banned_for_a_while(autojump_clock):
    async with MemNet() as net, mem_node(net, A, **ON) as a, mem_node(net, B, **QUIET) as b:
        recorder = Recorder(a)
        await b.connect(a.addrs[0])
        await recorder.next(Admitted)
        a.events.emit(Misbehaved(b.peer_id, "/x", "flood"))
        assert a.peers.score(b.peer_id) < 0
        for _ in range(30):
            a.events.emit(Misbehaved(b.peer_id, "/x", "flood"))
        assert (await recorder.next(Banned)).seconds == 3600
        await recorder.next(Disconnected)


async def test_a_protected_peer_stays_where_others_are_too_many(autojump_clock):
    tight = {**ON, "low_peers": 1, "target_peers": 1, "outbound_peers": 1, "high_peers": 2, "peer_grace": 1.0}
    async with (
        MemNet() as net,
        mem_node(net, A, **tight) as a,
        mem_node(net, B, **QUIET) as b,
        mem_node(net, C, **QUIET) as c,
    ):
        a.peers.protect(c.peer_id)
        await b.connect(a.addrs[0])
        await c.connect(a.addrs[0])
        await trio.sleep(30)
        assert c.peer_id in a.connected_peers()
        assert [row.tags for row in a.peers.list() if row.peer == c.peer_id] == [("protected", "user")]


async def test_a_peer_that_a_user_disconnected_is_left_alone_for_a_while(autojump_clock):
    async with MemNet() as net, mem_node(net, A, **ON) as a, mem_node(net, B, **QUIET) as b:
        await a.connect(b.addrs[0])
        await trio.sleep(60)
        await a.disconnect(b.peer_id)
        await trio.sleep(500)
        assert a.connected_peers() == []
        await trio.sleep(500)
        assert a.connected_peers() == [b.peer_id], "it is known, and nobody else is there"
        await a.disconnect(b.peer_id)
        await a.connect(b.addrs[0])
        assert a.connected_peers() == [b.peer_id], "a user may dial whom a user has disconnected"
