"""What the tests of signed messages with peers in other languages share: two that serve the sub-protocol "interop", and
a forger of messages that a node wouldn't make.
"""

from __future__ import annotations

import base64
import time
from contextlib import asynccontextmanager

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from interop.ends.messages import ECHO, NAME, interop
from interop.peer import Peer
from node.events import Admitted
from protocols.framing import encode_uvarint
from protocols.messages import Kind, Message
from protocols.messages.authors import peer_id_bytes
from protocols.messages.messages_pb2 import Message as PbMessage
from protocols.messages.messages_pb2 import SignedMessage

# a peer joins by a row here; it has the commands and events of interop/go/messages_commands.go
START = {"go": Peer.go, "js": Peer.js, "rust": Peer.rust}


@asynccontextmanager
async def connected(start, here, *flags, **settings):
    """`async with connected(Peer.go, here, ...) as (local, other, got)`: serving "interop"; `got`: one-way messages."""
    into, got = trio.open_memory_channel[Message](16)
    async with here(**settings) as local, start(*flags) as other:
        await local.node.serve(interop(into.send_nowait))
        await local.node.connect(other.addr)
        await local.event(Admitted, peer=other.peer_id)
        await other.event("admitted", peer=local.peer_id)
        yield local, other, got


def text(payload: bytes) -> str:
    """As the peers' commands take it."""
    return base64.b64encode(payload).decode() or "-"


class Forger:
    """Makes the bytes of messages from here to that peer, with one fault each."""

    def __init__(self, local, other) -> None:
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
            "recipient": peer_id_bytes(other.peer_id),
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
