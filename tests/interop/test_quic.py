"""QUIC between a Python node and the Go peer, both ways: a lot of bytes, a lot of streams, half-close, resets, windows,
closing, silence; and the most of it with the peers in other languages.

The peers listen on QUIC alone, so nothing here goes over TCP.
"""

from __future__ import annotations

import os
import resource
import signal
from contextlib import suppress
from functools import partial

import pytest
import trio

from interop.peer import Peer, PeerError
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
from node.errors import DialError, RefusedError
from node.events import Admitted, Disconnected
from node.identity import Identity
from node.node import parse_peer_id
from tests.interop.streaming import Sending, after_the_end, connected, echo, protocol_of_bytes, telling
from tests.quicnodes import QUIC, muxed

MIB = 1 << 20
STALL = 1.0

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_traceback")]

OTHERS = {"go": Peer.go, "rust": Peer.rust, "js": Peer.js}

with_others = pytest.mark.parametrize("name", ["rust", "js"])
both_ways = pytest.mark.parametrize("dialler", ["python", "go"])
either_asks = pytest.mark.parametrize("asker", ["python", "go"])


@pytest.fixture
def joined(here, built):
    """`async with joined() as (local, go)`: a node that serves `serving`, and a peer, Go's, connected over QUIC."""

    def join(*flags, name="go", **settings):
        built(name)
        started = OTHERS[name]("--listen", QUIC, "--timeout=30s", *flags)
        return connected(here, started, **{"listen": (QUIC,), **settings})

    return join


# admission


@both_ways
async def test_admitted_and_identified(joined, dialler):
    async with joined(dialler=dialler) as (local, go):
        connection = local.node.swarm.connection(parse_peer_id(go.peer_id))
        assert connection.hello is not None
        assert "/quic-v1" in str(connection.addr)
        assert connection.way == ("outbound" if dialler == "python" else "inbound")
        assert len(await local.node.ping(go.peer_id, 3)) == 3
        await go.call("ping", local.peer_id, "3")
        reply = await go.call("identify", local.peer_id)
        assert reply["addrs"] == [str(addr) for addr in local.node.host.listen_addrs]


async def test_another_network_is_refused_both_ways(here, built):
    built("go")
    async with here(listen=(QUIC,), dht="off") as local, Peer.go("--listen", QUIC, "--network-id", "other") as go:
        with pytest.raises(RefusedError):
            await local.node.connect(go.addr)
        with pytest.raises(PeerError):
            await go.call("connect", local.addr)
        assert local.node.connected_peers() == []


async def test_go_is_told_at_once_that_there_is_no_place(here, built):
    built("go")
    async with here(listen=(QUIC,), dht="off", max_inbound=1) as local, Peer.go("--listen", QUIC) as one:
        await one.call("connect", local.addr)
        async with Peer.go("--listen", QUIC) as other:
            with trio.fail_after(5), pytest.raises(PeerError, match=r"(?i)refused"):
                await other.call("connect", local.addr)


async def test_plain_libp2p_peers_are_admitted_where_the_network_is_open(joined):
    async with joined("--handshake=false", admission="open") as (local, go):
        await echo("go", local, go, 1000)


@pytest.mark.parametrize("key", ["secp256k1", "rsa", "ecdsa"])
@both_ways
async def test_other_keys(joined, key, dialler):
    async with joined(f"--key-type={key}", dialler=dialler) as (local, go):
        await echo("go", local, go, 1000)


async def test_another_peer_at_that_address_is_refused(here, built):
    built("go")
    other = Identity.generate().peer_id
    async with here(listen=(QUIC,), dht="off") as local, Peer.go("--listen", QUIC) as go:
        with pytest.raises(DialError, match="expected peer"):
            await local.node.connect(go.addr.rpartition("/")[0] + "/" + other)
        with pytest.raises(PeerError):
            await go.call("connect", local.addr.rpartition("/")[0] + "/" + other)


async def test_go_shows_that_it_is_where_it_says(joined, monkeypatch):
    monkeypatch.setattr("node.quic.endpoint.MAX_UNPROVEN", 0)
    async with joined(dialler="go") as (local, go):
        (listener,) = local.node.swarm.listeners.values()
        assert listener._endpoint.retries > 0
        await echo("go", local, go, 1000)


