"""`node.dht`: whole nodes in memory, what they keep over a restart, and what they feed the pool."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
import trio
from multiaddr import Multiaddr

from node import Config, Identity, Node
from node.discovery.addresses import BUDGET_BURST, BUDGET_PERIOD, reach_in, to_texts
from node.discovery.dhtfile import DhtFile, batch_of, file_of
from node.errors import BackoffError, NotFoundError, RefusedError, UsageError
from node.identity import load_or_make_key
from node.peers.budget import DialBudget
from node.peers.reach import Reach
from protocols import NotConnected, StreamError
from protocols.kad.keyspace import to_bytes, to_text
from protocols.kad.records import HOUR, Own, Provider, RecordParams, Records, Value
from protocols.kad.validators import Validators
from protocols.kad.wire import Peer
from tests.memnet import MemNet, mem_node
from tests.nodes import Recorder, eventually
from tests.protocols.kad.test_records import Numbers
from tests.protocols.kad.test_wire import peer_id

A, B, C, D = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def plain(node):
    return node.addrs[0].partition("/p2p/")[0]


async def in_tables(*nodes):
    with trio.fail_after(60):
        while not all(len(node.dht.table()) == len(nodes) - 1 for node in nodes):  # noqa: ASYNC110  nothing tells of it
            await trio.sleep(0.1)


# whole nodes


async def test_nodes_of_a_network(autojump_clock):
    async with (
        MemNet() as net,
        mem_node(net, A) as a,
        mem_node(net, B, bootstrap=(a.addrs[0],)) as b,
        mem_node(net, C, bootstrap=(a.addrs[0],)) as c,
    ):
        for node in (a, b, c):
            node.dht.register("n", Numbers())
        await in_tables(a, b, c)
        assert a.config.kademlia_protocol in a.registry.ids()
        assert await b.dht.find_peer(c.peer_id) == [plain(c)]
        assert await b.dht.find_peer(b.peer_id) == [plain(b)]
        assert set(await b.dht.closest(b"key")) == {a.peer_id, c.peer_id}
        assert await b.dht.put(b"/n/1", b"7") == 2
        assert await c.dht.get(b"/n/1") == b"7"
        assert await b.dht.provide(b"cid") == 2
        await trio.sleep(1.0)
        (provider,) = await c.dht.find_providers(b"cid")
        assert (provider.peer, provider.addrs) == (b.peer_id, [plain(b)])
        assert b.dht.withdraw(b"cid")
        assert not b.dht.withdraw(b"cid")
        b.dht.forget(c.peer_id)
        assert b.dht.table() == [a.peer_id]


async def test_errors(autojump_clock):
    async with MemNet() as net, mem_node(net, A) as a:
        with pytest.raises(UsageError, match="expected a peer ID such as"):
            await a.dht.find_peer("nobody")
        with pytest.raises(UsageError, match=r"under /pk/…, got b'/free/1'"):
            await a.dht.put(b"/free/1", b"")
        with pytest.raises(NotFoundError, match="got none from 0 peers"):
            await a.dht.get(b"/pk/" + peer_id(1))
        with pytest.raises(UsageError, match="1 to 80 bytes"):
            await a.dht.provide(b"")
        with pytest.raises(UsageError, match="has a validator already"):
            a.dht.register("pk", Numbers())
        assert await a.dht.find_peer(Identity.generate().peer_id) == []
        assert await a.dht.provide(b"cid") == 0


async def test_a_client_serves_nothing(autojump_clock):
    async with MemNet() as net, mem_node(net, A) as a, mem_node(net, B, dht="client") as b, mem_node(net, C) as c:
        await b.connect(a.addrs[0])
        await c.connect(a.addrs[0])
        await trio.sleep(5.0)
        assert b.config.kademlia_protocol not in b.registry.ids()
        assert a.dht.table() == [c.peer_id]
        assert a.peer_id in b.dht.table()
        assert await b.dht.find_peer(c.peer_id) == [plain(c)]
        # who isn't in any table is found by who is connected with it
        assert await c.dht.find_peer(b.peer_id) == [plain(b)]
        assert await b.dht.provide(b"cid") == 2
        assert list(b.dht.kad.records.all_providers()) == []


async def test_peers_of_another_protocol_id_are_none(autojump_clock):
    async with MemNet() as net, mem_node(net, A) as a, mem_node(net, B, kad_protocol="/other/kad") as b:
        await a.connect(b.addrs[0])
        await trio.sleep(5.0)
        assert a.dht.table() == b.dht.table() == []


class Hungry:
    """A pool that always wants more."""

    def __init__(self):
        self.heard = {}
        self.tellers = set()

    def found(self, peer, addrs, *, record=None, told_by=""):
        self.heard.setdefault(peer, set()).update(addrs)
        self.tellers.add(told_by)

    async def wanted(self):
        await trio.sleep(1.0)
        return 5


async def test_walks_feed_the_pool(autojump_clock):
    async with (
        MemNet() as net,
        mem_node(net, A) as a,
        mem_node(net, B, bootstrap=(a.addrs[0],)) as b,
        mem_node(net, C, bootstrap=(a.addrs[0],)) as c,
        mem_node(net, D, dht="client") as d,
    ):
        await in_tables(a, b, c)
        feed = Hungry()
        await d.connect(a.addrs[0])
        assert d.dht.source.name == "dht"
        with trio.move_on_after(20.0):
            await d.dht.source.run(feed)
        assert {b.peer_id, c.peer_id} <= set(feed.heard)
        assert plain(b) in feed.heard[b.peer_id]
        assert d.peer_id not in feed.heard
        assert feed.tellers >= {a.peer_id}
        assert d.dht._feed is None


async def test_private_addresses_are_not_for_the_public(autojump_clock):
    async with MemNet() as net, mem_node(net, A) as a, mem_node(net, B) as b, mem_node(net, "8.8.1.1") as public:
        for node in (b, public):
            await node.connect(a.addrs[0])
        await trio.sleep(5.0)
        links = a.dht.kad.links
        peers = {node: to_bytes(node.peer_id) for node in (a, b, public)}
        private, open_addr = (Multiaddr(plain(node)).to_bytes() for node in (b, public))
        named = Multiaddr("/dns4/example.org/tcp/1").to_bytes()
        assert links.told(peers[b], peers[a]) == (private,)
        assert links.told(peers[b], peers[public]) == ()
        assert links.told(peers[public], peers[b]) == (open_addr,)
        assert links.shown((private, open_addr), peers[public]) == (open_addr,)
        assert links.believed((private, open_addr, named), peers[public]) == (open_addr, named)
        assert links.believed((private, open_addr, named), peers[b]) == (private, open_addr, named)
        loopback = Multiaddr("/ip4/127.0.0.1/tcp/1").to_bytes()
        assert links.believed((private, loopback), peers[b]) == (private,)
        assert links.believed((private, loopback), to_bytes(a.peer_id)) == (private, loopback)
        assert (links.subnet(peers[b]), links.subnet(peers[public])) == (None, "8.8.0.0/16")
        # one whose connection is on its way out, which it may bring about, is as far away as before
        a.swarm.connection(public.host.get_id()).draining = True
        assert a.swarm.connection(public.host.get_id()) is None
        assert links.shown((private, open_addr), peers[public]) == (open_addr,)
        assert links.subnet(peers[public]) == "8.8.0.0/16"
        assert a.exchange.whereabouts(public.peer_id) == ("8.8.0.0/16", Reach.PUBLIC)


async def test_look_ups_are_not_aimed_at_a_victim(autojump_clock):
    async with MemNet() as net, mem_node(net, A) as a, mem_node(net, "8.8.8.8") as there:
        links = a.dht.kad.links
        for _ in range(2 * BUDGET_BURST):  # what leads to who was meant is free
            await links.connect(to_bytes(there.peer_id), [Multiaddr(plain(there)).to_bytes()])
            await a.disconnect(there.peer_id)
        dialled = 0
        for port in range(1, 41):
            try:
                await links.connect(peer_id(port), [Multiaddr(f"/ip4/8.8.8.8/tcp/{port}").to_bytes()])
            except NotConnected:
                pass
            except StreamError:
                dialled += 1
        assert BUDGET_BURST <= dialled <= BUDGET_BURST + 2


async def test_a_victim_that_is_silent_is_dialled_ever_more_seldom(autojump_clock):
    async with MemNet() as net, mem_node(net, A) as a:
        net.partition([A], ["8.8.8.8"])
        links = a.dht.kad.links
        with trio.move_on_after(a.config.dht_request_timeout):  # as a question does
            with pytest.raises(StreamError, match="no answer"):
                await links.connect(peer_id(1), [Multiaddr("/ip4/8.8.8.8/tcp/1").to_bytes()])
        for _ in range(BUDGET_BURST):
            links._budget.take("8.8.8.8", trio.current_time())
        assert links._budget.wait("8.8.8.8", trio.current_time()) > BUDGET_PERIOD


async def test_all_ports_of_a_victim_are_charged(autojump_clock):
    async with MemNet() as net, mem_node(net, A) as a:
        links = a.dht.kad.links
        with pytest.raises(StreamError) as caught:
            await links.connect(peer_id(1), [Multiaddr(f"/ip4/8.8.8.8/tcp/{port}").to_bytes() for port in range(1, 41)])
        dialled = str(caught.value).count("refused")
        assert 1 < dialled <= BUDGET_BURST
        left = 0
        while links._budget.take("8.8.8.8", trio.current_time()):
            left += 1
        assert left <= BUDGET_BURST - dialled + 1


async def test_addresses_that_are_of_no_use_crowd_no_good_one_out(autojump_clock):
    async with MemNet() as net, mem_node(net, A) as a, mem_node(net, "8.8.8.8") as there:
        links = a.dht.kad.links
        unusable = [Multiaddr(f"/ip4/8.8.4.4/udp/{port}/quic-v1").to_bytes() for port in range(1, 11)]
        spent = [Multiaddr(f"/ip4/8.8.9.9/tcp/{port}").to_bytes() for port in range(1, 11)]
        while links._budget.take("8.8.9.9", trio.current_time()):
            pass
        again = [Multiaddr("/ip4/8.8.7.7/tcp/1").to_bytes()] * 10
        good = Multiaddr(plain(there)).to_bytes()
        await links.connect(to_bytes(there.peer_id), [*unusable, *spent, *again, good])
        assert links.is_connected(to_bytes(there.peer_id))


async def test_who_refuses_us_is_no_victim_and_who_was_not_dialled_is_not_charged(autojump_clock):
    async with (
        MemNet() as net,
        mem_node(net, A, network_id="one") as a,
        mem_node(net, "8.8.8.8", network_id="two") as there,
    ):
        budget = DialBudget(burst=1, period=60)
        for error in (RefusedError, BackoffError):
            with pytest.raises(error):
                await a.dialer.dial(there.host.get_id(), [Multiaddr(plain(there))], budget=budget)
            assert budget.wait("8.8.8.8", trio.current_time()) == 0


async def test_what_strangers_say_of_a_peer_does_not_put_it_off(autojump_clock):
    async with MemNet() as net, mem_node(net, A) as a:
        known, good, bad = to_text(peer_id(1)), "/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/tcp/2"
        a.addressbook.learn(known, [good], "test")
        with pytest.raises(StreamError):
            await a.dht.kad.links.connect(peer_id(1), [Multiaddr(bad).to_bytes()])
        entry = a.addressbook.get(known)
        assert a.addressbook.dialable(entry) == [good]


def test_addresses():
    for text, reach in (
        ("/ip6/2a00:1450::1/tcp/1", Reach.PUBLIC),
        ("/ip6/::ffff:8.8.8.8/tcp/1", Reach.PUBLIC),
        ("/ip4/192.168.1.1/tcp/1", Reach.PRIVATE),
        ("/dns4/printer.local/tcp/80", Reach.PRIVATE),
        ("/dns4/localhost/tcp/4001", Reach.LOOPBACK),
        ("/ip4/224.0.0.1/udp/4001/quic-v1", None),
        ("/ip4/1.2.3.4/tcp/0", None),
        ("/ip4/0.0.0.0/tcp/9", None),
    ):
        assert reach_in(Multiaddr(text).to_bytes()) is reach, text
    assert reach_in(b"\xff\xff") is None
    assert reach_in(b"") is None
    peer = Identity.generate().peer_id
    named = Multiaddr(f"/ip4/1.2.3.4/tcp/1/p2p/{peer}").to_bytes()
    assert to_texts([named, b"\xff\xff", b"", named]) == ["/ip4/1.2.3.4/tcp/1"]


# what is kept over a restart


async def test_records_and_what_is_our_own_outlive_the_node(tmp_path):
    def node_at(name, **settings):
        return Node(Config(listen=(LOOPBACK,), data_dir=tmp_path / name, heartbeat="off", **settings))

    async with node_at("a") as a, node_at("b", bootstrap=(a.addrs[0],)) as b:
        for node in (a, b):
            node.dht.register("n", Numbers())
        await eventually(lambda: a.dht.table() and b.dht.table())
        assert not (tmp_path / "b" / "dht.db").exists()
        assert await b.dht.put(b"/n/1", b"7") == 1
        assert await b.dht.provide(b"cid") == 1
        await eventually(lambda: list(a.dht.kad.records.all_providers()))
        b_id = b.peer_id
    assert (tmp_path / "b" / "dht.db").stat().st_mode & 0o777 == 0o600
    a = node_at("a")
    a.dht.register("n", Numbers())
    async with a:
        await eventually(lambda: a.dht.kad.records.stored(b"/n/1"))
        assert await a.dht.get(b"/n/1") == b"7"
        assert [provider.peer for provider in await a.dht.find_providers(b"cid")] == [b_id]
        assert a.dht.kad.records.own == {}
    async with node_at("b") as b:
        await eventually(lambda: b.dht.kad.records.own)
        assert {(own.key, own.value) for own in b.dht.kad.records.own.values()} == {(b"/n/1", b"7"), (b"cid", None)}


async def test_a_write_that_is_cancelled_before_it_begins_is_made_up_for(tmp_path):
    async with Node(Config(listen=(), data_dir=tmp_path, heartbeat="off")) as node:
        node.dht.kad.records.add_own(b"k", None, 0.0)
        with trio.CancelScope() as scope:
            scope.cancel()
            await node.dht._write()
        assert scope.cancelled_caught
        assert node.dht.kad.records.changed
    with closing(DhtFile(tmp_path / "dht.db")) as file:
        assert file.load(RecordParams(), 0.0) == [Own(b"k", None, 0.0)]


def records_with(*items):
    validators = Validators()
    validators.register("n", Numbers())
    records = Records(peer_id(0), validators)
    for item in items:
        records.restore(item)
    return records


def test_the_file_gives_back_what_it_was_given(tmp_path):
    file = DhtFile(tmp_path / "dht.db")
    assert file.load(RecordParams(), 0.0) == []
    assert not file.path.exists()
    records = records_with()
    records.put(b"/n/1", b"5", peer_id(1), 100.0)
    records.put(b"/n/2", b"5", peer_id(1), 100.0)
    records.provide(b"k", Peer(peer_id(2), (b"one", b"two")), 100.0, "8.8.0.0/16")
    records.provide(b"k", Peer(peer_id(3)), 100.0)
    records.add_own(b"k", None, 100.0)
    records.add_own(b"/n/1", b"", 100.0)
    file.write(batch_of(records.changed, records))
    records.changed.values.clear()
    records.forget_value(b"/n/2")
    records.forget_provider(b"k", peer_id(3))
    file.write(batch_of(records.changed, records))
    file.close()
    file.close()
    assert set(map(repr, file.load(RecordParams(), 200.0))) == {
        repr(Value(b"/n/1", b"5", peer_id(1), 100.0)),
        repr(Provider(b"k", peer_id(2), (b"one", b"two"), 100.0, "8.8.0.0/16")),
        repr(Own(b"k", None, 100.0)),
        repr(Own(b"/n/1", b"", 100.0)),
    }
    # what is too old isn't there any more, what is our own is
    assert {type(item) for item in file.load(RecordParams(), 49 * HOUR)} == {Own}
    file.close()


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough to be looked at" * 100, b"SQLite format 3\0xx"]
)
def test_a_damaged_file_is_set_aside(tmp_path, content):
    path = tmp_path / "dht.db"
    path.write_bytes(content)
    file = DhtFile(path)
    assert file.load(RecordParams(), 0.0) == []
    assert file.set_aside
    assert (tmp_path / "dht.db.damaged-1").read_bytes() == content
    records = records_with()
    records.add_own(b"k", None, 0.0)
    file.write(batch_of(records.changed, records))
    file.close()
    assert file.load(RecordParams(), 0.0) == [Own(b"k", None, 0.0)]
    file.close()


def test_whose_records_are_on_disk(tmp_path):
    key, _ = load_or_make_key(tmp_path / "node.key")
    stranger = Identity.generate()
    for store, kept in (("auto", [True, False]), ("file", [True, True]), ("memory", [False, False])):
        config = Config(data_dir=tmp_path, dht_store=store)
        assert [file_of(config, identity) is not None for identity in (key, stranger)] == kept
    assert file_of(Config(data_dir=tmp_path / "nowhere"), key) is None


def test_a_file_of_a_newer_version_is_left_alone(tmp_path):
    path = tmp_path / "dht.db"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(UsageError, match=r"dht\.db: expected version 1 or older, got 9"):
        DhtFile(path).load(RecordParams(), 0.0)
    assert path.exists()


async def test_a_node_whose_file_cant_be_used_serves_all_the_same(tmp_path, caplog):
    load_or_make_key(tmp_path / "node.key")
    (tmp_path / "dht.db").mkdir()
    async with Node(Config(listen=(LOOPBACK,), data_dir=tmp_path)) as node:
        recorder = Recorder(node)
        await eventually(lambda: "dht_file_unusable" in caplog.text)
        assert await node.dht.provide(b"cid") == 0
        assert recorder.events is not None


async def test_a_banned_peer_leaves_the_table(autojump_clock):
    async with MemNet() as net, mem_node(net, A) as a, mem_node(net, B) as b:
        await a.connect(b.addrs[0])
        await in_tables(a, b)
        await a.peers.ban(b.peer_id, "a test")
        await trio.sleep(0.1)
        assert a.dht.table() == []
