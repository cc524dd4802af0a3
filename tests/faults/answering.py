"""A node that answers requests, in a process of its own, to be killed: `python -m tests.faults.answering`.

It prints its address on a line of JSON and then echoes requests of the sub-protocol `echo` until its input ends.
"""

from __future__ import annotations

import json

import trio

from node.config import Config
from node.identity import Identity
from node.node import Node
from protocols.messages import Message, SubProtocol

echo = SubProtocol("echo", rate=None, requests_in_flight=64, timeout=15)


@echo.on_request
async def answer(request: Message) -> bytes:
    return request.payload


async def main() -> None:
    config = Config(listen=("/ip4/127.0.0.1/tcp/0",), dht="off")
    async with Node(config, identity=Identity.generate(), protocols=[echo]) as node, trio.lowlevel.FdStream(0) as end:
        print(json.dumps({"addr": node.addrs[0]}), flush=True)
        await end.receive_some(1)


if __name__ == "__main__":
    trio.run(main)
