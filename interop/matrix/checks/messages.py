"""Signed messages."""

from __future__ import annotations

import base64

from interop.ends.messages import ECHO, FAILS
from interop.matrix.ends import Pair, expect

PAYLOADS = (b"", b"ahoy", bytes(range(256)) * 256)


async def messages(pair: Pair) -> None:
    """One-way, requests, and an error answer, both ways; nothing is rejected."""
    for one, other in pair.both:
        for number, payload in enumerate(PAYLOADS):
            await one.call("send", other.peer_id, str(number), _text(payload))
            told = await other.event("message", peer=one.peer_id, type=number)
            expect(base64.b64decode(told["payload"]) == payload, f"{len(payload)} bytes in a message, got others")
            reply = await one.call("request", other.peer_id, str(ECHO), _text(payload))
            expect(base64.b64decode(reply["payload"]) == payload, f"{len(payload)} bytes in an answer, got others")
        reply = await one.call("request", other.peer_id, str(FAILS), _text(b"ahoy"), check=False)
        expect(reply.get("error") == "remote: no such thing: ahoy", f"the error answer, got {reply}")
    for one, _ in pair.both:
        expect(not one.seen("rejected"), f"{one.name} to reject nothing, got {one.seen('rejected')}")


def _text(payload: bytes) -> str:
    return base64.b64encode(payload).decode() or "-"
