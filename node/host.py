"""py-libp2p's host, put together from the parts that we trust, for those of its own parts that want one (its pubsub).

    Tcp --- Upgrader(Noise or TLS, Yamux) --- Swarm(admission, limits) --- Registry(bounds) --- protocols
                                                 |
                                    Host: the face that py-libp2p's services see

Nothing weaker than Noise is offered. Streams are negotiated by our multistream and run by the registry, whoever asks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import trio
from libp2p.abc import INetStream, ISecureTransport, ITransport
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from multiaddr import Multiaddr

from node.config import Config
from node.dialer import Dialer
from node.events import Events
from node.keys import prepare_keys
from node.peers.store import BoundedPeerStore
from node.ports import Ports
from node.quic.transport import Quic
from node.records import Records
from node.registry import Registry
from node.streams import AsNetStream, ConnStream
from node.swarm import Swarm
from node.transport import Tcp, expand_wildcard
from node.upgrade.guarded_yamux import GuardedYamux
from node.upgrade.multistream import NegotiationError, select
from node.upgrade.muxer import muxer
from node.upgrade.secure import NoiseTransport, TlsTransport
from node.upgrade.tls import PROTOCOL_ID as TLS_ID
from node.upgrade.upgrader import Upgrader
from node.upgrade.yamux_state import Limits
from node.websocket.transport import WebSocket
from protocols import NotSupported, Protocol, Stream, StreamTimeout
from protocols.handshake.engine import Rules
from protocols.messages.authors import Signer

# py-libp2p's handlers read and write bytes; long-lived streams with pauses are usual
FOREIGN_TIMEOUT = 60.0
FOREIGN_STREAMS = 16


class Host(BasicHost):
    """py-libp2p's `BasicHost` on our swarm."""

    swarm: Swarm

    def __init__(self, swarm: Swarm, dialer: Dialer, signer: Signer) -> None:
        self.swarm = swarm
        self.dialer = dialer
        self.listen_addrs: list[Multiaddr] = []
        self.bound_addrs: list[Multiaddr] = []  # the same with wildcards as they are
        self.records = Records(signer, addrs=self.get_transport_addrs, can_dial=swarm.can_dial)
        super().__init__(
            swarm,
            # an empty one would be taken for none, and none for py-libp2p's own
            default_protocols=OrderedDict({TProtocol("/"): _never}),
            disable_identify_address_discovery=True,
        )

    def get_transport_addrs(self) -> list[Multiaddr]:
        return list(self.listen_addrs)

    def get_addrs(self) -> list[Multiaddr]:
        # without /p2p/PEERID: this is what goes into records, which name the peer themselves
        return list(self.listen_addrs)

    def signed_record(self) -> bytes:
        """Our signed peer record: made anew when the addresses have changed."""
        return self.records.own()

    async def listen(self, addr: Multiaddr) -> list[Multiaddr]:
        """Listens on `addr`; the dialable addresses that makes, one for each interface. Raises UsageError."""
        dialable: list[Multiaddr] = []
        for bound in await self.swarm.listen_on(addr):
            self.bound_addrs.append(bound)
            dialable += expand_wildcard(bound)
        self.listen_addrs += [addr for addr in dialable if addr not in self.listen_addrs]
        return dialable

    def set_stream_handler(self, protocol_id: TProtocol, stream_handler: StreamHandlerFn) -> None:
        async def handle(stream: Stream) -> None:
            await stream_handler(AsNetStream(stream, ID.from_base58(stream.peer)))  # type: ignore[arg-type]

        self.swarm.registry.add(
            Protocol(
                str(protocol_id),
                max_frame=None,
                timeout=FOREIGN_TIMEOUT,
                streams_per_peer=FOREIGN_STREAMS,
                handler=handle,
            )
        )

    def remove_stream_handler(self, protocol_id: TProtocol) -> None:
        self.swarm.registry.remove(str(protocol_id))

    async def new_stream(self, peer_id: ID, protocol_ids: Sequence[TProtocol]) -> INetStream:
        """A negotiated stream, for py-libp2p's services. Raises VouchError, StreamError."""
        timeout = self.swarm.config.negotiation_timeout
        stream = await self.swarm.new_stream(peer_id)
        agreed = False
        try:
            with trio.fail_after(timeout):
                protocol = await select(stream, [str(protocol) for protocol in protocol_ids])
                stream.set_protocol(TProtocol(protocol))
                if isinstance(stream, ConnStream):
                    stream.flow = self.swarm.traffic.opened(protocol, inbound=False)
            agreed = True
        except NegotiationError as error:
            raise NotSupported(f"{peer_id}: {error}") from error
        except trio.TooSlowError:
            raise StreamTimeout(f"{peer_id} didn't agree on a protocol within {timeout:g} s") from None
        finally:
            if not agreed:
                await stream.reset()
        return stream

    async def connect(self, peer_info: PeerInfo) -> None:
        await self.dialer.dial(peer_info.peer_id, peer_info.addrs)

    # identify is ours: node.identify
    def _schedule_identify(self, peer_id: ID, *, reason: str) -> None:
        pass

    async def _push_identify_to_all_peers(self) -> None:
        pass


