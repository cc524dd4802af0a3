"""Gossip about messages: IHAVE, IWANT, IDONTWANT, promises, and their limits."""

from __future__ import annotations

from protocols.gossip.rpc import Control, IDontWant, IHave, IWant, Rpc
from protocols.gossip.score_params import PeerScoreParams, PeerScoreThresholds
from protocols.gossip.state import FLOODSUB, MESHSUB_11
from tests.protocols.gossip.router import ACCEPT, IGNORE, REJECT, TOPIC, Router, message, p5

BIG = b"x" * 1024


def router(**settings):
    """With six peers in the mesh, which wants no more."""
    made = Router(**({"d_out": 0} | settings))
    made.peer(*MESH, mesh=True)
    return made


MESH = tuple(f"m{i}" for i in range(6))


def accepted(made, *datas):
    """Messages that are in the cache."""
    made.messages("m0", *map(message, datas))
    for data in datas:
        made.verdict(data)
    made.engine.take()


# IHAVE, sent


def test_gossip_goes_to_d_lazy_peers_outside_the_mesh():
    made = router()
    made.peer(*(f"p{i}" for i in range(20)))
    accepted(made, b"1", b"2")
    made.heartbeat()
    sent = made.sent_control("ihave")
    assert len(sent) == 6
    assert not set(sent) & set(MESH)
    assert all(set(have.message_ids) == {b"1", b"2"} and have.topic == TOPIC for (have,) in sent.values())


def test_gossip_goes_to_a_factor_of_many_peers():
    made = router()
    made.peer(*(f"p{i}" for i in range(100)))
    accepted(made, b"1")
    made.heartbeat()
    assert len(made.sent_control("ihave")) == 25


def test_gossip_is_about_the_last_three_heartbeats():
    made = router()
    made.peer("far")
    accepted(made, b"1")
    for _ in range(3):
        made.heartbeat()
        assert "far" in made.sent_control("ihave")
    made.heartbeat()
    assert made.sent() == {}


def test_no_gossip_to_low_scores_direct_and_floodsub_peers():
    made = router(score=p5({"low": -21.0, "middle": -20.0}))
    made.peer("low", "middle")
    made.peer("direct", direct=True)
    made.peer("flood", protocol=FLOODSUB)
    accepted(made, b"1")
    made.heartbeat()
    assert set(made.sent_control("ihave")) == {"middle"}


def test_a_long_list_is_cut_differently_for_each_peer():
    made = router(max_ihave_length=10)
    made.peer("far", "farther")
    accepted(made, *(bytes([i]) for i in range(100)))
    made.heartbeat()
    sent = made.sent_control("ihave")
    assert [len(have.message_ids) for (have,) in sent.values()] == [10, 10]
    assert sent["far"] != sent["farther"]


def test_gossip_is_sent_for_the_fanout_too():
    made = Router(joined=False, flood_publish=False)
    made.peer(*(f"p{i}" for i in range(12)))
    pushed = made.publish(b"1").peers
    made.heartbeat()
    sent = made.sent_control("ihave")
    assert len(sent) == 6
    assert not set(sent) & set(pushed)


# IHAVE, received; IWANT, sent


def test_what_was_not_seen_is_asked_for():
    made = router()
    made.peer("far")
    accepted(made, b"1")
    made.ihave("far", b"1", b"2", b"3", b"2")
    (want,) = made.sent_control("iwant")["far"]
    assert sorted(want.message_ids) == [b"2", b"3"]


def test_ihave_of_unknown_topics_and_low_scores_is_ignored():
    made = router(score=p5({"low": -21.0}))
    made.peer("far", "low")
    made.ihave("far", b"1", topic="unknown")
    made.ihave("low", b"1")
    assert made.sent() == {}


def test_ihave_is_capped_in_messages_for_each_heartbeat():
    made = router()
    made.peer("far")
    for number in range(20):
        made.ihave("far", bytes([number]))
    assert len(made.sent()["far"]) == 10
    assert made.engine.counts["ihave_ignored"] == 10
    made.heartbeat()
    made.engine.take()
    made.ihave("far", b"new")
    assert "far" in made.sent_control("iwant")


