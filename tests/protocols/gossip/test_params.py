"""The parameters: Go's defaults, and what contradicts itself is refused by name."""

from __future__ import annotations

import math

import pytest

from protocols.gossip.params import GossipParams, RpcLimits
from protocols.gossip.score import Scores
from protocols.gossip.score_params import (
    PeerScoreParams,
    PeerScoreThresholds,
    TopicScoreParams,
    decay_over,
    steady_traffic,
)


def test_the_defaults_are_those_of_go_libp2p_pubsub():
    params = GossipParams()
    assert (params.d, params.d_lo, params.d_hi, params.d_score, params.d_out, params.d_lazy) == (6, 5, 12, 4, 2, 6)
    assert (params.history_length, params.history_gossip, params.gossip_factor) == (5, 3, 0.25)
    assert (params.gossip_retransmission, params.heartbeat_interval, params.fanout_ttl) == (3, 1, 60)
    assert (params.prune_peers, params.prune_backoff, params.unsubscribe_backoff) == (16, 60, 10)
    assert (params.opportunistic_graft_ticks, params.opportunistic_graft_peers) == (60, 2)
    assert (params.graft_flood_threshold, params.max_ihave_length, params.max_ihave_messages) == (10, 5000, 10)
    assert (params.max_idontwant_length, params.max_idontwant_messages) == (10, 1000)
    assert (params.iwant_followup_time, params.idontwant_message_threshold, params.idontwant_message_ttl) == (
        3,
        1024,
        3,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"d": 4},
        {"d": 13},
        {"d_score": 7},
        {"d_out": 5},
        {"d_out": 4},
        {"d_lo": -1},
        {"history_gossip": 6},
        {"history_length": 0},
        {"gossip_factor": 1.5},
        {"gossip_factor": -0.1},
        {"heartbeat_interval": 0},
        {"heartbeat_interval": math.inf},
        {"fanout_ttl": -1},
        {"verdict_timeout": 120},
        {"verdict_timeout": math.nan},
        {"seen_ttl": 10},
        {"history_length": 121},
        {"max_seen": 0},
        {"max_pending_messages": 10},
        {"max_pending_bytes": 1000},
        {"max_pending_bytes_per_peer": 1000},
        {"max_cache_bytes": 1000},
        {"max_prune_backoff": 30},
    ],
    ids=str,
)
def test_router_parameters_that_contradict_each_other_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_per")[0].replace("seen_ttl", "verdict_timeout")):
        GossipParams(**wrong)


def test_a_bootstrapper_may_have_no_mesh():
    GossipParams(d=0, d_lo=0, d_hi=0, d_out=0)


def test_limits_are_at_least_one():
    with pytest.raises(ValueError, match="max_messages"):
        RpcLimits(max_messages=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"topic_weight": -1},
        {"time_in_mesh_weight": -1},
        {"time_in_mesh_quantum": 0},
        {"time_in_mesh_cap": 0},
        {"first_message_deliveries_weight": -1},
        {"first_message_deliveries_decay": 1},
        {"first_message_deliveries_cap": 0},
        {"mesh_message_deliveries_weight": 1},
        {"mesh_message_deliveries_window": -1},
        {"mesh_message_deliveries_decay": 0, "mesh_message_deliveries_weight": -1},
        {"mesh_message_deliveries_threshold": 0, "mesh_message_deliveries_weight": -1},
        {"mesh_message_deliveries_cap": 3, "mesh_message_deliveries_weight": -1},
        {"mesh_message_deliveries_activation": 0.5, "mesh_message_deliveries_weight": -1},
        {"mesh_failure_penalty_weight": 1},
        {"mesh_failure_penalty_decay": 2, "mesh_failure_penalty_weight": -1},
        {"invalid_message_deliveries_weight": 1},
        {"invalid_message_deliveries_decay": math.nan},
    ],
    ids=str,
)
def test_topic_score_parameters_out_of_their_bounds_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TopicScoreParams(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"topic_score_cap": -1},
        {"app_specific_weight": -1},
        {"ip_colocation_factor_weight": 1},
        {"ip_colocation_factor_threshold": 0},
        {"behaviour_penalty_weight": 1},
        {"behaviour_penalty_threshold": -1},
        {"behaviour_penalty_decay": 0},
        {"decay_interval": 0.5},
        {"decay_to_zero": 1},
        {"retain_score": -1},
    ],
    ids=str,
)
def test_peer_score_parameters_out_of_their_bounds_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PeerScoreParams(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"gossip_threshold": 1},
        {"publish_threshold": -10},
        {"graylist_threshold": -30},
        {"accept_px_threshold": -1},
        {"opportunistic_graft_threshold": math.inf},
    ],
    ids=str,
)
def test_thresholds_out_of_their_order_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PeerScoreThresholds(**wrong)


def test_a_decay_reaches_its_zero_in_time():
    assert decay_over(100) ** 100 == pytest.approx(0.01)
    with pytest.raises(ValueError, match="positive"):
        decay_over(0)


def test_our_defaults_put_offenders_below_the_graylist_threshold():
    """The reasons that docs/gossip.md gives, in numbers."""
    topic, peer, thresholds = TopicScoreParams(), PeerScoreParams(), PeerScoreThresholds()
    best = topic.time_in_mesh_weight * topic.time_in_mesh_cap
    best += topic.first_message_deliveries_weight * topic.first_message_deliveries_cap
    invalid, behaviour = topic.invalid_message_deliveries_weight, peer.behaviour_penalty_weight
    assert 9 * invalid < thresholds.graylist_threshold, "three invalid messages of a peer without merit"
    assert 16 * invalid + best < thresholds.graylist_threshold, "four of the best peer there can be"
    assert (7 - peer.behaviour_penalty_threshold) ** 2 * behaviour < thresholds.graylist_threshold
    assert best < thresholds.accept_px_threshold, "nobody may name peers to us by his merits alone"


@pytest.mark.parametrize("rate", [0.1, 1, 4, 100])
def test_steady_traffic_costs_a_silent_peer_the_mesh_but_never_the_gossip(rate):
    topic = steady_traffic(rate)
    scores = Scores(PeerScoreParams(default_topic=topic))
    scores.set_topic("t")
    silent, fair = scores.add("silent"), scores.add("fair")
    for stats in (silent, fair):
        scores.graft(0.0, stats, "t")
    second = brought = 0
    while second < topic.mesh_message_deliveries_activation + 60:
        second += 1
        while brought < second * rate / 12:  # a share of one in D_high
            scores.delivered_first("fair", "t")
            brought += 1
        scores.refresh(float(second))
    assert PeerScoreThresholds().gossip_threshold < scores.of(silent) < 0
    assert scores.of(fair) > 0
    scores.prune(silent, "t")
    assert PeerScoreThresholds().gossip_threshold < scores.of(silent) < 0


def test_steady_traffic_needs_a_rate_and_takes_other_values():
    with pytest.raises(ValueError, match="positive number of messages in a second, got 0"):
        steady_traffic(0)
    assert steady_traffic(2, topic_weight=0.5).topic_weight == 0.5