async def _never(_stream: Any) -> None:
    raise AssertionError("streams are negotiated by the swarm's connections, not by the host")


def make_upgrader(config: Config, key_pair: KeyPair) -> Upgrader:
    """The way from a socket to a muxed connection as `key_pair`, by the settings."""
    muxers = [str(YAMUX_ID)]
    if config.upgrade == "stock":
        noise = Noise(key_pair, noise_privkey=create_new_x25519_key_pair().private_key)
        return Upgrader({str(NOISE_ID): noise}, {str(YAMUX_ID): GuardedYamux})
    limits = Limits(
        max_streams=2 * config.max_streams,
        max_window=config.max_stream_window,
        max_windows=config.max_connection_window,
        max_unread=config.max_connection_window,
        max_all_unsent=config.max_unsent,
    )
    made: dict[str, ISecureTransport] = {}
    for name in config.security_order:
        protocol, transport = SECURITY[name]
        made[protocol] = transport(key_pair, muxers)
    return Upgrader(made, {str(YAMUX_ID): muxer(limits)})


SECURITY: dict[str, tuple[str, Callable[[KeyPair, Sequence[str]], ISecureTransport]]] = {
    "noise": (str(NOISE_ID), NoiseTransport),
    "tls": (TLS_ID, TlsTransport),
}


def make_transports(config: Config, key_pair: KeyPair) -> list[ITransport]:
    """All that the node listens on and dials by."""
    ports = Ports()
    websocket = WebSocket(ports, certificate=config.wss_certificate, key=config.wss_key, roots=config.wss_roots)
    return [Tcp(ports), websocket, Quic(key_pair, config)]


def build(
    config: Config,
    key_pair: KeyPair,
    signer: Signer,
    rules: Rules,
    registry: Registry,
    events: Events,
    transports: Sequence[ITransport] | None = None,
) -> Host:
    """Puts the host together, on all transports unless others are given. Nothing runs or listens yet. `signer` has the
    same key as `key_pair`.
    """
    prepare_keys()
    peer_id = ID.from_pubkey(key_pair.public_key)
    peerstore = BoundedPeerStore(config.max_known_peers)
    peerstore.add_key_pair(peer_id, key_pair)
    upgrader = make_upgrader(config, key_pair)
    swarm = Swarm(
        peer_id,
        peerstore,
        upgrader,
        list(transports or make_transports(config, key_pair)),
        config=config,
        rules=rules,
        registry=registry,
        events=events,
    )
    peerstore.kept = lambda known: known == peer_id or known in swarm.connections
    return Host(swarm, Dialer(swarm, config), signer)
