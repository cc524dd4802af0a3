"""Listens for the HTTP API and takes its connections; owned by `vouch run`.

    bind -> listening: a task for each connection (`connection.Connection`) -> cancelled: all of them end

Connections are bounded (`max_api_connections`, and half of them of one other machine). When there is no place, the one
that has waited for its client for longest gives way, so that idle ones lock nobody out. If all are at work, who comes
is told so (429), by REFUSALS tasks at most, and beyond that its connection is closed at once. Nothing that a client
does ends anything but connections.
"""

from __future__ import annotations

import errno
import socket
import ssl
from pathlib import Path
from typing import Any

import trio

from node.api.http.app import Api
from node.api.http.connection import Connection, error_body, hypercorn_config
from node.api.http.guard import Guard, Places, Refusal
from node.api.http.token import load_or_make_token, token_path
from node.config import Config
from node.errors import UsageError
from node.hostport import Address, parse_address
from node.log import get_logger
from node.node import Node
from node.sockets import bound
from node.tasks import TaskStatus

BACKLOG = 128
REFUSALS = 64
REFUSAL_TIMEOUT = 2.0
ROOM_TIMEOUT = 1.0
# errors of accept() that pass: no descriptors, no memory; and how long to leave it alone then
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
PAUSE = 0.1

log = get_logger("api")


class Server:
    """The API of one node. What it does is counted: `api.requests`, `api.guard.refused`, `connections`."""

    def __init__(self, node: Node, *, asked: bool = True) -> None:
        """Listens, and takes nobody yet. `asked`: somebody wants this very address. Raises UsageError."""
        config = node.config
        address = parse_address(config.api)
        if address is None:
            raise ValueError("expected an address for the API, got off")
        self.node = node
        self.tls = _tls(config)
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        token, made = load_or_make_token(config.data_dir)
        if made:
            log.info("api_token_made", file=str(token_path(config.data_dir)))
        self._socket = _bind(address, asked)
        self.address = Address(address.host, self._socket.getsockname()[1])
        guard = Guard(
            token,
            port=self.address.port,
            names=(address.host, *config.api_hosts),
            any_ip=address.everywhere,
            tls=self.tls is not None,
            always=config.api_token == "always" or not address.loopback,
            max_body=config.max_api_body,
        )
        self.api = Api(node, guard)
        self.connections = Places(config.max_api_connections, "max_api_connections")
        self._open: dict[Connection, str] = {}  # and whose they are
        self._refusing = 0
        self._hypercorn = hypercorn_config()
        if node.metrics is not None:
            node.metrics.watch_api(self)

    @property
    def url(self) -> str:
        """Where the dashboard is."""
        here = Address("::1" if ":" in self.address.host else "127.0.0.1", self.address.port)
        shown = here if self.address.everywhere else self.address
        return f"{'https' if self.tls else 'http'}://{shown}/"

    async def run(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled."""
        listening = trio.socket.from_stdlib_socket(self._socket)
        try:
            async with trio.open_nursery() as nursery:
                self.node.api_url = self.url
                for places in (self.connections, self.api.listeners):
                    self.node.api_bounds[places.setting] = places.figures
                log.info("api_listening", url=self.url)
                task_status.started()
                while True:
                    try:
                        accepted, (host, *_) = await listening.accept()
                    except OSError as error:
                        if error.errno in FULL:
                            log.warning("api_not_accepting", error=error.strerror)
                            await trio.sleep(PAUSE)
                        continue
                    await self._take(nursery, accepted, host)
        finally:
            self.node.api_url = ""
            for places in (self.connections, self.api.listeners):
                self.node.api_bounds.pop(places.setting, None)
            listening.close()

    async def _take(self, nursery: trio.Nursery, accepted: Any, host: str) -> None:
        if self.connections.full(host):
            await self._make_room(host)
        refusal = self.connections.take(host)
        try:
            stream = trio.SocketStream(accepted)
        except OSError:  # it has gone already
            accepted.close()
            if refusal is None:
                self.connections.leave(host)
            return
        if refusal is None:
            nursery.start_soon(self._serve, stream, host)
        elif self._refusing < REFUSALS and self.tls is None:
            self._refusing += 1
            nursery.start_soon(self._refuse, stream, refusal)
        else:
            await trio.aclose_forcefully(stream)

    async def _make_room(self, host: str) -> None:
        """The connection that has waited for longest ends; one of the same machine, if that has too many."""
        waiting = [
            (one.waits_since, whose, one)
            for one, whose in self._open.items()
            if one.waits_since is not None and (whose == host or self.connections.full())
        ]
        if waiting:
            _, whose, one = min(waiting, key=lambda row: row[0])
            with trio.move_on_after(ROOM_TIMEOUT):
                await one.give_way()
                self._leave(one, whose)

    def _leave(self, one: Connection, host: str) -> None:
        """Gives its place back, once."""
        if self._open.pop(one, None) is not None:
            self.connections.leave(host)

    async def _serve(self, plain: trio.SocketStream, host: str) -> None:
        stream: trio.abc.Stream = plain
        if self.tls is not None:
            stream = trio.SSLStream(plain, self.tls, server_side=True, https_compatible=True)
        one = Connection(self.api, self._hypercorn, stream)
        self._open[one] = host
        try:
            await one.run()
        except Exception as error:  # a fault of ours, or of what stands below
            log.error("api_connection_failed", exc_info=error)
            await trio.aclose_forcefully(plain)
        finally:
            self._leave(one, host)

    async def _refuse(self, stream: trio.SocketStream, refusal: Refusal) -> None:
        """Says why, and reads what comes meanwhile: closing over it would reset the connection under our answer."""
        body = error_body(refusal.code, refusal.message)
        head = (
            f"HTTP/1.1 {refusal.status} Too Many Requests\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nretry-after: 5\r\nconnection: close\r\n\r\n"
        )
        try:
            with trio.move_on_after(REFUSAL_TIMEOUT):
                async with stream:
                    await stream.send_all(head.encode() + body)
                    await stream.send_eof()
                    while await stream.receive_some(4096):
                        pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._refusing -= 1


def _tls(config: Config) -> ssl.SSLContext | None:
    if config.api_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    key: Path = config.api_key or config.api_cert
    try:
        context.load_cert_chain(config.api_cert, key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"api_cert: expected a certificate and its key in {config.api_cert} and {key}, got: {error}"
        ) from None
    return context


def _bind(address: Address, asked: bool) -> socket.socket:
    """A listening socket. One that nobody asked for takes a free port where its own is taken."""
    try:
        return _listen(address)
    except OSError as error:
        if not asked and error.errno == errno.EADDRINUSE:
            free = _listen(Address(address.host, 0))
            log.info("api_port_taken", port=address.port, instead=free.getsockname()[1])
            return free
        raise UsageError(f"api: can't listen on {address}: {error.strerror or error}") from None


def _listen(address: Address) -> socket.socket:
    made = bound(address.host, address.port)
    try:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
