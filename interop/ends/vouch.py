"""Our node as an end of the matrix."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import trio

from interop.bench.ends.lines import Command, CommandError, say, say_listening, until
from interop.bench.ends.vouch import Commands, echo_protocol, perf_protocol
from interop.ends.flags import Flags
from interop.ends.gossip import GossipCommands
from interop.ends.kad import KadCommands
from interop.ends.messages import interop
from interop.ends.requests import MessageCommands
from interop.peer import Message
from interop.rawbytes import BYTES, RESET, echo_pattern, reset_mine, was_reset
from node.config import Config
from node.discovery import dht
from node.events import Admitted, Event, Identified, MessageRejected, Refused
from node.identity import Identity
from node.node import Node
from node.tasks import TaskStatus
from protocols import Protocol
from protocols.gossip import GossipParams
from protocols.messages import Message as SignedMessage
from protocols.messages import SubProtocol

PUSHED = "/vouch/pushed/1.0.0"
SIGNING = {"signed": "strict", "unsigned": "own", "": "strict"}
STREAMS = 1024
FIRST_REFRESH, NEVER = dht.FIRST_REFRESH, 3600.0


def config_of(flags: Flags) -> Config:
    """The node's settings: what is not asked for is off, and a peer that was refused is dialled again at once."""
    own_kad = f"/vouch/{flags.network_id.encode().hex()}"
    settings: dict[str, Any] = {
        "listen": flags.listen,
        "security": flags.security,
        "network_id": flags.network_id,
        "client_version": flags.client_version,
        "min_versions": dict(text.split("=") for text in flags.min_version),
        "admission": "required" if flags.handshake else "open",
        "dht": "server" if flags.kad else "off",
        "kad_protocol": "" if flags.kad in ("", own_kad) else f"{flags.kad}/kad/1.0.0",
        "rendezvous_point": "memory",
        "dht_store": "memory",
        "addressbook": "memory",
        "gossip": "on" if flags.pubsub else "off",
        "gossip_signing": SIGNING[flags.pubsub],
        "heartbeat_interval": 0.5,
        "pool": "off",
        "refused_backoff_min": 0.01,
        "refused_backoff_max": 0.01,
        "redial_backoff_min": 0.01,
        "redial_backoff_max": 0.01,
        "max_streams": STREAMS,
    }
    return Config(**settings)


@asynccontextmanager
async def vouch(flags: Flags) -> AsyncIterator[dict[str, Command]]:
    """A node, and what it can be told to do."""
    async with trio.open_nursery() as nursery:
        end = _End(flags, nursery)
        node = await end.start()
        say_listening(node.peer_id, node.addrs, versions={"vouch-node": version("vouch-node")})
        yield end.commands
        nursery.cancel_scope.cancel()


class _End:
    """One node after the other; `commands` are those of the node of now."""

    def __init__(self, flags: Flags, nursery: trio.Nursery) -> None:
        self.commands: dict[str, Command] = {}
        self._flags, self._nursery = flags, nursery
        self._life: trio.CancelScope | None = None
        self._ended = trio.Event()

    async def start(self) -> Node:
        node: Node = await self._nursery.start(self._live)
        return node

    async def renew(self, *flags: str) -> Message:
        self._flags = Flags.parse(flags) if flags else self._flags
        assert self._life is not None
        self._life.cancel()
        await self._ended.wait()
        node = await self.start()
        return {"peer": node.peer_id, "addrs": node.addrs}

    async def _live(self, *, task_status: TaskStatus) -> None:
        self._ended = trio.Event()
        params = GossipParams(heartbeat_interval=self._flags.heartbeat, flood_publish=False)
        protocols: list[Protocol | SubProtocol] = [perf_protocol(), echo_protocol(), BYTES, RESET, interop(_told)]
        dht.FIRST_REFRESH = FIRST_REFRESH if self._flags.kad_refresh else NEVER
        node = Node(config_of(self._flags), identity=Identity.generate(), protocols=protocols, gossip_params=params)
        commands = _Commands(node)
        node.events.subscribe(commands.note)
        self.commands.clear()
        self.commands |= commands.all() | MessageCommands(node).all() | {"renew": self.renew}
        if self._flags.kad:
            self.commands |= KadCommands(node).all()
        if self._flags.pubsub:
            self.commands |= GossipCommands(node).all()
        try:
            with trio.CancelScope() as self._life:
                await node.run(task_status=_Started(task_status, node))
        finally:
            self._ended.set()


