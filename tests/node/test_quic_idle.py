"""QUIC connections on which nobody says anything, in simulated time: two endpoints on a line without a socket."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p.peer.id import ID

from node.identity import Identity
from node.quic import connection, link
from node.quic.configurations import Configurations, Limits
from node.quic.endpoint import Endpoint
from node.upgrade.certificate import make_credentials

IDENTITIES = [Identity.generate() for _ in range(2)]
LIMITS = {"max_streams": 16, "max_unread": 1 << 20, "max_unsent": 1 << 20}
LATENCY = 0.02
IDLE = 75.0


class Line:
    """Stands where `Datagrams` would, one end of a line."""

    max_run = 1

    def __init__(self, port: int) -> None:
        self.address = ("127.0.0.1", port)
        self.far: Line = self
        self.sent = 0
        self.cut = False
        self._arriving: deque[tuple[float, bytes]] = deque()
        self._news = trio.Event()

    def send(self, run, addr, local=None) -> bool:
        self.sent += len(run)
        if not self.cut:
            self.far._arriving += [(trio.current_time() + LATENCY, data) for data in run]
            self.far._news.set()
        return True

    async def wait_readable(self) -> None:
        while not self._arriving:
            self._news = trio.Event()
            await self._news.wait()
        await trio.sleep_until(self._arriving[0][0])

    def receive(self):
        if not self._arriving or self._arriving[0][0] > trio.current_time():
            return None
        data = self._arriving.popleft()[1]
        return data, len(data), self.far.address, None

    def close(self) -> None:
        pass


@asynccontextmanager
async def connected(timeout: float = 30.0, their_timeout: float = 30.0):
    """Who dialled, who was dialled, and the two ends of their line."""
    lines = [Line(1111), Line(2222)]
    lines[0].far, lines[1].far = lines[1], lines[0]
    accepted, came = [], trio.Event()

    def accept(conn):
        accepted.append(conn)
        nursery.start_soon(conn.handshake)
        came.set()

    endpoints = [
        Endpoint(
            line, Configurations(make_credentials(identity.key_pair()), Limits(idle_timeout=seconds)), LIMITS, accept
        )
        for line, identity, seconds in zip(lines, IDENTITIES, (timeout, their_timeout), strict=True)
    ]
    async with trio.open_nursery() as nursery:
        for endpoint in endpoints:
            await nursery.start(endpoint.run)
        conn = await endpoints[0].dial(lines[1].address, ID.from_pubkey(IDENTITIES[1].key_pair().public_key))
        await came.wait()
        await trio.sleep(1)
        yield conn, accepted[0], lines
        for endpoint in endpoints:
            endpoint.stop()


@pytest.mark.parametrize("timeouts", [(30.0, 30.0), (30.0, 5.0), (5.0, 30.0)])
async def test_idle_connections_stay(autojump_clock, timeouts):
    async with connected(*timeouts) as (ours, theirs, lines):
        before = sum(line.sent for line in lines)
        await trio.sleep(IDLE)
        assert not ours.lost, ours.reason
        assert not theirs.lost, theirs.reason
        # a ping of one of the two and its answer, for each third of the shorter timeout
        assert sum(line.sent for line in lines) - before <= 4 * (link.BEATS * IDLE / min(timeouts) + 1)


async def test_they_would_not_without_pings(autojump_clock, monkeypatch):
    monkeypatch.setattr(link, "BEATS", 0.5)
    async with connected() as (ours, theirs, _):
        await trio.sleep(IDLE)
        assert ours.lost
        assert theirs.lost


async def test_a_line_that_is_cut_is_noticed(autojump_clock):
    """After the idle timeout, which the first ping without an answer begins anew: one of two beats sends it."""
    async with connected() as (ours, theirs, lines):
        for line in lines:
            line.cut = True
        await trio.sleep(30 + 2 * 30 / link.BEATS + 1)
        assert ours.reason == theirs.reason == "the peer was silent"


async def test_a_stream_that_was_reset_and_is_not_finished_is_reset_again(autojump_clock, monkeypatch):
    monkeypatch.setattr(connection, "LINGER", 5.0)
    async with connected() as (ours, _, lines):
        stream = await ours.open_stream()
        await stream.write(b"open")
        for line in lines:
            line.cut = True
        stream.reset_nowait()
        said = []
        monkeypatch.setattr(ours, "say_reset", said.append)
        await trio.sleep(25)
        assert stream in said
