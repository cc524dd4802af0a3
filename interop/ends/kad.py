"""The commands of Kademlia on our node, those of the Go peer."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence

from libp2p.peer.id import ID

from interop.bench.ends.lines import Command
from interop.peer import Message
from node.names import parse_peer_id
from node.node import Node


class AnyValue:
    """As the Go peer has it under /v/: every value is valid, and the greater one better."""

    def validate(self, key: bytes, value: bytes) -> None:
        pass

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        return values.index(max(values))


class KadCommands:
    """On a node that serves Kademlia."""

    def __init__(self, node: Node) -> None:
        assert node.dht is not None
        self._dht = node.dht
        self._dht.register("v", AnyValue())

    def all(self) -> dict[str, Command]:
        """The commands by name."""
        return {
            "put": self.put,
            "get": self.get,
            "local": self.local,
            "local-providers": self.local_providers,
            "provide": self.provide,
            "find-providers": self.find_providers,
            "find-peer": self.find_peer,
            "table": self.table,
            "bootstrap": self.bootstrap,
        }

    async def put(self, key: str, value: str) -> Message:
        return {"stored": await self._dht.put(record_key(key), base64.b64decode(value))}

    async def get(self, key: str) -> Message:
        return {"value": base64.b64encode(await self._dht.get(record_key(key))).decode()}

    async def local(self, key: str) -> Message:
        kept = self._dht.kad.records.value(record_key(key), time.time())
        return {"value": base64.b64encode(kept.value).decode() if kept is not None else None}

    async def local_providers(self, key: str) -> Message:
        kept = self._dht.kad.records.providers(bytes.fromhex(key), time.time())
        return {"peers": [str(ID(provider.peer)) for provider in kept]}

    async def provide(self, key: str) -> Message:
        return {"stored": await self._dht.provide(bytes.fromhex(key))}

    async def find_providers(self, key: str, limit: str = "20") -> Message:
        found = await self._dht.find_providers(bytes.fromhex(key), limit=int(limit))
        return {"providers": [{"peer": peer.peer, "addrs": peer.addrs} for peer in found]}

    async def find_peer(self, peer: str) -> Message:
        addrs = await self._dht.find_peer(peer)
        return {"peer": peer, "found": bool(addrs), "addrs": addrs}

    async def table(self) -> Message:
        return {"peers": self._dht.table()}

    async def bootstrap(self) -> Message:
        await self._dht.kad.refresh(0.0)
        return await self.table()


def record_key(text: str) -> bytes:
    """/pk/PEER stands for that peer's public key; anything else is itself."""
    if text.startswith("/pk/"):
        return b"/pk/" + parse_peer_id(text.removeprefix("/pk/")).to_bytes()
    return text.encode()
