"""The lab does what it is told, as bare sockets see it: delay, loss, bandwidth, partitions, NATs, and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from interop.lab.keeper import processes, started_at
from interop.lab.netns import MARK, LabError, has_netem, sweep
from interop.lab.network import Lab
from tests.lab import lab_or_skip

PROBE = [sys.executable, "-I", str(Path(__file__).parents[2] / "interop/lab/probe.py")]
ROOT = Path(__file__).parents[2]
PORT = "4001"


@pytest.fixture(autouse=True)
def namespaces():
    lab_or_skip(shapes=True)


# a fixture skips with its reason, an async test without
@pytest.fixture
def nats():
    lab_or_skip(nat=True)


@pytest.fixture
def netem():
    if not has_netem():
        pytest.skip("this kernel has no tc netem")


async def probe(host, *command):
    return json.loads(await host.run([*PROBE, *command]))


async def ping(host, other, count=10, every=0.02):
    return await probe(host, "ping", other.addr, PORT, str(count), str(every))


@asynccontextmanager
async def serving(*hosts):
    """The probe's server on each of them. Yields how to read what the first says."""
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        servers = [await nursery.start(run, [*host.enter, *PROBE, "serve", PORT]) for host in hosts]

        async def said(server=servers[0]):
            data = b""
            while not data.endswith(b"\n"):
                data += await server.stdout.receive_some()
            return json.loads(data)

        with trio.fail_after(10):
            for server in servers:
                assert await said(server) == {"event": "listening"}
        yield said
        for server in servers:
            await server.stdin.aclose()


async def test_delay_loss_and_bandwidth_are_as_told():
    async with Lab() as lab:
        far = await lab.host("far", delay=0.02)
        lossy = await lab.host("lossy", loss=0.2)
        slow = await lab.host("slow", delay=0.01, rate=20e6)
        server = await lab.host("server")
        async with serving(server) as said:
            reply = await ping(far, server)
            assert reply["received"] == 10
            assert 40 <= sorted(reply["rtt_ms"])[2] < 60
            assert min(reply["rtt_ms"]) >= 40

            # 0.8 * 0.8 come back, once each knows the other's hardware address: that may be lost too
            await ping(lossy, server, count=5, every=0.3)
            reply = await ping(lossy, server, count=400, every=0.001)
            assert 0.5 < reply["received"] / 400 < 0.78

            await probe(slow, "send", server.addr, PORT, "2")
            took = await said()
            assert 12e6 < took["bytes"] * 8 / took["seconds"] < 20.5e6

            await lab.shape(far, delay=0.05)
            assert min((await ping(far, server))["rtt_ms"]) >= 100


async def test_partitions_and_cuts_heal():
    async with Lab() as lab:
        a, b, c = [await lab.host(name, delay=0.001) for name in "abc"]
        d = await lab.host("d")

        async def reached():
            """Who reaches whom, of all pairs."""
            pairs = [(x, y) for x in lab.hosts.values() for y in lab.hosts.values() if x.name < y.name]
            found = set()

            async def one(x, y):
                if (await ping(x, y, count=4))["received"]:
                    found.add(x.name + y.name)

            async with trio.open_nursery() as nursery:
                for x, y in pairs:
                    nursery.start_soon(one, x, y)
            return " ".join(sorted(found))

        async with serving(a, b, c, d):
            assert await reached() == "ab ac ad bc bd cd"
            await lab.partition({a, "b"})
            assert await reached() == "ab cd"
            await lab.partition({a}, {b}, {c, d})
            assert await reached() == "cd"
            await lab.heal()
            await lab.cut(a, c)
            assert await reached() == "ab ad bc bd cd"
            await lab.cut(d)
            assert await reached() == "ab bc"
            await lab.heal()
            assert await reached() == "ab ac ad bc bd cd"
            with pytest.raises(LabError, match="one group at most"):
                await lab.partition({a}, {a, b})
            with pytest.raises(LabError, match="expected one of a, b, c, d, got 'e'"):
                await lab.partition({"e"})


