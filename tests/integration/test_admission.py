"""Admission on real sockets, against a peer that speaks frames by hand (docs/wire.md, /vouch/handshake/1.0.0)."""

from __future__ import annotations

import pytest
import trio

import tests.nodes
from node.events import Admitted, Refused
from node.upgrade.multistream import HEADER, encode_line
from protocols.framing import encode_frame
from protocols.handshake.wire import PROTOCOL_ID, Hello
from tests.nodes import Recorder, echo_protocol, running
from tests.rawpeer import DATA, FIN, RST, WINDOW_UPDATE, RawPeer

NETWORK = b"vouch-local"
GREETING = encode_line(HEADER)
ECHO = "/echo/1.0.0"


@pytest.fixture(params=["fast", "stock"], autouse=True)
def upgrade(request, monkeypatch):
    """Whose Noise and Yamux the node runs on; the rules are the same."""
    monkeypatch.setitem(tests.nodes.DEFAULTS, "upgrade", request.param)


bad_hellos = {
    "another network": (encode_frame(Hello("raw/1.0.0", b"elsewhere").encode(), 256), "network_id"),
    "an old version": (encode_frame(Hello("old/1.2.3", NETWORK).encode(), 256), "client_version"),
    "no protobuf": (encode_frame(b"\xff" * 40, 256), "bad_hello"),
    "an empty frame": (b"\x00", "bad_hello"),
    "a frame over the bound": (b"\x81\x02", "bad_hello"),
    "an endless length": (b"\xff" * 12, "bad_hello"),
}


@pytest.mark.parametrize("what", bad_hellos)
async def test_a_refused_peer_gets_resets_and_the_close_and_no_byte_of_an_answer(what, caplog):
    hello, reason = bad_hellos[what]
    async with running(min_versions={"old": "1.2.4"}) as node, trio.open_nursery() as nursery:
        recorder = Recorder(node)
        peer = await RawPeer.dial(node.addrs[0], nursery)
        # one stream that is held, as go-libp2p's identify would be
        held = await peer.open()
        await peer.propose(held, "/ipfs/id/1.0.0")
        await peer.until(lambda: peer.received(held) == GREETING)
        stream = await peer.open()
        await peer.propose(stream, PROTOCOL_ID)
        await peer.agreed(stream, PROTOCOL_ID)
        before = len(peer.frames)
        await peer.data(stream, hello)
        # and one that comes after the Hello
        late = await peer.open()
        await peer.propose(late, "/ipfs/ping/1.0.0")
        await peer.ended.wait()

        after = peer.frames[before:]
        assert not [frame for frame in after if frame.kind == DATA], "the recipient has told something"
        assert peer.reset(held)
        assert peer.received(held) == GREETING
        refused = await recorder.next(Refused)
        assert (refused.reason, refused.direction, refused.peer) == (reason, "inbound", peer.identity.peer_id)
        assert node.connected_peers() == []
        assert not node.identify.known
        assert not recorder.of(Admitted)
        nursery.cancel_scope.cancel()
    assert not [record for record in caplog.records if record.exc_info], "a refusal is no error of ours"


async def test_nothing_but_the_header_is_said_before_admission_and_no_held_stream_is_lost():
    async with running(protocols=[echo_protocol(streams_per_peer=32)]) as node, trio.open_nursery() as nursery:
        peer = await RawPeer.dial(node.addrs[0], nursery)
        held = [await peer.open() for _ in range(15)]
        for stream in held:
            await peer.propose(stream, ECHO)
            await peer.data(stream, encode_frame(b"held %d" % stream, 1024))
        await peer.until(lambda: all(peer.received(stream) == GREETING for stream in held))
        assert node.connected_peers() == []

        handshake = await peer.shake(NETWORK)
        await peer.admitted(handshake)
        for stream in held:
            wanted = GREETING + encode_line(ECHO) + encode_frame(b"held %d" % stream, 1024)
            await peer.until(lambda stream=stream, wanted=wanted: peer.received(stream) == wanted)
        assert not [frame for frame in peer.frames if frame.flags & RST]
        nursery.cancel_scope.cancel()


async def test_the_seventeenth_stream_of_a_peer_not_yet_admitted_is_reset():
    async with running() as node, trio.open_nursery() as nursery:
        peer = await RawPeer.dial(node.addrs[0], nursery)
        streams = [await peer.open() for _ in range(17)]
        await peer.until(lambda: peer.reset(streams[16]))
        assert not [stream for stream in streams[:16] if peer.reset(stream)]
        assert not peer.ended.is_set()
        # the first sixteen still serve: one of them is the handshake
        await peer.propose(streams[3], PROTOCOL_ID)
        await peer.agreed(streams[3], PROTOCOL_ID)
        await peer.data(streams[3], encode_frame(Hello("raw/1.0.0", NETWORK).encode(), 256))
        await peer.admitted(streams[3])
        nursery.cancel_scope.cancel()


