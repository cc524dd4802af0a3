"""The HTTP API of a node in this process, on a real socket; and clients of it, some of which don't behave."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import httpx
import trio

from node import Config, Identity, Node
from node.api.http.serve import Server
from node.api.http.token import read_token
from tests.nodes import DEFAULTS

NETWORK = "api-tests"
DEADLINE = 20.0


@asynccontextmanager
async def node_at(data_dir: Path, **settings: Any) -> AsyncIterator[Node]:
    """A node on loopback, with a data folder."""
    settings = DEFAULTS | {"listen": ("/ip4/127.0.0.1/tcp/0",), "network_id": NETWORK, "api": "127.0.0.1:0"} | settings
    async with Node(Config(data_dir=data_dir, **settings), identity=Identity.generate()) as node:
        yield node


@asynccontextmanager
async def serving(node: Node, **more: Any) -> AsyncIterator[Server]:
    """The node's API."""
    server = Server(node, **more)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        yield server
        nursery.cancel_scope.cancel()


def client(server: Server, *, token: bool = True, **more: Any) -> httpx.AsyncClient:
    """A proper client."""
    headers = {"Authorization": f"Bearer {read_token(server.node.config.data_dir)}"} if token else {}
    return httpx.AsyncClient(base_url=server.url, headers=headers, timeout=DEADLINE, **more)


async def raw(server: Server) -> trio.SocketStream:
    """A connection, to send whatever one likes."""
    return await trio.open_tcp_stream(server.address.host, server.address.port)


async def rest(stream: trio.SocketStream) -> bytes:
    """All that comes until the end."""
    data = b""
    with trio.fail_after(DEADLINE):
        while part := await stream.receive_some(65536):
            data += part
    return data


class Listener:
    """Server-sent events of one answer, one by one. By hand: httpx leaves answers that are half read open."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.headers: dict[str, str] = {}
        self._http = h11.Connection(h11.CLIENT)
        self._text = ""

    async def begin(self, path: str, headers: dict[str, str]) -> int:
        """Asks; the status."""
        request = h11.Request(method="GET", target=path, headers=[("Host", "localhost"), *headers.items()])
        await self.stream.send_all((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        response = await self._event()
        assert isinstance(response, h11.Response)
        self.headers = {name.decode(): value.decode() for name, value in response.headers}
        return response.status_code

    async def _event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(bytes(await self.stream.receive_some(65536)))
        return event

    async def frame(self) -> list[str]:
        """The lines up to the next empty one."""
        with trio.fail_after(DEADLINE):
            while "\n\n" not in self._text:
                event = await self._event()
                assert isinstance(event, h11.Data), event
                self._text += bytes(event.data).decode()
        found, _, self._text = self._text.partition("\n\n")
        return found.splitlines()

    async def next(self) -> tuple[str, str, Any]:
        """The next event: its ID, its name and what it holds."""
        found: dict[str, str] = {}
        while "data" not in found:
            found = {name: value for line in await self.frame() for name, _, value in [line.partition(": ")]}
        return found["id"], found["event"], json.loads(found["data"])


@asynccontextmanager
async def listening(
    server: Server, path: str, *, tls: ssl.SSLContext | None = None, **headers: str
) -> AsyncIterator[Listener]:
    """A listener of that path, with the token."""
    stream: trio.abc.Stream = await raw(server)
    if tls is not None:
        stream = trio.SSLStream(stream, tls, server_hostname="127.0.0.1", https_compatible=True)
    async with stream:
        listener = Listener(stream)
        token = read_token(server.node.config.data_dir)
        given = {"Authorization": f"Bearer {token}"} | {name.replace("_", "-"): text for name, text in headers.items()}
        assert await listener.begin(path, given) == 200
        yield listener
