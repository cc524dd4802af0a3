"""py-libp2p's own host as an end of the matrix: its Noise or TLS, Yamux, identify, gossipsub and Kademlia, as its users
put them together.

Where a command can't be had of it, it is left out: it has no handshake and no signed messages, its validators say yes
or no, its Kademlia is on /ipfs/kad/1.0.0 whatever it is told. What its users must live with stays as it is;
three defaults can't be tested with, and are other here: gossipsub's heartbeat of 120 s, its bound of ten messages a
second of one peer, and Kademlia's table, which starts empty beside connected peers (`table` puts them in).
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import trio
from libp2p import new_host
from libp2p.abc import IHost, INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.identity.identify_push.identify_push import push_identify_to_peers
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.network.stream.exceptions import StreamEOF, StreamReset
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb.rpc_pb2 import Message as PubsubMessage
from libp2p.pubsub.pubsub import Pubsub
from libp2p.records.pubkey import PublicKeyValidator
from libp2p.records.validator import NamespacedValidator, Validator
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as Noise
from libp2p.security.tls.transport import PROTOCOL_ID as TLS_ID
from libp2p.security.tls.transport import TLSTransport
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from interop.bench.ends.lines import Command, CommandError, say, say_listening
from interop.bench.ends.load import ECHO_ID
from interop.bench.ends.stock import READ_SIZE, Commands, TellDisconnected, answer_echo, answer_perf, contained
from interop.ends.flags import Flags
from interop.peer import Message
from interop.rawbytes import BYTES, CHUNK, FEW, RESET, Pattern
from protocols.perf import PERF

PUSHED = "/vouch/pushed/1.0.0"
WATCH = 0.05


class AnyValue(Validator):
    """As the Go peer has it under /v/: every value is valid, and the greater one better."""

    def validate(self, key: str, value: bytes) -> None:
        pass

    def select(self, key: str, values: list[bytes]) -> int:
        return values.index(max(values))


def make_host(flags: Flags) -> IHost:
    """A host that isn't running yet."""
    keys = create_new_key_pair()
    security: dict[Any, Any] = {NOISE_ID: Noise(keys, noise_privkey=create_new_x25519_key_pair().private_key)}
    if flags.security == "tls":
        security = {TLS_ID: TLSTransport(keys)}
    return new_host(
        key_pair=keys,
        sec_opt=security,
        muxer_preference="YAMUX",
        enable_quic=any("quic" in addr for addr in flags.listen),
        enable_websocket=any(addr.endswith("/ws") for addr in flags.listen),
        enable_tcp=True,
    )


