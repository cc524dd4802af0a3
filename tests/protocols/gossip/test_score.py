"""The scores: the examples of gossipsub v1.1's text worked through, then P1 to P7, decay and retention one by one."""

from __future__ import annotations

import ipaddress

import pytest

from protocols.gossip.score import Scores
from protocols.gossip.score_params import PeerScoreParams, TopicScoreParams
from tests.protocols.gossip.router import TOPIC, one_topic, p5


def scores(**params):
    made = Scores(one_topic(**params))
    made.set_topic(TOPIC)
    return made


def counters(made, peer="p"):
    return made._peers[peer].topics[TOPIC]


# the examples of the specification


def test_example_a_decay_of_097_once():
    """ "suppose the value for P2 is 120, with a decay factor of 0.97": after one interval it is 120 * 0.97. (The text
    says 110.4, which is 120 * 0.92.)"""
    made = scores(
        first_message_deliveries_weight=1, first_message_deliveries_cap=200, first_message_deliveries_decay=0.97
    )
    made.add("p")
    for _ in range(120):
        made.delivered_first("p", TOPIC)
    assert made.score("p") == 120
    made.refresh(1.0)
    assert made.score("p") == pytest.approx(120 * 0.97)


@pytest.mark.parametrize(("decay", "lost"), [(0.97, 0.03), (0.90, 0.10)])
def test_example_a_decay_of_090_loses_ten_percent_a_second(decay, lost):
    made = scores(first_message_deliveries_weight=1, first_message_deliveries_decay=decay)
    made.add("p")
    made.delivered_first("p", TOPIC)
    made.refresh(1.0)
    assert made.score("p") == pytest.approx(1 - lost)


@pytest.mark.parametrize(("quantum", "elapsed", "points"), [(1, 42, 42), (300, 299, 0), (300, 901, 3)])
def test_example_time_in_mesh_by_its_quantum(quantum, elapsed, points):
    """ "with a quantum of one second, a peer's P1 will be the seconds since the GRAFT"; with five minutes, these."""
    made = scores(time_in_mesh_weight=1, time_in_mesh_quantum=quantum, time_in_mesh_cap=1000)
    stats = made.add("p")
    made.graft(0.0, stats, TOPIC)
    made.refresh(float(elapsed))
    assert made.score("p") == points


# P1 to P4


def test_p1_is_capped_and_ends_with_the_mesh():
    made = scores(time_in_mesh_weight=0.5, time_in_mesh_quantum=1, time_in_mesh_cap=10)
    stats = made.add("p")
    made.graft(0.0, stats, TOPIC)
    assert made.score("p") == 0, "it is computed at the decay"
    made.refresh(100.0)
    assert made.score("p") == 5
    made.prune(stats, TOPIC)
    assert made.score("p") == 0


def test_p2_counts_first_deliveries_up_to_its_cap():
    made = scores(first_message_deliveries_weight=2, first_message_deliveries_cap=3)
    made.add("p")
    for points in (2, 4, 6, 6):
        made.delivered_first("p", TOPIC)
        assert made.score("p") == points


P3 = {
    "mesh_message_deliveries_weight": -1,
    "mesh_message_deliveries_threshold": 5,
    "mesh_message_deliveries_cap": 8,
    "mesh_message_deliveries_activation": 10,
    "mesh_message_deliveries_decay": 0.9,
}


def test_p3_is_the_square_of_the_deficit_once_active():
    made = scores(**P3)
    stats = made.add("p")
    made.graft(0.0, stats, TOPIC)
    made.refresh(10.0)
    assert made.score("p") == 0, "the activation hasn't passed"
    made.refresh(11.0)
    assert made.score("p") == -25
    made.delivered_first("p", TOPIC)
    assert made.score("p") == -16
    for _ in range(3):
        made.delivered_too("p", TOPIC)
    assert made.score("p") == -1
    made.delivered_too("p", TOPIC)
    assert made.score("p") == 0


