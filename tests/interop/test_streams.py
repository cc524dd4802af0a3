"""Streams of plain bytes between a Python node and each peer in another language, over real sockets: a lot of bytes,
a lot of streams, half-close, resets, windows.

A peer joins by a row in OTHERS; it has the commands echo, reset and was-reset, and serves what `interop.rawbytes` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import trio

from interop.peer import Peer
from interop.rawbytes import (
    BYTES,
    Pattern,
    at_once,
    echo_pattern,
    receive_pattern,
    reset_mine,
    send_pattern,
    was_reset,
)
from node.names import parse_peer_id
from tests.interop.streaming import Sending, after_the_end, connected, echo, protocol_of_bytes, telling

MIB = 1 << 20
WINDOW = 256 * 1024  # Yamux's first; it grows only for those who read
STALL = 1.0  # seconds that somebody doesn't read
MANY_TIMEOUT = 25


@dataclass(frozen=True)
class Other:
    """How a peer is started, and how much it takes at once.

    stalled: bytes of an echo whose reader stalls, several times what the peer takes meanwhile.
    most: streams at once on a connection, as it is by default; many: the flags with which it takes 1,000.
    """

    start: Callable[..., Peer]
    flags: tuple[str, ...] = ()
    most: int = 1000
    many: tuple[str, ...] = ()
    stalled: int = 8 * MIB


OTHERS = {
    "go": Other(Peer.go, flags=("--handshake=false",)),
    # rust-libp2p's muxer ends the whole connection at the 513th stream, whichever side opens it; who wants more gets
    # an older muxer
    "rust": Other(
        Peer.rust,
        flags=("--handshake=false",),
        most=500,
        many=("--max-streams", "1100"),
    ),
    # js-libp2p keeps up to 16 MiB of a stream that it doesn't read
    "js": Other(Peer.js, flags=("--handshake=false",), stalled=64 * MIB),
}

pytestmark = [
    pytest.mark.interop,
    pytest.mark.usefixtures("no_traceback"),
    pytest.mark.parametrize("name", OTHERS),
]

either_asks = pytest.mark.parametrize("asker", ["python", "other"])


@pytest.fixture
def joined(here, built):
    """`async with joined(name) as (local, other)`: a node that serves `serving`, and a peer, connected."""

    def join(name, *flags, **settings):
        built(name)
        started = OTHERS[name].start("--timeout=20s", *OTHERS[name].flags, *flags)
        return connected(here, started, admission="open", **settings)

    return join


# many bytes, many streams


@pytest.mark.parametrize(("dialler", "asker"), [("python", "other"), ("other", "python")])
async def test_echo_of_a_hundred_mebibytes(joined, name, dialler, asker):
    async with joined(name, dialler=dialler) as (local, other):
        await echo(asker, local, other, 100 * MIB)


@either_asks
async def test_a_thousand_streams_at_once(joined, name, asker):
    # by default a vouch node takes 256
    flags = (*OTHERS[name].many, f"--timeout={MANY_TIMEOUT}s")
    async with joined(name, *flags, max_streams=1024) as (local, other):
        with trio.fail_after(MANY_TIMEOUT):
            await echo(asker, local, other, 64, 1000)
            await echo(asker, local, other, 64)


@either_asks
async def test_as_many_streams_at_once_as_it_takes_by_default(joined, name, asker):
    async with joined(name, max_streams=1024) as (local, other):
        await echo(asker, local, other, 64, OTHERS[name].most)
        await echo(asker, local, other, 64)


async def test_streams_opened_in_one_breath(joined, name):
    async def one(k):
        pattern = Pattern(k, 64)
        async with local.node.stream(other.peer_id, BYTES) as stream:
            await send_pattern(stream, pattern)
            await receive_pattern(stream, pattern)

    async with joined(name, max_streams=1024) as (local, other):
        await at_once(partial(one, k) for k in range(OTHERS[name].most))


@either_asks
async def test_more_streams_than_our_default_are_reset_and_nothing_else(joined, name, asker):
    async with joined(name) as (local, other):
        most = local.node.config.max_streams
        await echo(asker, local, other, 64, most // 2)
        if asker == "other":
            reply = await other.call("echo", local.peer_id, "64", str(most + 50), check=False)
            assert not reply["ok"]
        await echo(asker, local, other, 64, most // 2)


# ends and resets


async def test_half_closed_stream_still_receives(joined, name):
    async with joined(name) as (local, other), local.node.stream(other.peer_id, BYTES) as stream:
        pattern = Pattern(3, 200_000)
        await send_pattern(stream, pattern)  # and its end, before a byte is read
        await receive_pattern(stream, pattern)


async def test_half_closed_by_the_other_still_receives(joined, name):
    async with joined(name, serving=[protocol_of_bytes(after_the_end)]) as (local, other):
        await echo("other", local, other, 200_000)


async def test_reset_by_the_node(joined, name):
    async with joined(name) as (local, other):
        await reset_mine(local.node, other.peer_id)
        await other.call("was-reset", local.peer_id)


async def test_reset_by_the_other(joined, name):
    ended = []
    async with joined(name, serving=[telling(ended)]) as (local, other):
        await was_reset(local.node, other.peer_id)
        await other.call("reset", local.peer_id)
        assert ended == ["reset", "end"]


# windows


def unread(local, other):
    """The bytes that wait for each of the streams with the other."""
    muxer = local.node.swarm.connection(parse_peer_id(other.peer_id)).muxed_conn
    return [stream.size for stream in muxer.session.streams.values()]


async def test_node_that_does_not_read_is_not_flooded(joined, name):
    async with joined(name) as (local, other), local.node.stream(other.peer_id, BYTES) as stream:
        pattern = Pattern(0, OTHERS[name].stalled)
        sending = Sending(stream, pattern)

        async def stall_and_receive():
            await trio.sleep(STALL)
            # what comes back has filled the window, so the other has stopped reading, and we sending
            assert max(unread(local, other)) <= WINDOW
            assert sending.sent < pattern.length // 2
            at_first = sending.sent
            await echo_pattern(local.node, other.peer_id, 2 * MIB)
            await other.call("echo", local.peer_id, str(2 * MIB), "1")
            assert sending.sent == at_first
            await receive_pattern(stream, pattern)

        await at_once([sending.send, stall_and_receive])


async def test_node_that_does_not_serve_yet_is_not_flooded(joined, name):
    stalled: list[trio.Event] = []

    async def stall_first(stream):
        if not stalled:
            stalled.append(trio.Event())
            await stalled[0].wait()
        async for data in stream:
            await stream.send(data)

    async with joined(name, serving=[protocol_of_bytes(stall_first)]) as (local, other), trio.open_nursery() as nursery:
        nursery.start_soon(echo, "other", local, other, OTHERS[name].stalled)
        await trio.sleep(STALL)
        assert len(stalled) == 1
        assert WINDOW - 100 < max(unread(local, other)) <= WINDOW  # what agreed on the protocol was read
        await echo_pattern(local.node, other.peer_id, 2 * MIB)
        assert max(unread(local, other)) <= WINDOW
        stalled[0].set()
