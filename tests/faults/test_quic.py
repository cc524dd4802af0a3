"""Peers over QUIC that don't play by the rules, and how little it costs: a raw client speaks to a node."""

from __future__ import annotations

import errno
import time
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.lowlevel
from libp2p.stream_muxer.exceptions import MuxedStreamClosed, MuxedStreamReset
from multiaddr import Multiaddr

from interop.rawbytes import BYTES, echo_pattern
from node.config import Config
from node.events import Connected, Refused
from node.identity import Identity
from node.node import parse_peer_id
from node.quic import configurations, transport
from node.quic.datagrams import Datagrams
from node.quic.transport import Quic
from node.upgrade.certificate import Credentials, make_credentials
from protocols import ProtocolError
from protocols.handshake.engine import MAX_HELD_BYTES, MAX_HELD_STREAMS
from tests.nodes import NOWHERE, Recorder, eventually, running
from tests.quicnodes import QUIC, endpoint, first_datagram, muxed

GREETING = b"\x13/multistream/1.0.0\n"
PROPOSAL = b"\x09/x/1.0.0\n"


def node(**values):
    return running(listen=(QUIC,), protocols=[BYTES], gossip="off", **values)


@asynccontextmanager
async def raw(target, identity=None):
    """A secured connection with a node, by one that doesn't shake hands."""
    dialler = Quic((identity or Identity.generate()).key_pair(), Config(data_dir=NOWHERE))
    async with trio.open_nursery() as nursery:
        dialler.set_background_nursery(nursery)
        try:
            conn = await dialler.dial_peer(Multiaddr(target.addrs[0]), parse_peer_id(target.peer_id))
            yield conn
            await conn.close()
        finally:
            nursery.cancel_scope.cancel()


async def test_who_never_shakes_hands_is_gone_at_the_deadline():
    async with node(upgrade_timeout=0.5, handshake_timeout=0.5) as target:
        async with raw(target) as conn:
            with trio.fail_after(2):
                await conn.start()  # returns at its end
            assert conn.lost
        await eventually(lambda: target.swarm.limits.total == 0)


async def test_before_admission_little_is_taken():
    async with node() as target:
        recorder = Recorder(target)
        async with raw(target) as conn:
            stream = await conn.open_stream()
            await stream.write(GREETING + PROPOSAL)  # held from there on
            await stream.write(bytes(MAX_HELD_BYTES))
            with trio.fail_after(5):
                await conn.start()
        assert (await recorder.next(Refused)).reason == "bad_frames"
        await eventually(lambda: target.swarm.limits.total == 0)


async def test_before_admission_few_streams_are_held():
    async with node() as target, raw(target) as conn:
        streams = [await conn.open_stream() for _ in range(MAX_HELD_STREAMS + 1)]
        for stream in streams:
            await stream.write(GREETING + PROPOSAL)

        async def read_to_its_end(stream):
            with suppress(MuxedStreamReset):
                while await stream.read(100):
                    pass
            reset.append(stream)

        reset: list[object] = []
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(read_to_its_end, stream)
            await eventually(lambda: reset)
            await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        assert len(reset) == 1
        assert not conn.lost


async def test_streams_reset_as_soon_as_they_are_opened_cost_little():
    async with node() as target, raw(target) as conn:
        started = time.process_time()
        for _ in range(2000):
            stream = await conn.open_stream()
            stream.write_nowait(b"x")
            stream.reset_nowait()
            conn.flush_soon()
            await trio.lowlevel.checkpoint()
        await trio.sleep(0.2)
        assert time.process_time() - started < 5
        connection = next(iter(target.swarm._running))
        assert len(connection.muxed_conn.streams) <= MAX_HELD_STREAMS
        assert len(connection.streams) <= MAX_HELD_STREAMS
        async with node() as other:
            await other.connect(target.addrs[0])
            await echo_pattern(other, target.peer_id, 1000)


async def test_another_application_is_refused(monkeypatch):
    async with node() as target:
        monkeypatch.setattr(configurations, "ALPN", "h3")
        with trio.fail_after(5), pytest.RaisesGroup(ProtocolError, flatten_subgroups=True):
            async with raw(target):
                pass
        await eventually(lambda: target.swarm.limits.total == 0)


