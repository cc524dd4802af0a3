"""Faults that need real sockets and a process of its own. An honest peer at 127.0.0.2 is served throughout.

Where docs/upstream.md says that py-libp2p has the fault, a `stock` test shows it: the day that one of those fails, a
guard can go.
"""

from __future__ import annotations

import os
import random
from contextlib import suppress

import pytest
import trio

from node.identity import Identity
from node.upgrade import multistream
from node.upgrade.multistream import encode_line
from protocols.framing import encode_uvarint
from protocols.handshake.wire import PROTOCOL_ID
from tests.faults.conftest import Honest, Target, at_least, dial_and_echo, served_throughout
from tests.faults.target import ECHO, RAISE
from tests.nodes import eventually
from tests.rawpeer import SYN, WINDOW_UPDATE, RawPeer, open_tcp, secure

MIB = 1024 * 1024
NETWORK = b"vouch-local"


# 300 silent sockets from one address


async def hold_silent(addr: str, count: int, nursery: trio.Nursery) -> list[trio.SocketStream]:
    sockets = []
    for _ in range(count):
        sockets.append(await open_tcp(addr))
    return sockets


async def close_all(sockets: list[trio.SocketStream]) -> None:
    for socket in sockets:
        await trio.aclose_forcefully(socket)


async def test_300_silent_sockets_from_one_address_leave_others_served(vouch_target: Target):
    async with trio.open_nursery() as nursery, served_throughout(vouch_target) as honest:
        sockets = await hold_silent(vouch_target.addr, 300, nursery)
        await at_least(honest, honest.served + 5)
        assert vouch_target.state()["half_open"] <= 8 + 1, "eight for one address, and the honest one"
        await close_all(sockets)


async def test_stock_refuses_honest_peers_behind_300_silent_sockets(stock_target: Target):
    async with trio.open_nursery() as nursery:
        await dial_and_echo(stock_target.addr)
        sockets = await hold_silent(stock_target.addr, 300, nursery)
        with pytest.raises(Exception, match=r"."), trio.fail_after(5):
            await dial_and_echo(stock_target.addr)
        await close_all(sockets)


# random bytes at every stage of the upgrade

STAGES = ["tcp", "multistream", "noise", "noise, after its first message", "muxer", "yamux", "hello", "streams"]


async def bring_to(stage: str, addr: str, garbage: bytes, nursery: trio.Nursery) -> None:
    """Goes through the upgrade properly up to `stage`, then sends garbage, and waits for nothing."""
    if stage in ("tcp", "multistream", "noise"):
        socket = await open_tcp(addr)
        if stage != "tcp":
            await socket.send_all(encode_line(multistream.HEADER))
        if stage == "noise":
            await socket.send_all(encode_line("/noise"))
        await send_quietly(socket.send_all, garbage)
        await socket.aclose()
    elif stage == "noise, after its first message":
        socket = await open_tcp(addr)
        await socket.send_all(encode_line(multistream.HEADER) + encode_line("/noise"))
        await socket.send_all((32).to_bytes(2, "big") + os.urandom(32))
        await send_quietly(socket.send_all, len(garbage).to_bytes(2, "big") + garbage)
        await socket.aclose()
    elif stage == "muxer":
        conn = await secure(await open_tcp(addr), addr, Identity.generate())
        await send_quietly(conn.write, garbage)
        await conn.close()
    else:
        peer = await RawPeer.dial(addr, nursery)
        if stage == "hello":
            stream = await peer.open()
            await peer.propose(stream, PROTOCOL_ID)
            await peer.agreed(stream, PROTOCOL_ID)
            await send_quietly(lambda data: peer.data(stream, data), garbage)
        elif stage == "streams":
            await peer.admitted(await peer.shake(NETWORK))
            for protocol in ("/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", ECHO, "/nothing"):
                stream = await peer.open()
                await peer.propose(stream, protocol)
                await send_quietly(lambda data, stream=stream: peer.data(stream, data), garbage)
            stream = await peer.open()
            await send_quietly(lambda data: peer.data(stream, data), garbage)
        else:
            await send_quietly(peer.conn.write, garbage)
        await peer.close()


async def send_quietly(send, data: bytes) -> None:
    """Sends to whoever may have hung up already."""
    with suppress(Exception):  # the other side may end the connection at any byte, in any way
        await send(data)


@pytest.mark.parametrize("stage", STAGES)
async def test_random_bytes_at_every_stage_of_the_upgrade_harm_nobody_else(vouch_target: Target, stage: str):
    rng = random.Random(stage)
    async with trio.open_nursery() as nursery, served_throughout(vouch_target):
        for _ in range(12):
            await bring_to(stage, vouch_target.addr, rng.randbytes(rng.choice([1, 12, 100, 5000])), nursery)
        nursery.cancel_scope.cancel()
    await eventually(lambda: vouch_target.state()["slots"] == 0)


# a length of 2^29 before authentication


