"""Nodes on lines that are long, lossy and cut, and on hosts of several addresses."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from interop.lab.network import Lab
from interop.peer import Peer
from tests.lab import lab_or_skip

pytestmark = pytest.mark.interop

MIB = 1 << 20
QUIET = ("--dht", "off", "--gossip", "off", "--heartbeat", "off", "--pool", "off")
# processes that start at once on a machine of two cores
AT_ONCE = 3
SIX = 6
CUT = 10.0
START = 120.0
HEALED = 30.0
TOPIC = "news"

# so many connections that do nothing; how many of them the listener closes at once
CONNECTS = """
import os, socket, sys, time
host, port, count, stay = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
opened = []
for _ in range(count):
    opened.append(socket.create_connection((host, port), timeout=5))
    time.sleep(0.05)  # so that it is known who came first
closed = 0
time.sleep(2.0)  # for those that are closed at once to be closed
for one in opened:
    one.settimeout(0.01)
    try:
        while data := one.recv(4096):
            pass
        closed += 1
    except TimeoutError:
        pass
    except ConnectionResetError:
        closed += 1
os.write(1, str(closed).encode())
time.sleep(stay)
"""


@pytest.fixture(autouse=True)
def namespaces(monkeypatch):
    lab_or_skip(shapes=True)
    # so many processes of some seconds of CPU each: on a machine that has other work, they may take long to be up
    for module in ("interop.process", "interop.peer"):
        monkeypatch.setattr(f"{module}.START_TIMEOUT", START)


@asynccontextmanager
async def started(*peers):
    """All of them, a few starting at once."""
    ready, done, turns = [trio.Event() for _ in peers], trio.Event(), trio.Semaphore(AT_ONCE)

    async def one(peer, event):
        await turns.acquire()
        async with peer:
            turns.release()
            event.set()
            await done.wait()

    async with trio.open_nursery() as nursery:
        for peer, event in zip(peers, ready, strict=True):
            nursery.start_soon(one, peer, event)
        for event in ready:
            await event.wait()
        yield peers
        done.set()


async def test_forty_milliseconds_and_one_percent_loss():
    async with Lab() as lab:
        a, b = [await lab.host(name, delay=0.01, loss=0.005) for name in "ab"]
        ends = [
            Peer.program("interop.bench.ends", "vouch", "--listen", f"/ip4/{host.addr}/tcp/0").within(host.enter)
            for host in (a, b)
        ]
        async with started(*ends) as (here, there):
            reply = await here.call("connect", there.addr)
            # TCP, multistream, Noise, the handshake: seven round trips at most, were nothing lost
            assert reply["total_ms"] >= 160
            assert reply["admission_ms"] >= 40
            rtts = sorted((await here.call("ping", there.peer_id, "20"))["rtt_us"])
            assert 40_000 <= rtts[0] < 60_000
            assert rtts[10] < 80_000
            await here.call("perf", there.peer_id, str(4 * MIB), str(4 * MIB), timeout=45)
            await there.event("perf", received=4 * MIB, sent=4 * MIB)
            lost = [sum((await lab.counts(host))["lost"]) for host in (a, b)] if lab.way == "tap" else [1]
            assert sum(lost) > 0


@pytest.fixture
def nats():
    lab_or_skip(nat=True)


async def test_limits_for_each_ip_address(nats):
    async with Lab() as lab:
        server, b, c = [await lab.host(name) for name in ("server", "b", "c")]
        home = await lab.nat("home")
        d, e = [await lab.host(name, behind=home) for name in "de"]
        flags = (*QUIET, "--max-connections-per-ip", "2", "--listen", "/ip4/0.0.0.0/tcp/0", "--upgrade-timeout", "60")
        async with Peer.python(*flags).within(server.enter) as node, trio.open_nursery() as nursery:
            port = node.addr.split("/")[4]

            async def connect(host, count, stay=0.0):
                """How many of so many connections are closed at once."""
                command = [*host.enter, sys.executable, "-c", CONNECTS, server.addr, port, str(count), str(stay)]
                process = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE))
                async with process.stdout:
                    return int(await process.stdout.receive_some())

            assert await connect(b, 3, stay=60) == 1
            assert await connect(b, 1) == 1
            # others aren't concerned
            assert await connect(c, 2, stay=60) == 0
            # those who share an address share its places
            assert await connect(d, 2, stay=60) == 0
            assert await connect(e, 1) == 1
            nursery.cancel_scope.cancel()


class Listener:
    """What comes to a node on the topic."""

    def __init__(self, peer):
        self.peer = peer
        self.heard = set()

    async def run(self):
        buffer = b""
        async with await trio.open_unix_socket(self.peer._socket) as stream:
            params = {"topic": TOPIC, "payload": True}
            await stream.send_all(json.dumps({"id": 1, "call": "subscribe", "params": params}).encode() + b"\n")
            async for data in stream:
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    item = json.loads(line).get("item") or {}
                    if item.get("event") == "message":
                        self.heard.add(base64.b64decode(item["payload"]).decode())


async def publish(peer, text):
    await trio.to_thread.run_sync(
        lambda: peer._call("publish", {"topic": TOPIC, "payload": base64.b64encode(text.encode()).decode()})
    )


async def test_six_nodes_in_two_halves_are_one_network_again():
    flags = ("--heartbeat-interval", "1", "--redial-backoff-min", "1", "--redial-backoff-max", "3")
    flags += ("--bootstrap-retry-max", "2", "--dht", "off", "--log-level", "debug")
    async with Lab() as lab:
        hosts = [await lab.host(f"n{number}", delay=0.005) for number in range(SIX)]
        listen = [("--listen", f"/ip4/{host.addr}/tcp/4001") for host in hosts]
        async with Peer.python(*flags, *listen[0]).within(hosts[0].enter) as first:
            others = [
                Peer.python(*flags, *where, "--bootstrap", first.addr).within(host.enter)
                for host, where in zip(hosts[1:], listen[1:], strict=True)
            ]
            async with started(*others), trio.open_nursery() as nursery:
                listeners = [Listener(peer) for peer in (first, *others)]
                for listener in listeners:
                    nursery.start_soon(listener.run)

                async def reaches(publisher, group, within):
                    """Something that is published now or soon comes to all of the group; the seconds that took."""
                    began = trio.current_time()
                    with trio.fail_after(within):
                        for number in range(1000):
                            text = f"{publisher} {began} {number}"
                            await publish(listeners[publisher].peer, text)
                            with trio.move_on_after(1):
                                while not all(text in listeners[one].heard for one in {*group} - {publisher}):  # noqa: ASYNC110
                                    await trio.sleep(0.05)
                                return trio.current_time() - began
                    raise AssertionError

                everybody = range(SIX)
                await reaches(0, everybody, HEALED)
                halves = range(3), range(3, SIX)
                await lab.partition(*[[hosts[number] for number in half] for half in halves])
                await trio.sleep(CUT)
                # all have bootstrapped from the first, which has given up on the other half by now, or soon does
                for far in others[2:]:
                    await first.event("disconnected", peer=far.peer_id, timeout=HEALED)
                for listener in listeners:
                    listener.heard.clear()
                # each half goes on; nothing of it comes to the other
                for half in halves:
                    await reaches(half[0], half, HEALED)
                for half in halves:
                    assert {text[0] for one in half for text in listeners[one].heard} == {str(half[0])}
                await lab.heal()
                took = max([await reaches(0, everybody, HEALED), await reaches(5, everybody, HEALED)])
                print(f"\nhealed: gossip reaches all {took:.1f} s after")
                nursery.cancel_scope.cancel()