@pytest.mark.parametrize("kind", ["cone", "symmetric"])
async def test_nats(nats, kind):
    async with Lab() as lab:
        home = await lab.nat("home", kind=kind, delay=0.005)
        a, b = [await lab.host(name, behind=home) for name in "ab"]
        x, y = await lab.host("x"), await lab.host("y")
        assert a.addr.startswith("192.168.1.")
        async with serving(x, y, a):
            seen = await probe(a, "seen", *[f"{host.addr}:{PORT}" for host in (x, y)])
            (ip, port), (other_ip, other_port) = seen.values()
            assert ip == other_ip == home.addr
            assert (port == other_port) is (kind == "cone")
            # behind one NAT they are neighbours
            assert (await ping(b, a))["received"] == 10
            assert min((await ping(b, x))["rtt_ms"]) >= 10
            # and nobody from outside gets in, not even one who knows the way
            await y.ip(f"route add {home.network}.0/24 via {home.addr}")
            assert (await ping(y, a, count=3))["received"] == 0


@pytest.mark.parametrize("kind", ["cone", "symmetric"])
async def test_holes_can_be_punched_through_one_kind_of_nat_only(nats, kind):
    async with Lab() as lab:
        meeting = await lab.host("meeting")
        a, b = [await lab.host(name, behind=await lab.nat(kind=kind)) for name in "ab"]
        heard = []

        async def punch(host, other):
            heard.append((await probe(host, "punch", f"{meeting.addr}:{PORT}", host.name, other.name))["heard"])

        async with serving(meeting), trio.open_nursery() as nursery:
            nursery.start_soon(punch, a, b)
            nursery.start_soon(punch, b, a)
        assert heard == [kind == "cone"] * 2


async def test_in_the_kernel_where_it_can(netem):
    async with Lab() as lab:
        a, b = [await lab.host(name, delay=0.01) for name in "ab"]
        async with serving(b):
            assert 40 <= min((await ping(a, b))["rtt_ms"]) < 60


async def test_errors_say_what_is_wrong():
    async with Lab() as lab:
        a = await lab.host("a")
        with pytest.raises(LabError, match="a host 'a' already"):
            await lab.host("a")
        with pytest.raises(ValueError, match="expected a loss from 0 to 1"):
            await lab.host("b", loss=2)
        if lab.way == "tap":
            with pytest.raises(LabError, match="give it delay=0"):
                await lab.shape(a, delay=1)
        with pytest.raises(LabError, match="status 3, no"):
            await a.run(["sh", "-c", "echo no >&2; exit 3"])


# what starts a lab and something in it that would go on for ever
STARTS = """
import sys, trio
from interop.lab.network import Lab
async def main():
    async with Lab() as lab:
        host = await lab.host("a", delay=0.01)
        await trio.lowlevel.open_process([*host.enter, "sh", "-c", "sleep 1000 & exec sleep 1000"])
        print(lab.keeper_pid, flush=True)
        await trio.sleep(60)
trio.run(main)
"""


def marked(keeper):
    """The processes that run in that keeper's lab."""
    found = []
    for pid in processes():
        try:
            if f"{MARK}={keeper}.".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
        except OSError:
            pass
    return found


@pytest.mark.parametrize("killed", ["starter", "keeper too"])
async def test_nothing_stays_when_it_is_killed(killed):
    starter = await trio.lowlevel.open_process([sys.executable, "-c", STARTS], stdout=subprocess.PIPE, cwd=ROOT)
    with trio.fail_after(20):
        keeper = int(await starter.stdout.receive_some())
        while len(marked(keeper)) < 2:  # noqa: ASYNC110 - it tells nobody
            await trio.sleep(0.02)
        if killed != "starter":
            os.kill(keeper, signal.SIGSTOP)  # so that it can't clean up before it goes
        starter.kill()
        await starter.wait()
        await starter.stdout.aclose()
        if killed != "starter":
            os.kill(keeper, signal.SIGKILL)
            while started_at(keeper):  # noqa: ASYNC110
                await trio.sleep(0.02)
            assert len(marked(keeper)) == 2
            assert sweep() == 2
        while marked(keeper):  # noqa: ASYNC110
            await trio.sleep(0.02)


async def test_what_runs_in_it_goes_with_it_and_the_machine_keeps_nothing():
    before = subprocess.run(["ip", "link"], capture_output=True, check=True).stdout  # noqa: ASYNC221 - a moment
    async with Lab() as lab:
        host = await lab.host("a", delay=0.01)
        left = await trio.lowlevel.open_process([*host.enter, "sleep", "1000"])
    with trio.fail_after(30):
        assert await left.wait() == -signal.SIGKILL
    assert subprocess.run(["ip", "link"], capture_output=True, check=True).stdout == before  # noqa: ASYNC221
