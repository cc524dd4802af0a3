"""The parameters of the scores: names and checks of go-libp2p-pubsub, defaults of ours.

Go has no defaults; the reasons of ours are in docs/gossip.md. Weights and counters are plain numbers, times seconds.
The checks are those of gossipsub v1.1, "Overview of New Parameters": what doesn't hold is a ValueError that names the
field.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK: tuple[IPNetwork, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


def decay_over(seconds: float, *, interval: float = 1.0, to_zero: float = 0.01) -> float:
    """The factor which, applied every `interval` seconds, brings 1 down to `to_zero` within `seconds`."""
    if not seconds > 0 or not interval > 0 or not 0 < to_zero < 1:
        raise ValueError(f"expected positive times and to_zero between 0 and 1, got {seconds}, {interval}, {to_zero}")
    return float(to_zero ** (interval / max(seconds, interval)))


@dataclass(frozen=True)
class TopicScoreParams:
    """How a peer's behaviour in one topic counts (P1 to P4)."""

    topic_weight: float = 1.0

    # P1, time in the mesh: at most 3 points, after five minutes
    time_in_mesh_weight: float = 0.01
    time_in_mesh_quantum: float = 1.0
    time_in_mesh_cap: float = 300.0

    # P2, messages that the peer brought first: at most 20 points, forgotten within ten minutes
    first_message_deliveries_weight: float = 1.0
    first_message_deliveries_decay: float = decay_over(600)
    first_message_deliveries_cap: float = 20.0

    # P3, messages that a mesh peer brought first or nearly so: off, because the fitting threshold is the network's
    mesh_message_deliveries_weight: float = 0.0
    mesh_message_deliveries_decay: float = decay_over(120)
    mesh_message_deliveries_cap: float = 40.0
    mesh_message_deliveries_threshold: float = 4.0
    mesh_message_deliveries_window: float = 0.01
    mesh_message_deliveries_activation: float = 60.0

    # P3b, what was missing of P3 when the peer was pruned: off as well
    mesh_failure_penalty_weight: float = 0.0
    mesh_failure_penalty_decay: float = decay_over(600)

    # P4, invalid messages, squared: the first costs 10, three cost 90
    invalid_message_deliveries_weight: float = -10.0
    invalid_message_deliveries_decay: float = decay_over(3600)

    def __post_init__(self) -> None:
        _at_least("topic_weight", self.topic_weight, 0)
        _at_least("time_in_mesh_weight", self.time_in_mesh_weight, 0)
        _above("time_in_mesh_quantum", self.time_in_mesh_quantum, 0)
        if self.time_in_mesh_weight:
            _above("time_in_mesh_cap", self.time_in_mesh_cap, 0)
        _at_least("first_message_deliveries_weight", self.first_message_deliveries_weight, 0)
        if self.first_message_deliveries_weight:
            _decay("first_message_deliveries_decay", self.first_message_deliveries_decay)
            _above("first_message_deliveries_cap", self.first_message_deliveries_cap, 0)
        _at_most("mesh_message_deliveries_weight", self.mesh_message_deliveries_weight, 0)
        _at_least("mesh_message_deliveries_window", self.mesh_message_deliveries_window, 0)
        if self.mesh_message_deliveries_weight:
            _decay("mesh_message_deliveries_decay", self.mesh_message_deliveries_decay)
            _above("mesh_message_deliveries_threshold", self.mesh_message_deliveries_threshold, 0)
            _at_least(
                "mesh_message_deliveries_cap", self.mesh_message_deliveries_cap, self.mesh_message_deliveries_threshold
            )
            _at_least("mesh_message_deliveries_activation", self.mesh_message_deliveries_activation, 1)
        _at_most("mesh_failure_penalty_weight", self.mesh_failure_penalty_weight, 0)
        if self.mesh_failure_penalty_weight:
            _decay("mesh_failure_penalty_decay", self.mesh_failure_penalty_decay)
        _at_most("invalid_message_deliveries_weight", self.invalid_message_deliveries_weight, 0)
        _decay("invalid_message_deliveries_decay", self.invalid_message_deliveries_decay)