def test_p3_counts_mesh_peers_only_and_up_to_its_cap():
    made = scores(**P3)
    stats = made.add("p")
    made.delivered_first("p", TOPIC)
    made.delivered_too("p", TOPIC)
    assert counters(made).mesh == 0
    made.graft(0.0, stats, TOPIC)
    for _ in range(20):
        made.delivered_too("p", TOPIC)
    assert counters(made).mesh == 8


def test_p3_decays_below_the_threshold():
    made = scores(**P3)
    stats = made.add("p")
    made.graft(0.0, stats, TOPIC)
    for _ in range(8):
        made.delivered_too("p", TOPIC)
    made.refresh(11.0)
    mesh = 8 * 0.9**11
    assert made.score("p") == pytest.approx(-((5 - mesh) ** 2))


def test_p3b_sticks_when_pruned_with_a_deficit():
    made = scores(**P3, mesh_failure_penalty_weight=-2, mesh_failure_penalty_decay=0.5)
    stats = made.add("p")
    made.graft(0.0, stats, TOPIC)
    made.refresh(11.0)
    made.prune(stats, TOPIC)
    assert made.score("p") == -50, "twice the deficit's square; P3 itself no longer counts"
    made.refresh(12.0)
    assert made.score("p") == -25


def test_p3b_is_not_for_who_is_pruned_before_the_activation():
    made = scores(**P3, mesh_failure_penalty_weight=-2)
    stats = made.add("p")
    made.graft(0.0, stats, TOPIC)
    made.prune(stats, TOPIC)
    assert made.score("p") == 0


def test_p4_is_the_square_of_invalid_messages():
    made = scores(invalid_message_deliveries_weight=-10, invalid_message_deliveries_decay=0.5)
    made.add("p")
    for points in (-10, -40, -90):
        made.invalid(0.0, "p", TOPIC)
        assert made.score("p") == points
    made.refresh(1.0)
    assert made.score("p") == -22.5


def test_topics_are_weighed_and_their_sum_is_capped():
    weighed = TopicScoreParams(topic_weight=0.5, first_message_deliveries_cap=1000)
    made = Scores(PeerScoreParams(topics={"a": weighed}, default_topic=None, topic_score_cap=20))
    made.set_topic("a")
    made.set_topic("unscored")
    made.add("p")
    for _ in range(10):
        made.delivered_first("p", "a")
        made.delivered_first("p", "unscored")
    assert made.score("p") == 5
    for _ in range(90):
        made.delivered_first("p", "a")
    assert made.score("p") == 20


def test_a_lower_cap_cuts_the_counters():
    made = scores(first_message_deliveries_weight=1, first_message_deliveries_cap=50)
    made.add("p")
    for _ in range(50):
        made.delivered_first("p", TOPIC)
    made.set_topic(TOPIC, TopicScoreParams(first_message_deliveries_cap=5))
    assert made.score("p") == 5


# P5 to P7


def test_p5_is_what_the_program_thinks():
    opinion = {"p": -3.0}
    made = Scores(p5(opinion, app_specific_weight=2))
    made.add("p")
    assert made.score("p") == -6
    opinion["p"] = 10.0
    assert made.score("p") == -6, "it is asked again at the next decay"
    made.refresh(1.0)
    assert made.score("p") == 20


def colocated(**params):
    return Scores(
        PeerScoreParams(default_topic=None, ip_colocation_factor_weight=-1, ip_colocation_factor_threshold=2, **params)
    )


def test_p6_is_the_square_of_the_surplus_for_all_of_the_address():
    made = colocated()
    for number in range(5):
        made.add(number, "192.0.2.1")
    made.add("other", "192.0.2.2")
    assert [made.score(number) for number in range(5)] == [-9] * 5
    assert made.score("other") == 0
    made.remove(0.0, 0)
    assert made.score(1) == -4


def test_p6_counts_an_ipv6_prefix_of_64_bits_as_one_address():
    made = colocated()
    for number in range(4):
        made.add(number, f"2001:db8:0:1::{number}")
    made.add("next door", "2001:db8:0:2::1")
    assert made.score(0) == -4
    assert made.score("next door") == 0


def test_p6_sees_through_mapped_addresses():
    made = colocated()
    for number, ip in enumerate(("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1")):
        made.add(number, ip)
    assert made.score(0) == -1


