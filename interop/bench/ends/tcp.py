"""A bare TCP socket as an end: what trio and the system take of a ping, without any of libp2p.

Its commands are connect, identify, disconnect and ping; its peer ID is made up.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from interop.bench.ends.lines import Command, say_listening
from interop.bench.ends.load import check_echo
from interop.peer import Message

SIZE = 32


@asynccontextmanager
async def tcp() -> AsyncIterator[dict[str, Command]]:
    """A listener that sends back what comes, and a client of such a one."""
    opened: dict[str, trio.SocketStream] = {}

    async def connect(addr: str) -> Message:
        _, _, host, _, port, _, peer = addr.split("/")
        started = trio.current_time()
        opened[peer] = await trio.open_tcp_stream(host, int(port))
        return {"total_ms": (trio.current_time() - started) * 1000}

    async def identify(peer: str) -> Message:
        return {"peer": peer}

    async def disconnect(peer: str) -> Message:
        await opened.pop(peer).aclose()
        return {"peer": peer}

    async def ping(peer: str, count: str) -> Message:
        times = []
        for _ in range(int(count)):
            payload = os.urandom(SIZE)
            started = trio.current_time()
            await opened[peer].send_all(payload)
            echoed = await _receive_exactly(opened[peer])
            times.append((trio.current_time() - started) * 1e6)
            check_echo(echoed, payload)
        return {"rtt_us": times}

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, _answer, [listener])
        _, port = listener.socket.getsockname()
        peer = f"tcp-{os.getpid()}"
        say_listening(peer, [f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer}"])
        yield {"connect": connect, "identify": identify, "disconnect": disconnect, "ping": ping}
        for stream in opened.values():
            await stream.aclose()
        nursery.cancel_scope.cancel()


async def _answer(stream: trio.SocketStream) -> None:
    while payload := await _receive_exactly(stream):
        await stream.send_all(payload)


async def _receive_exactly(stream: trio.SocketStream) -> bytes:
    """The next 32 bytes, b"" at the end."""
    data = bytes(await stream.receive_some(SIZE))
    while 0 < len(data) < SIZE:
        more = await stream.receive_some(SIZE - len(data))
        if not more:
            raise EOFError(f"expected {SIZE} bytes, got {len(data)} and the end")
        data += more
    return data
