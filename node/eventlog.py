"""What happens in a node, in its log: one line an event, and which level it has."""

from __future__ import annotations

from node.events import (
    Admitted,
    Banned,
    Connected,
    Disconnected,
    Event,
    GossipRejected,
    Identified,
    Listening,
    MessageRejected,
    Misbehaved,
    PeerFlaky,
    PeerLost,
    PeerSteady,
    PoolLow,
    Refused,
    Registered,
    Unbanned,
    Unregistered,
)
from node.log import get_logger

log = get_logger("node")


def log_event(event: Event) -> None:
    """Logs an event. For `Events.subscribe`."""
    match event:
        case Listening(addr):
            log.info("listening", addr=addr)
        case Admitted(peer, addr, direction, version):
            log.info("admitted", peer=peer, addr=addr, direction=direction, client_version=version)
        case Refused(peer, addr, direction, reason, detail):
            log.info("refused", peer=peer, addr=addr, direction=direction, reason=reason, detail=detail)
        case Disconnected(peer, addr, direction, reason):
            log.info("disconnected", peer=peer, addr=addr, direction=direction, reason=reason)
        case PeerFlaky(peer, missed, window):
            log.info("peer_flaky", peer=peer, missed=missed, window=window)
        case PeerSteady(peer):
            log.info("peer_steady", peer=peer)
        case PeerLost(peer, silent):
            log.info("peer_lost", peer=peer, silent=round(silent, 1))
        case Registered(peer, namespace, ttl):
            log.debug("peer_registered", peer=peer, namespace=namespace, ttl=ttl)
        case Unregistered(peer, namespace, reason):
            log.debug("peer_unregistered", peer=peer, namespace=namespace, reason=reason)
        case Banned(target, reason, seconds):
            log.info("banned", target=target, reason=reason, seconds=seconds)
        case Unbanned(target):
            log.info("unbanned", target=target)
        case PoolLow(peers, low):
            log.info("pool_low", peers=peers, low=low)
        case Connected(peer, addr, direction):
            log.debug("connected", peer=peer, addr=addr, direction=direction)
        case Identified(peer, agent, _):
            log.debug("identified", peer=peer, agent=agent)
        case Misbehaved(peer, protocol, reason, detail):
            log.info("misbehaved", peer=peer, protocol=protocol, reason=reason, detail=detail)
        case GossipRejected(peer, topic, reason, detail, _):
            log.debug("gossip_rejected", peer=peer, topic=topic, reason=reason, detail=detail)
        case MessageRejected(peer, protocol, reason, detail, dropped):
            # a rejection ends a stream, so they are few; a peer with a wrong clock may have any number dropped
            tell = log.debug if dropped else log.info
            tell("message_rejected", peer=peer, protocol=protocol, reason=reason, detail=detail)