async def test_whose_certificate_is_of_another_is_refused(monkeypatch):
    """A certificate that proves one identity, with the key of another: what a thief of certificates has."""
    one, other = Identity.generate(), Identity.generate()
    async with node() as target:
        recorder = Recorder(target)
        stolen, own = make_credentials(one.key_pair()), make_credentials(other.key_pair())
        monkeypatch.setattr(transport, "make_credentials", lambda _: Credentials(stolen.certificate, own.key))
        try:
            async with raw(target) as conn:
                # a client is done before the server has looked at its certificate
                with trio.fail_after(5):
                    await conn.start()
        except ProtocolError:
            pass
        await eventually(lambda: target.swarm.limits.total == 0)
        assert recorder.of(Connected) == []


# what goes wrong with one connection


class PanicException(BaseException):
    """As a panic in Rust comes out of it."""


PanicException.__module__ = "pyo3_runtime"


@pytest.mark.parametrize("where", ["receive", "flush", "tick"])
@pytest.mark.parametrize("error", [KeyError("nobody thought of it"), PanicException("unreachable")])
async def test_a_fault_in_one_connection_ends_that_one(where, error):
    def fail(*args):
        raise error

    async with node() as target, node() as one, node() as other:
        await one.connect(target.addrs[0])
        await other.connect(target.addrs[0])
        setattr(muxed(target, one), where, fail)
        if where == "tick":
            muxed(target, one)._next_beat = 0.0
            muxed(target, one).owner.arm(muxed(target, one))
        with suppress(Exception):
            await one.ping(target.peer_id, 1)
        await eventually(lambda: target.connected_peers() == [other.peer_id])
        await echo_pattern(other, target.peer_id, 100_000)
        await eventually(lambda: len(endpoint(target).connections) == 1)


async def test_a_panic_below_a_stream_is_the_end_of_that_stream(monkeypatch):
    def fail():
        raise PanicException("unreachable")

    async with node() as target, node() as one:
        await one.connect(target.addrs[0])
        found = muxed(one, target)
        stream = await found.open_stream()
        with monkeypatch.context() as patched:
            patched.setattr(found._native, "_require_core", fail)
            with pytest.raises(MuxedStreamReset):
                found.queue(stream, b"x")
            found.say_reset(stream)
            found.say_stop(stream)
        await echo_pattern(one, target.peer_id, 1000)


async def test_closing_what_the_other_has_stopped_reading_is_quiet():
    async with node() as target, node() as one:
        await one.connect(target.addrs[0])
        found = muxed(one, target)
        for end in ("close", "close_write"):
            stream = await found.open_stream()
            await stream.write(b"x")
            found._native.reset(stream.stream_id, 0)  # as qh3 does at a STOP_SENDING, before we hear of it
            await getattr(stream, end)()
        with pytest.raises((MuxedStreamReset, MuxedStreamClosed)):
            await stream.write(b"x")


async def test_a_fault_with_a_stranger_ends_nothing(monkeypatch):
    def fail(data):
        raise KeyError("nobody thought of it")

    async with node() as target, node() as other:
        await other.connect(target.addrs[0])
        with monkeypatch.context() as patched:
            patched.setattr("node.quic.endpoint.parse_initial", fail)
            data = first_datagram()
            endpoint(target)._deliver(data, len(data), ("127.0.0.1", 9), None, trio.current_time(), {})
        await echo_pattern(other, target.peer_id, 1000)


async def test_a_first_flight_that_comes_in_one_read_is_taken_whole():
    async with node() as target:
        found = endpoint(target)
        met = []
        found.accept = met.append
        first = first_datagram()
        found._deliver(first + first + first[:1200], len(first), ("127.0.0.1", 9), None, trio.current_time(), {})
        (conn,) = met
        assert len(conn._early) == 3


def test_a_way_that_is_too_narrow_slows_no_other():
    datagrams = Datagrams.bind("127.0.0.1", 0)
    runs = datagrams.max_run
    if runs == 1:
        pytest.skip("this kernel sends one at a time")
    real, sent = datagrams._socket, []

    class Narrow:
        def sendmsg(self, buffers, *rest):
            if len(buffers) > 1:
                raise OSError(errno.EINVAL, "too large for the device")
            sent.append(buffers[0])

        sendto = lambda self, data, addr: sent.append(data)  # noqa: E731

    datagrams._socket = Narrow()
    assert datagrams.send([b"1", b"2", b"3"], ("127.0.0.1", 9))
    assert sent == [b"1", b"2", b"3"]
    assert datagrams.max_run == runs
    real.close()
