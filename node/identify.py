"""Identify: each side tells the other who it is (https://github.com/libp2p/specs/tree/master/identify).

    /ipfs/id/1.0.0         the opener asks, the other side sends one Identify message and ends the stream
    /ipfs/id/push/1.0.0    the opener sends one unasked, when what it said before isn't true any more

Both only on admitted connections; the one exception is open admission's question (docs/wire.md). The messages are
py-libp2p's; the service is ours because py-libp2p's can't set our agent, doesn't keep the peer's, reads answers of any
length and works in system tasks (docs/upstream.md).

Of what a peer says of its addresses, those are kept that somebody where it is can have: of a peer in the world none in
private networks, or it could have us dial our own neighbours (go-libp2p does the same).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio
from google.protobuf.message import DecodeError
from libp2p.identity.identify.pb.identify_pb2 import Identify as Message
from libp2p.identity.update import update_peerstore_from_identify
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from multiaddr import Multiaddr

from node.connection import Connection
from node.events import Admitted, Disconnected, Event, Identified, Listening
from node.log import get_logger
from node.peers.reach import of_use, seen_at
from node.records import RecordError, Records, readable
from node.swarm import Swarm
from protocols import EndOfStream, Protocol, ProtocolError, Stream, StreamError

IDENTIFY_ID = "/ipfs/id/1.0.0"
PUSH_ID = "/ipfs/id/push/1.0.0"
PROTOCOL_VERSION = "ipfs/0.1.0"
MAX_MESSAGE = 64 * 1024
MAX_PROTOCOLS = 512
MAX_TEXT = 256
# addresses that are looked at; the store keeps fewer
MAX_ADDRS = 64
RETRY_AFTER = (0.5, 2.0, 8.0)

log = get_logger("identify")


@dataclass(frozen=True)
class PeerInfo:
    """What a peer says of itself. None of it is proven but the peer's ID, and that the record is its own."""

    agent: str
    protocol_version: str
    protocols: tuple[str, ...]
    addrs: tuple[str, ...]
    record: bytes = b""  # its signed peer record, verified; empty if it has told none that is to be believed


