"""What the tests of signed messages with the Go peer share: the sub-protocol "interop" in Python, as
`interop/go/messages_serve.go` has it in Go, and a forger of messages that a node wouldn't make.
"""

from __future__ import annotations

import base64
import time
from contextlib import asynccontextmanager

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from interop.peer import Peer
from node.events import Admitted
from protocols.framing import encode_uvarint
from protocols.messages import AnswerError, Kind, Message, Reply, SubProtocol
from protocols.messages.authors import peer_id_bytes
from protocols.messages.declare import MAX_PAYLOAD
from protocols.messages.messages_pb2 import Message as PbMessage
from protocols.messages.messages_pb2 import SignedMessage

NAME = "interop"
ECHO, REVERSED, FAILS, PARTS, SILENCE = 1, 2, 3, 4, 5  # types of requests
TIMEOUT = 15.0


@asynccontextmanager
async def connected(here, *flags, **settings):
    """`async with connected(here, ...) as (local, go, got)`: both serve "interop"; `got` are one-way messages."""
    into, got = trio.open_memory_channel[Message](16)
    async with here(**settings) as local, Peer.go(*flags) as go:
        await local.node.serve(interop(into))
        await local.node.connect(go.addr)
        await local.event(Admitted, peer=go.peer_id)
        await go.event("admitted", peer=local.peer_id)
        yield local, go, got


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


class Forger:
    """Makes the bytes of messages from here to the Go peer, with one fault each."""

    def __init__(self, local, go) -> None:
        self.key = local.node.identity.secret
        self.fields = {
            "author": author(local.node.identity),
            "network_id": local.node.config.network_id_bytes,
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