def test_ihave_is_capped_in_ids_for_each_heartbeat():
    made = router(max_ihave_length=10)
    made.peer("far")
    made.ihave("far", *(bytes([number]) for number in range(8)))
    made.ihave("far", *(bytes([number]) for number in range(100, 108)))
    made.ihave("far", b"more")
    asked = [len(want.message_ids) for want in made.sent_control("iwant")["far"]]
    assert asked == [8, 2]


def test_nothing_is_asked_for_while_there_is_no_room_for_it():
    made = router(max_seen=1)
    made.peer("far")
    accepted(made, b"1")
    made.ihave("far", b"2")
    assert made.sent() == {}


# IWANT, received


def test_a_message_is_given_three_times_to_the_same_peer():
    made = router()
    made.peer("far", "farther")
    accepted(made, b"1")
    for _ in range(5):
        made.iwant("far", b"1", b"1", b"unknown")
    assert made.sent_messages() == {"far": [b"1"] * 3}
    assert made.engine.counts["iwant_ignored"] == 2
    made.iwant("farther", b"1")
    assert made.sent_messages() == {"farther": [b"1"]}


def test_iwant_of_a_low_score_is_ignored():
    made = router(score=p5({"low": -21.0}))
    made.peer("low")
    accepted(made, b"1")
    made.iwant("low", b"1")
    assert made.sent() == {}


def test_a_message_can_be_asked_for_during_five_heartbeats():
    made = router()
    made.peer("far")
    accepted(made, b"1")
    made.heartbeat(4)
    made.engine.take()
    made.iwant("far", b"1")
    assert made.sent_messages() == {"far": [b"1"]}
    made.heartbeat()
    made.engine.take()
    made.iwant("far", b"1")
    assert made.sent() == {}


# promises

STRICT = PeerScoreParams(default_topic=None, behaviour_penalty_threshold=0, behaviour_penalty_weight=-1)


def test_a_broken_promise_is_penalized():
    made = router(score=STRICT)
    made.peer("far")
    made.ihave("far", b"1", b"2")
    made.heartbeat(3)
    assert made.score("far") == 0
    made.heartbeat()
    assert made.score("far") == -1
    assert made.engine.counts["promises_broken"] == 1


def test_a_promise_is_kept_by_whoever_brings_the_message():
    for verdict in (ACCEPT, REJECT, IGNORE):
        made = router(score=STRICT)
        made.peer("far")
        made.ihave("far", b"1")
        made.messages("m0", message(b"1"))
        made.verdict(b"1", verdict)
        made.heartbeat(5)
        assert made.score("far") == 0


def test_those_who_break_promises_end_below_the_graylist_threshold():
    made = router(score=PeerScoreParams())
    made.peer("liar")
    for number in range(8):
        made.ihave("liar", b"bogus%d" % number)
        made.heartbeat()
    made.heartbeat(4)
    assert made.score("liar") < PeerScoreThresholds().graylist_threshold


# IDONTWANT, sent


def test_idontwant_is_sent_at_first_sight_before_any_verdict():
    made = router()
    made.messages("m0", message(BIG))
    assert made.sent_control("idontwant") == {peer: [IDontWant((BIG,))] for peer in MESH[1:]}
    made.messages("m1", message(BIG))
    made.verdict(BIG, REJECT)
    assert made.sent_control("idontwant") == {}, "once"


def test_idontwant_is_for_large_messages_only():
    made = router()
    made.messages("m0", message(BIG[1:]))
    assert made.sent_control("idontwant") == {}


def test_idontwant_is_for_mesh_peers_that_know_it():
    made = Router()
    made.peer("new", "from", mesh=True)
    made.peer("old", mesh=True, protocol=MESHSUB_11)
    made.peer("outside")
    made.messages("from", message(BIG))
    assert set(made.sent_control("idontwant")) == {"new"}


def test_idontwant_comes_in_portions_that_others_read():
    made = router()
    made.messages("m0", *(message(bytes([number]) * 1024) for number in range(25)))
    assert [len(one.message_ids) for one in made.sent_control("idontwant")["m1"]] == [10, 10, 5]


# IDONTWANT, received


