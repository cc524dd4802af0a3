"""Hypercorn's HTTP/1.1 on one connection, within bounds of ours.

What Hypercorn 0.18's own shell on trio does otherwise (read in its code; `tests/api/http/test_hypercorn.py`):

- it sends behind a shield without a deadline: a listener that doesn't read can neither be dropped nor cancelled, and
  holds up the node's end for ever. Here a send has SEND_TIMEOUT, and is cancelled like anything else.
- what an app hasn't read when it has answered waits for ever: a body of 10 MiB that is refused keeps its task. Here the
  app's end closes the way to it.
- an error in it ends all connections, and what stands above. Here it is logged, and ends one.
- any client may switch to HTTP/2 (h2c) or WebSocket, which nobody here needs. Here it stays with HTTP/1.1.
- its own refusals have no body. Here they are JSON like all others.

A request's head has HEAD_TIMEOUT from the connection's begin, or from the answer before, and MAX_HEAD bytes.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import h11
import msgspec
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from node.log import get_logger

HEAD_TIMEOUT = 5.0
LINGER = 2.0
SEND_TIMEOUT = 20.0
TLS_TIMEOUT = 5.0
MAX_HEAD = 16 << 10
MAX_RECEIVE = 64 << 10
MAX_PARTS = 8  # of a body, 64 KiB each, that wait for the app

log = get_logger("api")

App = Callable[[Any, Any, Any], Awaitable[None]]

_REFUSALS = {
    400: "expected a request of HTTP/1.1, got something else",
    431: f"expected at most {MAX_HEAD} bytes of headers, got more",
}


def hypercorn_config() -> HypercornConfig:
    """Its settings. It logs nothing of its own: requests aren't logged, and errors are here."""
    config = HypercornConfig()
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = HEAD_TIMEOUT
    config.keep_alive_max_requests = 10_000
    config.h11_max_incomplete_size = MAX_HEAD
    config.max_app_queue_size = MAX_PARTS
    return config


class Connection(TCPServer):
    """One connection, from its TLS handshake to its end. `run` lets out no error of a client's."""

    def __init__(self, app: App, config: HypercornConfig, stream: trio.abc.Stream) -> None:
        async def wrapped(scope: Any, receive: Any, send: Any, _spawn: Any, _soon: Any) -> None:
            await app(scope, receive, send)

        super().__init__(wrapped, config, WorkerContext(None), {}, stream)  # type: ignore[arg-type]
        self.waits_since: float | None = trio.current_time()  # for a request; None while there is one
        self.ended = trio.Event()
        self._scope = trio.CancelScope()
        self._lingers = False

    async def run(self) -> None:
        """Answers requests until the client goes, is idle or breaks the rules."""
        try:
            with self._scope:
                await self._run()
        finally:
            self.ended.set()

    async def give_way(self) -> None:
        """Ends a connection that waits for its client, for the sake of another."""
        self._scope.cancel()
        await self.ended.wait()

    async def _run(self) -> None:
        stream: Any = self.stream
        tls = isinstance(stream, trio.SSLStream)
        try:
            if tls:
                with trio.fail_after(TLS_TIMEOUT):
                    await stream.do_handshake()
            raw = stream.transport_stream.socket if tls else stream.socket
            client = parse_socket_addr(raw.family, raw.getpeername())
            server = parse_socket_addr(raw.family, raw.getsockname())
            tasks = _Tasks()
            async with tasks:
                self._task_group = tasks
                self.protocol = _Http1(  # type: ignore[assignment]
                    self.app,
                    self.config,
                    self.context,
                    tasks,
                    ConnectionState({}),
                    tls,
                    client,
                    server,
                    self.protocol_send,
                )
                await self.idle_task.restart(tasks, self._idle_timeout)
                await self._read_data()
                tasks.cancel()
        except (OSError, ssl.SSLError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass  # the client went, which is its right, or never did what it came for
        finally:
            await trio.aclose_forcefully(stream)

    async def _read_data(self) -> None:
        with trio.CancelScope() as self._reading, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await self.stream.receive_some(MAX_RECEIVE):
                if not self._lingers:
                    await self.protocol.handle(RawData(bytes(data)))
        await self.protocol.handle(Closed())

    async def protocol_send(self, event: Event) -> None:
        """Carries out what the protocol wants."""
        if isinstance(event, Closed):
            # closing over unread bytes would reset the connection under our answer: what comes is read and thrown away
            self._lingers = True
            self.waits_since = self.waits_since or trio.current_time()
            self._reading.deadline = trio.current_time() + LINGER
            stream: trio.abc.Stream = self.stream
            if isinstance(stream, trio.abc.HalfCloseableStream):  # TLS isn't
                with trio.move_on_after(LINGER), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    async with self.send_lock:
                        await stream.send_eof()
            await self.protocol.handle(Closed())
        elif isinstance(event, Updated):
            self.waits_since = trio.current_time() if event.idle else None
            await super().protocol_send(event)
        elif not isinstance(event, RawData):
            await super().protocol_send(event)
        elif not await self._send(event.data):
            await trio.aclose_forcefully(self.stream)
            self._reading.cancel()  # it may wait for the end of an answer, before it reads the next request
            await self.protocol.handle(Closed())

    async def _send(self, data: bytes) -> bool:
        """Whether the client took it."""
        with trio.move_on_after(SEND_TIMEOUT):
            async with self.send_lock:
                try:
                    await self.stream.send_all(data)
                    return True
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
        return False


class _Http1(H11Protocol):
    """Stays with HTTP/1.1, and says in JSON what it doesn't take."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """No upgrades to HTTP/2."""

    async def _create_stream(self, request: h11.Request) -> None:
        if any(name == b"upgrade" for name, _ in request.headers):  # nor to anything else
            headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
            request = h11.Request(
                method=request.method, target=request.target, headers=headers, http_version=request.http_version
            )
        await super()._create_stream(request)

    async def _send_error_response(self, status_code: int) -> None:
        body = error_body(
            {431: "headers_too_large"}.get(status_code, "bad_request"), _REFUSALS.get(status_code, _REFUSALS[400])
        )
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


class _Tasks(TaskGroup):
    """The tasks of one connection."""

    def cancel(self) -> None:
        """Ends them: nobody is there for whom they work."""
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Any:
        """Starts the app on a request. What it is told goes by the function that is returned, as long as it runs.

        If the client goes before it has all of the answer, the app is cancelled.
        """
        assert self._nursery is not None
        to_app, receive = trio.open_memory_channel[Any](config.max_app_queue_size)
        running, answered = trio.CancelScope(), False

        async def send_on(message: Any) -> None:
            nonlocal answered
            answered = answered or (message["type"] == "http.response.body" and not message.get("more_body", False))
            await send(message)

        async def put(message: Any) -> None:
            if message["type"] == "http.disconnect":
                if not answered:
                    running.cancel()
                return
            with suppress(trio.BrokenResourceError):  # it has answered, and wants no more
                await to_app.send(message)

        async def run() -> None:
            with running, receive:
                try:
                    await app(scope, receive.receive, send_on, None, None)
                except Exception as error:  # the app answers its own errors: this one came after its answer had begun
                    log.error("api_failed", path=scope.get("path", ""), exc_info=error)
            await send(None)

        self._nursery.start_soon(run)
        return put


def error_body(code: str, message: str) -> bytes:
    """The body of every answer that is an error."""
    return msgspec.json.encode({"error": {"code": code, "message": message}})
