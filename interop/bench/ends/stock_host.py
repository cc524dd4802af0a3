"""py-libp2p's own host, put together as its users do, on Noise and Yamux as ours is."""

from __future__ import annotations

from libp2p import new_host
from libp2p.abc import IHost
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.network.config import ConnectionConfig
from libp2p.peer.peerstore import PeerStore
from libp2p.rcmgr import new_resource_manager
from libp2p.rcmgr.connection_limits import new_connection_limits_with_defaults
from libp2p.rcmgr.manager import ResourceLimits
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as Noise
from multiaddr import Multiaddr

# of its connections py-libp2p keeps so many for those that it dials
FOR_DIALLING = 50


def make_host(connections: int | None = None, listen: str | None = None) -> IHost:
    """A host that isn't running yet, which takes so many connections. Where it isn't TCP, `listen` says on what."""
    keys = create_new_key_pair()
    noise = Noise(keys, noise_privkey=create_new_x25519_key_pair().private_key)
    config = resources = peers = None
    if connections is not None:
        # five limits, of which it says nothing when one is reached; over that of its store it forgets its own key
        most = connections + FOR_DIALLING
        config = ConnectionConfig(max_connections=most, min_connections=FOR_DIALLING, high_watermark=most)
        limits = new_connection_limits_with_defaults()
        limits.max_established_inbound = limits.max_established_total = most
        resources = new_resource_manager(ResourceLimits(max_connections=most), connection_limits=limits)
        peers = PeerStore(max_peers=2 * most)
    return new_host(
        key_pair=keys,
        sec_opt={NOISE_ID: noise},
        muxer_preference="YAMUX",
        connection_config=config,
        resource_manager=resources,
        peerstore_opt=peers,
        listen_addrs=None if listen is None else [Multiaddr(listen)],
    )
