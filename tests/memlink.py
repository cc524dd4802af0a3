"""The link layer of the in-memory network: hosts named by IP, links with latency and loss, and byte pipes over them.

    PipeEnd 10.0.0.1 --transmit--> data lane ----(latency, loss, bandwidth)----> arrived, unread --receive_some-->
                     <---room----- control lane <-------(latency)-------------- half a window read, or a reset

A pipe behaves as a TCP connection does: ordered, reliable, at most `WINDOW` bytes under way in each direction. Nothing
runs in the background: when something is sent, the time of its arrival is computed, and whoever waits at the other end
sleeps until then. Under trio's autojump clock an hour of network takes as long as the work done in it.

- Loss never loses bytes: a lost segment comes one retransmission timeout later, max(0.2 s, two round trips), doubling.
- A partition lets bytes stall. What stalled comes one latency after the healing; after `give_up` seconds without it
  both ends are broken, idle ones too (as keep-alives would see to).
- An end that was closed answers data with a reset, which never overtakes what was sent before it.

Each pipe and direction has its own chance, so for a seed the net is the same whatever the order in which trio runs its
tasks. Which hosts there are and what runs on them is `memnet`'s.
"""

from __future__ import annotations

import math
import operator
import random
from collections import Counter, deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import trio

WINDOW = 256 * 1024
SEGMENT = 16 * 1024
MIN_RTO = 0.2

Address = tuple[str, int]

_END, _RESET = b"", 0


@dataclass(frozen=True)
class Link:
    """What lies between two hosts, the same both ways: seconds one way, share of segments lost, bytes a second."""

    latency: float
    loss: float = 0.0
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        if self.latency < 0 or not 0 <= self.loss < 1 or (self.bandwidth is not None and self.bandwidth <= 0):
            raise ValueError(f"expected latency >= 0, 0 <= loss < 1 and bandwidth > 0, got {self}")


class Links:
    """All links and live pipe ends of a network. Hosts that were never named have the default link to everybody."""

    def __init__(
        self,
        seed: int = 0,
        latency: float = 0.02,
        loss: float = 0.0,
        bandwidth: float | None = None,
        *,
        give_up: float = 30.0,
        window: int = WINDOW,
    ) -> None:
        self.seed = seed
        self.give_up = give_up
        self.window = window
        self._default = Link(latency, loss, bandwidth)
        self._links: dict[frozenset[str], Link] = {}
        self._busy_until: dict[tuple[str, str], float] = {}
        self._group: dict[str, int] = {}
        self._changed = trio.Event()
        self._ends: dict[PipeEnd, None] = {}  # a set in the order of creation
        self._made: Counter[tuple[str, str]] = Counter()

    # what a test does to the network

    def set_link(
        self, a: str, b: str, *, latency: float | None = None, loss: float | None = None, bandwidth: float | None = None
    ) -> None:
        """Changes the link between two hosts from now on; what isn't named stays as it is."""
        wanted = {"latency": latency, "loss": loss, "bandwidth": bandwidth}
        self._links[frozenset((a, b))] = replace(
            self.link(a, b), **{name: value for name, value in wanted.items() if value is not None}
        )

    def partition(self, *groups: Collection[str]) -> None:
        """Cuts every link between different groups, and heals any other cut. A host in no group reaches everybody."""
        self._group = {host: number for number, group in enumerate(groups) for host in group}
        if len(self._group) < sum(map(len, groups)):
            raise ValueError("a host can be in one group only")
        now = trio.current_time()
        for end in list(self._ends):
            if self.cut(end.local[0], end.remote[0]):
                end._stall(now)
            else:
                end._resume(now)
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def kill(self, host: str, other: str | None = None) -> None:
        """Resets every connection of `host` (with `other`), as if its process had died: its own ends break now, the
        others one latency later. What listens on it goes on listening.
        """
        for end in list(self._ends):
            if end.local[0] == host and other in (None, end.remote[0]):
                end._kill(f"{host} was killed" if other is None else f"{host} cut {other} off")

    heal = partition  # with no groups, nothing is cut

    # what the network tells

    def link(self, a: str, b: str) -> Link:
        """The link between two hosts."""
        return self._links.get(frozenset((a, b)), self._default)

    def cut(self, a: str, b: str) -> bool:
        """Whether a partition keeps two hosts apart now."""
        return a in self._group and b in self._group and self._group[a] != self._group[b]

    @property
    def ends(self) -> int:
        """Pipe ends that are neither closed nor broken, as far as somebody has looked."""
        return len(self._ends)

    # pipes

    def pipe(self, a: str, b: str, *, a_port: int = 0, b_port: int = 0) -> tuple[PipeEnd, PipeEnd]:
        """A connection that is there at once: `a`'s end and `b`'s."""
        self._made[a, b] += 1
        number = self._made[a, b]
        ours = PipeEnd(self, (a, a_port), (b, b_port), f"{self.seed}|{a}>{b}|{number}")
        theirs = PipeEnd(self, (b, b_port), (a, a_port), f"{self.seed}|{b}<{a}|{number}")
        ours.peer, theirs.peer = theirs, ours
        for end in (ours, theirs):
            self._ends[end] = None
            if self.cut(a, b):
                end._stall(trio.current_time())
        return ours, theirs

    def arrival(self, source: str, target: str, size: int, rng: random.Random | None) -> float:
        """When something sent now arrives; never, if a partition is in the way. Without `rng` it isn't lost."""
        if self.cut(source, target):
            return math.inf
        link, now = self.link(source, target), trio.current_time()
        if link.bandwidth is not None:
            # the link is shared by all pipes over it
            now = max(now, self._busy_until.get((source, target), 0.0)) + size / link.bandwidth
            self._busy_until[source, target] = now
        return now + link.latency + (retransmission_delay(link, rng) if rng is not None else 0.0)


