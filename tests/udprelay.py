"""A path between a client and a server that can be changed: from where the server sees the client, how large a datagram
may be, what is lost.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import trio

LOOPBACK = "127.0.0.1"
MAX_DATAGRAM = 65535


class Relay:
    """`port` is where the client sends to. `largest` is what one datagram may hold, `lost` how many were larger."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.largest = MAX_DATAGRAM
        self.lost = 0
        self._server = server
        self._client: tuple[str, int] | None = None
        self._inner, self._outer = _bound(), _bound()

    @property
    def port(self) -> int:
        return int(self._inner.getsockname()[1])

    def leave_from_another_port(self) -> None:
        """As a router does that has forgotten the connection."""
        old, self._outer = self._outer, _bound()
        trio.lowlevel.notify_closing(old)
        old.close()

    async def run(self) -> None:
        with closing(self._inner):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._there)
                    nursery.start_soon(self._back)
            finally:
                self._outer.close()

    async def _there(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._inner)
            data, self._client = self._inner.recvfrom(MAX_DATAGRAM)
            self._pass_on(self._outer, data, self._server)

    async def _back(self) -> None:
        while True:
            outer = self._outer
            try:
                await trio.lowlevel.wait_readable(outer)
                data, _ = outer.recvfrom(MAX_DATAGRAM)
            except (trio.ClosedResourceError, OSError):
                continue  # there is another one
            if self._client is not None:
                self._pass_on(self._inner, data, self._client)

    def _pass_on(self, sock: socket.socket, data: bytes, addr: tuple[str, int]) -> None:
        if len(data) > self.largest:
            self.lost += 1
            return
        try:
            sock.sendto(data, addr)
        except BlockingIOError:
            self.lost += 1


def _bound() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((LOOPBACK, 0))
    return sock


@asynccontextmanager
async def relayed(server: tuple[str, int]) -> AsyncIterator[Relay]:
    """A relay that runs until the block is left."""
    relay = Relay(server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        yield relay
        nursery.cancel_scope.cancel()
