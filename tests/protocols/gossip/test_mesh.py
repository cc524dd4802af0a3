"""The mesh and the fanout: grafts, prunes, backoffs, peer exchange, upkeep."""

from __future__ import annotations

import pytest

from protocols.gossip.actions import Connect, Grafted, Pruned
from protocols.gossip.rpc import Control, Graft, PeerInfo, Prune, Rpc, Subscription
from protocols.gossip.score_params import PeerScoreParams, PeerScoreThresholds
from protocols.gossip.state import FLOODSUB, MESHSUB_11
from tests.protocols.gossip.router import TOPIC, Router, p5


def names(number, prefix="p"):
    return [f"{prefix}{i}" for i in range(number)]


def mesh(router):
    return set(router.engine.mesh(TOPIC))


def strict(**params):
    """Scores by P5, and P7 that counts from the first time."""
    return PeerScoreParams(default_topic=None, behaviour_penalty_threshold=0, behaviour_penalty_weight=-1, **params)


# joining and leaving


def test_join_grafts_up_to_d_peers_of_the_topic():
    router = Router(joined=False)
    router.peer(*names(20))
    router.peer(*names(5, "other"), topics=("x",))
    router.engine.subscribe(0.0, TOPIC)
    sent = router.sent()
    assert len(sent) == 25
    assert all(rpcs[0] == Rpc((Subscription(TOPIC, True),)) for rpcs in sent.values())
    grafted = {peer for peer, rpcs in sent.items() if Rpc(control=Control(graft=(Graft(TOPIC),))) in rpcs}
    assert grafted == mesh(router)
    assert len(grafted) == 6
    assert all(peer.startswith("p") for peer in grafted)


def test_join_takes_the_fanout_first():
    router = Router(joined=False, flood_publish=False)
    router.peer(*names(20))
    fanout = set(router.publish().peers)
    assert len(fanout) == 6
    router.engine.subscribe(0.0, TOPIC)
    assert mesh(router) == fanout


def test_join_grafts_nobody_with_a_negative_score_or_a_backoff():
    router = Router(score=p5({"p0": -1.0}))
    router.peer("p0", "p1", "p2")
    router.heartbeat()
    assert mesh(router) == {"p1", "p2"}
    router.engine.unsubscribe(1.0, TOPIC)
    router.peer("p3")
    router.engine.subscribe(1.0, TOPIC)
    assert mesh(router) == {"p3"}


def test_leave_prunes_everybody_with_the_short_backoff():
    router = Router()
    router.peer("a", "b", mesh=True)
    router.engine.unsubscribe(0.0, TOPIC)
    sent = router.sent()
    for peer in ("a", "b"):
        assert Rpc((Subscription(TOPIC, False),)) in sent[peer]
        assert Rpc(control=Control(prune=(Prune(TOPIC, (), 10),))) in sent[peer]
    assert router.engine.mesh(TOPIC) == ()
    router.engine.subscribe(11.0, TOPIC)
    assert mesh(router) == set(), "the backoff and its slack aren't over"
    router.now = 11.0
    router.heartbeat()
    assert mesh(router) == {"a", "b"}


# GRAFT


def test_a_graft_is_taken_without_an_answer():
    router = Router()
    router.peer("a")
    router.graft("a")
    assert router.engine.take() == [Grafted("a", TOPIC)]
    router.graft("a")
    assert router.engine.take() == [], "again, without effect"


def test_a_graft_for_an_unknown_topic_is_ignored():
    router = Router()
    router.peer("a")
    router.graft("a", "unknown")
    assert router.engine.take() == []


def test_who_grafts_without_having_subscribed_leaves_the_mesh_when_it_goes():
    router = Router()
    router.peer("a", topics=())
    router.graft("a")
    assert mesh(router) == {"a"}
    router.engine.remove_peer(router.now, "a")
    assert mesh(router) == set()


def test_a_graft_from_a_negative_score_is_answered_with_a_prune():
    router = Router(score=p5({"a": -1.0}), do_px=True)
    router.peer("a")
    router.peer("b", peer_id=b"B")
    router.graft("a")
    assert router.sent_control("prune") == {"a": [Prune(TOPIC, (), 60)]}
    assert mesh(router) == set()


def test_a_graft_when_the_mesh_is_full_is_for_those_we_dialled():
    router = Router()
    router.peer(*names(12), mesh=True)
    router.peer("in")
    router.peer("out", outbound=True)
    router.graft("in")
    assert router.sent_control("prune") == {"in": [Prune(TOPIC, (), 60)]}
    router.graft("out")
    assert "out" in mesh(router)
    assert "in" not in mesh(router)