async def grown(target: Target) -> int:
    """Bytes of memory that a length prefix of 2^29, and as much of the rest as the target takes, costs it."""
    await dial_and_echo(target.addr)
    before = target.state()["memory"]
    socket = await open_tcp(target.addr)
    await socket.send_all(encode_uvarint(2**29))
    chunk = bytes(MIB)
    with trio.move_on_after(10):
        for _ in range(48):
            try:
                await socket.send_all(chunk)
            except trio.BrokenResourceError:
                break
    memory: int = target.state()["memory"]
    await trio.aclose_forcefully(socket)
    return memory - before


async def test_a_length_of_2_29_costs_less_than_a_mebibyte(vouch_target: Target):
    async with served_throughout(vouch_target):
        pass
    assert await grown(vouch_target) < MIB
    async with served_throughout(vouch_target):
        pass


async def test_stock_buffers_what_a_length_of_2_29_announces(stock_target: Target):
    assert await grown(stock_target) > 16 * MIB


# a handler that raises


async def test_a_handler_that_raises_ends_its_stream_and_nothing_else(vouch_target: Target):
    async with trio.open_nursery() as nursery, served_throughout(vouch_target):
        peer = await RawPeer.dial(vouch_target.addr, nursery)
        await peer.admitted(await peer.shake(NETWORK))
        for _ in range(3):
            stream = await peer.open()
            await peer.propose(stream, RAISE)
            await peer.until(lambda stream=stream: peer.reset(stream))
        stream = await peer.open()
        await peer.propose(stream, ECHO)
        await peer.agreed(stream, ECHO)
        await peer.data(stream, b"the same connection")
        await peer.until(lambda: peer.received(stream).endswith(b"the same connection"))
        nursery.cancel_scope.cancel()


async def test_stock_stops_when_a_handler_raises(stock_target: Target):
    async with trio.open_nursery() as nursery:
        peer = await RawPeer.dial(stock_target.addr, nursery)
        stream = await peer.open()
        await peer.propose(stream, RAISE)
        await eventually(lambda: not stock_target.alive)
        nursery.cancel_scope.cancel()


# slots


async def test_1000_connections_one_after_another_leave_no_slot_taken(vouch_target: Target):
    async with trio.open_nursery() as nursery, served_throughout(vouch_target):
        for number in range(1000):
            if number % 4:
                await (await open_tcp(vouch_target.addr)).aclose()
            elif number % 8:
                conn = await secure(await open_tcp(vouch_target.addr), vouch_target.addr, Identity.generate())
                await conn.close()
            else:
                peer = await RawPeer.dial(vouch_target.addr, nursery)
                await peer.admitted(await peer.shake(NETWORK))
                await peer.close()
        nursery.cancel_scope.cancel()
    await eventually(lambda: vouch_target.state()["slots"] == 0)
    assert vouch_target.state() | {"memory": 0} == {"slots": 0, "inbound": 0, "half_open": 0, "memory": 0}


async def test_stock_frees_no_slot_when_a_connection_ends(stock_target: Target):
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            peer = await RawPeer.dial(stock_target.addr, nursery)
            await peer.close()
            await peer.ended.wait()
        await dial_and_echo(stock_target.addr)
        assert stock_target.state()["slots"] >= 6
        nursery.cancel_scope.cancel()


# the muxer


async def test_a_peer_that_overruns_its_window_loses_its_connection_and_costs_no_memory(vouch_target: Target):
    async with trio.open_nursery() as nursery, served_throughout(vouch_target):
        peer = await RawPeer.dial(vouch_target.addr, nursery)
        await peer.admitted(await peer.shake(NETWORK))
        stream = await peer.open()
        await peer.propose(stream, ECHO)
        await peer.agreed(stream, ECHO)
        before = vouch_target.state()["memory"]
        # we take none of the echo: once our window is full the handler stops reading, and then its own window fills
        with trio.move_on_after(30):
            while not peer.ended.is_set():
                await send_quietly(lambda data: peer.data(stream, data), bytes(MIB))
        assert peer.ended.is_set()
        assert vouch_target.state()["memory"] - before < 32 * MIB
        nursery.cancel_scope.cancel()


async def test_10000_streams_at_once_are_mostly_reset(vouch_target: Target):
    async with trio.open_nursery() as nursery, served_throughout(vouch_target) as honest:
        peer = await RawPeer.dial(vouch_target.addr, nursery)
        await peer.admitted(await peer.shake(NETWORK))
        for number in range(10_000):
            await send_quietly(lambda _, number=number: peer.send(WINDOW_UPDATE, SYN, 2 * number + 11), b"")
        await at_least(honest, honest.served + 3)
        nursery.cancel_scope.cancel()


def test_the_honest_peer_would_notice():
    """The proof can fail: an honest peer whose target isn't there reports failures."""

    async def ask_nobody() -> Honest:
        honest = Honest("/ip4/127.0.0.1/tcp/1/p2p/" + Identity.generate().peer_id)
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(honest.keep_asking)
                await eventually(lambda: honest.failures)
                nursery.cancel_scope.cancel()
        return honest

    assert trio.run(ask_nobody).failures