class IdentifyService:
    """Answers, asks and pushes. `known` holds what connected peers have said."""

    def __init__(
        self,
        swarm: Swarm,
        *,
        agent: str,
        public_key: bytes,
        addrs: Callable[[], Sequence[Multiaddr]],
        records: Records,
    ) -> None:
        self.swarm = swarm
        self.known: dict[str, PeerInfo] = {}
        self._agent = agent
        self._public_key = public_key
        self._addrs = addrs
        self._records = records
        self.protocol = Protocol(IDENTIFY_ID, max_frame=MAX_MESSAGE, streams_per_peer=2, handler=self._answer)
        self.push_protocol = Protocol(PUSH_ID, max_frame=MAX_MESSAGE, streams_per_peer=1, rate=1, handler=self._pushed)
        swarm.registry.add(self.protocol)
        swarm.registry.add(self.push_protocol)
        swarm.ask_protocols = self._ask_protocols
        swarm.events.subscribe(self._on_event)

    async def ask(self, connection: Connection) -> PeerInfo:
        """Asks the peer at the other end, and remembers the answer. Raises StreamError, ProtocolError."""
        async with await connection.open(self.protocol) as stream:
            try:
                answer = await stream.receive()
            except EndOfStream:
                raise ProtocolError(f"expected an Identify message from {connection.peer}, got none") from None
        return await self._learn(connection.peer_id, answer, connection.ip)

    async def push_all(self) -> None:
        """Tells every peer that listens for it what we are now."""
        async with trio.open_nursery() as nursery:
            for connection in self.swarm.admitted_connections():
                known = self.known.get(connection.peer)
                if known is not None and PUSH_ID in known.protocols:
                    nursery.start_soon(self._push, connection)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Admitted) and self.swarm.background_nursery is not None:
            self.swarm.background_nursery.start_soon(self._ask_new, ID.from_base58(event.peer))
        elif isinstance(event, Listening) and self.known and self.swarm.background_nursery is not None:
            self.swarm.background_nursery.start_soon(self.push_all)
        elif isinstance(event, Disconnected):
            self.known.pop(event.peer, None)

    async def _ask_new(self, peer_id: ID) -> None:
        for wait in RETRY_AFTER:
            connection = self.swarm.connection(peer_id)
            if connection is None:
                return
            await connection.admitted.wait()
            try:
                await self.ask(connection)
                return
            except (StreamError, ProtocolError) as error:
                # the connection may have been the one of two that goes: there is another one then
                log.debug("identify_failed", peer=str(peer_id), error=str(error), retry_in=wait)
            await trio.sleep(wait)

    async def _ask_protocols(self, connection: Connection) -> Sequence[str]:
        return (await self.ask(connection)).protocols

    async def _answer(self, stream: Stream) -> None:
        await stream.send(self._message(stream.peer))

    async def _pushed(self, stream: Stream) -> None:
        async for message in stream:
            peer_id = ID.from_base58(stream.peer)
            await self._learn(peer_id, message, self.swarm.ip_of(peer_id))
            return

    async def _push(self, connection: Connection) -> None:
        try:
            async with await connection.open(self.push_protocol) as stream:
                await stream.send(self._message(connection.peer))
        except StreamError as error:
            log.debug("push_failed", peer=connection.peer, error=str(error))

    def _message(self, peer: str) -> bytes:
        connection = self.swarm.connection(ID.from_base58(peer))
        message = Message(
            protocol_version=PROTOCOL_VERSION,
            agent_version=self._agent,
            public_key=self._public_key,
            listen_addrs=[addr.to_bytes() for addr in self._addrs()],
            protocols=self.swarm.registry.ids(),
            signedPeerRecord=self._records.own(),
        )
        if connection is not None:
            message.observed_addr = _without_peer(connection.addr).to_bytes()
        return message.SerializeToString()

    async def _learn(self, peer_id: ID, data: bytes, seen: str) -> PeerInfo:
        """`seen`: the IP address of the peer's end of the connection."""
        message = Message()
        try:
            message.ParseFromString(data)
        except DecodeError as error:
            raise ProtocolError(f"expected an Identify message from {peer_id}: {error}") from None
        protocols = tuple(text for text in message.protocols if len(text) <= MAX_TEXT)[:MAX_PROTOCOLS]
        del message.protocols[:]
        message.protocols.extend(protocols)
        addrs = [
            addr
            for addr in message.listen_addrs[:MAX_ADDRS]
            if (text := readable(addr)) is not None and of_use((text,), seen_at(seen))
        ]
        del message.listen_addrs[:]
        message.listen_addrs.extend(addrs)
        signed = message.signedPeerRecord
        # the library would verify it each time it comes, and keep it on terms of its own
        message.ClearField("signedPeerRecord")
        try:
            await update_peerstore_from_identify(self.swarm.peerstore, peer_id, message)
        except Exception as error:  # py-libp2p's store on a stranger's bytes: whatever it raises, it is their fault
            raise ProtocolError(
                f"expected an Identify message from {peer_id}, got what can't be kept: {error!r}"
            ) from None
        info = PeerInfo(
            agent=message.agent_version[:MAX_TEXT],
            protocol_version=message.protocol_version[:MAX_TEXT],
            protocols=protocols,
            addrs=tuple(map(str, self._known_addrs(peer_id))),
            record=self._believed(signed, peer_id),
        )
        if self.swarm.connection(peer_id) is not None:
            self.known[str(peer_id)] = info
            self.swarm.events.emit(Identified(str(peer_id), info.agent, info.protocols))
        return info

    def _believed(self, record: bytes, peer_id: ID) -> bytes:
        """The record, if it is the peer's own and none older than we know; else nothing."""
        if not record:
            return b""
        try:
            self._records.accept(record, peer=str(peer_id))
        except RecordError as error:
            log.debug("bad_peer_record", peer=str(peer_id), error=str(error))
            return b""
        return record

    def _known_addrs(self, peer_id: ID) -> list[Multiaddr]:
        try:
            return list(self.swarm.peerstore.addrs(peer_id))
        except PeerStoreError:
            return []  # it told none, or none that is an address


def _without_peer(addr: Multiaddr) -> Multiaddr:
    return Multiaddr(str(addr).partition("/p2p/")[0])