def retransmission_delay(link: Link, rng: random.Random) -> float:
    """How much later a segment comes because of loss: nothing, most of the time."""
    delay, timeout = 0.0, max(MIN_RTO, 4 * link.latency)
    while link.loss and rng.random() < link.loss:
        delay += timeout
        timeout *= 2
    return delay


class _Lane:
    """Things under way to one end, in order, each with the time of its arrival: infinite while it is stalled."""

    __slots__ = ("items", "last")

    def __init__(self) -> None:
        self.items, self.last = deque[tuple[float, Any]](), 0.0

    def put(self, at: float, item: Any) -> float:
        self.last = max(self.last, at)  # nothing overtakes
        self.items.append((self.last, item))
        return self.last

    def due(self, now: float) -> Iterator[tuple[float, Any]]:
        while self.items and self.items[0][0] <= now:
            yield self.items.popleft()

    def next_at(self) -> float:
        return self.items[0][0] if self.items else math.inf

    def change(self, late: float, at: float) -> None:
        """What would arrive after `late` arrives at `at`."""
        self.items = deque((at if when > late else when, item) for when, item in self.items)
        self.last = self.items[-1][0] if self.items else 0.0


class PipeEnd(trio.abc.HalfCloseableStream):
    """One end of a pipe. `local` and `remote` are addresses, IP and port."""

    def __init__(self, links: Links, local: Address, remote: Address, seed: str) -> None:
        self.local = local
        self.remote = remote
        self.peer: PipeEnd
        self._links = links
        self._rng = random.Random(seed)
        self._data = _Lane()  # of bytes
        self._control = _Lane()  # of bytes that the other end has read
        self._room = links.window
        self._unread = bytearray()
        self._read_since = 0  # bytes read that the other end hasn't been told of
        self._fails_at = math.inf
        self._eof_received = self._eof_sent = self._closed = self._busy_sending = self._busy_receiving = False
        self._broken = ""
        self._wake = trio.Event()

    @property
    def socket(self) -> PipeEnd:
        """Itself: a socket stream's users ask the socket for `getpeername` (py-libp2p's TrioTCPStream does)."""
        return self

    def getpeername(self) -> Address:
        return self.remote

    @property
    def alive(self) -> bool:
        """Whether it is neither closed nor broken, and the other end hasn't said that it sends no more."""
        self._settle()
        return not (self._closed or self._broken or self._eof_received)

    # trio's interface

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """1 to `max_bytes` bytes, b"" at the other end's end. Raises BrokenResourceError, ClosedResourceError."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError(f"expected max_bytes of 1 or more, got {max_bytes}")
        with self._alone("_busy_receiving"):
            await trio.lowlevel.checkpoint()
            while True:
                self._settle()
                if self._closed:
                    raise trio.ClosedResourceError("this end was closed")
                if self._unread:
                    return self._take(len(self._unread) if max_bytes is None else max_bytes)
                if self._eof_received:
                    return b""
                if self._broken:
                    raise trio.BrokenResourceError(self._broken)
                await self._wait()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Returns when all of `data` is under way. Raises BrokenResourceError, ClosedResourceError."""
        left = memoryview(data)
        with self._alone("_busy_sending"):
            await trio.lowlevel.checkpoint()
            self._need_open()
            while left:
                await self._has_room()
                size = min(len(left), self._room, SEGMENT)
                self._transmit(bytes(left[:size]))
                left = left[size:]

    async def wait_send_all_might_not_block(self) -> None:
        with self._alone("_busy_sending"):
            await trio.lowlevel.checkpoint()
            await self._has_room()

    async def send_eof(self) -> None:
        """Says that we send no more. Idempotent."""
        with self._alone("_busy_sending"):
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("this end was closed")
            self._send_eof()

    async def aclose(self) -> None:
        """Closes both directions. What was sent still arrives. Idempotent."""
        self._settle()
        if not self._closed:
            self._send_eof()
            if self._unread or any(data for _, data in self._data.items):
                self._reset_peer(max(self._data.next_at() if not self._unread else 0.0, trio.current_time()))
            self._end()
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """Gives the connection up at once; the other end sees it one latency later. Idempotent."""
        if not self._closed:
            self._reset_peer(trio.current_time(), overtaking=True)
            self._end()

    def _send_eof(self) -> None:
        self._settle()
        if not self._eof_sent:
            self._eof_sent = True
            if not self._broken:
                self._transmit(_END)

    def _transmit(self, data: bytes) -> None:
        peer, links = self.peer, self._links
        self._room -= len(data)
        arrives = peer._data.put(links.arrival(self.local[0], self.remote[0], len(data), self._rng), data)
        peer._notify()
        if peer._closed:
            peer._data.items.clear()
            if data:
                peer._reset_peer(arrives)

    def _reset_peer(self, at: float, *, overtaking: bool = False) -> None:
        """Sends a reset at the time `at`; unless it overtakes, it arrives after all that is under way."""
        peer = self.peer
        latency = math.inf if self._links.cut(*self._hosts()) else self._links.link(*self._hosts()).latency
        peer._control.put(at + latency if overtaking else max(at + latency, peer._data.last), _RESET)
        peer._notify()

    def _take(self, max_bytes: int) -> bytes:
        data = bytes(self._unread[:max_bytes])
        del self._unread[:max_bytes]
        self._read_since += len(data)
        if self._read_since >= self._links.window // 2 and not self.peer._closed:
            self.peer._control.put(self._links.arrival(*self._hosts(), 0, None), self._read_since)
            self.peer._notify()
            self._read_since = 0
        return data

    def _settle(self) -> None:
        """Takes note of all that has arrived by now."""
        if self._broken or self._closed:
            return
        now, broken_at = trio.current_time(), math.inf
        for at, room in self._control.due(now):
            if room == _RESET:
                broken_at = min(at, broken_at)
            self._room += room
        reason = f"the connection was reset by {self.remote[0]}"
        if self._fails_at <= min(now, broken_at):
            broken_at, reason = self._fails_at, f"{self.remote[0]} couldn't be reached for {self._links.give_up:g} s"
        for _, data in self._data.due(min(now, broken_at)):
            self._unread += data
            self._eof_received = self._eof_received or data == _END
        if broken_at <= now:
            self._end(broken=reason)

    def _end(self, broken: str = "") -> None:
        self._broken, self._closed = broken, not broken
        self._data.items.clear()
        self._links._ends.pop(self, None)
        self._notify()

    def _kill(self, reason: str) -> None:
        self._settle()
        if not (self._closed or self._broken):
            self._reset_peer(trio.current_time(), overtaking=True)
            self._end(broken=reason)

    def _stall(self, now: float) -> None:
        self._settle()
        if self._fails_at == math.inf:
            self._fails_at = now + self._links.give_up
        self._data.change(now, math.inf)
        self._control.change(now, math.inf)
        self._notify()

    def _resume(self, now: float) -> None:
        self._settle()
        if self._fails_at < math.inf and not self._broken:
            self._fails_at, again = math.inf, now + self._links.link(*self._hosts()).latency
            self._data.change(now, again)
            self._control.change(now, again)
        self._notify()

    def _hosts(self) -> tuple[str, str]:
        return self.local[0], self.remote[0]

    def _need_open(self) -> None:
        self._settle()
        if self._closed or self._eof_sent:
            raise trio.ClosedResourceError("this end was closed for sending")
        if self._broken:
            raise trio.BrokenResourceError(self._broken)

    async def _has_room(self) -> None:
        self._need_open()
        while not self._room:
            await self._wait()
            self._need_open()

    def _notify(self) -> None:
        wake, self._wake = self._wake, trio.Event()
        wake.set()

    async def _wait(self) -> None:
        """Returns when something arrives or happens to this end; now and then too early."""
        deadline = min(self._data.next_at(), self._control.next_at(), self._fails_at)
        with trio.CancelScope(deadline=deadline):
            await self._wake.wait()

    @contextmanager
    def _alone(self, flag: str) -> Iterator[None]:
        if getattr(self, flag):
            raise trio.BusyResourceError("another task is at it")
        setattr(self, flag, True)
        try:
            yield
        finally:
            setattr(self, flag, False)
