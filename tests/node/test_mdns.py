"""The source `mdns` in simulated time: links that come, go and fail, on a network of the test's own."""

from __future__ import annotations

import ipaddress
import random

import pytest
import trio
import trio.testing

from node.config import Config, SettingError
from node.discovery import mdns
from node.discovery.interfaces import Interface
from node.discovery.mdns import RETRY, WATCH, Mdns, private_service
from protocols.mdns import wire
from tests.nodes import NOWHERE

A = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"
B = "12D3KooWJWEKvSFbben74C7H4YtKjhPMTDxd7gP7zxWSUEeF27st"


class Ether:
    """What `open_socket` opens here: all sockets on interfaces of one index hear each other."""

    def __init__(self):
        self.sockets = []
        self.failing = set()
        self.opened = 0

    def open(self, interface, version):
        self.opened += 1
        if interface.index in self.failing:
            raise OSError(19, "No such device")
        sock = Socket(self, interface.index, version, str(interface.nets[0].ip))
        self.sockets.append(sock)
        return sock


class Socket:
    def __init__(self, ether, index, version, ip):
        self.ether, self.where, self.ip = ether, (index, version), ip
        self.put, self.get = trio.open_memory_channel(100)

    async def sendto(self, packet, group):
        await trio.lowlevel.checkpoint()
        for sock in self.ether.sockets:
            if sock.where == self.where:
                sock.put.send_nowait((packet, (self.ip, 5353)))

    async def recvfrom(self, size):
        got = await self.get.receive()
        if isinstance(got, OSError):
            raise got
        return got

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.ether.sockets.remove(self)


class Found:
    """A feed that wants more when it is told to."""

    def __init__(self):
        self.peers = []
        self.hungry = trio.Event()

    def found(self, peer, addrs, *, record=None):
        self.peers.append((peer, list(addrs)))

    async def wanted(self):
        await self.hungry.wait()
        return 1


@pytest.fixture
def ether(monkeypatch):
    ether = Ether()
    monkeypatch.setattr(mdns, "open_socket", ether.open)
    return ether


def interface(*nets, name="eth0", index=2):
    return Interface(name, index, tuple(map(ipaddress.ip_interface, nets)))


def config(**settings):
    return Config(data_dir=NOWHERE, mdns="on", **settings)


def source(peer, there, listening=("/ip4/0.0.0.0/tcp/4001",), **settings):
    return Mdns(peer, lambda: listening, config(**settings), look=lambda: list(there), rng=random.Random(peer))


HERE, THERE = interface("10.0.0.1/24"), interface("10.0.0.2/24")


async def test_two_find_each_other(ether, autojump_clock, nursery):
    a, b = Found(), Found()
    nursery.start_soon(source(A, [HERE]).run, a)
    nursery.start_soon(source(B, [THERE]).run, b)
    await trio.sleep(1)
    assert a.peers == [(B, ["/ip4/10.0.0.2/tcp/4001"])]
    assert b.peers == [(A, ["/ip4/10.0.0.1/tcp/4001"])]
    a.hungry.set()  # once more, for a pool that has forgotten
    await trio.sleep(1)
    assert a.peers == [(B, ["/ip4/10.0.0.2/tcp/4001"])] * 2


async def test_networks_dont_mix(ether, autojump_clock, nursery):
    a, b = Found(), Found()
    nursery.start_soon(source(A, [HERE], network_id="harbour").run, a)
    nursery.start_soon(source(B, [THERE], network_id="island").run, b)
    await trio.sleep(100)
    assert a.peers == b.peers == []
    assert len(ether.sockets) == 2


async def test_interfaces_come_and_go(ether, autojump_clock, nursery):
    here = []
    a = Found()
    one = source(A, here)
    nursery.start_soon(one.run, a)
    nursery.start_soon(source(B, [THERE]).run, Found())
    await trio.sleep(10)
    assert not one.links
    here.append(interface("10.0.0.1/24", "fd77::1/64"))
    await trio.sleep(WATCH + 1)
    assert set(one.links) == {("eth0", 2, 4), ("eth0", 2, 6)}
    assert [peer for peer, _ in a.peers] == [B]
    here[0] = interface("10.0.0.9/24")  # another address, and IPv6 is gone
    await trio.sleep(WATCH + 1)
    assert set(one.links) == {("eth0", 2, 4)}
    here[0] = interface("10.0.0.9/24", index=7)  # of the same name, but another
    await trio.sleep(2 * WATCH + 1)
    assert set(one.links) == {("eth0", 7, 4)}
    here.clear()
    await trio.sleep(WATCH + 1)
    assert not one.links
    assert len(ether.sockets) == 1