def test_who_sent_idontwant_before_is_not_sent_the_message():
    made = router()
    made.idontwant("m1", b"1")
    made.messages("m0", message(b"1"))
    made.idontwant("m2", b"1")
    made.verdict(b"1")
    assert set(made.sent_messages()) == {"m3", "m4", "m5"}


def test_an_idontwant_lasts_until_the_verdict_however_late():
    made = router()
    made.idontwant("m1", b"1")
    made.messages("m0", message(b"1"))
    made.heartbeat(20)
    made.engine.take()
    made.verdict(b"1")
    assert set(made.sent_messages()) == {"m2", "m3", "m4", "m5"}


def test_an_idontwant_for_what_does_not_come_is_forgotten():
    made = router()
    made.idontwant("m1", b"1")
    made.heartbeat(3)
    assert made.engine._lazy.unwanted == {}
    made.messages("m0", message(b"1"))
    made.verdict(b"1")
    assert set(made.sent_messages()) == set(MESH[1:])


def test_idontwants_are_capped_in_ids_and_messages():
    made = router(max_idontwant_messages=5, max_idontwant_ids=32)
    made.control("m1", idontwant=tuple(IDontWant((b"%d" % number, b"x%d" % number)) for number in range(20)))
    assert len(made.engine._lazy.unwanted) == 10
    for number in range(100, 104):
        made.idontwant("m1", *(b"%d-%d" % (number, each) for each in range(9)))
    assert len(made.engine._lazy.unwanted) == 32
    for number in range(200, 300):
        made.idontwant("m2", b"%d" % number)
    assert len(made.engine._lazy.unwanted) == 37
    assert made.engine.counts["idontwant_ignored"] == 96


def test_a_message_after_an_idontwant_is_not_penalized():
    made = router(score=STRICT)
    made.messages("m0", message(BIG))
    made.messages("m1", message(BIG))
    made.heartbeat()
    assert made.score("m1") == 0


def test_gossip_of_a_floodsub_peer_is_not_looked_at():
    made = router()
    made.peer("flood", protocol=FLOODSUB)
    accepted(made, b"1")
    control = Control((IHave(TOPIC, (b"2",)),), (IWant((b"1",)),), idontwant=(IDontWant((b"3",)),))
    made.receive("flood", Rpc(control=control))
    assert made.sent() == {}


def test_asking_more_often_than_we_advertised_is_misbehaviour():
    """We advertise a message in three heartbeats, so an honest peer that goes on losing it asks three times."""
    router = Router(score=PeerScoreParams())
    router.peer("a", "b")
    router.messages("b", message(b"m"))
    router.verdict(b"m")
    for _ in range(3):
        router.iwant("a", b"m")
    assert router.engine.scores._peers["a"].behaviour == 0
    router.iwant("a", b"m", b"unknown")
    assert router.engine.scores._peers["a"].behaviour == 1, "once for each RPC"


def test_a_promise_is_kept_though_there_is_no_room():
    """Who sends what it promised is free, whatever we do with it; a flood would punish honest peers otherwise."""
    router = Router(score=PeerScoreParams(), max_pending_messages_per_peer=1, max_seen=3)
    router.peer("a")
    router.messages("a", message(b"fills"))
    router.ihave("a", b"m")
    router.messages("a", message(b"m"))
    assert router.engine.counts["no_room"] == 1
    router.heartbeat(5)
    assert router.engine.counts["promises_broken"] == 0
    router = Router(score=PeerScoreParams(), max_seen=1)
    router.peer("a", "b")
    router.ihave("a", b"m")
    router.messages("b", message(b"fills"))
    router.messages("a", message(b"m"))
    assert router.engine.counts["seen_full"] == 1
    router.heartbeat(5)
    assert router.engine.counts["promises_broken"] == 0


def test_idontwants_of_all_peers_together_are_bounded():
    router = Router(max_unwanted=5)
    router.peer("a", "b")
    router.idontwant("a", b"1", b"2", b"3")
    router.idontwant("b", b"3", b"4", b"5", b"6", b"7")
    assert len(router.engine._lazy.unwanted) == 5
    assert router.engine._lazy.unwanted[b"3"] == {"a", "b"}
    assert router.engine.counts["idontwant_ignored"] == 1
    router.heartbeat(3)
    router.idontwant("b", b"6")
    assert b"6" in router.engine._lazy.unwanted
