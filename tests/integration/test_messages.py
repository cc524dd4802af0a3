"""Messages between whole nodes on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from node.errors import UsageError
from node.events import MessageRejected
from node.node import Node
from protocols import NotConnected, NotSupported
from protocols.messages import Message, RemoteError, SubProtocol
from tests.nodes import Recorder, eventually, running


class Notebook:
    """A sub-protocol with a handler of each sort. `noted` are the messages that came."""

    def __init__(self) -> None:
        self.noted: list[Message] = []
        self.sub = SubProtocol("notebook", rate=None)

        @self.sub.on_message
        async def note(message: Message) -> None:
            self.noted.append(message)

        @self.sub.on_request
        async def reverse(request: Message) -> bytes:
            if request.payload == b"?":
                raise LookupError("what?")
            return request.payload[::-1]

        @self.sub.on_parts(type=1)
        async def count(request: Message) -> AsyncIterator[bytes]:
            for _ in range(int(request.payload)):
                yield bytes(100_000)


@asynccontextmanager
async def connected(**settings: str) -> AsyncIterator[tuple[Node, Node, Notebook]]:
    notebook = Notebook()
    async with running(protocols=[notebook.sub], **settings) as b, running(**settings) as a:
        await a.connect(b.addrs[0])
        yield a, b, notebook


@pytest.mark.parametrize(
    "settings", [{}, {"signatures": "off"}, {"upgrade": "stock"}], ids=["ours", "unsigned", "stock"]
)
async def test_send_request_and_parts_over_sockets(settings):
    async with connected(**settings) as (a, b, notebook):
        for number in range(50):
            await a.send(b.peer_id, "notebook", b"%d" % number, type=3)
        await eventually(lambda: len(notebook.noted) == 50)
        assert [message.payload for message in notebook.noted] == [b"%d" % number for number in range(50)]
        assert {(message.peer, message.type) for message in notebook.noted} == {(a.peer_id, 3)}

        async def ask(number: int) -> None:
            payload = b"%d" % number + bytes(number * 100)
            assert (await a.request(b.peer_id, "notebook", payload)).payload == payload[::-1]

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(ask, number)
        assert b.registry.streams(a.peer_id, notebook.sub.id) == 1
        with pytest.raises(RemoteError, match=r"what\?"):
            await a.request(b.peer_id, "notebook", b"?")
        async with a.request_stream(b.peer_id, "notebook", b"30", type=1) as answer:
            async for _ in answer:
                pass
        assert (answer.parts, answer.bytes, answer.complete) == (30, 3_000_000, True)
        largest = bytes(notebook.sub.max_payload)
        assert (await a.request(b.peer_id, "notebook", largest)).payload == largest


async def test_what_cant_be_asked():
    async with connected() as (a, b, _):
        with pytest.raises(NotSupported):
            await b.request(a.peer_id, "notebook", b"")
        with pytest.raises(NotConnected):
            await a.request("12D3KooWGRUaX4zv4AtF6nKcqhmWXQnHpHZu8s6eYAzDxZ3zYxyy", "notebook", b"")
        for call in (a.send, a.request):
            with pytest.raises(UsageError, match="expected a peer ID"):
                await call("nobody", "notebook", b"")
            with pytest.raises(ValueError, match="expected a name"):
                await call(b.peer_id, "Note/book", b"")


async def test_signed_and_unsigned_nodes_refuse_each_other_and_the_operator_learns_why():
    notebook = Notebook()
    async with running(protocols=[notebook.sub]) as b, running(signatures="off") as a:
        recorder = Recorder(b)
        await a.connect(b.addrs[0])
        await a.send(b.peer_id, "notebook", b"unsigned")
        rejected = await recorder.next(MessageRejected)
        assert (rejected.peer, rejected.protocol, rejected.reason) == (a.peer_id, "notebook", "signature")
        assert rejected.detail == f"signature: expected one, got none, from {a.peer_id}"
        assert not notebook.noted


async def test_a_stream_by_its_name_carries_bytes_or_frames():
    async with connected() as (a, b, notebook), a.stream(b.peer_id, notebook.sub.id) as stream:
        assert stream.protocol.max_frame is None
        await stream.send(b"\x01x")  # one frame, which is no message
        with pytest.raises(Exception, match="reset"):
            await stream.receive()
