"""What a declaration promises its author: how handlers are named, and how long an answer in parts may take."""

from __future__ import annotations

import pytest
import trio

from protocols.messages import Messages, RemoteError, Rules, SubProtocol
from protocols.messages.authors import Ed25519Signer
from tests.memnet import MemNet, MemNode


class Notes:
    """Handlers that are methods."""

    def __init__(self) -> None:
        self.sub = SubProtocol("notes")
        self.sub.on_message(self.take, type=1)
        self.sub.on_request(self.give)

    async def take(self, message):
        pass

    async def give(self, request):
        return b"a note"


def test_a_method_is_named_as_a_handler_with_its_type():
    notes = Notes()
    assert notes.sub.messages == {1: notes.take}
    assert notes.sub.requests == {None: notes.give}


def messages_of(node: MemNode) -> Messages:
    signer = Ed25519Signer(node.identity.secret)
    rules = Rules(signer=signer, network_id=b"harbour", client_version="vouch/0.1.0")
    return Messages(node, rules, wall_ms=lambda: 1_700_000_000_000)


async def read(sub: SubProtocol, into: list[bytes], pause: float = 0.0) -> None:
    """Reads an answer in parts, with a pause after each."""
    async with MemNet() as net, trio.open_nursery() as nursery:
        asking, answering = net.node("10.0.0.1"), net.node("10.0.0.2")
        ours, theirs = messages_of(asking), messages_of(answering)
        answering.registry.add(theirs.serve(sub))
        await nursery.start(ours.run)
        await nursery.start(theirs.run)
        await asking.connect(answering)
        async with ours.request_stream(answering.peer_id, sub.name, b"") as answer:
            async for part in answer:
                into.append(part)
                await trio.sleep(pause)
        nursery.cancel_scope.cancel()


async def test_an_answer_in_parts_may_take_its_time_for_each_part(autojump_clock):
    sub, parts = SubProtocol("slow", answer_timeout=3), []

    @sub.on_parts
    async def count(request):
        for number in range(5):
            await trio.sleep(2)
            yield b"%d" % number

    await read(sub, parts)
    assert parts == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_slow_reader_takes_nothing_of_the_handlers_time(autojump_clock):
    sub, parts = SubProtocol("large", answer_timeout=3, stall_timeout=10), []

    @sub.on_parts
    async def blocks(request):
        for _ in range(10):
            yield bytes(1 << 19)

    await read(sub, parts, pause=4)
    assert len(parts) == 10


async def test_a_part_that_takes_too_long_ends_the_answer_with_an_error(autojump_clock):
    sub, parts = SubProtocol("stuck", answer_timeout=3), []

    @sub.on_parts
    async def one_and_no_more(request):
        yield b"first"
        yield b"second"
        await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await read(sub, parts)
    assert parts == [b"first", b"second"]  # the second waited for a third
    (error,) = leaves(caught.value)
    assert isinstance(error, RemoteError)
    assert error.text == "no answer was found within 3 s"


def leaves(error):
    if isinstance(error, ExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]
