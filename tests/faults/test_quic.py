"""Peers over QUIC that don't play by the rules, and how little it costs: a raw client speaks to a node."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.lowlevel
from libp2p.stream_muxer.exceptions import MuxedStreamReset
from multiaddr import Multiaddr

from interop.rawbytes import BYTES, echo_pattern
from node.config import Config
from node.events import Connected, Refused
from node.identity import Identity
from node.node import parse_peer_id
from node.quic import native, transport
from node.quic.tls import Credentials, make_credentials
from node.quic.transport import Quic
from protocols import ProtocolError
from protocols.handshake.engine import MAX_HELD_BYTES, MAX_HELD_STREAMS
from tests.nodes import NOWHERE, Recorder, eventually, running

QUIC = "/ip4/127.0.0.1/udp/0/quic-v1"
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
            with trio.fail_after(2):
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
        monkeypatch.setattr(native, "ALPN", "h3")
        with trio.fail_after(2), pytest.RaisesGroup(ProtocolError, flatten_subgroups=True):
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
                with trio.fail_after(2):
                    await conn.start()
        except ProtocolError:
            pass
        await eventually(lambda: target.swarm.limits.total == 0)
        assert recorder.of(Connected) == []
