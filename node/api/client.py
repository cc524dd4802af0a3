"""The other end of the control socket: plain and synchronous, since a command asks one thing and ends.

with Client(config.control_socket) as client:
    client.call("ping", target=..., count=3)
    for item in client.stream("subscribe", topic=...): ...
"""

from __future__ import annotations

import json
import socket
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from node import errors
from node.datadir import socket_address
from node.errors import UsageError, VouchError

# a call may dial (dial_timeout) and then do its work
TIMEOUT = 60.0


class NoNodeError(VouchError):
    """No node runs with that data directory."""


class Client:
    """A connection to a running node's control socket."""

    def __init__(self, path: Path, *, timeout: float = TIMEOUT) -> None:
        """`timeout`: seconds that the node has to take the connection, and for each answer. Raises NoNodeError if
        nobody listens there, UsageError if it is another user's, VouchError if a node doesn't take the connection.
        """
        self.path = path
        self._timeout = timeout
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._next = 0
        try:
            if not path.parent.is_dir():
                raise FileNotFoundError
            with socket_address(path) as address:
                self._socket.connect(address)
        except (TimeoutError, BlockingIOError):  # its backlog is full
            self._socket.close()
            raise VouchError("the node takes no connection: it hangs, or too many clients wait for it") from None
        except PermissionError:
            self._socket.close()
            raise UsageError(f"can't open the control socket {path}, which is its owner's: Permission denied") from None
        except OSError:
            self._socket.close()
            raise NoNodeError(
                f"no node is running with the data directory {path.parent}: "
                "start one with `vouch run`, or name another with --data-dir"
            ) from None
        self._lines = self._socket.makefile("rb")

    def call(self, name: str, /, **params: Any) -> dict[str, Any]:
        """Calls a function (see `node.api.functions`) and gives its result. Raises the node's own error; after one of
        time nothing more can be asked here.
        """
        self._send(name, params)
        result: dict[str, Any] = self._receive(name)["result"]
        return result

    def stream(self, name: str, /, **params: Any) -> Generator[dict[str, Any], None, None]:
        """Calls a function that goes on telling, and gives its items as they come, without a limit of time. Who stops
        before its end closes the client: that tells the node. Raises the node's own error.
        """
        self._send(name, params)
        self._socket.settimeout(None)
        while "item" in (answer := self._receive(name)):
            item: dict[str, Any] = answer["item"]
            yield item

    def _send(self, name: str, params: dict[str, Any]) -> None:
        self._next += 1
        self._socket.settimeout(self._timeout)
        line = json.dumps({"id": self._next, "call": name, "params": params}).encode() + b"\n"
        try:
            self._socket.sendall(line)
        except TimeoutError:
            raise VouchError(f"the node didn't take {name!r} within {self._timeout:g} s") from None
        except OSError as error:
            raise VouchError(f"the node closed the control socket: {error.strerror or error}") from error

    def _receive(self, name: str) -> dict[str, Any]:
        """The next line. Raises the error that it holds."""
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise VouchError(f"the node didn't answer {name!r} within {self._timeout:g} s") from None
        except OSError as error:
            raise VouchError(f"the node closed the control socket: {error.strerror or error}") from error
        if not line:
            raise VouchError("the node closed the control socket: it is stopping, or serves too many clients")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = getattr(errors, answer["error"]["kind"], VouchError)
            raise kind(answer["error"]["message"])
        return answer

    def shut(self) -> None:
        """Ends it from another thread: a `stream` that waits there raises VouchError."""
        with suppress(OSError):  # it is closed already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
