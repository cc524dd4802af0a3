"""How the ends of a line are started, and what a check is given: two of them, and what else it needs."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from interop.build import RECIPES, Recipe
from interop.ends.mutate import VARIABLE
from interop.matrix.cells import Line
from interop.peer import EVENT_TIMEOUT, Message, Peer

LISTEN = {
    "tcp": "/ip4/127.0.0.1/tcp/0",
    "ws": "/ip4/127.0.0.1/tcp/0/ws",
    "quic-v1": "/ip4/127.0.0.1/udp/0/quic-v1",
}
NETWORK, OTHER_NETWORK = "matrix", "open-sea"
OUR_VERSION, THEIR_VERSION = "matrix-vouch/1.0.0", "matrix-peer/1.0.0"
LEAST = ("matrix-vouch=1.0.0", "matrix-peer=1.0.0")
KAD = f"/vouch/{NETWORK.encode().hex()}"  # what a node of that network serves without being told
STOCK_KAD = "/ipfs"  # all that py-libp2p serves
HEARTBEAT = 0.2  # of gossip, in seconds
COMMAND_TIMEOUT = 120  # seconds, of the peers' own
POLL = 0.02


class CheckError(Exception):
    """Something else came than a check expected."""


@dataclass(frozen=True)
class Size:
    """How much a check moves, and how often."""

    transfer: int
    half_close: int
    streams: int
    pings: int


FULL = Size(transfer=100 << 20, half_close=4 << 20, streams=64, pings=10)
QUICK = Size(transfer=4 << 20, half_close=1 << 20, streams=64, pings=3)


def recipe(peer: str) -> Recipe | None:
    """How a peer is built; None for one that needn't be."""
    return RECIPES.get(peer)


def our_flags(line: Line) -> list[str]:
    """Of our end of a line."""
    return [
        f"--listen={LISTEN[line.transport]}",
        f"--security={line.security if line.transport != 'quic-v1' else 'noise'}",
        f"--network-id={NETWORK}",
        f"--client-version={OUR_VERSION}",
        f"--min-version={LEAST[1]}",
        f"--handshake={'false' if line.peer == 'stock' else 'true'}",
        "--pubsub=signed",
        f"--kad={_kad(line)}",
        f"--heartbeat={HEARTBEAT}",
        "--kad-refresh=off",
    ]


def third_flags(line: Line, *, kad: bool) -> list[str]:
    """Of one more of ours, which dials whatever the line speaks."""
    return [
        "--security=noise,tls",
        f"--network-id={NETWORK}",
        "--client-version=matrix-third/1.0.0",
        "--handshake=false",
        "--pubsub=signed",
        f"--kad={_kad(line) if kad else ''}",
        f"--heartbeat={HEARTBEAT}",
        "--kad-refresh=off",
    ]


def vouch_process(name: str, mutation: str = "") -> Peer:
    """A process whose node is told later what it is."""
    process = Peer.program("interop.ends", "vouch", environ=mutated(mutation))
    process.name = name
    return process


async def renewed(process: Peer, flags: Sequence[str]) -> Peer:
    """The process with a new node with those flags."""
    reply = await process.call("renew", *flags)
    process.forget()
    process.peer_id, process.addrs = reply["peer"], reply["addrs"]
    return process


def their_end(line: Line, *flags: str) -> Peer:
    """The peer's end; later flags stand over earlier ones."""
    common = [f"--listen={LISTEN[line.transport]}", "--pubsub=signed", f"--kad={_kad(line)}"]
    common += [f"--timeout={COMMAND_TIMEOUT}s"]
    if line.transport != "quic-v1":
        common += [f"--security={line.security}"]
    if line.peer == "stock":
        end = Peer.program("interop.ends", "stock", *common, *flags)
        end.name = "stock"
        return end
    if line.peer != "python":
        common += ["--gossip-param", f"HeartbeatInterval={HEARTBEAT * 1000:.0f}"]
    if line.peer == "rust":
        common += ["--rendezvous=client"]
    own = {"--network-id": NETWORK, "--client-version": THEIR_VERSION, "--min-version": LEAST[0]}
    own |= dict(flag.split("=", 1) for flag in flags)
    starts: dict[str, Callable[..., Peer]] = {
        "go": Peer.go,
        "rust": Peer.rust,
        "js": Peer.js,
        "python": partial(Peer.program, "interop.ends", "vouch"),
    }
    return starts[line.peer](*common, *(f"{name}={value}" for name, value in own.items()))


def mutated(mutation: str) -> Mapping[str, str] | None:
    """The environment of an end with that change (`interop.ends.mutate`)."""
    if not mutation:
        return None
    return {**os.environ, VARIABLE: mutation}


def _kad(line: Line) -> str:
    return STOCK_KAD if line.peer == "stock" else KAD


class Third:
    """A node of ours that knows nobody yet, whenever it is asked for, in one process. None where no check needs it."""

    def __init__(self, process: Peer | None, line: Line) -> None:
        self._process, self._line = process, line

    async def fresh(self, *, kad: bool = False) -> Peer:
        """Another node in place of the last; without Kademlia nobody hears of it but whom it dials."""
        assert self._process is not None
        return await renewed(self._process, third_flags(self._line, kad=kad))


@dataclass
class Pair:
    """Two ends of a line, and a third for what two can't show."""

    line: Line
    size: Size
    ours: Peer
    theirs: Peer
    third: Third

    @property
    def both(self) -> tuple[tuple[Peer, Peer], tuple[Peer, Peer]]:
        """Each with the other."""
        return (self.ours, self.theirs), (self.theirs, self.ours)

    @property
    def dialler(self) -> Peer:
        return self.ours if self.line.direction == "out" else self.theirs

    @property
    def dialled(self) -> Peer:
        return self.theirs if self.line.direction == "out" else self.ours

    async def connect(self) -> None:
        """Has the one that dials connect, and waits until our node has admitted the other."""
        await self.dialler.call("connect", self.dialled.addr)
        await self.ours.event("admitted", peer=self.theirs.peer_id)


# what checks say in common


def expect(true: object, what: str) -> None:
    """Raises CheckError, naming what was expected, unless it is true."""
    if not true:
        raise CheckError(f"expected {what}")


async def eventually(check: Callable[[], Awaitable[object]], what: str, timeout: float = 10.0) -> None:
    """Until it is true. Raises CheckError."""
    with trio.move_on_after(timeout):
        while not await check():  # noqa: ASYNC110 - what a peer has is asked for
            await trio.sleep(POLL)
        return
    raise CheckError(f"expected within {timeout:g} s: {what}")


async def event(one: Peer, name: str, fits: Callable[[Message], object], what: str, **fields: Any) -> Message:
    """The next event of that name and those fields that fits. Raises PeerError, CheckError."""
    with trio.move_on_after(EVENT_TIMEOUT):
        while True:
            told = await one.event(name, **fields, timeout=2 * EVENT_TIMEOUT)
            if fits(told):
                return told
    raise CheckError(f"expected of {one.name} the event {name}: {what}")


def without_peer(addr: str) -> str:
    """A multiaddr without /p2p/PEER."""
    return addr.partition("/p2p/")[0]
