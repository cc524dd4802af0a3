"""The heartbeat's trio shell: HEARTBEAT answers, `watch` asks. What it means is `engine`'s.

    watcher                                     peer
       |---- Beat(1) ----------------------------->|     one long-lived stream for each direction,
       |<--- Beat(1) ------------------------------|     one beat an interval
       |     ...                                   |
    stream fails: a new one when the next beat is due; the peer doesn't speak it: not watched

A watched peer costs one task, and in each interval one small frame each way and one timer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import trio

from protocols.base import Network, NotSupported, Protocol, ProtocolError, Stream, StreamError, StreamTimeout
from protocols.heartbeat.engine import MAX_INTERVAL, Change, Echo, Monitor
from protocols.heartbeat.wire import MAX_FRAME, PROTOCOL_ID, Beat

# a stream without a beat for twice the longest interval is forgotten; a second one may be there while the first ends
HEARTBEAT = Protocol(PROTOCOL_ID, max_frame=MAX_FRAME, timeout=2 * MAX_INTERVAL, streams_per_peer=2)

Tell = Callable[[Change], None]


@HEARTBEAT.serve
async def answer(stream: Stream) -> None:
    """Sends back each beat as it came, until the peer ends the stream. Raises ProtocolError for too many."""
    echo = Echo(trio.current_time())
    async for frame in stream:
        await stream.send(echo.receive(frame, trio.current_time()))


async def watch(network: Network, peer: str, monitor: Monitor, tell: Tell) -> None:
    """Watches an admitted peer and tells what changes, at once and synchronously. Returns when the peer is lost, or
    doesn't speak the protocol; whoever closes the connection cancels.
    """
    while True:
        due = max(monitor.next_at, trio.current_time())
        await trio.sleep_until(due)
        _poll(monitor, due, tell)
        if monitor.lost:
            return
        try:
            with trio.CancelScope(deadline=monitor.lost_at) as opening:
                async with network.stream(peer, HEARTBEAT) as stream:
                    opening.deadline = math.inf
                    await _beat(stream, monitor, tell)
                    return
        except NotSupported:
            return
        except (StreamError, ProtocolError) as error:
            _tell(tell, monitor.failed(trio.current_time(), silent=isinstance(error, StreamTimeout)))
        # an opening that took too long leaves it to `poll` to say that the peer is lost


async def _beat(stream: Stream, monitor: Monitor, tell: Tell) -> None:
    """Beats on one stream until the peer is lost. Raises StreamError, ProtocolError."""
    while not monitor.lost:
        beat = monitor.take(trio.current_time())
        if beat is not None:
            with trio.move_on_at(monitor.lost_at):
                await stream.send(beat.encode())
        due = max(monitor.next_at, trio.current_time())
        with trio.move_on_at(due):
            echo = Beat.decode(await stream.receive())
            _tell(tell, monitor.echoed(echo, trio.current_time()))
        _poll(monitor, due, tell)
    await stream.reset()


def _poll(monitor: Monitor, due: float, tell: Tell) -> None:
    now = trio.current_time()
    _tell(tell, monitor.poll(now, max(0.0, now - due)))


def _tell(tell: Tell, changes: Iterable[Change]) -> None:
    for change in changes:
        tell(change)
