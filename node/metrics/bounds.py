"""Every bound of the node that a setting names: how much of it is used, its limit, how often it said no.

`BOUNDS` says of each what its use is; where that is of the peer, connection or stream that uses most, it says so.
`UNCOUNTED` has the numbers among the settings that bound nothing which could be counted here, and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from node import log
from node.node import Node
from protocols.gossip import Gossip

if TYPE_CHECKING:
    from node.api.http.serve import Server


class Bound(NamedTuple):
    """One bound now. None where there is nothing to tell: what waits isn't refused, a rate has no use."""

    name: str
    used: float | None
    limit: float
    refused: int | None


BOUNDS: dict[str, str] = {
    "max_connections": "connections",
    "max_inbound": "of them, those that others dialled",
    "max_half_open": "connections that aren't admitted yet",
    "max_half_open_per_ip": "the same of the IP address that has most",
    "max_connections_per_ip": "connections of the IP address (or IPv6 /64) that has most",
    "max_dials": "dials under way; more of them wait",
    "max_streams": "streams of the connection that has most",
    "max_stream_window": "bytes that have come and nobody has read, of the stream with most; the peer is held back",
    "max_connection_window": "the same of the connection with most; the peer is held back",
    "max_unsent": "bytes that wait to be sent, of the connection with most; who writes waits",
    "max_known_peers": "peers in the address book; refused: evicted, or not taken in",
    "max_bans": "bans; refused: those that had no place, or took another's",
    "max_control_clients": "clients of the control socket",
    "max_api_connections": "connections with the HTTP API",
    "max_api_listeners": "of them, those that listen",
    "max_api_body": "no use is told; refused: requests with a larger body",
    "max_api_rate": "no use is told; refused: requests beyond it",
    "max_log_queue": "bytes of log lines that wait for who reads them; refused: lines dropped",
    "max_gossip_queue": "bytes of messages that wait for the slowest peer; refused: messages and control dropped",
    "high_peers": "peers in the pool; refused: those dropped as surplus",
    "pool_dials": "dials that the pool has under way; it begins no more",
    "dht_max_values": "values kept for others; refused: those without a place",
    "dht_max_providers": "providers kept for others; refused: those without a place",
    "max_registrations": "registrations at this rendezvous point",
    "max_registrations_per_peer": "the same of the peer that has most",
    "max_registrations_per_namespace": "the same in the namespace that has most",
    "max_registrations_per_subnet": "the same from the public subnet that has most",
    "mdns_max_peers": "peers known of the link that has most; refused: packets and peers ignored",
    "exchange_at_once": "peers that are being asked for others; it asks no more",
    # of the gossip router's parameters
    "gossip_max_pending_messages": "messages that await a verdict; refused: those without room",
    "gossip_max_pending_bytes": "bytes of their data",
    "gossip_max_pending_messages_per_peer": "messages that await a verdict, of the peer that brought most",
    "gossip_max_pending_bytes_per_peer": "bytes of their data, of the peer that brought most",
    "gossip_max_seen": "message IDs remembered; refused: messages not looked at since it was full",
    "gossip_max_cache_bytes": "bytes of messages that can be asked for; refused: those forgotten before their time",
    "gossip_max_unwanted": "IDs that peers don't want; refused: IDONTWANTs ignored, for this and other bounds",
    "gossip_max_topics_per_peer": "topics of the peer that subscribes to most; refused: subscriptions ignored",
}

_TIME = "a time: what it ends is counted as an outcome"
_PAUSE = "a pause between attempts"
_SHAPE = "how a thing is done, each time anew: nothing fills up"

UNCOUNTED: dict[str, str] = {
    "ready_peers": "decides on /ready alone",
    "max_api_queue": "is one listener's: who is too slow is told how many it has missed",
    "handshake_timeout": _TIME,
    "dial_timeout": _TIME,
    "upgrade_timeout": _TIME,
    "negotiation_timeout": _TIME,
    "drain_timeout": _TIME,
    "pool_dial_timeout": _TIME,
    "dht_request_timeout": _TIME,
    "message_max_age": "a time: vouch_messages_rejected_total has what is too old",
    "message_max_ahead": "a time: vouch_messages_rejected_total has what is too new",
    "log_repeat_window": "a time: vouch_log_lines_total has what is collapsed in it",
    "low_peers": "a target: vouch_pool_target",
    "target_peers": "a target: vouch_pool_target",
    "outbound_peers": "a target: vouch_pool_target",
    "pool_dial_rate": "a rate of our own: vouch_pool_dials_total",
    "peer_grace": _PAUSE,
    "subnet_share": "a rule of choice: vouch_pool_extras has those beyond it",
    "source_share": "a rule of choice, among those who are dialled next",
    "feeler_interval": _PAUSE,
    "fault_ban": "a time: vouch_events_total has the bans",
    "bootstrap_retry_min": _PAUSE,
    "bootstrap_retry_max": _PAUSE,
    "refused_backoff_min": _PAUSE,
    "refused_backoff_max": _PAUSE,
    "redial_backoff_min": _PAUSE,
    "redial_backoff_max": _PAUSE,
    "heartbeat_interval": _PAUSE,
    "heartbeat_window": _SHAPE,
    "heartbeat_flaky": _SHAPE,
    "heartbeat_steady": _SHAPE,
    "dht_refresh_interval": _PAUSE,
    "dht_parallel": _SHAPE,
    "dht_paths": _SHAPE,
    "rendezvous_ttl": "a time",
    "rendezvous_rate": "is each peer's own: vouch_rendezvous_refused_total has what is refused, for this too",
    "mdns_interval": _PAUSE,
    "exchange_interval": _PAUSE,
    "exchange_window": _SHAPE,
    "gossip_max_pending_connections": "few are named by peers, and dialled: vouch_gossip_router_total has px_ignored",
    "gossip_max_ihave_length": "is a peer's own in a heartbeat: vouch_gossip_router_total has ihave_ignored",
    "gossip_max_ihave_messages": "is a peer's own in a heartbeat: vouch_gossip_router_total has ihave_ignored",
    "gossip_max_idontwant_length": "is an RPC's own: vouch_gossip_router_total has idontwant_ignored",
    "gossip_max_idontwant_messages": "is a peer's own in a heartbeat: vouch_gossip_router_total has idontwant_ignored",
    "gossip_max_idontwant_ids": "is a peer's own in a heartbeat: vouch_gossip_router_total has idontwant_ignored",
    "gossip_max_prune_backoff": "a time",
    "gossip_max_backoffs_per_topic": "in each topic a backoff more is left out, which costs a GRAFT that is refused",
}


