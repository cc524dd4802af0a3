"""The sub-protocol "interop" in Python, as `interop/go/messages_serve.go` has it in Go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import trio

from protocols.messages import AnswerError, Message, Reply, SubProtocol
from protocols.messages.declare import MAX_PAYLOAD

NAME = "interop"
ECHO, REVERSED, FAILS, PARTS, SILENCE = 1, 2, 3, 4, 5  # types of requests
TIMEOUT = 15.0


def interop(told: Callable[[Message], None]) -> SubProtocol:
    """What the Go peer serves; `told` takes the one-way messages."""
    sub = SubProtocol(NAME, max_payload=MAX_PAYLOAD, requests_in_flight=128, timeout=TIMEOUT)
    held: list[trio.Event] = []

    @sub.on_message
    async def note(message: Message) -> None:
        told(message)

    @sub.on_request(type=ECHO)
    async def echo(request: Message) -> Reply:
        return Reply(request.payload, ECHO)

    @sub.on_request(type=REVERSED)
    async def last_first(request: Message) -> Reply:
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
    async def fails(request: Message) -> Reply:
        raise AnswerError(f"no such thing: {request.payload.decode()}")

    @sub.on_parts(type=PARTS)
    async def parts(request: Message) -> AsyncIterator[bytes]:
        count, size = map(int, request.payload.split())
        for i in range(count):
            yield bytes((i & 0xFF,)) * size

    @sub.on_request(type=SILENCE)
    async def silence(request: Message) -> Reply:
        await trio.sleep_forever()

    return sub
