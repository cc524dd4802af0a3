"""The control socket: commands of this machine's user to the running node.

A Unix socket in the data directory, mode 0600, JSON lines:

    {"id": 1, "call": "status", "params": {}}
    {"id": 1, "result": {...}}    or    {"id": 1, "error": {"kind": "UsageError", "message": "..."}}

A client's calls are answered one after another, in order. Bounds: MAX_LINE bytes a request, `max_control_clients` at
once. Whoever may open the socket may do all: the file's mode is the protection.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import msgspec
import trio

from node.api.functions import invoke
from node.datadir import socket_address
from node.errors import LimitError, UsageError, VouchError
from node.log import get_logger
from node.node import Node
from node.tasks import TaskStatus

MAX_LINE = 64 * 1024
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

    async def client(stream: trio.SocketStream) -> None:
        limit = int(limiter.total_tokens)
        try:
            if limiter.available_tokens < 1:
                log.warning("control_client_refused", limit=limit)
                await _refuse(stream, LimitError(f"there are {limit} clients, and max_control_clients is {limit}"))
                return
            async with limiter:
                await _serve_client(node, stream)
        except trio.BrokenResourceError:
            pass  # the client has gone, which is its right

    try:
        async with listener:
            task_status.started()
            await trio.serve_listeners(client, [listener])
    finally:
        path.unlink(missing_ok=True)


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


async def _serve_client(node: Node, stream: trio.SocketStream) -> None:
    """Answers one client's lines, in order, until it sends no more."""
    buffer = bytearray()
    while data := await stream.receive_some(MAX_LINE):
        buffer += data
        while (end := buffer.find(b"\n")) >= 0 and end <= MAX_LINE:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            await stream.send_all(await _reply(node, line))
        if len(buffer) > MAX_LINE:
            await _refuse(stream, UsageError(f"expected a request of at most {MAX_LINE} bytes on one line"))
            return


async def _refuse(stream: trio.SocketStream, error: VouchError) -> None:
    """Says why, and takes what is under way: closing over unread bytes would reset the socket under our answer."""
    await stream.send_all(_failed(0, error))
    await stream.send_eof()
    with trio.move_on_after(REFUSAL_TIMEOUT):
        while await stream.receive_some(MAX_LINE):
            pass


async def _reply(node: Node, line: bytes) -> bytes:
    try:
        request = msgspec.json.decode(line, type=Request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _failed(0, UsageError(f'expected {{"id": N, "call": NAME, "params": {{...}}}}: {error}'))
    try:
        result = await invoke(node, request.call, request.params)
        return msgspec.json.encode({"id": request.id, "result": result}) + b"\n"
    except VouchError as error:
        return _failed(request.id, error)
    except Exception as error:  # a fault of ours: it is logged, and the client learns that it isn't theirs
        log.error("call_failed", call=request.call, exc_info=error)
        return _failed(request.id, VouchError(f"{request.call} failed inside the node, see its log: {error!r}"))


def _failed(number: int, error: VouchError) -> bytes:
    return msgspec.json.encode({"id": number, "error": {"kind": type(error).__name__, "message": str(error)}}) + b"\n"
