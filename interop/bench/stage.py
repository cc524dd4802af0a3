"""The processes of a run: one for each end and role, started once and used by all benchmarks.

    pairing       dialler       listener
    vouch         vouch         vouch
    vouch-stock   vouch-stock   vouch-stock   our node on py-libp2p's Noise and Yamux
    stock         stock         stock         py-libp2p's own host
    go, rust, js  each with its like
    tcp           tcp           tcp           a bare socket
    vouch-go, go-vouch, …       a mixed pairing takes part where both its ends do

Rust and JavaScript know no admission: beside them stands a node in open admission, a process of its own. What dials in
two pairings is the same process in both; each pairing keeps one connection. What a crowd joins is a listener that has
done nothing yet, since memory that was used before tells nothing: a new one, or the pairing's own where that is spared.

A process that ends by itself or doesn't start makes what needs it fail (PeerError), and nothing else.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, redirect_stdout
from dataclasses import dataclass, field

import trio

from interop.bench.cost import Spent, cpu_seconds
from interop.build import RECIPES, BuildError, MissingToolchainError
from interop.peer import Message, Peer, PeerError
from node.tasks import TaskStatus

CONTENDERS = ("vouch", "vouch-stock", "stock", "go", "rust", "js", "tcp")
OTHERS = ("go", "rust", "js")
# those that have an end which listens and dials over QUIC alone, and admits everybody
OVER_QUIC = ("vouch", "stock", "go")
QUIC_LISTEN = "/ip4/127.0.0.1/udp/0/quic-v1"
# seconds for one command, which a slow machine or a faulty end may exceed
CALL_TIMEOUT = 120.0
IDENTIFY_TIMEOUT = 10.0
EVENT_TIMEOUT = 15.0
END_TIMEOUT = 10.0
CROWD = "interop.bench.crowd"
# ends that tell what they have moved as perf's server; the others are taken at their word
TELLS_PERF = ("vouch", "vouch-open", "vouch-stock", "stock", "go", *(f"{name}-quic" for name in OVER_QUIC))


def _pairings() -> dict[str, tuple[str, str]]:
    pairings = {name: (name, name) for name in CONTENDERS}
    for other in OTHERS:
        ours = "vouch" if other == "go" else "vouch-open"
        pairings |= {f"vouch-{other}": (ours, other), f"{other}-vouch": (other, ours)}
    for ours in OVER_QUIC:
        pairings[f"{ours}-quic"] = f"{ours}-quic", f"{ours}-quic"
    for ours in ("vouch", "stock"):
        pairings[f"{ours}-go-quic"] = f"{ours}-quic", "go-quic"
        pairings[f"go-{ours}-quic"] = "go-quic", f"{ours}-quic"
    return pairings


PAIRINGS = _pairings()


def pairings_of(contenders: Iterable[str]) -> list[str]:
    """The pairings between those contenders."""
    there = {*contenders, *(["vouch-open"] if "vouch" in contenders else [])}
    there |= {f"{name}-quic" for name in OVER_QUIC if name in contenders}
    return [name for name, pair in PAIRINGS.items() if there.issuperset(pair)]


def available(contenders: Iterable[str], say: Callable[[str], None]) -> list[str]:
    """Those that can take part, built if need be; of the others it is said why not."""
    return [name for name in contenders if not (name in OTHERS and _missing(name, say))]


def _missing(name: str, say: Callable[[str], None]) -> bool:
    if name not in RECIPES or not hasattr(Peer, name):
        say(f"{name}: left out (there is no such peer yet)")
        return True
    try:
        with redirect_stdout(sys.stderr):
            RECIPES[name].build()
    except BuildError as error:
        # made elsewhere and brought here, it does as it is
        if isinstance(error, MissingToolchainError) and RECIPES[name].binary.is_file():
            return False
        say(f"{name}: left out ({error})")
        return True
    return False


def crowd_is_there() -> bool:
    """Whether the program that plays a crowd is installed."""
    return importlib.util.find_spec(CROWD) is not None


def make_peer(end: str, *flags: str) -> Peer:
    """An end, not started yet."""
    if end == "go":
        return Peer.go("--timeout", f"{CALL_TIMEOUT:g}s")
    if end == "go-quic":
        return Peer.go("--timeout", f"{CALL_TIMEOUT:g}s", "--listen", QUIC_LISTEN, "--handshake=false")
    if end in OTHERS:
        peer: Peer = getattr(Peer, end)("--handshake=false")
        return peer
    return Peer.program("interop.bench.ends", end, *flags)


@dataclass
class Pair:
    """Two ends. `spent` is what the calls since it was last set have cost them, `unused` whether they never met."""

    name: str
    dialler: Peer
    listener: Peer
    listener_end: str
    spent: Spent = field(default_factory=Spent)
    connected: bool = False
    unused: bool = True

    async def call(self, command: str, *args: object) -> Message:
        """The dialler carries out a command, measured; its reply. Raises PeerError."""
        pids = self.dialler.pid, self.listener.pid
        try:
            before = [cpu_seconds(pid) for pid in pids]
            started = time.perf_counter()
            reply = await self.dialler.call(command, *map(str, args), timeout=CALL_TIMEOUT)
            self.spent.wall += time.perf_counter() - started
            after = [cpu_seconds(pid) for pid in pids]
        except ProcessLookupError as error:
            raise PeerError(f"{self.name}: an end is gone: {error}") from error
        self.spent.dialler += after[0] - before[0]
        self.spent.listener += after[1] - before[1]
        return reply

    async def identified(self) -> None:
        """Waits until each has identified the other, so that nothing of it goes on in the time of what comes next."""
        await self.dialler.call("identify", self.listener.peer_id, timeout=IDENTIFY_TIMEOUT)
        await self.listener.call("identify", self.dialler.peer_id, timeout=IDENTIFY_TIMEOUT)

    def joined_by(self, crowd: Peer) -> Pair:
        """The crowd with the same listener."""
        return Pair(self.name, crowd, self.listener, self.listener_end, connected=True)

    async def connect(self) -> None:
        """Connects the two if they aren't."""
        if not self.connected:
            self.unused = False
            await self.dialler.call("connect", self.listener.addr)
            self.connected = True
            await self.identified()

    async def disconnect(self) -> None:
        """Ends their connection; when it returns both have noticed."""
        if self.connected:
            await self.dialler.call("disconnect", self.listener.peer_id)
            self.connected = False
            await self.dialler.event("disconnected", peer=self.listener.peer_id, timeout=EVENT_TIMEOUT)
            await self.listener.event("disconnected", peer=self.dialler.peer_id, timeout=EVENT_TIMEOUT)

    async def check_perf(self, *moved: tuple[int, int]) -> None:
        """Waits for the listener's word that it has received and sent as much, one for each stream."""
        if self.listener_end in TELLS_PERF:
            for received, sent in moved:
                await self.listener.event("perf", received=received, sent=sent, timeout=EVENT_TIMEOUT)