def steady_traffic(rate: float, **more: float) -> TopicScoreParams:
    """Parameters for a topic in which at least `rate` messages are accepted in a second: with P3, so that who takes
    everything and relays nothing leaves the mesh. `more` are fields of `TopicScoreParams`.

    A mesh peer should bring one message in eighty first or nearly so, a sixth of a fair share in a mesh of D_high; it
    is looked at after sixty messages. Who brings nothing pays 15: the mesh, but never the gossip, because honest peers
    that have nobody behind them bring nothing either. A silence of half a minute is forgiven; where there are longer
    ones, traffic isn't steady.
    """
    if not rate > 0:
        raise ValueError(f"expected a positive number of messages in a second, got {rate}")
    decay = decay_over(max(120.0, 480 / rate))
    counted = rate / (1 - decay)  # where the counter of a peer that brought everything would settle
    threshold = counted / 80
    fields: dict[str, float] = {
        "mesh_message_deliveries_weight": -15 / threshold**2,
        "mesh_message_deliveries_decay": decay,
        "mesh_message_deliveries_cap": counted,
        "mesh_message_deliveries_threshold": threshold,
        "mesh_message_deliveries_window": 0.05,
        "mesh_message_deliveries_activation": max(10.0, 60 / rate),
        "mesh_failure_penalty_weight": -15 / threshold**2,
    }
    return TopicScoreParams(**(fields | more))


def no_app_score(peer: Hashable) -> float:
    """P5 for programs that have no opinion of their own."""
    return 0.0


@dataclass(frozen=True)
class PeerScoreParams:
    """How a peer counts over all topics, and P5 to P7.

    topics: parameters of single topics; every other topic that we subscribe to has `default_topic`, or isn't scored if
    that is None.
    """

    topics: Mapping[str, TopicScoreParams] = field(default_factory=dict)
    default_topic: TopicScoreParams | None = field(default_factory=TopicScoreParams)
    topic_score_cap: float = 40.0  # 0 for no cap

    # P5, what the program thinks of the peer
    app_specific_score: Callable[[Hashable], float] = no_app_score
    app_specific_weight: float = 1.0

    # P6, peers of one address (IPv6: of one /64) above the threshold, squared
    ip_colocation_factor_weight: float = -5.0
    ip_colocation_factor_threshold: int = 10
    ip_colocation_factor_whitelist: tuple[IPNetwork, ...] = LOOPBACK

    # P7, broken promises and early GRAFTs above the threshold, squared
    behaviour_penalty_weight: float = -100.0
    behaviour_penalty_threshold: float = 6.0
    behaviour_penalty_decay: float = decay_over(600)

    decay_interval: float = 1.0
    decay_to_zero: float = 0.01
    retain_score: float = 3600.0  # how long a bad score outlives its connection; 0 for not at all
    max_retained: int = 10_000  # ours: of these, the oldest go first

    def __post_init__(self) -> None:
        _at_least("topic_score_cap", self.topic_score_cap, 0)
        _at_least("app_specific_weight", self.app_specific_weight, 0)
        _at_most("ip_colocation_factor_weight", self.ip_colocation_factor_weight, 0)
        if self.ip_colocation_factor_weight:
            _at_least("ip_colocation_factor_threshold", self.ip_colocation_factor_threshold, 1)
        _at_most("behaviour_penalty_weight", self.behaviour_penalty_weight, 0)
        _at_least("behaviour_penalty_threshold", self.behaviour_penalty_threshold, 0)
        if self.behaviour_penalty_weight:
            _decay("behaviour_penalty_decay", self.behaviour_penalty_decay)
        _at_least("decay_interval", self.decay_interval, 1)
        _decay("decay_to_zero", self.decay_to_zero)
        _at_least("retain_score", self.retain_score, 0)
        _at_least("max_retained", self.max_retained, 0)


@dataclass(frozen=True)
class PeerScoreThresholds:
    """The scores below (or above) which the router treats a peer differently."""

    gossip_threshold: float = -20.0  # below: no gossip to the peer, none taken from it
    publish_threshold: float = -40.0  # below: it isn't sent our own messages
    graylist_threshold: float = -80.0  # below: nothing of it is looked at
    accept_px_threshold: float = 100.0  # from here on it may name peers to us: only who P5 trusts gets there
    opportunistic_graft_threshold: float = 5.0  # a mesh whose median is below takes better peers in

    def __post_init__(self) -> None:
        _at_most("gossip_threshold", self.gossip_threshold, 0)
        _at_most("publish_threshold", self.publish_threshold, self.gossip_threshold)
        _at_most("graylist_threshold", self.graylist_threshold, self.publish_threshold)
        _at_least("accept_px_threshold", self.accept_px_threshold, 0)
        _at_least("opportunistic_graft_threshold", self.opportunistic_graft_threshold, 0)


def _at_least(name: str, value: float, least: float) -> None:
    if not (math.isfinite(value) and value >= least):
        raise ValueError(f"expected {name} to be a number of at least {least:g}, got {value}")


def _at_most(name: str, value: float, most: float) -> None:
    if not (math.isfinite(value) and value <= most):
        raise ValueError(f"expected {name} to be a number of at most {most:g}, got {value}")


def _above(name: str, value: float, bound: float) -> None:
    if not (math.isfinite(value) and value > bound):
        raise ValueError(f"expected {name} to be a number above {bound:g}, got {value}")


def _decay(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"expected {name} between 0 and 1, got {value}")