def bounds(node: Node, api: Server | None) -> Iterator[Bound]:
    """All that the node has now: of parts that are off there is nothing."""
    yield from _connections(node)
    yield from _streams(node)
    config = node.config
    book = node.addressbook
    yield Bound("max_known_peers", len(book), config.max_known_peers, book.book.evicted + book.book.refused)
    yield Bound("max_bans", *book.ban_bound())
    for name, figures in node.api_bounds.items():
        yield Bound(name, *figures())
    lines = log.stats()
    yield Bound("max_log_queue", lines["waiting"], config.max_log_queue, lines["dropped"])
    if api is not None:
        refused = api.api.guard.refused
        yield Bound("max_api_body", None, config.max_api_body, refused["too_large"])
        yield Bound("max_api_rate", None, config.max_api_rate, refused["too_many_requests"])
    yield from _peers(node)
    gossip = gossip_of(node)
    if gossip is not None:
        links = gossip.peers.links()
        dropped = gossip.stats.lost.total() + sum(link.queue.dropped.total() for link in links)
        most = max((link.queue.bytes for link in links), default=0)
        yield Bound("max_gossip_queue", most, config.max_gossip_queue, dropped)
        for name, known in gossip.engine.bounds().items():
            yield Bound(f"gossip_{name}", *known)


def gossip_of(node: Node) -> Gossip | None:
    """The node's router, unless it has none, or py-libp2p's, which tells nothing."""
    if node.config.gossip == "off" or node.config.gossip_router != "vouch":
        return None
    return node.gossip


def _connections(node: Node) -> Iterator[Bound]:
    slots = node.swarm.limits
    for name, used in (
        ("max_connections", slots.total),
        ("max_inbound", slots.inbound),
        ("max_half_open", slots.half_open),
        ("max_half_open_per_ip", slots.most_half_open_of_ip),
        ("max_connections_per_ip", slots.most_of_ip),
    ):
        yield Bound(name, used, getattr(slots.limits, name), slots.refused[name])
    yield Bound("max_dials", node.dialer.limiter.borrowed_tokens, node.config.max_dials, None)


def _streams(node: Node) -> Iterator[Bound]:
    config, streams, unread, of_stream, unsent = node.config, 0, 0, 0, 0
    for connection in node.swarm.running():
        muxed = connection.muxed_conn
        open_here = getattr(muxed, "streams", {})
        streams = max(streams, len(open_here))
        sizes = [getattr(stream, "size", 0) for stream in open_here.values()] if isinstance(open_here, dict) else []
        unread, of_stream = max(unread, sum(sizes)), max(of_stream, max(sizes, default=0))
        session = getattr(muxed, "session", None)
        if session is not None:
            unsent = max(unsent, session.waiting[1])
    yield Bound("max_streams", streams, config.max_streams, node.swarm.streams_refused)
    yield Bound("max_stream_window", of_stream, config.max_stream_window, None)
    yield Bound("max_connection_window", unread, config.max_connection_window, None)
    yield Bound("max_unsent", unsent, config.max_unsent, None)


def _peers(node: Node) -> Iterator[Bound]:
    config, pool = node.config, node.peers.pool
    if pool is not None:
        yield Bound("high_peers", len(pool.peers), config.high_peers, pool.counts["drop", "surplus"])
        yield Bound("pool_dials", len(pool.dialling), config.pool_dials, None)
    if node.dht is not None:
        records = node.dht.kad.records
        values, _, providers = records.sizes()
        yield Bound("dht_max_values", values, config.dht_max_values, records.no_room["values"])
        yield Bound("dht_max_providers", providers, config.dht_max_providers, records.no_room["providers"])
    if node.exchange is not None:
        yield Bound("exchange_at_once", node.exchange.under_way, config.exchange_at_once, None)
    if node.mdns is not None:
        engines = [link.engine for link in node.mdns.links.values()]
        most = max((engine.peers for engine in engines), default=0)
        yield Bound("mdns_max_peers", most, config.mdns_max_peers, sum(engine.ignored for engine in engines))
    if node.point is not None and node.point.running:
        registrations = node.point.registrations
        per_peer, per_namespace, per_subnet = registrations.most()
        no = registrations.no_room
        yield Bound("max_registrations", len(registrations), config.max_registrations, no["max_registrations"])
        yield Bound("max_registrations_per_peer", per_peer, config.max_registrations_per_peer, no["max_per_peer"])
        yield Bound(
            "max_registrations_per_namespace",
            per_namespace,
            config.max_registrations_per_namespace,
            no["max_per_namespace"],
        )
        per = config.max_registrations_per_subnet
        yield Bound("max_registrations_per_subnet", per_subnet, per, no["max_per_subnet"])