@asynccontextmanager
async def stock(flags: Flags) -> AsyncIterator[dict[str, Command]]:
    """A host, and what it can be told to do."""
    host = make_host(flags)
    host.get_network().register_notifee(TellDisconnected(host))
    for name, handler in ((PERF.id, answer_perf), (ECHO_ID, answer_echo), (BYTES.id, _answer_bytes)):
        host.set_stream_handler(TProtocol(name), partial(contained, handler))
    host.set_stream_handler(TProtocol(RESET.id), _answer_reset)
    commands = _Commands(host)
    all_commands = commands.all()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(host.run([Multiaddr(addr) for addr in flags.listen]))
        if flags.kad:
            values = NamespacedValidator({"pk": PublicKeyValidator(), "v": AnyValue()}, strict_validation=True)
            dht = KadDHT(host, DHTMode.SERVER, validator=values, strict_validation=True)
            await stack.enter_async_context(background_trio_service(dht))
            all_commands |= _Kad(host, dht).all()
        nursery = await stack.enter_async_context(trio.open_nursery())
        if flags.pubsub:
            router = GossipSub(
                protocols=[PROTOCOL_ID_V11],
                degree=6,
                degree_low=5,
                degree_high=12,
                heartbeat_interval=max(1, round(flags.heartbeat)),
                spam_protection_enabled=False,
            )
            pubsub = Pubsub(host, router, strict_signing=flags.pubsub == "signed")
            await stack.enter_async_context(background_trio_service(pubsub))
            await stack.enter_async_context(background_trio_service(router))
            await pubsub.wait_until_ready()
            all_commands |= _Gossip(host, router, pubsub, nursery).all()
        nursery.start_soon(commands.watch_identify)
        peer_id = str(host.get_id())
        addrs = [str(addr).partition("/p2p/")[0] for addr in host.get_addrs()]
        say_listening(peer_id, [f"{addr}/p2p/{peer_id}" for addr in addrs], versions={"py-libp2p": version("libp2p")})
        yield all_commands
        nursery.cancel_scope.cancel()


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
        }

    async def peers(self) -> Message:
        peers = self._host.get_network().connections
        return {"peers": [{"peer": str(peer), "admitted": True} for peer in peers]}

    async def identify(self, peer: str) -> Message:
        await super().identify(peer)
        peer_id, store = ID.from_base58(peer), self._host.get_peerstore()
        protocols = sorted(map(str, store.get_protocols(peer_id)))
        return {"peer": peer, "protocols": protocols, "addrs": list(map(str, store.addrs(peer_id)))}

    async def push_identify(self) -> Message:
        async def nothing(stream: INetStream) -> None:
            await stream.reset()

        self._host.set_stream_handler(TProtocol(PUSHED), nothing)
        await push_identify_to_peers(self._host)
        return {}

    async def watch_identify(self) -> None:
        """Tells what changes: it tells nobody itself."""
        known: dict[ID, list[str]] = {}
        while True:
            for peer in list(self._host.get_network().connections):
                try:
                    protocols = sorted(map(str, self._host.get_peerstore().get_protocols(peer)))
                except Exception:  # of a peer that it doesn't know yet its store raises several kinds
                    continue
                if protocols and known.get(peer) != protocols:
                    known[peer] = protocols
                    say(event="identified", peer=str(peer), protocols=protocols)
            await trio.sleep(WATCH)

    async def echo(self, peer: str, length: str, streams: str) -> Message:
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(self._stream(peer, BYTES.id)) for _ in range(int(streams))]
            started = trio.current_time()
            async with trio.open_nursery() as nursery:
                for k, stream in enumerate(opened):
                    pattern = Pattern(k, int(length))
                    nursery.start_soon(_send_pattern, stream, pattern)
                    nursery.start_soon(_receive_pattern, stream, pattern)
            return {"seconds": trio.current_time() - started}

    async def reset(self, peer: str) -> Message:
        stream = await self._host.new_stream(ID.from_base58(peer), [TProtocol(BYTES.id)])
        sent = Pattern(0, FEW).at(0)
        await stream.write(sent)
        got = b""
        while len(got) < FEW and (data := await stream.read(FEW - len(got))):
            got += data
        if got != sent:
            raise CommandError(f"expected the {FEW} bytes sent to come back, got {len(got)}")
        await stream.reset()
        return await self.echo(peer, str(FEW), "1")

    async def was_reset(self, peer: str) -> Message:
        stream = await self._host.new_stream(ID.from_base58(peer), [TProtocol(RESET.id)])
        try:
            await stream.write(b"\x01")
            data = await stream.read(1)
        except StreamReset:
            return await self.echo(peer, str(FEW), "1")
        except Exception as error:
            raise CommandError(f"expected a reset, got {error!r}") from error
        raise CommandError(f"expected a reset, got {data!r}")


async def _send_pattern(stream: INetStream, pattern: Pattern) -> None:
    for offset in range(0, pattern.length, CHUNK):
        await stream.write(pattern.at(offset))
    await stream.close_write()  # type: ignore[attr-defined]  # its streams have it, their interface doesn't


async def _receive_pattern(stream: INetStream, pattern: Pattern) -> None:
    received = 0
    while data := await _read(stream):
        pattern.check(received, data)
        received += len(data)
    if received != pattern.length:
        raise CommandError(f"expected {pattern.length} bytes, got {received} and the end")


async def _answer_bytes(stream: INetStream) -> None:
    while data := await _read(stream):
        await stream.write(data)


