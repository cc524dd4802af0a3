"""Nodes on one link find each other without a bootstrap, within 5 s; networks on one link don't mix.

Real `vouch run` processes, each in a network namespace of its own, on one bridge. The seconds count from when the last
of them listens; before that is the start of the processes, which share two cores.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from interop.lab.network import Host, Lab
from interop.peer import Peer
from tests.lab import lab_or_skip

WITHIN = 5.0
# processes that start at once: each costs some seconds of a core, and must be up within Peer's own bound
AT_ONCE = 2
# each has asked and told twice by then, and would have met the others
SETTLED = 1.3
FLAGS = ("--mdns", "on", "--listen", "/ip4/0.0.0.0/tcp/0", "--dht", "off", "--gossip", "off", "--log-level", "debug")


@asynccontextmanager
async def running(networks: dict[Host, str]) -> AsyncIterator[dict[Host, Peer]]:
    """A node of its network on each host, started side by side."""
    peers: dict[Host, Peer] = {}
    done = trio.Event()
    turns = trio.Semaphore(AT_ONCE)

    async def one(host: Host, network: str, started: trio.Event) -> None:
        await turns.acquire()
        async with Peer.python("--network-id", network, *FLAGS).within(host.enter) as peer:
            turns.release()
            peers[host] = peer
            started.set()
            await done.wait()

    async with trio.open_nursery() as nursery:
        all_started = [trio.Event() for _ in networks]
        for (host, network), started in zip(networks.items(), all_started, strict=True):
            nursery.start_soon(one, host, network, started)
        for started in all_started:
            await started.wait()
        yield peers
        done.set()


async def measured(sizes: dict[str, int]) -> float:
    """Starts so many nodes of each network on one link; the seconds until each knows all others of its own."""
    async with Lab() as lab:
        networks = {}
        for network, size in sizes.items():
            for _ in range(size):
                networks[await lab.host()] = network
        async with running(networks) as peers:
            began = trio.current_time()
            with trio.fail_after(WITHIN):
                for host, peer in peers.items():
                    for other in others(peers, networks, host):
                        await peer.event("admitted", peer=other, timeout=WITHIN)
            took = trio.current_time() - began
            await trio.sleep(max(0.0, SETTLED - took))
            for host, peer in peers.items():
                own = others(peers, networks, host)
                assert {seen["peer"] for seen in peer.seen("mdns_found")} == own
                for event in ("admitted", "refused"):
                    strangers = {seen["peer"] for seen in peer.seen(event)} - own
                    assert not strangers, f"a node of {networks[host]} met others: {peer.seen(event)}"
            return took


def others(peers: dict[Host, Peer], networks: dict[Host, str], host: Host) -> set[str]:
    """The peers of a host's network, but for itself."""
    return {peer.peer_id for other, peer in peers.items() if networks[other] == networks[host] and other is not host}


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param({"harbour": 2, "island": 1}, marks=pytest.mark.bar_quick, id="quick"),
        pytest.param({"harbour": 3, "island": 3}, marks=pytest.mark.bar, id="full"),
    ],
)
async def test_bar_mdns(sizes):
    lab_or_skip()
    took = await measured(sizes)
    print(f"\nmDNS, nodes on one link by network {sizes}: each knows all of its own after {took:.2f} s")
