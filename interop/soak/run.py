"""The soak itself: one hub, many leaves, traffic on every connection, and the reckoning.

    idle: counts --warm-up--> idle: counts, memory --traffic--> idle: counts, memory --> closed: counts

Every leaf keeps one connection to the hub, real TCP over loopback, and both ends open streams on it. One round on it
is a few actions at once; then the connection may be closed properly by one of the two and dialled again, or it was cut
while the actions ran, which is the only thing that excuses an action that fails. All choices are drawn from the seed,
for each connection apart; how they fall in time is the machine's. Meanwhile nodes are asked over HTTP how they are, and
what they tell must agree (`asking`).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal

import trio

from interop.soak import asking, watch
from interop.soak.traffic import ACTIONS, Action, Fault, Moved, is_cut_off, served
from node.config import Config
from node.identity import Identity
from node.names import parse_peer_id
from node.node import Node
from protocols import ProtocolError, StreamError

LISTEN = "/ip4/127.0.0.1/tcp/0"
WARM_UP_SHARE = 0.3
LONGEST_WARM_UP = 120.0
PROGRESS = 10.0
MAX_ACTIONS = 4
# of all rounds: those that are cut, and those after which the connection is closed and made anew
CUT = 0.03
RECONNECT = 0.05
LONGEST_PAUSE = 0.1
# seconds: one action however busy the machine is, an end that the other side must see, idleness after traffic
ACTION_TIMEOUT = 120.0
END_TIMEOUT = 20.0
IDLE_TIMEOUT = 30.0
MAX_FAULTS = 50
MB = 1_000_000

Upgrade = Literal["fast", "stock"]


@dataclass
class Result:
    """What a soak did, and found."""

    seed: int
    connections: int
    seconds: float
    actions: Counter[str] = field(default_factory=Counter)
    moved: Moved = field(default_factory=Moved)
    reconnects: int = 0
    cuts: int = 0
    cut_off: int = 0
    looks: int = 0
    figures: int = 0
    warm_bytes: int = 0
    end_bytes: int = 0
    faults: list[str] = field(default_factory=list)
    faults_in_all: int = 0

    def fault(self, text: str) -> None:
        """Something happened that must not happen."""
        self.faults_in_all += 1
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(text)
            print(f"soak: FAULT {text}", file=sys.stderr, flush=True)

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": not self.faults_in_all,
            "seed": self.seed,
            "connections": self.connections,
            "seconds": self.seconds,
            "actions": dict(sorted(self.actions.items())),
            "mb": round(self.moved.bytes / MB, 1),
            "reconnects": self.reconnects,
            "cuts": self.cuts,
            "actions_cut_off": self.cut_off,
            "looks_over_http": self.looks,
            "figures_compared": self.figures,
            "rss_mb": {"warm": round(self.warm_bytes / MB, 1), "end": round(self.end_bytes / MB, 1)},
            "faults": self.faults,
            "faults_in_all": self.faults_in_all,
        }


class Link:
    """One leaf's connection to the hub, and the traffic on it."""

    def __init__(self, hub: Node, leaf: Node, rng: Random, result: Result) -> None:
        self._hub = hub
        self._leaf = leaf
        self._rng = rng
        self._result = result
        self._cut = False

    async def connect(self) -> None:
        """Dials. Raises VouchError."""
        await self._leaf.connect(self._hub.addrs[0])

    async def disconnect(self) -> None:
        """One of the two closes the connection; returns when neither has it any more. Raises Fault if that lasts."""
        ends = [(self._hub, self._leaf), (self._leaf, self._hub)]
        closer, other = self._rng.choice(ends)
        await closer.disconnect(other.peer_id)
        with trio.move_on_after(END_TIMEOUT):
            while any(parse_peer_id(far.peer_id) in near.swarm.connections for near, far in ends):  # noqa: ASYNC110
                await trio.sleep(0.01)  # the end of a connection wakes nobody who could be waited for
            return
        raise Fault(f"expected both ends to see the end of a connection within {END_TIMEOUT:g} s")

    async def run(self, deadline: float) -> None:
        """Rounds of traffic until the deadline. The connection is there before and after."""
        try:
            while trio.current_time() < deadline:
                await self._round()
                await trio.sleep(self._rng.uniform(0, LONGEST_PAUSE))
        except Exception as error:  # a connection that can't be made or closed ends this link's traffic, and the soak
            self._result.fault(f"a connection: {error!r}")

    async def _round(self) -> None:
        rng, result = self._rng, self._result
        self._cut = False
        cut = rng.random() < CUT
        async with trio.open_nursery() as nursery:
            for action in rng.choices(list(ACTIONS), list(ACTIONS.values()), k=rng.randint(1, MAX_ACTIONS)):
                ends = self._hub, self._leaf
                here, there = ends if rng.random() < 0.5 else ends[::-1]
                nursery.start_soon(self._act, action, here, there, Random(rng.getrandbits(64)))
            if cut:
                await trio.sleep(rng.uniform(0, 0.05))
                self._cut = True
                result.cuts += 1
                await self.disconnect()
        if not cut and rng.random() < RECONNECT:
            result.reconnects += 1
            await self.disconnect()
            cut = True
        if cut:
            await self.connect()

    async def _act(self, action: Action, here: Node, there: Node, rng: Random) -> None:
        result, name = self._result, action.__name__
        try:
            with trio.fail_after(ACTION_TIMEOUT):
                await action(here, there.peer_id, rng, result.moved)
            result.actions[name] += 1
        except trio.TooSlowError:
            result.fault(f"{name}: expected it to end within {ACTION_TIMEOUT:g} s")
        except (Fault, ProtocolError) as error:
            result.fault(f"{name}: {error}")
        except StreamError as error:
            if self._cut and is_cut_off(error):
                result.cut_off += 1
            else:
                result.fault(f"{name}: {error!r}")
        except Exception as error:  # whatever else it raises is no way to fail
            result.fault(f"{name}: {error!r}")