@dataclass
class _Life:
    """The life of one process."""

    stop: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    failure: PeerError | None = None


class Stage:
    """The processes, while `opened` lasts."""

    def __init__(self, nursery: trio.Nursery, spare: bool) -> None:
        self._nursery = nursery
        self._spare = spare
        self._lives: dict[Peer, _Life] = {}
        self._diallers: dict[str, Peer] = {}
        self._listeners: dict[str, Peer] = {}
        self._crowd: Peer | None = None
        self._pairs: dict[str, Pair] = {}
        self._crowded: dict[str, int] = {}

    @property
    def versions(self) -> dict[str, str]:
        """What the peers in other languages say that they are built from."""
        found: dict[str, str] = {}
        for peer in [*self._diallers.values(), *self._listeners.values()]:
            for event in peer.seen("listening"):
                found |= event.get("versions", {})
        return found

    def pair(self, name: str) -> Pair:
        """The two ends of a pairing. Raises PeerError if one of them isn't there."""
        if name not in self._pairs:
            dialling, listening = PAIRINGS[name]
            self._pairs[name] = Pair(name, self._diallers[dialling], self._listeners[listening], listening)
        pair = self._pairs[name]
        for peer in (pair.dialler, pair.listener):
            self._need(peer)
        return pair

    @asynccontextmanager
    async def crowded(self, pairing: str) -> AsyncIterator[tuple[Pair, Pair]]:
        """An unused listener, with the crowd, and with an end of the pairing's that has one connection to it. Raises
        PeerError."""
        assert self._crowd is not None
        self._need(self._crowd)
        beside = self.pair(pairing)
        if self._spare and beside.unused:
            await beside.connect()
            yield beside.joined_by(self._crowd), beside
            return
        listener = self._listener(beside.listener_end)
        life = _Life()
        await self._nursery.start(self._live, listener, life)
        try:
            self._need(listener)
            beside = Pair(pairing, beside.dialler, listener, beside.listener_end)
            await beside.connect()
            yield beside.joined_by(self._crowd), beside
        finally:
            life.stop.set()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + END_TIMEOUT):
                await life.ended.wait()

    def _need(self, peer: Peer) -> None:
        failure = self._lives[peer].failure
        if failure is not None:
            raise PeerError(str(failure))

    def _listener(self, end: str) -> Peer:
        most = self._crowded.get(end)
        return make_peer(end, *(["--connections", str(most)] if most and end not in OTHERS else []))

    async def _start(self, pairings: Iterable[str], crowded: Mapping[str, int]) -> None:
        self._crowded = {PAIRINGS[name][1]: most for name, most in crowded.items()}
        wanted = [PAIRINGS[name] for name in pairings]
        self._diallers = {end: make_peer(end) for end in dict.fromkeys(pair[0] for pair in wanted)}
        self._listeners = {end: self._listener(end) for end in dict.fromkeys(pair[1] for pair in wanted)}
        peers = [*self._diallers.values(), *self._listeners.values()]
        if crowded:
            self._crowd = Peer.program(CROWD)
            peers.append(self._crowd)
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(self._nursery.start, self._live, peer, _Life())

    async def _live(self, peer: Peer, life: _Life, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """One process, from its start until it is to stop. A failure is kept for those who need it."""
        self._lives[peer] = life
        try:
            async with peer:
                task_status.started()
                await life.stop.wait()
        except PeerError as error:
            life.failure = error
        if not life.stop.is_set():
            task_status.started()  # it failed to start: who waits for it is to go on
        life.ended.set()


@asynccontextmanager
async def opened(pairings: Iterable[str], crowded: Mapping[str, int], *, spare: bool = False) -> AsyncIterator[Stage]:
    """The processes of those pairings, all started at once. `crowded` are the pairings among them whose listener a
    crowd is to join, with how many connections it has to take. `spare` lets the crowd join a pairing's own listener as
    long as that is unused: a process less, which shares its end if the crowd is too much for it."""
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, spare)
        await stage._start(pairings, crowded)
        try:
            yield stage
        finally:
            for life in stage._lives.values():
                life.stop.set()
