"""The engine as a whole: peers, subscriptions, publishing, thresholds, limits, time."""

from __future__ import annotations

import contextlib
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.gossip.actions import Deliver, Priority, Redial, Send
from protocols.gossip.engine import Engine, PublishError
from protocols.gossip.messages import Verdict
from protocols.gossip.rpc import (
    Control,
    Graft,
    IDontWant,
    IHave,
    IWant,
    PeerInfo,
    Prune,
    PubsubMessage,
    Rpc,
    Subscription,
)
from protocols.gossip.score_params import PeerScoreParams, TopicScoreParams
from protocols.gossip.state import FLOODSUB, MESHSUB_11, MESHSUB_12, PROTOCOLS, TopicParams
from tests.protocols.gossip.router import ACCEPT, TOPIC, Router, message, p5

# peers


def test_a_new_peer_is_told_what_we_subscribe_to():
    router = Router()
    router.engine.subscribe(0.0, "other")
    router.engine.add_peer(0.0, "a", MESHSUB_12)
    assert router.sent() == {"a": [Rpc((Subscription(TOPIC, True), Subscription("other", True)))]}


def test_a_subscription_just_after_a_peer_connects_is_announced_to_it():
    router = Router(joined=False)
    router.engine.add_peer(0.0, "a", MESHSUB_12)
    router.engine.subscribe(0.0, TOPIC)
    assert router.sent() == {"a": [Rpc((Subscription(TOPIC, True),))]}


def test_subscribing_twice_is_said_once():
    router = Router()
    router.peer("a")
    router.engine.subscribe(0.0, TOPIC)
    assert router.engine.take() == []
    router.engine.unsubscribe(0.0, "never joined")
    assert router.engine.take() == []


def test_a_protocol_that_is_not_ours_is_refused():
    with pytest.raises(ValueError, match=r"expected one of /meshsub/1\.2\.0, /meshsub/1\.1\.0, /floodsub/1\.0\.0, got"):
        Router().engine.add_peer(0.0, "a", "/x")
    assert PROTOCOLS == (MESHSUB_12, MESHSUB_11, FLOODSUB)


def test_a_peer_is_added_once():
    router = Router()
    router.peer("a")
    with pytest.raises(ValueError, match="'a' again"):
        router.engine.add_peer(0.0, "a", MESHSUB_12)


def test_rpcs_of_strangers_are_not_looked_at():
    router = Router()
    router.messages("nobody", message())
    assert router.engine.take() == []
    router.engine.remove_peer(0.0, "nobody")


def test_a_peer_that_leaves_leaves_nothing_behind():
    router = Router()
    router.peer("a", mesh=True, topics=(TOPIC, "x", "y"))
    assert set(router.engine._state.topics) == {TOPIC, "x", "y"}
    router.engine.remove_peer(0.0, "a")
    assert set(router.engine._state.topics) == {TOPIC}
    assert router.engine.peers(TOPIC) == router.engine.mesh(TOPIC) == ()


def test_a_subscription_and_a_graft_in_one_rpc_are_taken_in_that_order():
    router = Router()
    router.engine.add_peer(0.0, "a", MESHSUB_12)
    router.receive("a", Rpc((Subscription(TOPIC, True),), (), Control(graft=(Graft(TOPIC),))))
    assert router.engine.mesh(TOPIC) == ("a",)


def test_subscriptions_of_a_peer_are_bounded():
    router = Router(max_topics_per_peer=3)
    router.engine.add_peer(0.0, "a", MESHSUB_12)
    router.receive("a", Rpc(tuple(Subscription(f"t{i}", True) for i in range(10))))
    assert len(router.engine._state.topics) == 4
    assert router.engine.counts["too_many_topics"] == 7
    router.receive("a", Rpc((Subscription("t0", False), Subscription(TOPIC, True))))
    assert router.engine.peers(TOPIC) == ("a",)


# direct peers


def test_direct_peers_that_are_missing_are_asked_for():
    router = Router(direct=("a", "b"), direct_connect_ticks=3)
    router.peer("a")
    router.heartbeat(2)
    assert router.take(Redial) == []
    router.heartbeat()
    assert router.take(Redial) == [Redial("b")]


def test_rpcs_of_direct_peers_are_always_accepted():
    router = Router(direct=("a",), score=p5({"a": -1000.0, "b": -1000.0}))
    router.peer("a", "b")
    router.messages("a", message(b"1"))
    router.messages("b", message(b"2"))
    assert router.delivered() == [b"1"]


# thresholds


def test_nothing_of_a_graylisted_peer_is_looked_at():
    router = Router(score=p5({"gray": -80.1, "nearly": -80.0}))
    for peer in ("gray", "nearly"):
        router.engine.add_peer(0.0, peer, MESHSUB_12)
        router.receive(peer, Rpc((Subscription(TOPIC, True),), (message(peer.encode()),)))
    assert router.engine.peers(TOPIC) == ("nearly",)
    assert router.delivered() == [b"nearly"]
    assert router.engine.counts["graylisted"] == 1


