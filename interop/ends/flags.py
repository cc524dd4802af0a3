"""What an end is started with."""

from __future__ import annotations

from dataclasses import dataclass

LISTEN = "/ip4/127.0.0.1/tcp/0"


@dataclass(frozen=True)
class Flags:
    """The flags, as `interop.ends` lists them."""

    listen: tuple[str, ...]
    security: str
    network_id: str
    client_version: str
    min_version: tuple[str, ...]
    handshake: bool
    pubsub: str
    kad: str
    kad_refresh: bool
    heartbeat: float
