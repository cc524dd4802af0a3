"""Signed messages between a Python node and peers in other languages, over real sockets: each sends, asks and answers,
and Python rejects what they forge.

Theirs are written from docs/wire.md alone (as `interop/go/messages*.go`). All serve the sub-protocol "interop" alike.
What Python forges is in test_messages_forged.py.
"""

from __future__ import annotations

import base64
import time

import pytest
import trio

from interop.ends.messages import ECHO, FAILS, NAME, PARTS, REVERSED, SILENCE, TIMEOUT
from interop.peer import Peer
from node.events import MessageRejected
from protocols import StreamTimeout
from protocols.messages import Kind, MessageDropped, MessageError, RemoteError
from protocols.messages.declare import MAX_PAYLOAD
from tests.interop.messaging import text

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_traceback")]

PAYLOADS = [b"", b"ahoy", bytes(range(256)) * (MAX_PAYLOAD // 256)]


# what works


async def test_send_to_python(connected):
    async with connected() as (local, other, got):
        for number, payload in enumerate(PAYLOADS):
            await other.call("send", local.peer_id, str(number), text(payload))
            with trio.fail_after(TIMEOUT):
                message = await got.receive()
            assert (message.peer, message.protocol, message.type) == (other.peer_id, NAME, number)
            assert (message.kind, message.payload) == (Kind.ONE_WAY, payload)
            assert abs(message.timestamp_ms - time.time() * 1000) < TIMEOUT * 1000
        assert not local.seen(MessageRejected)


async def test_send_to_another(connected):
    async with connected() as (local, other, _):
        for number, payload in enumerate(PAYLOADS):
            await local.node.send(other.peer_id, NAME, payload, type=number)
            told = await other.event("message", peer=local.peer_id)
            assert (told["protocol"], told["type"]) == (NAME, number)
            assert base64.b64decode(told["payload"]) == payload
        assert not other.seen("rejected")


async def test_another_asks(connected):
    async with connected() as (local, other, _):
        for payload in PAYLOADS:
            reply = await other.call("request", local.peer_id, str(ECHO), text(payload))
            assert (reply["type"], base64.b64decode(reply["payload"])) == (ECHO, payload)
        for kind, said in ((FAILS, "no such thing: ahoy"), (99, "interop doesn't answer requests of type 99")):
            reply = await other.call("request", local.peer_id, str(kind), text(b"ahoy"), check=False)
            assert (reply["ok"], reply["error"]) == (False, f"remote: {said}")
        reply = await other.call("request", local.peer_id, str(SILENCE), "-", "100", check=False)
        assert (reply["ok"], "deadline" in reply["error"]) == (False, True)
        for _ in range(2):
            await other.call("requests-reversed", local.peer_id, "100")
        assert not other.seen("rejected")
        assert not local.seen(MessageRejected)


async def test_python_asks(connected):
    async with connected() as (local, other, _):
        for payload in PAYLOADS:
            reply = await local.node.request(other.peer_id, NAME, payload, type=ECHO)
            assert (reply.type, reply.payload, reply.kind, reply.peer) == (ECHO, payload, Kind.RESPONSE, other.peer_id)
        with pytest.raises(RemoteError) as failure:
            await local.node.request(other.peer_id, NAME, b"ahoy", type=FAILS)
        assert failure.value.text == "no such thing: ahoy"
        with pytest.raises(StreamTimeout):
            await local.node.request(other.peer_id, NAME, b"", type=SILENCE, timeout=0.1)

        answered = []

        async def ask(index):
            reply = await local.node.request(other.peer_id, NAME, b"100 %d" % index, type=REVERSED)
            assert reply.payload == b"%d" % index
            answered.append(index)

        for _ in range(2):
            answered.clear()
            async with trio.open_nursery() as nursery:
                for index in range(100):
                    nursery.start_soon(ask, index)
            assert sorted(answered) == list(range(100))
        assert not other.seen("rejected")
        assert not local.seen(MessageRejected)


async def test_answers_in_parts(connected):
    async with connected() as (local, other, _):
        for count, size in ((1, 1), (300, 1), (20, 1_000_000)):
            await other.call("parts", local.peer_id, str(count), str(size))

            got = 0
            async with local.node.request_stream(other.peer_id, NAME, b"%d %d" % (count, size), type=PARTS) as answer:
                async for part in answer:
                    assert part == bytes((got & 0xFF,)) * size
                    got += 1
            assert (got, answer.bytes, answer.complete) == (count, count * size, True)


async def test_errors_of_answers_in_parts(connected):
    async with connected() as (local, other, _):
        with pytest.raises(RemoteError, match="COUNT SIZE"):
            async with local.node.request_stream(other.peer_id, NAME, b"many", type=PARTS) as answer:
                await answer.__anext__()
        # left early: it's this answer's stream that ends, and nothing else
        async with local.node.request_stream(other.peer_id, NAME, b"1000 100000", type=PARTS) as answer:
            await answer.__anext__()
        assert (await local.node.request(other.peer_id, NAME, b"still", type=ECHO)).payload == b"still"


@pytest.mark.parametrize("key_type", ["secp256k1", "rsa", "ecdsa"])
async def test_other_keys(connected, speaker, key_type):
    if (speaker, key_type) == ("js", "ecdsa"):
        pytest.skip("js-libp2p has no peers with ECDSA keys")
    if speaker == "rust":
        pytest.skip("the Rust peer is built for Ed25519 keys alone, which keeps its build short")
    async with connected("--key-type", key_type) as (local, other, got):
        await other.call("send", local.peer_id, "1", text(b"ahoy"))
        with trio.fail_after(TIMEOUT):
            assert (await got.receive()).peer == other.peer_id
        await other.call("requests-reversed", local.peer_id, "10")
        assert (await local.node.request(other.peer_id, NAME, b"ahoy", type=ECHO)).payload == b"ahoy"
        assert (await other.call("forge", local.peer_id, "signature"))["outcome"] == "reset"
        assert (await local.event(MessageRejected, peer=other.peer_id)).reason == "signature"


@pytest.mark.parametrize("key_type", ["ed25519", "secp256k1", "rsa", "ecdsa"])
async def test_gossiped_messages_of_other_keys(here, built, key_type):
    built("go")
    async with here() as local, Peer.go() as go:
        check = local.node.messages.rules.check_gossip
        told = await go.call("compose", key_type, "blocks", text(b"ahoy"))
        data, now = base64.b64decode(told["data"]), time.time_ns() // 1_000_000
        message = check(data, go.peer_id, "blocks", now)
        assert (message.peer, message.payload) == (told["author"], b"ahoy")
        for at in range(len(data)):
            changed = bytearray(data)
            changed[at] ^= 1 << at % 8
            with pytest.raises((MessageError, MessageDropped)):
                check(bytes(changed), go.peer_id, "blocks", now)


async def test_without_signatures(connected):
    async with connected("--unsigned", signatures="off") as (local, other, got):
        await other.call("send", local.peer_id, "1", text(b"ahoy"))
        with trio.fail_after(TIMEOUT):
            assert (await got.receive()).payload == b"ahoy"
        await other.call("requests-reversed", local.peer_id, "10")
        await local.node.send(other.peer_id, NAME, b"ahoy", type=1)
        await other.event("message", peer=local.peer_id, payload=text(b"ahoy"))
        assert (await local.node.request(other.peer_id, NAME, b"ahoy", type=ECHO)).payload == b"ahoy"


# what they forge


FORGED = {  # what it does: what becomes of its stream, and the reason
    "signature": ("reset", "signature"),
    "unsigned": ("reset", "signature"),
    "bit": ("reset", "signature"),
    "network_id": ("reset", "network_id"),
    "protocol": ("reset", "protocol"),
    "author": ("reset", "author"),
    "recipient": ("reset", "recipient"),
    "kind": ("open", "unasked"),
    "malformed": ("reset", "malformed"),
    "malformed-message": ("reset", "malformed"),
    "oversize": ("reset", "oversize"),
    "old": ("open", "timestamp"),
    "ahead": ("open", "timestamp"),
}


async def test_python_rejects(connected):
    async with connected() as (local, other, got):
        for fault, (outcome, reason) in FORGED.items():
            before = len(local.seen(MessageRejected))
            await other.call("request", local.peer_id, str(ECHO), "-")
            assert (await other.call("forge", local.peer_id, fault))["outcome"] == outcome, fault
            rejected = await local.event(MessageRejected, peer=other.peer_id)
            told = (rejected.protocol, rejected.reason, rejected.dropped)
            assert told == (NAME, reason, outcome == "open"), (fault, rejected)
            # the other streams of the connection go on, and nothing reached a handler
            await other.call("requests-reversed", local.peer_id, "10")
            assert not other.seen("disconnected")
            assert len(local.seen(MessageRejected)) == before + 1, fault
            with pytest.raises(trio.WouldBlock):
                got.receive_nowait()


async def test_the_forger_can_be_honest(connected):
    async with connected() as (local, other, got):
        assert (await other.call("forge", local.peer_id, "none"))["outcome"] == "open"
        assert got.receive_nowait().payload == b"forged"