def test_flood_publishing_reaches_every_peer_above_the_publish_threshold():
    router = Router(score=p5({"low": -40.1, "direct": -1000.0, "edge": -40.0}))
    router.peer("a", "b", mesh=True)
    router.peer("far", "low", "edge")
    router.peer("direct", direct=True)
    router.peer("flood", protocol=FLOODSUB)
    router.peer("other", topics=("x",))
    receipt = router.publish()
    assert receipt.message_id == b"mine"
    assert set(receipt.peers) == {"a", "b", "far", "edge", "direct", "flood"}
    (send,) = router.take(Send)
    assert (send.peers, send.priority) == (receipt.peers, Priority.PUBLISH)


def test_without_flood_publishing_the_mesh_floodsub_and_direct_peers_get_it():
    router = Router(flood_publish=False, score=p5({"low flood": -41.0}))
    router.peer("a", "b", mesh=True)
    router.peer("far")
    router.peer("direct", direct=True)
    router.peer("flood", "low flood", protocol=FLOODSUB)
    assert set(router.publish().peers) == {"a", "b", "direct", "flood"}


def test_a_floodsub_peer_below_the_publish_threshold_gets_nothing():
    router = Router(score=p5({"low": -41.0}))
    router.peer("a", mesh=True)
    router.peer("low", "flood", protocol=FLOODSUB)
    router.messages("a", message())
    router.verdict(b"m")
    assert set(router.sent_messages()) == {"flood"}


def test_publishing_to_a_topic_nobody_is_in_reaches_nobody():
    router = Router(joined=False)
    receipt = router.publish(topic="empty")
    assert receipt.peers == ()
    assert router.engine._state.topics == {}


def test_a_message_of_another_topic_is_not_published():
    with pytest.raises(ValueError, match="expected a message of topic 't', got one of 'x'"):
        Router().engine.publish(0.0, TOPIC, PubsubMessage("x", b""))


def test_control_goes_before_our_messages_and_what_was_asked_for_before_other_relays():
    router = Router()
    router.peer("a", "b", mesh=True)
    router.messages("a", message())
    router.verdict(b"m")
    router.iwant("b", b"m")
    router.publish()
    router.ihave("b", b"1")
    assert [one.priority for one in router.take(Send)] == [
        Priority.RELAY,
        Priority.ANSWER,
        Priority.PUBLISH,
        Priority.CONTROL,
    ]
    assert Priority.CONTROL < Priority.PUBLISH < Priority.ANSWER < Priority.RELAY


# scores of topics


def test_a_topic_has_its_own_score_parameters():
    router = Router(joined=False, score=PeerScoreParams(default_topic=None))
    params = TopicScoreParams(first_message_deliveries_weight=7)
    router.engine.configure(TOPIC, TopicParams(score=params))
    router.engine.subscribe(0.0, TOPIC)
    router.peer("a", mesh=True)
    router.messages("a", message())
    router.verdict(b"m")
    assert router.score("a") == 7


def test_the_caller_may_penalize_what_it_sees():
    router = Router(score=PeerScoreParams())
    router.peer("a")
    router.engine.penalize(0.0, "a", 7)
    assert router.score("a") == -100


# time


def test_the_heartbeat_is_due_after_its_delay_and_then_at_its_interval():
    router = Router()
    assert router.engine.next_wakeup() == pytest.approx(0.1)
    router.engine.wake(0.05)
    assert router.engine.next_wakeup() == pytest.approx(0.1)
    router.engine.wake(0.1)
    assert router.engine.next_wakeup() == pytest.approx(1.1)


def test_missed_heartbeats_are_one():
    router = Router()
    router.engine.wake(100.0)
    assert router.engine.next_wakeup() == 101


def test_a_deadline_wakes_before_the_heartbeat():
    router = Router(verdict_timeout=0.3)
    router.peer("a")
    router.engine.wake(0.1)
    router.messages("a", message())
    assert router.engine.next_wakeup() == pytest.approx(0.3)


def test_the_same_seed_gives_the_same_choices():
    def run():
        router = Router(seed=7)
        router.peer(*(f"p{i}" for i in range(30)))
        router.heartbeat(3)
        return router.engine.take()

    assert run() == run()


# whatever comes

SMALL = {"max_seen": 12, "max_pending_messages": 6, "max_pending_messages_per_peer": 3, "max_topics_per_peer": 3}
few = st.integers(0, 20).map(lambda number: b"%d" % number)
few_ids = st.lists(few, max_size=5).map(tuple)
names = st.sampled_from([TOPIC, "u", "v", "w", "x"])
infos = st.lists(st.builds(PeerInfo, few, few), max_size=3).map(tuple)


