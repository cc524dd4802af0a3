"""Every setting of the router, with its default and its check.

`GossipParams` has go-libp2p-pubsub's parameters (0.16) under their names in snake_case and with their defaults, and
below them the bounds that are ours. The parameters of the scores are in `score_params`.

Times are seconds, sizes bytes. A set of parameters that contradicts itself is a ValueError at construction: it names
the field, and says what was expected and what came. Source: libp2p/specs, pubsub/gossipsub, "Parameters".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

MIB = 1 << 20


@dataclass(frozen=True)
class RpcLimits:
    """What one RPC may hold; more of anything is a ProtocolError of whoever sent it."""

    max_size: int = MIB  # bytes of an encoded RPC (docs/wire.md)
    max_subscriptions: int = 1_000
    max_messages: int = 5_000
    max_control: int = 5_000  # IHAVE, IWANT, GRAFT, PRUNE and IDONTWANT entries together
    max_ids: int = 50_000  # message IDs in all of them
    max_topic: int = 256  # bytes of UTF-8
    max_message_id: int = 256  # bytes
    max_px_peers: int = 64  # of one PRUNE
    max_record: int = 16 * 1024  # bytes of one signed peer record

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _at_least(name, value, 1)


@dataclass(frozen=True)
class GossipParams:
    """The router's parameters. Raises ValueError if they contradict one another."""

    # the mesh
    d: int = 6  # links of a topic's mesh that a node aims at
    d_lo: int = 5  # with fewer, the heartbeat grafts
    d_hi: int = 12  # with as many or more, the heartbeat prunes down to d
    d_score: int = 4  # of those that stay then, how many stay for their score; the others are drawn
    d_out: int = 2  # of those that stay then, how many we dialled ourselves

    # gossip
    history_length: int = 5  # heartbeats that a message can be asked for
    history_gossip: int = 3  # heartbeats that it is advertised
    d_lazy: int = 6  # peers outside the mesh that are told at each heartbeat, at least
    gossip_factor: float = 0.25  # or this part of them, if that is more
    gossip_retransmission: int = 3  # times that one peer is sent the same message for the asking

    # heartbeat
    heartbeat_initial_delay: float = 0.1
    heartbeat_interval: float = 1.0
    slow_heartbeat_warning: float = 0.1  # part of an interval; for whoever runs the engine

    fanout_ttl: float = 60.0  # how long the peers are kept that a topic we aren't in was published to

    # pruning and peer exchange
    do_px: bool = False  # whether a PRUNE of ours names other peers
    prune_peers: int = 16  # how many; and how many a PRUNE's receiver takes
    prune_backoff: float = 60.0  # time without a GRAFT after a PRUNE
    unsubscribe_backoff: float = 10.0  # the same, after we left the topic
    connectors: int = 8  # the last three are for who dials what peer exchange brings
    max_pending_connections: int = 128
    connection_timeout: float = 30.0

    # direct peers
    direct_connect_ticks: int = 300  # heartbeats between two attempts to reach those that are missing
    direct_connect_initial_delay: float = 1.0  # before the first attempt; for whoever runs the engine

    # opportunistic grafting
    opportunistic_graft_ticks: int = 60  # heartbeats between two looks at the median score
    opportunistic_graft_peers: int = 2

    graft_flood_threshold: float = 10.0  # a GRAFT as early as this after a PRUNE costs double

    # floods
    max_ihave_length: int = 5_000  # IDs in an IHAVE, and IDs asked of one peer in a heartbeat
    max_ihave_messages: int = 10  # RPCs with an IHAVE taken of one peer in a heartbeat
    max_idontwant_length: int = 10  # IDs in the IDONTWANTs of an RPC
    max_idontwant_messages: int = 1_000  # RPCs with an IDONTWANT taken of one peer in a heartbeat
    iwant_followup_time: float = 3.0  # after that, what was advertised and asked for is a broken promise
    idontwant_message_threshold: int = 1024  # bytes of a message's data from which IDONTWANT is sent
    idontwant_message_ttl: int = 3  # heartbeats that an IDONTWANT is kept

    flood_publish: bool = True  # own messages go to every peer of the topic

    # ours: verdicts
    verdict_timeout: float = 30.0  # a topic may have its own (`TopicParams`)
    max_pending_messages: int = 8_192
    max_pending_bytes: int = 64 * MIB
    max_pending_messages_per_peer: int = 2_048
    max_pending_bytes_per_peer: int = 16 * MIB

    # ours: memory of what was seen
    seen_ttl: float = 120.0  # Go's default; networks of ours need their timestamp window
    max_seen: int = 500_000  # about 100 bytes each
    max_cache_bytes: int = 64 * MIB  # of accepted messages that can still be asked for

    # ours: state that strangers cause
    max_topics_per_peer: int = 256  # subscriptions that are remembered; the rest are ignored
    max_idontwant_ids: int = 3_000  # IDs taken of one peer in a heartbeat, all its RPCs together
    max_unwanted: int = 50_000  # IDs that somebody doesn't want and we haven't seen, of all peers together
    max_prune_backoff: float = 3600.0  # a longer backoff of a peer's is cut to this
    max_backoffs_per_topic: int = 10_000
    rpc: RpcLimits = field(default_factory=RpcLimits)

    def __post_init__(self) -> None:
        for name in (
            *("d", "d_lo", "d_hi", "d_score", "d_out", "d_lazy", "gossip_retransmission", "prune_peers"),
            *("opportunistic_graft_peers", "max_ihave_length", "max_ihave_messages", "max_idontwant_length"),
            *("max_idontwant_messages", "idontwant_message_threshold", "idontwant_message_ttl", "max_idontwant_ids"),
        ):
            _at_least(name, getattr(self, name), 0)
        for name in (
            *("history_length", "history_gossip", "opportunistic_graft_ticks", "direct_connect_ticks", "connectors"),
            *("max_pending_connections", "max_pending_messages", "max_pending_bytes", "max_pending_messages_per_peer"),
            *("max_pending_bytes_per_peer", "max_seen", "max_cache_bytes", "max_topics_per_peer"),
            *("max_backoffs_per_topic", "max_unwanted"),
        ):
            _at_least(name, getattr(self, name), 1)
        for name in (
            *("heartbeat_interval", "fanout_ttl", "prune_backoff", "unsubscribe_backoff", "connection_timeout"),
            *("iwant_followup_time", "verdict_timeout", "seen_ttl", "max_prune_backoff"),
        ):
            _positive(name, getattr(self, name))
        for name in ("heartbeat_initial_delay", "direct_connect_initial_delay", "graft_flood_threshold"):
            _not_negative(name, getattr(self, name))
        if not 0 <= self.gossip_factor <= 1:
            raise ValueError(f"expected a gossip_factor between 0 and 1, got {self.gossip_factor}")
        self._check_mesh()
        self._check_times()

    def _check_mesh(self) -> None:
        _at_most("history_gossip", self.history_gossip, "history_length", self.history_length)
        if self.d == self.d_lo == self.d_hi == self.d_out == 0:
            return  # a bootstrapper, which has no mesh
        if not self.d_lo <= self.d <= self.d_hi:
            raise ValueError(f"expected d between d_lo ({self.d_lo}) and d_hi ({self.d_hi}), got {self.d}")
        _at_most("d_score", self.d_score, "d", self.d)
        if self.d_out >= self.d_lo or self.d_out > self.d / 2:
            raise ValueError(
                f"expected d_out to be less than d_lo ({self.d_lo}) and at most half of d ({self.d}), got {self.d_out}"
            )

    def _check_times(self) -> None:
        if self.verdict_timeout >= self.seen_ttl:  # or a message would be judged twice
            raise ValueError(
                f"expected verdict_timeout to be less than seen_ttl ({self.seen_ttl:g}), got {self.verdict_timeout}"
            )
        history = self.history_length * self.heartbeat_interval  # or what others still advertise would be fetched again
        _at_most("history_length heartbeats", history, "seen_ttl", self.seen_ttl)
        _at_most("prune_backoff", self.prune_backoff, "max_prune_backoff", self.max_prune_backoff)
        _at_most("unsubscribe_backoff", self.unsubscribe_backoff, "max_prune_backoff", self.max_prune_backoff)
        per_peer, in_all = self.max_pending_messages_per_peer, self.max_pending_messages
        _at_most("max_pending_messages_per_peer", per_peer, "max_pending_messages", in_all)
        per_peer, in_all = self.max_pending_bytes_per_peer, self.max_pending_bytes
        _at_most("rpc.max_size", self.rpc.max_size, "max_pending_bytes_per_peer", per_peer)
        _at_most("max_pending_bytes_per_peer", per_peer, "max_pending_bytes", in_all)
        _at_most("rpc.max_size", self.rpc.max_size, "max_cache_bytes", self.max_cache_bytes)


def _at_most(name: str, value: float, other: str, most: float) -> None:
    if value > most:
        raise ValueError(f"expected {name} to be at most {other} ({most:g}), got {value}")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"expected {name} to be at least {least}, got {value}")


def _positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"expected {name} to be a positive number of seconds, got {value}")


def _not_negative(name: str, value: float) -> None:
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"expected {name} to be zero or a positive number of seconds, got {value}")