async def test_the_handshake_stream_itself_is_not_held():
    async with running() as node, trio.open_nursery() as nursery:
        peer = await RawPeer.dial(node.addrs[0], nursery)
        handshake = await peer.open()
        await peer.propose(handshake, PROTOCOL_ID)
        await peer.agreed(handshake, PROTOCOL_ID)
        streams = [await peer.open() for _ in range(17)]
        await peer.until(lambda: peer.reset(streams[16]))
        assert not [stream for stream in streams[:16] if peer.reset(stream)]
        nursery.cancel_scope.cancel()


async def test_64_kib_may_be_held_and_one_byte_more_ends_the_connection():
    proposal = GREETING + encode_line(ECHO)
    room = 64 * 1024 - len(GREETING + encode_line(PROTOCOL_ID)) - 64
    async with running(protocols=[echo_protocol()]) as node, trio.open_nursery() as nursery:
        peer = await RawPeer.dial(node.addrs[0], nursery)
        stream = await peer.open()
        await peer.data(stream, proposal)
        await peer.data(stream, bytes(room - len(proposal)))
        handshake = await peer.shake(NETWORK)
        await peer.admitted(handshake)

        other = await RawPeer.dial(node.addrs[0], nursery)
        stream = await other.open()
        await other.data(stream, bytes(64 * 1024))
        await other.until(lambda: other.frames)
        assert not other.ended.is_set()
        await other.data(stream, b"x")
        with trio.fail_after(15):
            await other.ended.wait()
        nursery.cancel_scope.cancel()


async def test_a_second_handshake_stream_ends_the_connection():
    async with running() as node, trio.open_nursery() as nursery:
        peer = await RawPeer.dial(node.addrs[0], nursery)
        await peer.admitted(await peer.shake(NETWORK))
        assert node.connected_peers() == [peer.identity.peer_id]
        again = await peer.open()
        await peer.propose(again, PROTOCOL_ID)
        with trio.fail_after(15):
            await peer.ended.wait()
        nursery.cancel_scope.cancel()


async def test_a_peer_that_ends_its_handshake_stream_is_refused():
    async with running() as node, trio.open_nursery() as nursery:
        recorder = Recorder(node)
        peer = await RawPeer.dial(node.addrs[0], nursery)
        stream = await peer.open()
        await peer.propose(stream, PROTOCOL_ID)
        await peer.agreed(stream, PROTOCOL_ID)
        await peer.send(WINDOW_UPDATE, FIN, stream)
        assert (await recorder.next(Refused)).reason == "no_hello"
        with trio.fail_after(15):
            await peer.ended.wait()
        nursery.cancel_scope.cancel()


async def test_streams_past_the_peers_bound_are_reset_and_the_others_go_on():
    async with running(protocols=[echo_protocol(streams_per_peer=2)]) as node, trio.open_nursery() as nursery:
        peer = await RawPeer.dial(node.addrs[0], nursery)
        await peer.admitted(await peer.shake(NETWORK))
        streams = []
        for _ in range(3):
            streams.append(await peer.open())
            await peer.propose(streams[-1], ECHO)
            await peer.until(lambda: len(peer.received(streams[-1])) > len(GREETING) or peer.reset(streams[-1]))
        assert [peer.reset(stream) for stream in streams] == [False, False, True]
        await peer.data(streams[0], encode_frame(b"still here", 1024))
        await peer.until(lambda: peer.received(streams[0]).endswith(b"still here"))
        nursery.cancel_scope.cancel()


async def test_a_node_of_another_network_is_refused_on_both_sides_and_not_retried_at_once():
    from node.errors import BackoffError, RefusedError

    async with running() as here, running(network_id="elsewhere") as there:
        mine, theirs = Recorder(here), Recorder(there)
        with pytest.raises(RefusedError):
            await there.connect(here.addrs[0])
        with pytest.raises(BackoffError, match=r"another [56] s"):
            await there.connect(here.addrs[0])
        refused = await mine.next(Refused)
        assert refused.reason == "network_id"
        assert "'vouch-local'" in refused.detail
        assert "'elsewhere'" in refused.detail
        assert not mine.of(Admitted) + theirs.of(Admitted)
        assert not here.identify.known
        assert not there.identify.known
        assert len(theirs.of(Refused)) == 1


async def test_open_admission_takes_a_peer_that_has_no_identify():
    async with running(admission="open") as node, trio.open_nursery() as nursery:
        recorder = Recorder(node)
        peer = await RawPeer.dial(node.addrs[0], nursery)
        asked = 2  # our side's first stream
        await peer.until(lambda: b"/ipfs/id/1.0.0" in peer.received(asked))
        await peer.data(asked, GREETING + encode_line("na"))
        await recorder.next(Admitted)

        stream = await peer.open()
        await peer.propose(stream, "/ipfs/ping/1.0.0")
        await peer.agreed(stream, "/ipfs/ping/1.0.0")
        await peer.close()