async def _answer_reset(stream: INetStream) -> None:
    await stream.read(1)
    await stream.reset()


async def _read(stream: INetStream) -> bytes:
    """The next bytes, b"" at the end."""
    try:
        return bytes(await stream.read(READ_SIZE))
    except StreamEOF:
        return b""


class _Kad:
    """Kademlia."""

    def __init__(self, host: IHost, dht: KadDHT) -> None:
        self._host, self._dht = host, dht

    def all(self) -> dict[str, Command]:
        names = ("put", "get", "provide", "table")
        return {name: getattr(self, name) for name in names} | {
            "find-providers": self.find_providers,
            "find-peer": self.find_peer,
        }

    async def put(self, key: str, value: str) -> Message:
        await self._dht.put_value(key, base64.b64decode(value))
        return {}

    async def get(self, key: str) -> Message:
        value = await self._dht.get_value(key)
        if value is None:
            raise CommandError("not found")
        return {"value": base64.b64encode(value).decode()}

    async def provide(self, key: str) -> Message:
        await self._dht.provide(key)
        return {}

    async def find_providers(self, key: str, limit: str = "20") -> Message:
        found = await self._dht.find_providers(key, int(limit))
        return {"providers": [{"peer": str(one.peer_id), "addrs": list(map(str, one.addrs))} for one in found]}

    async def find_peer(self, peer: str) -> Message:
        found = await self._dht.find_peer(ID.from_base58(peer))
        addrs = list(map(str, found.addrs)) if found is not None else []
        return {"peer": peer, "found": bool(addrs), "addrs": addrs}

    async def table(self) -> Message:
        for peer in list(self._host.get_network().connections):
            await self._dht.add_peer(peer)
        return {"peers": sorted(map(str, self._dht.routing_table.get_peer_ids()))}


class _Gossip:
    """Gossipsub."""

    def __init__(self, host: IHost, router: GossipSub, pubsub: Pubsub, nursery: trio.Nursery) -> None:
        self._host, self._router, self._pubsub, self._nursery = host, router, pubsub, nursery
        self._refused: set[str] = set()
        self._received: dict[str, int] = {}

    def all(self) -> dict[str, Command]:
        names = ("subscribe", "validate", "publish", "received", "mesh")
        return {name: getattr(self, name) for name in names}

    async def subscribe(self, topic: str) -> Message:
        subscription = await self._pubsub.subscribe(topic)
        self._pubsub.set_topic_validator(topic, self._check, False)
        self._received.setdefault(topic, 0)
        self._nursery.start_soon(self._read, topic, subscription)
        return {}

    def _check(self, forwarder: ID, message: PubsubMessage) -> bool:
        return message.from_id == self._host.get_id().to_bytes() or self._refused.isdisjoint(message.topicIDs)

    async def validate(self, topic: str, mode: str) -> Message:
        if mode not in ("accept", "reject"):
            raise CommandError(f"expected accept or reject, which is all that py-libp2p knows, got {mode}")
        (self._refused.add if mode == "reject" else self._refused.discard)(topic)
        return {}

    async def publish(self, topic: str, size: str) -> Message:
        data = os.urandom(int(size))
        await self._pubsub.publish(topic, data)
        return {"id": "", "sha256": hashlib.sha256(data).hexdigest()}

    async def received(self, topic: str) -> Message:
        return {"count": self._received.get(topic, 0)}

    async def mesh(self, topic: str) -> Message:
        return {"peers": sorted(map(str, self._router.mesh.get(topic, ())))}

    async def _read(self, topic: str, subscription: Any) -> None:
        own = self._host.get_id().to_bytes()
        while True:
            message = await subscription.get()
            if message.from_id == own:  # its own too are delivered
                continue
            self._received[topic] += 1
            digest = hashlib.sha256(message.data).hexdigest()
            size, now = len(message.data), time.time() * 1000
            say(event="gossip", topic=topic, **{"from": ""}, id="", size=size, sha256=digest, at_ms=now)
