"""The commands of signed messages on our node, those of the Go peer; all are of the sub-protocol "interop"."""

from __future__ import annotations

import base64

from interop.bench.ends.lines import Command, CommandError
from interop.ends.messages import NAME
from interop.peer import Message
from node.node import Node
from protocols.messages import RemoteError


class MessageCommands:
    """A payload is base64, or - for none."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def all(self) -> dict[str, Command]:
        """The commands by name."""
        return {"send": self.send, "request": self.request}

    @staticmethod
    def text(payload: bytes) -> str:
        """A payload in a reply or an event."""
        return base64.b64encode(payload).decode()

    async def send(self, peer: str, kind: str, payload: str) -> Message:
        await self._node.send(peer, NAME, _bytes(payload), type=int(kind))
        return {"peer": peer}

    async def request(self, peer: str, kind: str, payload: str, timeout_ms: str = "10000") -> Message:
        try:
            answer = await self._node.request(
                peer, NAME, _bytes(payload), type=int(kind), timeout=int(timeout_ms) / 1000
            )
        except RemoteError as error:
            raise CommandError(f"remote: {error.text}") from error
        return {"peer": peer, "type": answer.type, "payload": self.text(answer.payload)}


def _bytes(payload: str) -> bytes:
    return b"" if payload == "-" else base64.b64decode(payload)
