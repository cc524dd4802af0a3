"""What `vouch run` tells systemd (sd_notify(3), `Type=notify`): READY, STOPPING, and WATCHDOG while the loop turns.

    NOTIFY_SOCKET        a datagram socket, @ for Linux's abstract ones; absent: there is nobody to tell
    WATCHDOG_USEC        microseconds after which systemd takes a silent node for dead; told twice in that time
    WATCHDOG_PID         whom that is for

A message that can't be sent is lost: the node's work doesn't depend on it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

import trio

# children, such as programs that decide on a topic, shouldn't speak for the node
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notify:
    """The way to systemd, if it started this process."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        self.address = f"\0{name[1:]}" if name.startswith("@") else name
        self.pause = _pause(environ) if self.address else None

    @classmethod
    def taken(cls) -> Notify:
        """That of this process; its variables are taken out of the environment."""
        made = cls(os.environ)
        for name in VARIABLES:
            os.environ.pop(name, None)
        return made

    def send(self, text: str) -> None:
        """Says one thing, such as READY=1."""
        if not self.address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(text.encode(), self.address)

    async def watchdog(self) -> None:
        """Says that the event loop turns, until cancelled; returns at once if nobody asks."""
        while self.pause is not None:
            self.send("WATCHDOG=1")
            await trio.sleep(self.pause)


def _pause(environ: Mapping[str, str]) -> float | None:
    """Seconds between two signs of life, or None."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return microseconds / 2e6 if microseconds > 0 else None