# many bytes, many streams


@pytest.mark.parametrize(("dialler", "asker"), [("python", "go"), ("go", "python")])
async def test_echo_of_a_hundred_mebibytes_in_constant_memory(joined, dialler, asker):
    async with joined(dialler=dialler) as (local, go):
        await echo(asker, local, go, 4 * MIB)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await echo(asker, local, go, 100 * MIB)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 * 1024


@either_asks
async def test_as_many_streams_at_once_as_the_other_takes(joined, asker):
    async with joined(max_streams=1024) as (local, go):
        # Go takes 256 of ours at a time, and these are all open before the first is used
        await echo(asker, local, go, 64, 1000 if asker == "go" else 250)
        await echo(asker, local, go, 64)


async def test_streams_opened_in_one_breath(joined):
    async def one(k):
        pattern = Pattern(k, 64)
        async with local.node.stream(go.peer_id, BYTES) as stream:
            await send_pattern(stream, pattern)
            await receive_pattern(stream, pattern)

    async with joined() as (local, go):
        # more than Go takes at once (256): the others wait for a place
        await at_once(partial(one, k) for k in range(600))
        assert len(muxed(local.node, go).streams) < 10


# ends and resets


async def test_half_closed_stream_still_receives(joined):
    async with joined() as (local, go):
        for _ in range(20):
            async with local.node.stream(go.peer_id, BYTES) as stream:
                pattern = Pattern(3, 200_000)
                await send_pattern(stream, pattern)  # and its end, before a byte is read
                await receive_pattern(stream, pattern)


async def test_half_closed_by_the_other_still_receives(joined):
    async with joined(serving=[protocol_of_bytes(after_the_end)]) as (local, go):
        for _ in range(5):
            await echo("go", local, go, 200_000)


async def test_reset_by_the_node(joined):
    async with joined() as (local, go):
        await reset_mine(local.node, go.peer_id)
        await go.call("was-reset", local.peer_id)


async def test_reset_by_the_other(joined):
    ended = []
    async with joined(serving=[telling(ended)]) as (local, go):
        await was_reset(local.node, go.peer_id)
        await go.call("reset", local.peer_id)
        assert ended == ["reset", "end"]


# windows


async def test_node_that_does_not_read_is_not_flooded(joined):
    """What waits for a reader is bounded, and other streams go on before that bound."""
    bound = 32 * MIB
    async with joined(max_connection_window=bound) as (local, go), local.node.stream(go.peer_id, BYTES) as stream:
        pattern = Pattern(0, 100 * MIB)
        sending = Sending(stream, pattern)

        async def stall_and_receive():
            await trio.sleep(STALL)
            assert sum(s.size for s in muxed(local.node, go).streams.values()) <= bound
            assert sending.sent < pattern.length * 3 // 4
            await receive_pattern(stream, pattern)

        await at_once([sending.send, stall_and_receive])


async def test_other_streams_go_on_while_one_is_not_read(joined):
    async with joined() as (local, go), local.node.stream(go.peer_id, BYTES) as stream:
        pattern = Pattern(0, 16 * MIB)

        async def stall_and_receive():
            await trio.sleep(STALL)
            await echo_pattern(local.node, go.peer_id, 2 * MIB)
            await go.call("echo", local.peer_id, str(2 * MIB), "1")
            await receive_pattern(stream, pattern)

        await at_once([partial(send_pattern, stream, pattern), stall_and_receive])


# ends of connections


@both_ways
async def test_closing_is_noticed_at_once(joined, dialler):
    async with joined(dialler=dialler) as (local, go):
        with trio.fail_after(3):
            await go.call("disconnect", local.peer_id)
            await local.event(Disconnected, peer=go.peer_id)
            await go.event("disconnected", peer=local.peer_id)
        await local.node.connect(go.addr)
        await local.event(Admitted, peer=go.peer_id)
        with trio.fail_after(3):
            await local.node.disconnect(go.peer_id)
            await go.event("disconnected", peer=local.peer_id)


@pytest.mark.bar
@pytest.mark.parametrize("dialler", ["python", "other"])
@pytest.mark.parametrize("name", list(OTHERS))
async def test_idle_connection_stays(joined, name, dialler):
    settings = {"admission": "open", "heartbeat": "off", "gossip": "off"}
    async with joined("--handshake=false", name=name, dialler=dialler, **settings) as (local, other):
        await trio.sleep(75)
        assert not local.seen(Disconnected)
        await echo("python", local, other, 1000)
        await echo("other", local, other, 1000)


