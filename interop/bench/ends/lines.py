"""The line language of an end: one JSON object a line goes out, one command a line comes in."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import trio

from interop.peer import Message

LISTEN = "/ip4/127.0.0.1/tcp/0"
LISTEN_QUIC = "/ip4/127.0.0.1/udp/0/quic-v1"
UNTIL_TIMEOUT = 5.0
UNTIL_POLL = 0.002

Command = Callable[..., Awaitable[Message]]
End = AbstractAsyncContextManager[dict[str, Command]]


class CommandError(Exception):
    """A command that failed: its text is the reply's error as it is, and the fields go into the reply too."""

    def __init__(self, text: str, **fields: object) -> None:
        super().__init__(text)
        self.fields = fields


def say(**message: object) -> None:
    """One line out."""
    print(json.dumps(message), flush=True)


def say_listening(peer: str, addrs: list[str], **more: object) -> None:
    """The first line: the end is ready."""
    say(event="listening", peer=peer, addrs=addrs, pid=os.getpid(), **more)


async def serve(end: End) -> None:
    """Carries out an end's commands until the end of the input."""
    async with end as commands, trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        buffer = b""
        async for data in stdin:
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                name, *arguments = line.decode().split()
                try:
                    say(reply=name, ok=True, **await commands[name](*arguments))
                except CommandError as error:
                    say(reply=name, ok=False, error=str(error), **error.fields)
                except Exception as error:  # the harness decides what a failure means
                    say(reply=name, ok=False, error=repr(error))


async def until(done: Callable[[], bool]) -> None:
    """Waits until it is done. Raises TooSlowError."""
    with trio.fail_after(UNTIL_TIMEOUT):
        while not done():  # noqa: ASYNC110 - py-libp2p tells nobody
            await trio.sleep(UNTIL_POLL)
