"""The control socket: commands of this machine's user to the running node.

A Unix socket in the data directory, mode 0600, JSON lines:

    {"id": 1, "call": "status", "params": {}}
    {"id": 1, "result": {...}}    or    {"id": 1, "error": {"kind": "UsageError", "message": "..."}}

A client's calls are answered one after another, in order. One that goes on telling (`functions.STREAMS`) sends lines
{"id": 1, "item": {...}} before its result, until it is over or the client shuts down its side. Bounds: MAX_LINE bytes a
request, `max_control_clients` at once. Whoever may open the socket may do all: the file's mode is the protection.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import trio

from node.api.functions import STREAMS, invoke, stream
from node.datadir import socket_address
from node.errors import LimitError, UsageError, VouchError
from node.log import get_logger
from node.node import Node
from node.tasks import TaskStatus

# the largest message that can be published, in base64
MAX_LINE = 2 << 20
READ_SIZE = 64 * 1024
REFUSAL_TIMEOUT = 5.0

log = get_logger("control")


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """One call."""

    id: int
    call: str
    params: Any = {}


async def serve(node: Node, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
    """Answers on the node's control socket until cancelled. The caller holds the data directory's lock."""
    path = node.config.control_socket
    listener = _bind(path)
    limiter = trio.CapacityLimiter(node.config.max_control_clients)
    refused = 0
    node.api_bounds["max_control_clients"] = lambda: (limiter.borrowed_tokens, int(limiter.total_tokens), refused)

    async def client(stream: trio.SocketStream) -> None:
        nonlocal refused
        limit = int(limiter.total_tokens)
        try:
            if limiter.available_tokens < 1:
                refused += 1
                log.warning("control_client_refused", limit=limit)
                await _refuse(stream, LimitError(f"there are {limit} clients, and max_control_clients is {limit}"))
                return
            async with limiter:
                await _Client(node, stream).serve()
        except trio.BrokenResourceError:
            pass  # the client has gone, which is its right

    try:
        async with listener:
            task_status.started()
            await trio.serve_listeners(client, [listener])
    finally:
        path.unlink(missing_ok=True)
        node.api_bounds.pop("max_control_clients", None)


def _bind(path: Path) -> trio.SocketListener:
    path.unlink(missing_ok=True)  # left behind by a node that was killed; the lock says that none is alive
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with socket_address(path) as address:
            bound.bind(address)
        bound.listen(16)
    except OSError as error:
        bound.close()
        raise UsageError(f"can't make the control socket {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    bound.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(bound))


class _Client:
    """One client, and what it has sent that isn't answered yet."""

    def __init__(self, node: Node, stream: trio.SocketStream) -> None:
        self._node = node
        self._stream = stream
        self._buffer = bytearray()
        self._gone = False

    async def serve(self) -> None:
        """Answers its lines, in order, until it sends no more."""
        while not self._gone and await self._read():
            while not self._gone and (line := self._line()) is not None:
                await self._answer(line)
            if len(self._buffer) > MAX_LINE:
                await _refuse(self._stream, UsageError(f"expected a request of at most {MAX_LINE} bytes on one line"))
                return

    async def _read(self) -> bool:
        """Whether there was more."""
        data = await self._stream.receive_some(READ_SIZE)
        self._buffer += data
        return bool(data)

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\n")
        if not 0 <= end <= MAX_LINE:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    async def _answer(self, line: bytes) -> None:
        try:
            request = msgspec.json.decode(line, type=Request)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            expected = 'expected {"id": N, "call": NAME, "params": {...}}'
            await self._stream.send_all(_failed(0, UsageError(f"{expected}: {error}")))
            return
        if request.call in STREAMS:
            reply = await self._tell(request)
        else:
            reply = await _reply(request, lambda: invoke(self._node, request.call, request.params))
        if not self._gone:
            await self._stream.send_all(reply)

    async def _tell(self, request: Request) -> bytes:
        """Sends a call's items as they come. It ends with the call, or with the client."""
        reply = b""
        async with trio.open_nursery() as nursery:

            async def tell(item: msgspec.Struct) -> None:
                try:
                    await self._stream.send_all(msgspec.json.encode({"id": request.id, "item": item}) + b"\n")
                except trio.BrokenResourceError:
                    self._leave(nursery)
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(self._watch, nursery)
            reply = await _reply(request, lambda: stream(self._node, request.call, request.params, tell))
            nursery.cancel_scope.cancel()
        return reply

    async def _watch(self, nursery: trio.Nursery) -> None:
        """Sees the client go; what it sends meanwhile waits, a line's worth of it."""
        try:
            while len(self._buffer) <= MAX_LINE:
                if not await self._read():
                    break
        except trio.BrokenResourceError:
            pass
        self._leave(nursery)

    def _leave(self, nursery: trio.Nursery) -> None:
        self._gone = True
        nursery.cancel_scope.cancel()


async def _refuse(stream: trio.SocketStream, error: VouchError) -> None:
    """Says why, and takes what is under way: closing over unread bytes would reset the socket under our answer."""
    await stream.send_all(_failed(0, error))
    await stream.send_eof()
    with trio.move_on_after(REFUSAL_TIMEOUT):
        while await stream.receive_some(READ_SIZE):
            pass


async def _reply(request: Request, call: Callable[[], Awaitable[Any]]) -> bytes:
    try:
        return msgspec.json.encode({"id": request.id, "result": await call()}) + b"\n"
    except VouchError as error:
        return _failed(request.id, error)
    except Exception as error:  # a fault of ours: it is logged, and the client learns that it isn't theirs
        log.error("call_failed", call=request.call, exc_info=error)
        return _failed(request.id, VouchError(f"{request.call} failed inside the node, see its log: {error!r}"))


def _failed(number: int, error: VouchError) -> bytes:
    return msgspec.json.encode({"id": number, "error": {"kind": type(error).__name__, "message": str(error)}}) + b"\n"
