"""The commands of gossip on our node, those of the Go peer."""

from __future__ import annotations

import base64
import hashlib
import os
import time

from interop.bench.ends.lines import Command, say
from interop.peer import Message
from node.node import Node
from protocols.gossip import GossipMessage, Verdict


class GossipCommands:
    """On a node that gossips. What comes on a topic is told once it has been accepted."""

    def __init__(self, node: Node) -> None:
        self._gossip = node.gossip
        self._verdicts: dict[str, Verdict] = {}
        self._received: dict[str, list[bytes]] = {}

    def all(self) -> dict[str, Command]:
        """The commands by name."""
        return {
            "subscribe": self.subscribe,
            "validate": self.validate,
            "publish": self.publish,
            "publish-bytes": self.publish_bytes,
            "received": self.received,
            "mesh": self.mesh,
            "score": self.score,
        }

    async def subscribe(self, topic: str) -> Message:
        if topic not in self._received:
            got = self._received[topic] = []
            self._verdicts.setdefault(topic, Verdict.ACCEPT)

            @self._gossip.validator(topic)
            async def check(message: GossipMessage) -> Verdict:
                verdict = self._verdicts[topic]
                if verdict is Verdict.ACCEPT:
                    got.append(message.message_id)
                    _tell(message)
                return verdict

        return {}

    async def validate(self, topic: str, mode: str) -> Message:
        self._verdicts[topic] = Verdict[mode.upper()]
        return {}

    async def publish(self, topic: str, size: str) -> Message:
        return await self._publish(topic, os.urandom(int(size)))

    async def publish_bytes(self, topic: str, data: str) -> Message:
        return await self._publish(topic, base64.b64decode(data))

    async def _publish(self, topic: str, data: bytes) -> Message:
        receipt = await self._gossip.publish(topic, data)
        return {"id": receipt.message_id.hex(), "sha256": hashlib.sha256(data).hexdigest()}

    async def received(self, topic: str) -> Message:
        got = self._received.get(topic, [])
        return {"count": len(got), "unique": len(set(got))}

    async def mesh(self, topic: str) -> Message:
        return {"peers": sorted(self._gossip.engine.mesh(topic))}

    async def score(self, peer: str) -> Message:
        return {"score": self._gossip.engine.scores.score(peer)}


def _tell(message: GossipMessage) -> None:
    say(
        event="gossip",
        topic=message.topic,
        **{"from": message.forwarder},
        id=message.message_id.hex(),
        size=len(message.payload),
        sha256=hashlib.sha256(message.payload).hexdigest(),
        at_ms=time.time() * 1000,
    )