def test_a_graft_from_a_direct_peer_is_an_error_answered_with_a_prune():
    router = Router()
    router.peer("direct", direct=True)
    router.graft("direct")
    assert router.sent_control("prune") == {"direct": [Prune(TOPIC, (), 60)]}
    assert mesh(router) == set()


def test_a_graft_from_a_floodsub_peer_is_ignored():
    router = Router()
    router.peer("flood", protocol=FLOODSUB)
    router.graft("flood")
    assert router.engine.take() == []


def test_a_graft_during_the_backoff_is_pruned_penalized_and_extends_it():
    router = Router(score=strict())
    router.peer("a", mesh=True)
    router.prune("a", backoff=60)
    router.now = 30.0
    router.graft("a")
    assert router.sent_control("prune") == {"a": [Prune(TOPIC, (), 60)]}
    assert router.score("a") == -1
    router.now = 89.0
    router.graft("a")
    assert router.score("a") == -4, "the backoff was extended to 90"
    assert mesh(router) == set()


def test_a_graft_within_seconds_of_the_prune_costs_double():
    router = Router(score=strict())
    router.peer("a", mesh=True)
    router.prune("a", backoff=60)
    router.now = 9.0
    router.graft("a")
    assert router.score("a") == -4


def test_a_graft_after_the_backoff_is_taken():
    router = Router(score=strict())
    router.peer("a", mesh=True)
    router.prune("a", backoff=60)
    router.now = 60.0
    router.graft("a")
    assert mesh(router) == {"a"}
    assert router.score("a") == 0


def test_those_who_graft_early_end_below_the_graylist_threshold():
    router = Router(score=PeerScoreParams())
    router.peer("a", mesh=True)
    router.prune("a")
    for _ in range(4):
        router.graft("a")
    assert router.score("a") < PeerScoreThresholds().graylist_threshold
    router.engine.take()
    router.graft("a")
    assert router.engine.take() == [], "it isn't answered any more"


# PRUNE


def test_a_prune_takes_the_peer_out_and_is_obeyed_for_its_backoff():
    router = Router(max_prune_backoff=500)
    router.peer("a", mesh=True)
    router.prune("a", backoff=100)
    assert router.take(Pruned) == [Pruned("a", TOPIC, "theirs")]
    assert mesh(router) == set()
    router.now = 100.0
    router.heartbeat()
    assert mesh(router) == set(), "two heartbeats of slack"
    router.heartbeat()
    assert mesh(router) == {"a"}


@pytest.mark.parametrize("backoff", [None, 0])
def test_a_prune_without_a_backoff_gets_ours(backoff):
    router = Router()
    router.peer("a", mesh=True)
    router.prune("a", backoff=backoff)
    router.now = 60.5
    router.heartbeat()
    assert mesh(router) == set()
    router.heartbeat()
    assert mesh(router) == {"a"}


def test_an_endless_backoff_is_cut():
    router = Router(max_prune_backoff=100)
    router.peer("a", mesh=True)
    router.prune("a", backoff=2**64 - 1)
    router.now = 102.0
    router.heartbeat()
    assert mesh(router) == {"a"}


def test_our_prunes_name_their_backoff_and_back_us_off_too():
    scores = {}
    router = Router(score=p5(scores))
    router.peer("a", mesh=True)
    scores["a"] = -1.0
    router.heartbeat()
    assert router.sent_control("prune") == {"a": [Prune(TOPIC, (), 60)]}
    scores["a"] = 1.0
    router.heartbeat()
    assert mesh(router) == set()


# peer exchange

INFOS = tuple(PeerInfo(bytes([i]), b"record") for i in range(40))
TRUSTED = {"a": 100.0}


def test_px_is_taken_from_those_above_the_threshold_only():
    router = Router(score=p5({"a": 100.0, "b": 99.0}))
    router.peer("a", "b", mesh=True)
    router.prune("b", peers=INFOS[:3])
    assert router.take(Connect) == []
    router.prune("a", peers=INFOS[:3])
    assert {one.info.peer_id for one in router.take(Connect)} == {b"\0", b"\1", b"\2"}


def test_px_is_one_prunes_worth_in_a_heartbeat():
    router = Router(score=p5(TRUSTED))
    router.peer("a", mesh=True)
    router.prune("a", peers=INFOS)
    router.prune("a", peers=INFOS)
    assert len(router.take(Connect)) == 16
    router.heartbeat()
    router.prune("a", peers=INFOS)
    assert len(router.take(Connect)) == 16


