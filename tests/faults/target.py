"""The node under attack, in a process of its own: `python -m tests.faults.target vouch|stock`.

It prints its address on a line of JSON, then answers each line that it reads with one: how many connections hold a
slot, and its memory. Protocols: /echo/1.0.0 gives back what comes, /raise/1.0.0 raises. `stock` is py-libp2p's own host
with its defaults, on which the faults of docs/upstream.md are shown.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from node.identity import Identity

ECHO, RAISE = "/echo/1.0.0", "/raise/1.0.0"


def memory() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def answer(state: Callable[[], dict[str, Any]]) -> None:
    async with trio.lowlevel.FdStream(0) as commands:
        async for chunk in commands:
            for _ in range(chunk.count(b"\n")):
                print(json.dumps({**state(), "memory": memory()}), flush=True)


async def vouch() -> None:
    from node.config import Config
    from node.node import Node
    from protocols import Protocol, Stream

    echo, raising = Protocol(ECHO, max_frame=None), Protocol(RAISE)

    @echo.serve
    async def _reply(stream: Stream) -> None:
        async for data in stream:
            await stream.send(data)

    @raising.serve
    async def _raise(_stream: Stream) -> None:
        raise LookupError("this handler always raises")

    config = Config(listen=("/ip4/127.0.0.1/tcp/0",), dht="off")
    async with Node(config, identity=Identity.generate(), protocols=[echo, raising]) as node:
        print(json.dumps({"addr": node.addrs[0]}), flush=True)
        limits = node.swarm.limits
        await answer(lambda: {"slots": limits.total, "inbound": limits.inbound, "half_open": limits.half_open})


async def stock() -> None:
    from libp2p import new_host
    from multiaddr import Multiaddr

    host = new_host(key_pair=Identity.generate().key_pair())

    async def reply(stream: Any) -> None:
        while data := await stream.read(65536):
            await stream.write(data)

    async def fail(_stream: Any) -> None:
        raise LookupError("this handler always raises")

    host.set_stream_handler(ECHO, reply)
    host.set_stream_handler(RAISE, fail)
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        print(json.dumps({"addr": str(host.get_addrs()[0])}), flush=True)
        limiter = host.get_network()._inbound_limiter
        await answer(lambda: {"slots": limiter.borrowed_tokens, "inbound": limiter.borrowed_tokens})


if __name__ == "__main__":
    trio.run({"vouch": vouch, "stock": stock}[sys.argv[1]])
