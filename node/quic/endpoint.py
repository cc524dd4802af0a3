"""One UDP socket and all QUIC connections on it, those that come in and those that are dialled from it.

    reader: socket --datagrams--> connection, by its ID --> its answers, once for all that came together
                              \\-> a stranger's Initial --> Retry if there are many --> `accept`
    sender: connections that streams wrote to; waits while the socket is full
    clock:  one deadline for each connection, the earliest first

No work is spent on a stranger's first datagram but to look at its header: `accept` takes a place for it first, and then
calls `handshake`. While more than a few strangers haven't shown that they are where they say, the others have to (by
Retry), so that nobody fills the places of others with forged addresses.

What goes wrong with one connection ends that one: all of them share these tasks.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import trio
from libp2p.peer.id import ID

from node.hostport import as_multiaddr
from node.log import get_logger
from node.peers.limits import ip_group
from node.quic.configurations import Configurations
from node.quic.connection import QuicConnection
from node.quic.datagrams import MAX_RUN, Address, Datagrams, Local
from node.quic.guard import QuicError, is_panic
from node.quic.link import Link
from node.quic.native import Native, refusal
from node.quic.packets import Resets, Tokens, destination, is_long, other_version, parse_initial
from node.tasks import TaskStatus

# strangers who haven't shown that they are where they say
MAX_UNPROVEN = 8
MAX_UNPROVEN_PER_IP = 2
# strangers' connections that nobody has taken on yet
MAX_WAITING = 64
# reads in one turn of the event loop, each of up to 64 datagrams, and datagrams that one connection sends in one
READS = 16
SENDS = 512
# seconds that lie between two ticks of one connection
GRAIN = 0.001
# answers to strangers in one turn of the event loop, and how many of them may be stateless resets
ANSWERS = 64
RESETS = 8

log = get_logger("quic")


class Endpoint:
    """A socket in use. `run` owns its tasks; `accept` is called with each connection that a client opens."""

    def __init__(
        self,
        socket: Datagrams,
        configurations: Configurations,
        limits: dict[str, int],
        accept: Callable[[QuicConnection], None] | None = None,
    ) -> None:
        self.socket = socket
        self.configurations = configurations
        self.limits = limits
        self.accept = accept
        self.connections: set[Link] = set()
        self.retries = 0
        self._by_cid: dict[bytes, Link] = {}
        self._cids: dict[Link, set[bytes]] = {}
        self._by_addr: dict[Address, set[Link]] = {}
        self._tokens = Tokens()
        self._resets = Resets(configurations.reset_key, str(socket.address[:2]))
        self._waiting: set[Link] = set()
        self._unproven: dict[Link, str] = {}
        self._unproven_by_group: Counter[str] = Counter()
        self._answers = self._resets_left = 0
        self._dirty: dict[Link, None] = {}
        self._work = trio.Event()
        self._kept: list[tuple[list[bytes], Address, Local | None]] = []  # runs that the socket didn't take
        self._heap: list[tuple[float, int, Link]] = []
        self._count = itertools.count()
        self._sooner = trio.Event()
        self._waiting_until = math.inf
        self._scope = trio.CancelScope()
        self._closing = False

    async def run(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Returns when it was closed and its last connection has ended; closes the socket then."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._send)
                    nursery.start_soon(self._keep_time)
                    task_status.started()
        finally:
            for conn in list(self.connections):
                conn.close_nowait()
                self.forget(conn)
            self.socket.close()

    def close(self) -> None:
        """Takes no more strangers, and ends with the last connection. Idempotent."""
        self.accept = None
        self._closing = True
        self._end_if_idle()

    def stop(self) -> None:
        """Ends at once."""
        self._scope.cancel()

    async def dial(self, addr: Address, peer: ID) -> QuicConnection:
        """A secured connection with that peer. Raises ProtocolError; the deadline is the caller's."""
        conn = QuicConnection.dialled(self, addr, peer, **self.limits)
        self._add(conn)
        done = False
        try:
            await conn.handshake()
            done = True
        finally:
            if not done:
                conn.close_nowait()
        return conn

    # what comes

    async def _read(self) -> None:
        while True:
            await self.socket.wait_readable()
            now = trio.current_time()
            touched: dict[Link, None] = {}
            self._answers, self._resets_left = ANSWERS, RESETS
            for _ in range(READS):
                try:
                    got = self.socket.receive()
                except OSError as error:
                    log.debug("receive_failed", error=error.strerror)
                    continue
                if got is None:
                    break
                self._deliver(*got, now, touched)
            for conn in touched:
                self._alone(conn, conn.flush)

    def _alone(self, conn: Link, step: Callable[..., None], *args: Any) -> None:
        """Does something for one connection: whatever comes of it, the others go on."""
        try:
            step(*args)
        except BaseException as error:
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            log.error("quic_connection_failed", addr=as_multiaddr(*conn.addr[:2]), exc_info=error)
            conn.fail(error)

    def _deliver(
        self, data: bytes, segment: int, addr: Address, local: Local | None, now: float, touched: dict[Link, None]
    ) -> None:
        cid = destination(data)
        if len(data) > segment and not all(
            destination(data[at : at + 32]) == cid for at in range(segment, len(data), segment)
        ):
            # one sender's, for several connections
            for at in range(0, len(data), segment):
                self._deliver(data[at : at + segment], segment, addr, local, now, touched)
            return
        conn = self._by_cid.get(cid)
        if conn is None:
            first, data = data[:segment], data[segment:]
            try:
                self._meet(first, addr, local, touched)
            except Exception as error:  # a stranger's bytes, and nobody's connection yet
                log.error("quic_stranger_failed", addr=as_multiaddr(*addr[:2]), exc_info=error)
                return
            conn = self._by_cid.get(cid)
            if conn is None or not data:
                return
        conn.local = local
        self._alone(conn, conn.receive, data, segment, addr, now)
        touched[conn] = None

    def _meet(self, data: bytes, addr: Address, local: Local | None, touched: dict[Link, None]) -> None:
        """A stranger's datagram. Tokens are checked by the time of the same clock that made them."""
        now = trio.current_time()
        if not is_long(data):
            self._meet_short(data, addr, local, now)
            return
        if self.accept is None:
            return
        initial = parse_initial(data)
        if initial is None:
            self._answer(other_version(data), addr, local)
            return
        group = ip_group(addr[0])
        original = self._tokens.check(initial, addr[:2], now) if initial.token else None
        if original is None and self._is_crowded(group):
            self.retries += 1
            self._answer(self._tokens.retry(initial, addr[:2], now), addr, local)
            return
        if len(self._waiting) >= MAX_WAITING:
            self._waiting = {conn for conn in self._waiting if conn.waits and conn in self.connections}
            if len(self._waiting) >= MAX_WAITING:
                return
        if original is None:
            conn = QuicConnection.accepted(self, addr, initial.destination, None, data, **self.limits)
            self._unproven[conn] = group
            self._unproven_by_group[group] += 1
        else:
            conn = QuicConnection.accepted(self, addr, original, initial.destination, data, **self.limits)
        conn.local = local
        self._add(conn)
        self._waiting.add(conn)
        self.register(initial.destination, conn)
        self.accept(conn)

    def _meet_short(self, data: bytes, addr: Address, local: Local | None, now: float) -> None:
        """A datagram of a connection that one of the two sides doesn't know any more."""
        for conn in list(self._by_addr.get(addr[:2], ())):
            # the peer may have been restarted: that says a token at the end, which qh3 knows
            self._alone(conn, conn.receive_reset, data, addr, now)
        if self.accept is not None and self._resets_left > 0:
            self._resets_left -= 1
            self._answer(self._resets.answer(data), addr, local)

    def _is_crowded(self, group: str) -> bool:
        return len(self._unproven) >= MAX_UNPROVEN or self._unproven_by_group[group] >= MAX_UNPROVEN_PER_IP

    def _answer(self, data: bytes | None, addr: Address, local: Local | None) -> None:
        if data is not None and self._answers > 0 and not self._kept:
            self._answers -= 1
            self.socket.send([data], addr, local)

    # what goes

    def transmit(self, conn: Link, native: Native) -> bool:
        if self._kept:
            return True
        now = trio.current_time()
        run: list[bytes] = []
        run_addr: Address = ()
        run_size = 0
        for _ in range(SENDS):
            found = native.next_datagram(now)
            if found is None:
                if run:
                    self._put(run, run_addr, conn.local)
                return False
            data, addr = found
            size = len(data)
            if run and (
                size > len(run[0]) or addr != run_addr or len(run) >= self.socket.max_run or run_size + size > MAX_RUN
            ):
                self._put(run, run_addr, conn.local)
                run, run_size = [], 0
                if self._kept:
                    self._kept.append(([data], addr, conn.local))
                    return True
            run.append(data)
            run_addr = addr
            run_size += size
            if size < len(run[0]):
                self._put(run, run_addr, conn.local)
                run, run_size = [], 0
                if self._kept:
                    return True
        if run:
            self._put(run, run_addr, conn.local)
        return True

    def _put(self, run: list[bytes], addr: Address, local: Local | None) -> None:
        if not self.socket.send(run, addr, local):
            self._kept.append((run, addr, local))
            self._work.set()

    def flush_soon(self, conn: Link) -> None:
        self._dirty[conn] = None
        self._work.set()

    async def _send(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            while self._kept:
                if self.socket.send(*self._kept[0]):
                    del self._kept[0]
                else:
                    await self.socket.wait_writable()
            dirty, self._dirty = self._dirty, {}
            for conn in dirty:
                self._alone(conn, conn.flush)
            await trio.lowlevel.checkpoint()

    # time

    def arm(self, conn: Link) -> None:
        self._arm(conn, conn.deadline)

    def _arm(self, conn: Link, deadline: float) -> None:
        if deadline < conn.armed_at and conn in self.connections:
            conn.armed_at = deadline
            heapq.heappush(self._heap, (deadline, next(self._count), conn))
            if deadline < self._waiting_until:
                self._sooner.set()
            if len(self._heap) > 4 * len(self.connections) + 64:
                self._tidy()

    def _tidy(self) -> None:
        """Leaves one entry for each connection: earlier deadlines leave later ones behind."""
        self._heap = [(conn.armed_at, next(self._count), conn) for conn in self.connections if conn.armed_at < math.inf]
        heapq.heapify(self._heap)

    async def _keep_time(self) -> None:
        while True:
            now = trio.current_time()
            while self._heap and self._heap[0][0] <= now:
                at, _, conn = heapq.heappop(self._heap)
                if conn.armed_at != at or conn not in self.connections:
                    continue
                conn.armed_at = math.inf
                self._alone(conn, self._tick, conn, now)
            self._waiting_until = self._heap[0][0] if self._heap else math.inf
            with trio.move_on_at(self._waiting_until):
                await self._sooner.wait()
            self._sooner = trio.Event()

    def _tick(self, conn: Link, now: float) -> None:
        if conn.deadline <= now:
            conn.tick(now)
        # whatever it says: it isn't served for ever in one turn
        self._arm(conn, max(conn.deadline, now + GRAIN))

    # connections

    def _add(self, conn: Link) -> None:
        self.connections.add(conn)
        self._by_addr.setdefault(conn.addr[:2], set()).add(conn)
        self._cids[conn] = set()

    def register(self, cid: bytes, conn: Link) -> None:
        if conn in self.connections:
            self._by_cid[cid] = conn
            self._cids[conn].add(cid)

    def unregister(self, cid: bytes) -> None:
        conn = self._by_cid.pop(cid, None)
        if conn is not None:
            self._cids[conn].discard(cid)

    def proven(self, conn: Link) -> None:
        group = self._unproven.pop(conn, None)
        if group is not None:
            self._unproven_by_group[group] -= 1
            if not self._unproven_by_group[group]:
                del self._unproven_by_group[group]

    def reset_token(self, cid: bytes) -> bytes:
        return self._resets.token(cid)

    def refuse(self, first: bytes, addr: Address, local: Local | None, original: bytes, retried: bytes | None) -> None:
        try:
            answer = refusal(self.configurations, first, addr, original, retried, trio.current_time())
        except QuicError as error:
            log.debug("refusal_failed", addr=as_multiaddr(*addr[:2]), error=str(error))
            return
        if answer is not None and not self._kept:
            self.socket.send([answer], addr, local)

    def forget(self, conn: Link) -> None:
        if conn not in self.connections:
            return
        self.connections.discard(conn)
        for cid in self._cids.pop(conn):
            if self._by_cid.get(cid) is conn:
                del self._by_cid[cid]
        self._dirty.pop(conn, None)
        self._waiting.discard(conn)
        same = self._by_addr[conn.addr[:2]]
        same.discard(conn)
        if not same:
            del self._by_addr[conn.addr[:2]]
        conn.armed_at = math.inf
        self.proven(conn)
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._closing and not self.connections:
            self._scope.cancel()