def test_px_skips_who_is_connected():
    router = Router(score=p5(TRUSTED))
    router.peer("a", mesh=True)
    router.peer("b", peer_id=b"\1")
    router.prune("a", peers=INFOS[:2])
    assert [one.info.peer_id for one in router.take(Connect)] == [b"\0"]


def overfull(scores, **params):
    router = Router(score=p5(scores), **params)
    for number in range(12):
        router.peer(f"p{number}", mesh=True, peer_id=b"%d" % number)
        router.engine.set_record(f"p{number}", b"record of %d" % number)
    router.peer("last", mesh=True, outbound=True)
    return router


def test_px_names_peers_with_their_signed_records():
    router = overfull({}, do_px=True)
    router.heartbeat()
    prunes = router.sent_control("prune")
    assert len(prunes) == 7
    for peer, (prune,) in prunes.items():
        if peer != "last":
            assert len(prune.peers) == 11, "all but itself, and the one whose ID isn't known"
        assert all(info.record == b"record of " + info.peer_id for info in prune.peers)


def test_px_does_not_name_or_tell_negative_peers():
    scores = {}
    router = overfull(scores, do_px=True)
    scores["p0"] = -1.0
    router.heartbeat()
    prunes = router.sent_control("prune")
    assert prunes["p0"][0].peers == ()
    assert all(info.peer_id != b"0" for (prune,) in prunes.values() for info in prune.peers)


def test_px_is_off_by_default():
    router = overfull({})
    router.heartbeat()
    assert all(prune.peers == () for (prune,) in router.sent_control("prune").values())


# upkeep


def test_the_heartbeat_fills_the_mesh_up_to_d():
    router = Router()
    router.peer(*names(20))
    router.heartbeat()
    assert len(mesh(router)) == 6
    assert set(router.sent_control("graft")) == mesh(router)


def test_a_mesh_between_its_bounds_is_left_alone():
    router = Router()
    router.peer(*names(5), outbound=True, mesh=True)
    router.peer(*names(9, "q"))
    router.heartbeat()
    assert len(mesh(router)) == 5
    assert router.engine.take() == []


def test_the_heartbeat_prunes_down_to_d():
    router = overfull({})
    assert len(mesh(router)) == 13
    router.heartbeat()
    assert len(mesh(router)) == 6
    assert len(router.sent_control("prune")) == 7


def test_negative_scores_leave_the_mesh():
    scores = {}
    router = Router(score=p5(scores))
    router.peer(*names(6), mesh=True)
    scores["p1"] = scores["p2"] = -0.1
    router.heartbeat()
    assert mesh(router) == {"p0", "p3", "p4", "p5"}


def test_negative_direct_and_floodsub_peers_are_not_grafted():
    router = Router(score=p5({"negative": -1.0}))
    router.peer("negative", "good")
    router.peer("direct", direct=True)
    router.peer("flood", protocol=FLOODSUB)
    router.peer("old", protocol=MESHSUB_11)
    router.heartbeat()
    assert mesh(router) == {"good", "old"}


def test_the_best_d_score_stay():
    scores = {f"p{i}": float(i) for i in range(12)}
    for seed in range(5):
        router = Router(score=p5(scores), seed=seed)
        router.peer(*names(12), mesh=True)
        router.peer("last", mesh=True, outbound=True)
        router.heartbeat()
        assert {"p8", "p9", "p10", "p11"} <= mesh(router)


def test_some_of_those_who_stay_are_drawn():
    seen = set()
    for seed in range(20):
        router = Router(score=p5({f"p{i}": float(i) for i in range(12)}), seed=seed)
        router.peer(*names(12), mesh=True)
        router.peer("last", mesh=True, outbound=True)
        router.heartbeat()
        seen |= mesh(router)
    assert seen == {*names(12), "last"}


def test_d_out_of_those_who_stay_were_dialled_by_us():
    for seed in range(10):
        scores = {f"p{i}": 10.0 for i in range(12)}
        router = Router(score=p5(scores), seed=seed)
        router.peer(*names(12), mesh=True)
        router.peer("out0", "out1", "out2", mesh=True, outbound=True)
        router.heartbeat()
        assert len(mesh(router)) == 6
        assert len(mesh(router) & {"out0", "out1", "out2"}) >= 2