async def test_a_new_address_is_told_and_a_goodbye_said(ether, autojump_clock, nursery):
    there = [THERE]
    a = Found()
    one = source(A, [HERE])
    nursery.start_soon(one.run, a)
    scope = trio.CancelScope()

    async def other():
        with scope:
            await source(B, there).run(Found())

    nursery.start_soon(other)
    await trio.sleep(5)
    there[0] = interface("10.0.0.7/24")
    await trio.sleep(WATCH + 1)
    assert a.peers[-1] == (B, ["/ip4/10.0.0.7/tcp/4001"])
    (link,) = one.links.values()
    assert link.engine.known(trio.current_time())
    scope.cancel()
    await trio.sleep(0.1)
    assert not link.engine.known(trio.current_time())


async def test_a_link_that_fails_is_left_alone_for_a_while(ether, autojump_clock, nursery):
    ether.failing.add(3)
    other = interface("10.9.0.1/24", name="tun0", index=3)
    one = source(A, [HERE, other])
    nursery.start_soon(one.run, Found())
    await trio.sleep(RETRY - 1)
    assert set(one.links) == {("eth0", 2, 4)}
    assert ether.opened == 2
    ether.failing.clear()
    await trio.sleep(WATCH + 2)
    assert len(one.links) == 2


async def test_a_link_that_goes_down_takes_no_other_with_it(ether, autojump_clock, nursery):
    one = source(A, [HERE, interface("10.9.0.1/24", name="tun0", index=3)])
    nursery.start_soon(one.run, Found())
    await trio.sleep(1)
    kept = one.links["eth0", 2, 4]
    next(sock for sock in ether.sockets if sock.where[0] == 3).put.send_nowait(OSError(100, "Network is down"))
    await trio.sleep(1)
    assert one.links == {("eth0", 2, 4): kept}
    await trio.sleep(RETRY + WATCH)
    assert len(one.links) == 2


async def test_where_the_node_doesnt_listen_nothing_is_said(ether, autojump_clock, nursery):
    one = source(A, [HERE], listening=("/ip4/127.0.0.1/tcp/4001",))
    nursery.start_soon(one.run, Found())
    await trio.sleep(10)
    assert not ether.opened


async def test_a_node_that_listens_nowhere_only_asks(ether, autojump_clock, nursery):
    a, b = Found(), Found()
    nursery.start_soon(source(A, [HERE], listening=()).run, a)
    nursery.start_soon(source(B, [THERE]).run, b)
    await trio.sleep(10)
    assert [peer for peer, _ in a.peers] == [B]
    assert b.peers == []


async def test_strangers_say_anything(ether, autojump_clock, nursery):
    a = Found()
    one = source(A, [HERE])
    nursery.start_soon(one.run, a)
    await trio.sleep(5)
    stranger = Socket(ether, 2, 4, "10.0.0.66")
    rng = random.Random(3)
    odd = [
        "/ip4/10.0.0.66/tcp/54321",
        "/ip4/10.0.0.66/nonsense/1",
        "/ip4/10.0.0.66/tcp/1/p2p-circuit",
        "/ip4/8.8.8.8/tcp/1",
    ]
    good = wire.answer(one.service, "n" * 32, B, odd, 120).replace(b"/tcp/54321", b"/tcp/99999")
    for _ in range(200):
        packet = bytearray(good)
        for _ in range(3):
            packet[rng.randrange(12, len(good))] = rng.randrange(256)
        for said in (bytes(packet), good, rng.randbytes(rng.randrange(100))):
            await stranger.sendto(said, None)
            await trio.testing.wait_all_tasks_blocked()
    assert all(addr.startswith("/ip4/10.0.0.") for _, addrs in a.peers for addr in addrs)
    await stranger.sendto(wire.query(one.service)[0], None)
    await trio.sleep(10)
    assert one.links


def test_the_services_name():
    assert private_service(b"harbour") == "_p2p-aa74f6fd03bf68be._udp.local"
    assert source(A, [], network_id="harbour").service == private_service(b"harbour")
    assert source(A, [], mdns_service="_p2p._udp.local").service == "_p2p._udp.local"
    for odd in ("p2p", "_p2p._udp", "_p2p._udp.local.", "_" + "a" * 63 + "._udp.local", "_p2p._sctp.local"):
        with pytest.raises(SettingError, match="mdns_service"):
            config(mdns_service=odd)
