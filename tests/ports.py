"""Ports for programs that have to be told theirs; whoever can, listens on port 0 instead."""

from __future__ import annotations

import socket
from collections.abc import Collection


def free_port(taken: Collection[int] = ()) -> int:
    """A TCP port of loopback on which nobody listened a moment ago, and none of those that are given away."""
    while True:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port: int = found.getsockname()[1]
        if port not in taken:
            return port