def test_the_heartbeat_grafts_up_to_d_out_that_we_dialled():
    router = Router()
    router.peer(*names(7), mesh=True)
    router.peer("in")
    router.peer("out0", "out1", "out2", outbound=True)
    router.heartbeat()
    assert len(mesh(router) & {"out0", "out1", "out2"}) == 2
    assert "in" not in mesh(router)


def test_a_poor_mesh_takes_two_better_peers_in():
    scores = {f"good{i}": 20.0 for i in range(5)} | {f"p{i}": 1.0 for i in range(6)} | {"poor": 0.5}
    router = Router(score=p5(scores), opportunistic_graft_ticks=3)
    router.peer(*names(6), outbound=True, mesh=True)
    router.peer("poor", *names(5, "good"))
    router.heartbeat(2)
    assert len(mesh(router)) == 6
    router.heartbeat()
    assert len(mesh(router)) == 8
    assert all(peer.startswith("good") for peer in mesh(router) - set(names(6)))


def test_a_good_mesh_is_not_improved():
    scores = {f"good{i}": 20.0 for i in range(5)} | {f"p{i}": 5.0 for i in range(6)}
    router = Router(score=p5(scores), opportunistic_graft_ticks=1)
    router.peer(*names(6), outbound=True, mesh=True)
    router.peer(*names(5, "good"))
    router.heartbeat(3)
    assert len(mesh(router)) == 6


def test_peers_that_leave_the_topic_or_the_network_leave_the_mesh():
    router = Router()
    router.peer("a", "b", mesh=True)
    router.receive("a", Rpc((Subscription(TOPIC, False),)))
    router.engine.remove_peer(0.0, "b")
    assert mesh(router) == set()
    assert router.take(Pruned) == [Pruned("a", TOPIC, "unsubscribed"), Pruned("b", TOPIC, "gone")]
    assert router.engine.peers(TOPIC) == ()


def test_a_bootstrapper_has_no_mesh_and_names_peers():
    router = Router(d=0, d_lo=0, d_hi=0, d_out=0, d_score=0, do_px=True)
    router.peer("b", peer_id=b"B")
    router.peer("a")
    router.graft("a")
    assert router.sent_control("prune") == {"a": [Prune(TOPIC, (PeerInfo(b"B"),), 60)]}
    router.heartbeat()
    assert mesh(router) == set()


# fanout


def fanout():
    router = Router(joined=False, flood_publish=False)
    router.peer(*names(20))
    return router


def test_the_fanout_is_d_peers_and_is_kept():
    router = fanout()
    first = set(router.publish(b"1").peers)
    assert len(first) == 6
    assert set(router.publish(b"2").peers) == first


def test_the_fanout_is_filled_up():
    router = fanout()
    first = router.publish(b"1").peers
    router.engine.remove_peer(0.0, first[0])
    router.receive(first[1], Rpc((Subscription(TOPIC, False),)))
    router.heartbeat()
    then = router.publish(b"2").peers
    assert len(then) == 6
    assert set(first[2:]) < set(then)


def test_the_fanout_is_forgotten_in_time():
    router = fanout()
    router.publish(b"1")
    router.heartbeat(61)
    assert router.engine._state.topics[TOPIC].fanout is None


def test_the_fanout_has_nobody_below_the_publish_threshold():
    scores = {"p0": -41.0}
    router = Router(joined=False, flood_publish=False, score=p5(scores))
    router.peer(*names(7))
    assert set(router.publish(b"1").peers) == set(names(7)) - {"p0"}
    scores["p1"] = -41.0
    router.heartbeat()
    assert "p1" not in router.publish(b"2").peers


def test_who_unsubscribes_in_the_mesh_is_backed_off():
    """As if it had pruned us, which honest peers do as well; otherwise a mesh could be entered and left at will."""
    router = Router(score=PeerScoreParams())
    router.peer("a", mesh=True)
    router.receive("a", Rpc((Subscription(TOPIC, False), Subscription(TOPIC, True))))
    router.heartbeat()
    assert router.engine.mesh(TOPIC) == ()
    router.graft("a")
    assert router.engine.mesh(TOPIC) == ()
    assert router.engine.counts["graft_early"] == 1


def test_who_comes_back_in_time_after_unsubscribing_is_taken():
    router = Router(score=PeerScoreParams())
    router.peer("a", mesh=True)
    router.receive("a", Rpc((Subscription(TOPIC, False), Subscription(TOPIC, True))))
    router.now += 10
    router.graft("a")
    assert router.engine.mesh(TOPIC) == ("a",)
