"""Signed messages between a Python node and go-libp2p, over real sockets: each sends, asks and answers, and each
rejects what the other forges.

The Go side is written from docs/wire.md alone (`interop/go/messages*.go`). Both serve the sub-protocol "interop" alike.
Streams of the Python side's faults are made by hand: a node makes no such messages.
"""

from __future__ import annotations

import base64
import time
from contextlib import asynccontextmanager

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from interop.peer import Peer
from node.events import Admitted, MessageRejected
from node.identity import Identity
from protocols import Protocol, StreamReset, StreamTimeout
from protocols.framing import FrameDecoder, encode_uvarint
from protocols.messages import AnswerError, Kind, Message, RemoteError, Reply, SubProtocol
from protocols.messages.authors import peer_id_bytes
from protocols.messages.declare import MAX_PAYLOAD
from protocols.messages.messages_pb2 import Message as PbMessage
from protocols.messages.messages_pb2 import SignedMessage

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("go", "no_traceback")]

NAME = "interop"
BYTES = Protocol(f"/vouch/msg/{NAME}/1.0.0", max_frame=None)  # the same protocol, without its frames
ECHO, REVERSED, FAILS, PARTS, SILENCE = 1, 2, 3, 4, 5  # types of requests: interop/go/messages_serve.go
NETWORK = b"vouch-local"
MAX_FRAME = 2 << 20
TIMEOUT = 15.0
PAYLOADS = [b"", b"ahoy", bytes(range(256)) * 4096]


@pytest.fixture(scope="module")
def go(built):
    built("go")


@pytest.fixture
def pair(here):
    """`async with pair(...) as (local, go, got)`: connected, both serving "interop"; `got` are one-way messages."""

    @asynccontextmanager
    async def start(*flags, **settings):
        into, got = trio.open_memory_channel[Message](16)
        async with here(**settings) as local, Peer.go(*flags) as go:
            await local.node.serve(interop(into))
            await local.node.connect(go.addr)
            await local.event(Admitted, peer=go.peer_id)
            await go.event("admitted", peer=local.peer_id)
            yield local, go, got

    return start


def interop(into) -> SubProtocol:
    """What the Go peer serves, in Python."""
    sub = SubProtocol(NAME, max_payload=MAX_PAYLOAD, requests_in_flight=128, timeout=TIMEOUT)
    held: list[trio.Event] = []

    @sub.on_message
    async def note(message):
        into.send_nowait(message)

    @sub.on_request(type=ECHO)
    async def echo(request):
        return Reply(request.payload, ECHO)

    @sub.on_request(type=REVERSED)
    async def last_first(request):
        count, index = request.payload.split()
        turn = trio.Event()
        held.append(turn)
        if len(held) == int(count):
            turn.set()
        await turn.wait()
        assert held.pop() is turn
        if held:
            held[-1].set()
        return Reply(index, REVERSED)

    @sub.on_request(type=FAILS)
    async def fails(request):
        raise AnswerError(f"no such thing: {request.payload.decode()}")

    @sub.on_parts(type=PARTS)
    async def parts(request):
        count, size = map(int, request.payload.split())
        for i in range(count):
            yield bytes((i & 0xFF,)) * size

    @sub.on_request(type=SILENCE)
    async def silence(request):
        await trio.sleep_forever()

    return sub


def text(payload: bytes) -> str:
    """As the Go peer's commands take it."""
    return base64.b64encode(payload).decode() or "-"


# what works


async def test_send_to_python(pair):
    async with pair() as (local, go, got):
        for number, payload in enumerate(PAYLOADS):
            await go.call("send", local.peer_id, str(number), text(payload))
            with trio.fail_after(TIMEOUT):
                message = await got.receive()
            assert (message.peer, message.protocol, message.type) == (go.peer_id, NAME, number)
            assert (message.kind, message.payload) == (Kind.ONE_WAY, payload)
            assert abs(message.timestamp_ms - time.time() * 1000) < TIMEOUT * 1000
        assert not local.seen(MessageRejected)