async def soak(seconds: float, connections: int, seed: int, upgrade: Upgrade = "fast") -> Result:
    """Runs a soak of nodes with that setting `upgrade`; what it found is in the result."""
    result = Result(seed, connections, seconds)
    before = watch.count([])
    with watch.LogWatch(result.fault):
        async with asking.folders() as folder, AsyncExitStack() as stack:
            hub, *leaves = _nodes(connections, upgrade, result, folder)
            asked = [asking.Asked("the hub", hub), asking.Asked("a leaf", leaves[0])]
            for node in (hub, *leaves):
                await stack.enter_async_context(node)
            serving = await stack.enter_async_context(trio.open_nursery())
            stack.callback(serving.cancel_scope.cancel)
            for one in asked:
                await serving.start(one.serve)
            links = [Link(hub, leaf, Random(f"{seed}/{number}"), result) for number, leaf in enumerate(leaves)]
            for link in links:
                await link.connect()
            await _traffic([hub, *leaves], links, result, asked, folder)
            result.looks += sum(one.looks for one in asked)
            result.figures += sum(one.figures for one in asked)
        after = await watch.idle(lambda: watch.count([]), before, END_TIMEOUT)
    for difference in after:
        result.fault(f"after the nodes were closed: {difference}")
    return result


def _nodes(connections: int, upgrade: Upgrade, result: Result, folder: Path) -> list[Node]:
    """The hub, with room for all, and the leaves, which nobody dials."""
    room = dict.fromkeys(("max_connections", "max_inbound", "max_connections_per_ip"), connections + 1)
    half_open = dict.fromkeys(("max_half_open", "max_half_open_per_ip"), connections + 1)
    # heartbeats and gossip open streams when they like, and what is open is counted here
    quiet: Any = dict.fromkeys(("dht", "heartbeat", "gossip", "pool"), "off")
    places: Any = room | half_open
    hub = Config(listen=(LISTEN,), upgrade=upgrade, data_dir=folder / "hub", api="127.0.0.1:0", **quiet, **places)
    leaf = Config(listen=(), upgrade=upgrade, data_dir=folder / "leaf", api="127.0.0.1:0", **quiet)
    return [
        Node(config, identity=Identity.generate(), protocols=served(result.moved, result.fault))
        for config in (hub, *[leaf] * connections)
    ]


async def _traffic(
    nodes: Sequence[Node], links: Sequence[Link], result: Result, asked: Sequence[asking.Asked], folder: Path
) -> None:
    def look() -> watch.Counts:
        return watch.count(nodes)

    quiet = await watch.settled(look, IDLE_TIMEOUT)
    if quiet.get("connections") != 2 * len(links):
        result.fault(f"expected {2 * len(links)} ends of connections at the start, got {quiet.get('connections')}")
    warm_up = min(result.seconds * WARM_UP_SHARE, LONGEST_WARM_UP)
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_progress, result, started)
        for name, length in (("the warm-up", warm_up), ("the traffic", result.seconds - warm_up)):
            deadline = trio.current_time() + length
            rng = Random(f"{result.seed}/{name}")
            async with asking.crowd(folder / name, rng, result.fault) as crowd, trio.open_nursery() as looking:
                looking.start_soon(asking.keep_asking, [*asked, *crowd], result.fault)
                async with trio.open_nursery() as traffic:
                    for link in links:
                        traffic.start_soon(link.run, deadline)
                looking.cancel_scope.cancel()
            result.looks += sum(one.looks for one in crowd)
            result.figures += sum(one.figures for one in crowd)
            with_progress = quiet | {f"task {__name__}._progress": 1}
            for difference in await watch.idle(look, with_progress, IDLE_TIMEOUT):
                result.fault(f"after {name}: {difference}")
            result.warm_bytes, result.end_bytes = result.end_bytes, watch.resident_at_rest()
        nursery.cancel_scope.cancel()
    most = watch.may_grow_to(result.warm_bytes, warm_up)
    if result.end_bytes > most:
        result.fault(
            f"expected at most {most / MB:.1f} MB of memory in the end, since it was "
            f"{result.warm_bytes / MB:.1f} MB after the warm-up; it is {result.end_bytes / MB:.1f} MB"
        )


async def _progress(result: Result, started: float) -> None:
    while True:
        await trio.sleep(PROGRESS)
        print(
            f"soak: {trio.current_time() - started:.0f} of {result.seconds:.0f} s, "
            f"{sum(result.actions.values())} actions, {result.moved.bytes / MB:.0f} MB checked, "
            f"{result.reconnects} reconnects, {result.cuts} cuts, RSS {watch.resident() / MB:.0f} MB, "
            f"{result.faults_in_all} faults",
            file=sys.stderr,
            flush=True,
        )