class _Started:
    """Hands on the node that has started."""

    def __init__(self, task_status: TaskStatus, node: Node) -> None:
        self._task_status, self._node = task_status, node

    def started(self) -> None:
        self._task_status.started(self._node)


def _told(message: SignedMessage) -> None:
    payload = MessageCommands.text(message.payload)
    say(event="message", peer=message.peer, protocol=message.protocol, type=message.type, payload=payload)


class _Commands(Commands):
    """Connections, identify and streams."""

    def all(self) -> dict[str, Command]:
        names = ("connect", "identify", "disconnect", "ping", "perf", "both", "streams", "requests")
        return {name: getattr(self, name) for name in names} | {
            "peers": self.peers,
            "push-identify": self.push_identify,
            "echo": self.echo,
            "reset": self.reset,
            "was-reset": self.was_reset,
            "heartbeat": self.heartbeat,
            "exchange": self.exchange,
        }

    def note(self, event: Event) -> None:
        super().note(event)
        match event:
            case Admitted(peer, _, direction, client_version):
                say(event="admitted", peer=peer, direction=direction, client_version=client_version)
            case Refused(peer, _, direction, reason):
                say(event="refused", peer=peer, direction=direction, reason=reason)
            case Identified(peer, agent, protocols):
                say(event="identified", peer=peer, agent=agent, protocols=sorted(protocols))
            case MessageRejected(peer, protocol, reason, detail, dropped):
                say(event="rejected", peer=peer, protocol=protocol, reason=reason, detail=detail, dropped=dropped)

    async def connect(self, addr: str) -> Message:
        connected = set(self._node.connected_peers())
        try:
            reply = await super().connect(addr)
        except Exception as error:
            raise CommandError(f"{type(error).__name__}: {error}", stage=type(error).__name__) from error
        return {**reply, "already": addr.rpartition("/")[2] in connected}

    async def peers(self) -> Message:
        connections = self._node.swarm.admitted_connections()
        return {
            "peers": [
                {
                    "peer": connection.peer,
                    "direction": "outbound" if connection.initiated else "inbound",
                    "admitted": True,
                    "addr": str(connection.addr),
                }
                for connection in connections
            ]
        }

    async def identify(self, peer: str) -> Message:
        await super().identify(peer)
        said = self._node.identify.known[peer]
        return {
            "peer": peer,
            "agent": said.agent,
            "protocol_version": said.protocol_version,
            "protocols": sorted(said.protocols),
            "addrs": list(said.addrs),
            "signed_record": bool(said.record),
        }

    async def push_identify(self) -> Message:
        async def nothing(_: object) -> None: ...

        await self._node.serve(Protocol(PUSHED, handler=nothing))
        return {}

    async def echo(self, peer: str, length: str, streams: str) -> Message:
        return {"seconds": await echo_pattern(self._node, peer, int(length), int(streams))}

    async def reset(self, peer: str) -> Message:
        await reset_mine(self._node, peer)
        return {}

    async def was_reset(self, peer: str) -> Message:
        await was_reset(self._node, peer)
        return {}

    async def heartbeat(self, peer: str) -> Message:
        """Waits until its heartbeats have been answered."""
        await until(lambda: self._node.rtt(peer) is not None)
        return {"peer": peer}

    async def exchange(self, peer: str) -> Message:
        """Whom it tells of."""
        assert self._node.exchange is not None
        started = time.monotonic()
        told = await self._node.exchange.ask(peer)
        return {"peers": sorted(told), "seconds": time.monotonic() - started}