async def test_send_to_go(pair):
    async with pair() as (local, go, _):
        for number, payload in enumerate(PAYLOADS):
            await local.node.send(go.peer_id, NAME, payload, type=number)
            told = await go.event("message", peer=local.peer_id)
            assert (told["protocol"], told["type"]) == (NAME, number)
            assert base64.b64decode(told["payload"]) == payload
        assert not go.seen("rejected")


async def test_go_asks(pair):
    async with pair() as (local, go, _):
        for payload in PAYLOADS:
            reply = await go.call("request", local.peer_id, str(ECHO), text(payload))
            assert (reply["type"], base64.b64decode(reply["payload"])) == (ECHO, payload)
        for kind, said in ((FAILS, "no such thing: ahoy"), (99, "interop doesn't answer requests of type 99")):
            reply = await go.call("request", local.peer_id, str(kind), text(b"ahoy"), check=False)
            assert (reply["ok"], reply["error"]) == (False, f"remote: {said}")
        reply = await go.call("request", local.peer_id, str(SILENCE), "-", "100", check=False)
        assert (reply["ok"], "deadline" in reply["error"]) == (False, True)
        for _ in range(2):
            await go.call("requests-reversed", local.peer_id, "100")
        assert not go.seen("rejected")
        assert not local.seen(MessageRejected)


async def test_python_asks(pair):
    async with pair() as (local, go, _):
        for payload in PAYLOADS:
            reply = await local.node.request(go.peer_id, NAME, payload, type=ECHO)
            assert (reply.type, reply.payload, reply.kind, reply.peer) == (ECHO, payload, Kind.RESPONSE, go.peer_id)
        with pytest.raises(RemoteError) as failure:
            await local.node.request(go.peer_id, NAME, b"ahoy", type=FAILS)
        assert failure.value.text == "no such thing: ahoy"
        with pytest.raises(StreamTimeout):
            await local.node.request(go.peer_id, NAME, b"", type=SILENCE, timeout=0.1)

        answered = []

        async def ask(index):
            reply = await local.node.request(go.peer_id, NAME, b"100 %d" % index, type=REVERSED)
            assert reply.payload == b"%d" % index
            answered.append(index)

        for _ in range(2):
            answered.clear()
            async with trio.open_nursery() as nursery:
                for index in range(100):
                    nursery.start_soon(ask, index)
            assert sorted(answered) == list(range(100))
        assert not go.seen("rejected")
        assert not local.seen(MessageRejected)


@pytest.mark.parametrize(("count", "size"), [(1, 1), (300, 1), (20, 1_000_000)])
async def test_answers_in_parts(pair, count, size):
    async with pair() as (local, go, _):
        await go.call("parts", local.peer_id, str(count), str(size))

        got = 0
        async with local.node.request_stream(go.peer_id, NAME, b"%d %d" % (count, size), type=PARTS) as answer:
            async for part in answer:
                assert part == bytes((got & 0xFF,)) * size
                got += 1
        assert (got, answer.bytes, answer.complete) == (count, count * size, True)


async def test_errors_of_answers_in_parts(pair):
    async with pair() as (local, go, _):
        with pytest.raises(RemoteError, match="COUNT SIZE"):
            async with local.node.request_stream(go.peer_id, NAME, b"many", type=PARTS) as answer:
                await answer.__anext__()
        # left early: it's this answer's stream that ends, and nothing else
        async with local.node.request_stream(go.peer_id, NAME, b"1000 100000", type=PARTS) as answer:
            await answer.__anext__()
        assert (await local.node.request(go.peer_id, NAME, b"still", type=ECHO)).payload == b"still"