def test_p6_spares_the_whitelist():
    made = colocated(ip_colocation_factor_whitelist=(ipaddress.ip_network("10.0.0.0/8"),))
    for number in range(9):
        made.add(number, "10.1.2.3")
    assert made.score(0) == 0
    usual = colocated()
    for number in range(9):
        usual.add(number, "127.0.0.1")
    assert usual.score(0) == 0


def test_p6_has_no_opinion_of_what_is_no_address():
    made = colocated()
    for number in range(9):
        made.add(number, "localhost")
    assert made.score(0) == 0


def test_p7_is_the_square_above_its_threshold():
    made = Scores(
        PeerScoreParams(
            default_topic=None, behaviour_penalty_weight=-1, behaviour_penalty_threshold=2, behaviour_penalty_decay=0.5
        )
    )
    made.add("p")
    made.penalize(0.0, "p", 2)
    assert made.score("p") == 0
    made.penalize(0.0, "p")
    made.penalize(0.0, "p")
    assert made.score("p") == -4
    made.refresh(1.0)
    assert made.score("p") == 0


# decay and retention


def test_what_decays_below_the_zero_is_zero():
    made = scores(first_message_deliveries_weight=1, first_message_deliveries_decay=0.5)
    stats = made.add("p")
    made.delivered_first("p", TOPIC)
    made.refresh(6.0)
    assert made.score("p") == pytest.approx(1 / 64)
    made.refresh(7.0)
    assert made.score("p") == 0
    assert stats.topics == {}, "nothing is kept about it"


def test_missed_decays_are_made_up_for():
    one, many = (scores(first_message_deliveries_weight=1, first_message_deliveries_decay=0.9) for _ in range(2))
    for made in (one, many):
        made.add("p")
        made.delivered_first("p", TOPIC)
    one.refresh(10.0)
    for second in range(1, 11):
        many.refresh(float(second))
    assert one.score("p") == pytest.approx(many.score("p"))


def test_penalties_come_back_with_the_peer():
    made = scores(invalid_message_deliveries_weight=-1, first_message_deliveries_weight=1)
    made.add("p")
    for _ in range(3):
        made.invalid(0.0, "p", TOPIC)
        made.delivered_first("p", TOPIC)
    made.remove(0.0, "p")
    assert made.score("p") == -9, "first deliveries are gone"
    made.refresh(100.0)
    made.add("p")
    assert made.score("p") == -9, "what is retained doesn't decay"


def test_a_good_score_is_not_retained():
    made = scores(first_message_deliveries_weight=1)
    made.add("p")
    made.delivered_first("p", TOPIC)
    made.remove(0.0, "p")
    made.add("p")
    assert made.score("p") == 0
    assert not made._retained


def test_retained_scores_are_forgotten_in_time_and_number():
    made = Scores(PeerScoreParams(default_topic=None, retain_score=100, max_retained=2))
    for number in range(3):
        made.add(number)
        made.penalize(0.0, number, 10)
        made.remove(float(number), number)
    assert list(made._retained) == [1, 2]
    made.refresh(101.0)
    assert list(made._retained) == [2]


def test_a_mesh_deficit_is_charged_at_disconnection():
    made = scores(**P3, mesh_failure_penalty_weight=-1)
    stats = made.add("p")
    made.graft(0.0, stats, TOPIC)
    made.refresh(11.0)
    made.remove(11.0, "p")
    assert made.score("p") == -25


def test_invalid_messages_of_a_peer_that_is_gone_count():
    made = scores(invalid_message_deliveries_weight=-1)
    made.add("p")
    made.remove(0.0, "p")
    made.invalid(1.0, "p", TOPIC)
    made.add("p")
    assert made.score("p") == -1


def test_without_parameters_every_score_is_zero():
    made = Scores()
    stats = made.add("p", "192.0.2.1")
    made.graft(0.0, stats, TOPIC)
    made.delivered_first("p", TOPIC)
    made.invalid(0.0, "p", TOPIC)
    made.penalize(0.0, "p", 100)
    made.refresh(10.0)
    assert made.score("p") == made.score("stranger") == 0
