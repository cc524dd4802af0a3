"""What a Python node would never send, made by hand and written on a stream to a peer in another language, which
rejects or drops it with the right word, and works as before.
"""

from __future__ import annotations

import pytest
import trio

from node.identity import Identity
from protocols import EndOfStream, Protocol, StreamReset
from protocols.framing import FrameDecoder, encode_uvarint
from protocols.messages import Kind
from protocols.messages.authors import peer_id_bytes
from protocols.messages.messages_pb2 import Message as PbMessage
from protocols.messages.messages_pb2 import SignedMessage
from tests.interop.messaging import ECHO, NAME, START, Forger, author, framed

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_traceback")]

BYTES = Protocol(f"/vouch/msg/{NAME}/1.0.0", max_frame=None)  # the same protocol, without its frames
MAX_FRAME = 2 << 20


def changed_signature(forger):
    signed = forger.signed()
    signed.signature = bytes((signed.signature[0] ^ 1,)) + signed.signature[1:]
    return signed


def unsigned(forger):
    return SignedMessage(message=forger.signed().message)


def changed_bit(forger):
    signed = forger.signed()
    signed.message = signed.message.replace(b"forged", b"gorged")
    return signed


def of_another(forger):
    """Truly signed by its author, who is somebody else."""
    other = Identity.generate()
    return forger.signed(author=author(other), key=other.secret)


OTHER = peer_id_bytes(Identity.generate().peer_id)
FORGED = {
    "signature": ("signature", changed_signature),
    "signed by another": ("signature", lambda f: f.signed(key=Identity.generate().secret)),
    "signed without the prefix": ("signature", lambda f: f.signed(prefix=b"")),
    "unsigned": ("signature", unsigned),
    "bit": ("signature", changed_bit),
    "network_id": ("network_id", lambda f: f.signed(network_id=b"harbour")),
    "no network_id": ("network_id", lambda f: f.signed(network_id=b"")),
    "protocol": ("protocol", lambda f: f.signed(protocol="blocks")),
    "author": ("author", of_another),
    "no author": ("author", lambda f: f.signed(author=b"")),
    "recipient": ("recipient", lambda f: f.signed(recipient=OTHER)),
    "gossip": ("recipient", lambda f: f.signed(recipient=b"", kind=Kind.ONE_WAY, request_id=0)),
    "kind": ("kind", lambda f: f.signed(kind=3)),
    "ID of a one-way message": ("malformed", lambda f: f.signed(kind=Kind.ONE_WAY)),
    "malformed": ("malformed", lambda f: b"\x0a\x7fshorter than it says"),
    "malformed message": ("malformed", lambda f: f.signed_bytes(b"\x0a\x7fshorter than it says")),
}
DROPPED = {
    "old": ("timestamp", lambda f: f.signed(timestamp_ms=f.time(-660))),
    "ahead": ("timestamp", lambda f: f.signed(timestamp_ms=f.time(60))),
    "an answer to nothing": ("unasked", lambda f: f.signed(kind=Kind.RESPONSE)),
}


# of streams: what is sent, and whether they are half-closed then
FRAMES = {
    "oversize": ("oversize", encode_uvarint(MAX_FRAME + 1), False),
    "truncated": ("malformed", b"\x64ten bytes", True),
    "no length": ("malformed", b"\xff" * 10, False),
}


async def test_it_rejects(connected):
    async with connected() as (local, other, _):
        for fault, (reason, forge) in FORGED.items():
            async with local.node.stream(other.peer_id, BYTES) as stream:
                await stream.send(framed(forge(Forger(local, other))))
                with pytest.raises(StreamReset):
                    await stream.receive()
            await assert_rejected(local, other, fault, reason)
            assert not other.seen("message"), fault


async def test_it_rejects_frames(connected, speaker):
    async with connected() as (local, other, _):
        for fault, (reason, sent, ends) in FRAMES.items():
            # rust-yamux ends a stream whose other half has ended, where it should reset it
            reset = (StreamReset, EndOfStream) if speaker == "rust" and ends else StreamReset
            async with local.node.stream(other.peer_id, BYTES) as stream:
                await stream.send(sent)
                if ends:
                    await stream.send_eof()
                with pytest.raises(reset):
                    await stream.receive()
            await assert_rejected(local, other, fault, reason)


async def test_it_drops(connected):
    async with connected() as (local, other, _):
        for fault, (reason, forge) in DROPPED.items():
            async with local.node.stream(other.peer_id, BYTES) as stream:
                forger = Forger(local, other)
                await stream.send(framed(forge(forger)))
                # the stream goes on: the next message on it is answered
                await stream.send(framed(forger.signed(payload=b"next")))
                decoder = FrameDecoder(MAX_FRAME)
                frames: list[bytes] = []
                while not frames:
                    frames = decoder.feed(await stream.receive())
                answer = PbMessage.FromString(SignedMessage.FromString(frames[0]).message)
                assert (answer.kind, answer.request_id, answer.payload) == (Kind.RESPONSE, 7, b"next"), fault
                await assert_rejected(local, other, fault, reason, dropped=True)


async def test_it_rejects_what_was_made_for_another(connected, speaker):
    async with connected() as (local, other, _), START[speaker]() as third:
        await local.node.connect(third.addr)
        request = framed(Forger(local, other).signed())
        async with local.node.stream(other.peer_id, BYTES) as stream:
            await stream.send(request)
            await stream.receive()  # it is answered
        async with local.node.stream(third.peer_id, BYTES) as stream:
            await stream.send(request)
            with pytest.raises(StreamReset):
                await stream.receive()
        await assert_rejected(local, third, "made for another", "recipient")


async def test_it_rejects_every_changed_bit(connected):
    async with connected() as (local, other, _):
        data = Forger(local, other).signed(kind=Kind.ONE_WAY, request_id=0).SerializeToString()
        waiting = iter(range(len(data)))

        async def change_bytes():
            for at in waiting:
                changed = bytearray(data)
                changed[at] ^= 1 << at % 8
                async with local.node.stream(other.peer_id, BYTES) as stream:
                    await stream.send(framed(bytes(changed)))
                    with pytest.raises(StreamReset):
                        await stream.receive()

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(change_bytes)
        for _ in data:
            assert not (await other.event("rejected", peer=local.peer_id))["dropped"]
        assert not other.seen("message")


async def assert_rejected(local, other, fault, reason, *, dropped=False):
    """The peer has rejected one message since it was last asked, and works with us as before."""
    rejected = await other.event("rejected", peer=local.peer_id)
    told = (rejected["protocol"], rejected["reason"], rejected["dropped"])
    assert told == (NAME, reason, dropped), (fault, rejected)
    assert (await local.node.request(other.peer_id, NAME, b"still", type=ECHO)).payload == b"still", fault
    assert len(other.seen("rejected")) == 1, fault
    other.forget()