async def test_without_signatures(pair):
    async with pair("--unsigned", signatures="off") as (local, go, got):
        await go.call("send", local.peer_id, "1", text(b"ahoy"))
        with trio.fail_after(TIMEOUT):
            assert (await got.receive()).payload == b"ahoy"
        await go.call("requests-reversed", local.peer_id, "10")
        await local.node.send(go.peer_id, NAME, b"ahoy", type=1)
        await go.event("message", peer=local.peer_id, payload=text(b"ahoy"))
        assert (await local.node.request(go.peer_id, NAME, b"ahoy", type=ECHO)).payload == b"ahoy"


# what Go forges


FORGED_BY_GO = {  # what it does: what becomes of its stream, and the reason
    "signature": ("reset", "signature"),
    "unsigned": ("reset", "signature"),
    "bit": ("reset", "signature"),
    "network_id": ("reset", "network_id"),
    "protocol": ("reset", "protocol"),
    "author": ("reset", "author"),
    "recipient": ("reset", "recipient"),
    "kind": ("reset", "kind"),
    "malformed": ("reset", "malformed"),
    "malformed-message": ("reset", "malformed"),
    "oversize": ("reset", "oversize"),
    "old": ("open", "timestamp"),
    "ahead": ("open", "timestamp"),
}


@pytest.mark.parametrize("fault", FORGED_BY_GO)
async def test_python_rejects(pair, fault):
    outcome, reason = FORGED_BY_GO[fault]
    async with pair() as (local, go, got):
        await go.call("request", local.peer_id, str(ECHO), "-")
        assert (await go.call("forge", local.peer_id, fault))["outcome"] == outcome
        rejected = await local.event(MessageRejected, peer=go.peer_id)
        assert (rejected.protocol, rejected.reason) == (NAME, reason), rejected
        # the other streams of the connection go on, and nothing reached a handler
        await go.call("requests-reversed", local.peer_id, "10")
        assert not go.seen("disconnected")
        assert len(local.seen(MessageRejected)) == 1
        with pytest.raises(trio.WouldBlock):
            got.receive_nowait()


async def test_the_forger_can_be_honest(pair):
    async with pair() as (local, go, got):
        assert (await go.call("forge", local.peer_id, "none"))["outcome"] == "open"
        assert got.receive_nowait().payload == b"forged"


# what Python forges


class Forger:
    """Makes the bytes of messages from here to the Go peer, with one fault each."""

    def __init__(self, local, go) -> None:
        self.key = local.node.identity.secret
        self.fields = {
            "author": author(local.node.identity),
            "network_id": NETWORK,
            "client_version": local.node.config.client_version,
            "protocol": NAME,
            "type": ECHO,
            "kind": Kind.REQUEST,
            "request_id": 7,
            "timestamp_ms": int(time.time() * 1000),
            "payload": b"forged",
            "recipient": peer_id_bytes(go.peer_id),
        }

    def signed(self, *, key=None, prefix=b"vouch-message:1:", **changed) -> SignedMessage:
        message = PbMessage(**{**self.fields, **changed}).SerializeToString()
        return self.signed_bytes(message, key=key, prefix=prefix)

    def signed_bytes(self, message, *, key=None, prefix=b"vouch-message:1:") -> SignedMessage:
        signature = Ed25519PrivateKey.from_private_bytes(key or self.key).sign(prefix + message)
        return SignedMessage(message=message, signature=signature)

    def time(self, seconds) -> int:
        return self.fields["timestamp_ms"] + int(seconds * 1000)


def author(identity) -> bytes:
    return b"\x08\x01\x12\x20" + identity.public_key