@pytest.mark.bar
async def test_silent_peer_is_noticed_within_the_idle_timeout(joined):
    async with joined(heartbeat="off") as (local, go):
        os.kill(go.pid, signal.SIGSTOP)
        try:
            await local.event(Disconnected, peer=go.peer_id, timeout=35)
        finally:
            os.kill(go.pid, signal.SIGCONT)


async def test_a_peer_that_was_killed_and_is_back_says_so(here, built):
    """By a stateless reset, and nobody waits for the idle timeout."""

    async def connect_and_kill():
        async with Peer.go("--seed=killed", "--listen", QUIC) as go:
            await local.node.connect(go.addr)
            os.kill(go.pid, signal.SIGKILL)
            listening.append(go.addr.partition("/p2p/")[0])

    built("go")
    listening = []
    async with here(listen=(QUIC,), dht="off", heartbeat="off") as local:
        with suppress(PeerError):  # that it has ended by itself
            await connect_and_kill()
        async with Peer.go("--seed=killed", "--listen", *listening) as again:
            if local.node.connected_peers():  # else something of ours was on its way anyhow
                conn = muxed(local.node, again)
                conn._native.ping()
                conn.flush()
            await local.event(Disconnected, peer=again.peer_id, timeout=3)
            await local.node.connect(again.addr)


# the other languages


@with_others
@both_ways
async def test_others_move_bytes_and_streams(joined, name, dialler):
    async with joined("--handshake=false", name=name, dialler=dialler, admission="open") as (local, other):
        assert len((await other.call("ping", local.peer_id, "3"))["rtt_us"]) == 3
        await local.node.ping(other.peer_id)
        for asker in ("python", "other"):
            await echo(asker, local, other, 16 * MIB)
            await echo(asker, local, other, 1000, 50)
            await echo(asker, local, other, 200_000)


@with_others
async def test_others_half_close_and_reset(joined, name):
    async with joined("--handshake=false", name=name, admission="open") as (local, other):
        for _ in range(5):
            async with local.node.stream(other.peer_id, BYTES) as stream:
                pattern = Pattern(3, 200_000)
                await send_pattern(stream, pattern)
                await receive_pattern(stream, pattern)
        await reset_mine(local.node, other.peer_id)
        await other.call("reset", local.peer_id)
        if name != "rust":  # a stream that it drops has a proper end in QUIC
            await was_reset(local.node, other.peer_id)
        if name != "js":  # it takes a reset for the end
            await other.call("was-reset", local.peer_id)


@with_others
async def test_others_close_and_are_closed_at_once(joined, name):
    async with joined("--handshake=false", name=name, admission="open") as (local, other):
        with trio.fail_after(3):
            await other.call("disconnect", local.peer_id)
            await local.event(Disconnected, peer=other.peer_id)
            await other.event("disconnected", peer=local.peer_id)
        await local.node.connect(other.addr)
        with trio.fail_after(3):
            await local.node.disconnect(other.peer_id)
            await other.event("disconnected", peer=local.peer_id)


@with_others
async def test_others_are_told_by_a_node_that_was_killed_and_is_back(here, built, name):
    """Not Go: it takes a connection ID whose token qh3 makes up, and waits for its idle timeout."""
    built(name)
    settings = {"dht": "off", "heartbeat": "off", "identity": Identity.generate()}
    async with OTHERS[name]("--listen", QUIC, "--timeout=3s") as other:
        async with here(listen=(QUIC,), **settings) as local:
            await other.call("connect", local.addr)
            await local.event(Admitted, peer=other.peer_id)
            listen = local.addr.partition("/p2p/")[0]
            (listener,) = local.node.swarm.listeners.values()
            listener._endpoint.socket.send = lambda run, addr, where: True  # it has no time to say anything
        async with here(listen=(listen,), **settings) as local:
            with suppress(PeerError):
                await other.call("ping", local.peer_id, "1")
            await other.event("disconnected", peer=local.peer_id, timeout=3)
            await other.call("connect", local.addr)
