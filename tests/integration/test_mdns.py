"""mDNS between real nodes in network namespaces: IPv6, addresses that come and go, strangers, who shares the port."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from interop.lab.netns import LabError
from interop.lab.network import Lab
from interop.peer import Peer
from tests.lab import lab_or_skip

FLAGS = ("--mdns", "on", "--dht", "off", "--gossip", "off", "--heartbeat", "off", "--log-level", "debug")
LISTEN = ("--listen", "/ip4/0.0.0.0/tcp/0", "--listen", "/ip6/::/tcp/0")

# another program on the same port, as a name service of the system is; hears one packet and says its size
OTHER_PROGRAM = """
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
s.bind(("0.0.0.0", 5353))
group = socket.inet_aton("224.0.0.251") + socket.inet_aton("10.77.0.1")
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
s.settimeout(60)  # two interpreters on a busy machine take their time
heard = 0
while heard <= 12:  # no more than a header, or a stranger's nothing
    heard = len(s.recv(9000))
print(heard, flush=True)
"""

# what a stranger may send: junk, spoiled answers, an answer with other people's addresses
STRANGER = """
import random, socket, sys
sys.path.insert(0, ".")
from protocols.mdns import wire
service, peer = sys.argv[1:]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.77.0.9", 0))
rng = random.Random(1)
good = wire.answer(service, "n" * 32, peer, ["/ip4/203.0.113.1/tcp/1", "/ip4/127.0.0.1/tcp/1"], 120)
for number in range(60):
    spoiled = bytearray(good)
    for _ in range(4):
        spoiled[rng.randrange(12, len(good))] = rng.randrange(256)
    for packet in (rng.randbytes(rng.randrange(2000)), bytes(spoiled), good, b"", good[:number]):
        s.sendto(packet, ("224.0.0.251", 5353))
"""


@pytest.fixture(autouse=True)
def namespaces():
    lab_or_skip()


@asynccontextmanager
async def started(*peers):
    """All of them, started side by side."""
    ready, done = [trio.Event() for _ in peers], trio.Event()

    async def one(peer, event):
        async with peer:
            event.set()
            await done.wait()

    async with trio.open_nursery() as nursery:
        for peer, event in zip(peers, ready, strict=True):
            nursery.start_soon(one, peer, event)
        for event in ready:
            await event.wait()
        yield peers
        done.set()


def node(host, *flags):
    return Peer.python(*FLAGS, *LISTEN, *flags).within(host.enter)


async def test_a_lab_ends_with_all_that_it_made():
    async with Lab() as lab:
        host = await lab.host(addrs=("10.77.0.1", "fd77::1"))
        other = await lab.host(addrs=("10.77.0.2", "fd77::2"))
        assert "10.77.0.1" in await host.run(["ip", "-4", "address"])
        assert "fd77::2" in await other.run(["ip", "-6", "address"])
        with pytest.raises(LabError, match="status 3, no"):
            await host.run(["sh", "-c", "echo no >&2; exit 3"])
    for gone in (host, other):
        assert not (await trio.Path(gone.path).exists())


async def test_over_ipv6_alone_and_an_interface_that_comes_late():
    """The second node has no address at first; it gets one, and is found by it."""
    async with Lab() as lab:
        a, b = await lab.host(addrs=("fd77::1",)), await lab.host(addrs=())
        await b.run(["sh", "-c", "ip link set eth0 down"])
        async with started(node(a), node(b)) as (here, there):
            await b.run(["ip", "link", "set", "eth0", "up"])
            await lab.add_addr(b, "fd77::2")
            admitted = await here.event("admitted", peer=there.peer_id)
            assert "/ip6/fd77::" in admitted["addr"]
            assert {event["version"] for event in here.seen("mdns_link")} == {6}
            # and one that goes is noticed, without a word from the other programs
            await b.run(["ip", "address", "flush", "dev", "eth0"])
            await trio.sleep(4)
            await b.run(["ip", "link", "set", "eth0", "down"])
            await b.run(["ip", "link", "set", "eth0", "up"])
            await lab.add_addr(b, "fd77::3")
            found = await here.event("mdns_found", peer=there.peer_id)
            while "/ip6/fd77::3/" not in found["addrs"][0] + "/":
                found = await here.event("mdns_found", peer=there.peer_id)


async def test_strangers_on_the_link_and_another_program_on_the_port():
    async with Lab() as lab:
        a, b, c = [await lab.host(addrs=(f"10.77.0.{number}",)) for number in (1, 2, 9)]
        service, victim = "_p2p._udp.local", "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"
        flags = ("--mdns-service", service)
        heard = []

        async def other_program():
            heard.append(await a.run(["python3", "-c", OTHER_PROGRAM]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other_program)
            async with started(node(a, *flags), node(b, *flags)) as (here, there):
                python = here._command[len(a.enter)]
                await c.run([python, "-c", STRANGER, service, victim])
                await here.event("mdns_found", peer=there.peer_id)
                await here.event("admitted", peer=there.peer_id)
                reply = await here.call("ping", there.peer_id, "1")
                assert reply["ok"]
                assert not here.seen("mdns_found", peer=victim)
                assert {event["peer"] for event in here.seen("mdns_found")} == {there.peer_id}
                assert not any("Traceback" in str(event) for event in here.events)
        assert heard