def framed(signed) -> bytes:
    data = signed if isinstance(signed, bytes) else signed.SerializeToString()
    return encode_uvarint(len(data)) + data


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
FORGED_BY_PYTHON = {
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
DROPPED_BY_GO = {
    "old": ("timestamp", lambda f: f.signed(timestamp_ms=f.time(-660))),
    "ahead": ("timestamp", lambda f: f.signed(timestamp_ms=f.time(60))),
    "an answer to nothing": ("unasked", lambda f: f.signed(kind=Kind.RESPONSE)),
}


@pytest.mark.parametrize("fault", FORGED_BY_PYTHON)
async def test_go_rejects(pair, fault):
    reason, forge = FORGED_BY_PYTHON[fault]
    async with pair() as (local, go, _):
        async with local.node.stream(go.peer_id, BYTES) as stream:
            await stream.send(framed(forge(Forger(local, go))))
            with pytest.raises(StreamReset):
                await stream.receive()
        await assert_rejected(local, go, reason)
        assert not go.seen("message")


@pytest.mark.parametrize(
    ("reason", "sent", "ends"),
    [
        ("oversize", encode_uvarint(MAX_FRAME + 1), False),
        ("malformed", b"\x64ten bytes", True),
        ("malformed", b"\xff" * 10, False),
    ],
    ids=["oversize", "truncated", "no length"],
)
async def test_go_rejects_frames(pair, reason, sent, ends):
    async with pair() as (local, go, _):
        async with local.node.stream(go.peer_id, BYTES) as stream:
            await stream.send(sent)
            if ends:
                await stream.send_eof()
            with pytest.raises(StreamReset):
                await stream.receive()
        await assert_rejected(local, go, reason)


@pytest.mark.parametrize("fault", DROPPED_BY_GO)
async def test_go_drops(pair, fault):
    reason, forge = DROPPED_BY_GO[fault]
    async with pair() as (local, go, _), local.node.stream(go.peer_id, BYTES) as stream:
        forger = Forger(local, go)
        await stream.send(framed(forge(forger)))
        # the stream goes on: the next message on it is answered
        await stream.send(framed(forger.signed(payload=b"next")))
        decoder = FrameDecoder(MAX_FRAME)
        frames: list[bytes] = []
        while not frames:
            frames = decoder.feed(await stream.receive())
        answer = PbMessage.FromString(SignedMessage.FromString(frames[0]).message)
        assert (answer.kind, answer.request_id, answer.payload) == (Kind.RESPONSE, 7, b"next")
        await assert_rejected(local, go, reason, dropped=True)


async def test_go_rejects_what_was_made_for_another_go_peer(pair):
    async with pair() as (local, go, _), Peer.go() as third:
        await local.node.connect(third.addr)
        request = framed(Forger(local, go).signed())
        async with local.node.stream(go.peer_id, BYTES) as stream:
            await stream.send(request)
            await stream.receive()  # it is answered
        async with local.node.stream(third.peer_id, BYTES) as stream:
            await stream.send(request)
            with pytest.raises(StreamReset):
                await stream.receive()
        await assert_rejected(local, third, "recipient")


async def test_go_rejects_every_changed_bit(pair):
    async with pair() as (local, go, _):
        data = Forger(local, go).signed(kind=Kind.ONE_WAY, request_id=0).SerializeToString()
        waiting = iter(range(len(data)))

        async def change_bytes():
            for at in waiting:
                changed = bytearray(data)
                changed[at] ^= 1 << at % 8
                async with local.node.stream(go.peer_id, BYTES) as stream:
                    await stream.send(framed(bytes(changed)))
                    with pytest.raises(StreamReset):
                        await stream.receive()

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(change_bytes)
        for _ in data:
            assert not (await go.event("rejected", peer=local.peer_id))["dropped"]
        assert not go.seen("message")


async def assert_rejected(local, go, reason, *, dropped=False):
    """The Go peer has rejected one message, and works with us as before."""
    rejected = await go.event("rejected", peer=local.peer_id)
    assert (rejected["protocol"], rejected["reason"], rejected["dropped"]) == (NAME, reason, dropped), rejected
    assert (await local.node.request(go.peer_id, NAME, b"still", type=ECHO)).payload == b"still"
    assert len(go.seen("rejected")) == 1