def several(one):
    return st.lists(one, max_size=4).map(tuple)


rpcs = st.builds(
    Rpc,
    several(st.builds(Subscription, names, st.booleans())),
    several(st.builds(PubsubMessage, names, few, st.none() | few)),
    st.builds(
        Control,
        several(st.builds(IHave, names, few_ids)),
        several(st.builds(IWant, few_ids)),
        several(st.builds(Graft, names)),
        several(st.builds(Prune, names, infos, st.none() | st.integers(0, 2**64 - 1))),
        several(st.builds(IDontWant, few_ids)),
    ),
)
steps = st.one_of(
    st.tuples(st.just("receive"), st.integers(0, 5), rpcs),
    st.tuples(st.just("come"), st.integers(0, 5), st.sampled_from(PROTOCOLS)),
    st.tuples(st.just("go"), st.integers(0, 5), st.none()),
    st.tuples(st.just("wait"), st.floats(0, 40), st.none()),
    st.tuples(st.just("judge"), st.sampled_from(Verdict), st.none()),
    st.tuples(st.just("publish"), names, few),
    st.tuples(st.just("join"), names, st.none()),
    st.tuples(st.just("leave"), names, st.none()),
)


@settings(max_examples=150)
@given(st.lists(steps, max_size=60), st.booleans())
def test_nothing_that_comes_raises_or_exceeds_the_bounds(plan, flood_publish):
    router = Router(score=PeerScoreParams(), flood_publish=flood_publish, **SMALL)
    engine, waiting = router.engine, []
    for what, one, other in plan:
        if what == "receive":
            router.receive(one, other)
        elif what == "come" and one not in engine._state.peers:
            engine.add_peer(router.now, one, other, ip="192.0.2.1", peer_id=b"%d" % one)
        elif what == "go":
            engine.remove_peer(router.now, one)
        elif what == "wait":
            router.now += one
            engine.wake(router.now)
        elif what == "judge" and waiting:
            engine.verdict(router.now, waiting.pop(0), one)
        elif what == "publish":
            with contextlib.suppress(PublishError):
                router.publish(other, one)
        elif what == "join":
            engine.subscribe(router.now, one)
        elif what == "leave":
            engine.unsubscribe(router.now, one)
        waiting += router.delivered()
        state = engine._state
        assert len(engine._seen) <= 12
        assert engine.pending[0] <= 6
        assert all(len(peer.topics) <= 3 for peer in state.peers.values())
        for name, topic in state.topics.items():
            assert topic.subscribers or topic.mesh is not None or topic.fanout is not None
            assert (topic.mesh is not None) == (name in state.joined)
            assert (topic.fanout is not None) == (name in state.fanouts)
            for group in (topic.subscribers, topic.always, topic.mesh or {}, topic.fanout or {}):
                assert group.keys() <= state.peers.keys()
            assert not any(peer.direct or not peer.level for peer in (topic.mesh or {}).values())


# speed


def seconds_for(peers: int) -> tuple[float, float]:
    """CPU for each message received (nine copies of it), and for each verdict, among so many peers."""
    engine = Engine(b"me", rng=random.Random(1), message_id=lambda one: one.data, score=PeerScoreParams())
    engine.subscribe(0.0, TOPIC)
    for peer in range(peers):
        engine.add_peer(0.0, peer, MESHSUB_12)
        engine.receive(0.0, peer, Rpc((Subscription(TOPIC, True), *(Subscription(f"x{i}", True) for i in range(50)))))
    engine.heartbeat(1.0)
    engine.take()
    rpcs = [Rpc(publish=(message(b"%d" % number),)) for number in range(500)]
    started = time.process_time()
    for rpc in rpcs:
        for peer in range(9):
            engine.receive(1.0, peer, rpc)
    received = time.process_time() - started
    delivered = [action.message_id for action in engine.take() if isinstance(action, Deliver)]
    assert len(delivered) == 500
    started = time.process_time()
    for message_id in delivered:
        engine.verdict(1.0, message_id, ACCEPT)
    return received, time.process_time() - started


def test_a_duplicate_and_a_verdict_cost_the_same_among_many_peers():
    """A hundred times the peers: a scan would cost tens of times as much. The best of five, machines being busy."""
    few = [min(times) for times in zip(*(seconds_for(20) for _ in range(5)), strict=True)]
    many = [min(times) for times in zip(*(seconds_for(2000) for _ in range(5)), strict=True)]
    print([f"{a * 2000:.0f} -> {b * 2000:.0f} us" for a, b in zip(few, many, strict=True)])
    assert many[0] < 6 * few[0]
    assert many[1] < 6 * few[1]
