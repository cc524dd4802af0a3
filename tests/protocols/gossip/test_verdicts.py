"""A message from first sight to its verdict, and what the verdict does."""

from __future__ import annotations

import hashlib

import pytest

from protocols.gossip.actions import Deliver, Dropped, Send
from protocols.gossip.engine import PublishError
from protocols.gossip.messages import Verdict
from protocols.gossip.params import RpcLimits
from protocols.gossip.pending import VerdictError
from protocols.gossip.rpc import PubsubMessage
from protocols.gossip.score_params import PeerScoreParams
from protocols.gossip.state import FLOODSUB, TopicParams, content_id, origin_id
from tests.protocols.gossip.router import ACCEPT, IGNORE, REJECT, TOPIC, Router, message, one_topic

MESH = ("a", "b", "c", "d")


def router(**settings):
    """With the four peers of MESH in the mesh, which wants no more."""
    made = Router(**({"d": 4, "d_lo": 4, "d_out": 1} | settings))
    made.peer(*MESH, mesh=True)
    return made


# first sight


def test_a_message_is_delivered_at_first_sight_and_goes_nowhere():
    made = router()
    made.messages("a", message())
    (delivery,) = made.engine.take()
    assert delivery == Deliver(TOPIC, message(), b"m", "a", 0.0, 30.0)
    made.heartbeat(3)
    assert made.sent_messages() == {}


def test_a_pending_message_is_neither_advertised_nor_given():
    made = router()
    made.peer("far")
    made.messages("a", message())
    made.heartbeat()
    assert made.sent_control("ihave") == {}
    made.iwant("far", b"m")
    assert made.sent() == {}


def test_a_pending_message_is_not_asked_for_again():
    made = router()
    made.peer("far")
    made.messages("a", message())
    made.engine.take()
    made.ihave("far", b"m")
    assert made.sent() == {}


def test_duplicates_add_a_forwarder_and_nothing_else():
    made = router()
    made.messages("a", message())
    for peer in ("a", "b", "b", "c"):
        made.messages(peer, message())
    assert made.delivered() == [b"m"]
    made.verdict(b"m")
    assert made.sent_messages() == {"d": [b"m"]}


def test_a_verdict_three_seconds_late_with_ten_forwarders():
    """One validation, one relay to each of those that didn't have it."""
    made = Router(d_hi=30)
    others = made.peer(*(f"n{number}" for number in range(5)), mesh=True)
    forwarders = made.peer(*(f"f{number}" for number in range(10)), mesh=True)
    deliveries = []
    for number, peer in enumerate(forwarders):
        made.now = number * 0.3
        made.engine.wake(made.now)
        made.messages(peer, message())
        deliveries += made.delivered()
    assert deliveries == [b"m"]
    made.now = 3.0
    assert made.verdict(b"m")
    relays = made.take(Send)
    assert [send.peers for send in relays if send.rpc.publish] == [others]
    for peer in forwarders:
        made.messages(peer, message())
    assert made.take(Deliver) == []


def test_messages_of_topics_we_are_not_in_are_dropped():
    made = router()
    made.messages("a", message(topic="other"))
    assert made.engine.take() == []
    assert made.engine.counts["not_subscribed"] == 1


# the three verdicts


def test_accept_relays_to_the_mesh_but_not_to_who_had_it():
    made = router()
    made.peer("outside")
    made.messages("a", message())
    made.messages("b", message())
    made.idontwant("c", b"m")
    made.engine.take()
    assert made.verdict(b"m", ACCEPT)
    assert made.sent_messages() == {"d": [b"m"]}


def test_accept_does_not_send_a_message_back_to_its_author():
    made = Router()
    made.peer("author", mesh=True, peer_id=b"AUTHOR")
    made.peer("a", "b", mesh=True)
    made.messages("a", message(from_=b"AUTHOR"))
    made.verdict(b"m")
    assert made.sent_messages() == {"b": [b"m"]}


def test_an_accepted_message_is_advertised_and_given():
    made = router()
    made.peer("far")
    made.messages("a", message())
    made.verdict(b"m")
    made.engine.take()
    made.heartbeat()
    assert made.sent_control("ihave")["far"][0].message_ids == (b"m",)
    made.iwant("far", b"m")
    assert made.sent_messages() == {"far": [b"m"]}


def test_a_rejected_message_is_never_relayed_advertised_or_given():
    made = router()
    made.peer("far")
    made.messages("a", message())
    made.verdict(b"m", REJECT)
    made.messages("b", message())
    made.heartbeat(3)
    made.iwant("far", b"m")
    made.iwant("a", b"m")
    assert made.sent_messages() == {}
    assert made.sent_control("ihave") == {}
    assert made.delivered() == []


P4 = {"invalid_message_deliveries_weight": -1, "invalid_message_deliveries_decay": 0.999}


def test_reject_costs_every_forwarder_later_ones_too():
    made = router(score=one_topic(**P4))
    made.messages("a", message())
    made.messages("b", message())
    made.verdict(b"m", REJECT)
    assert [made.score(peer) for peer in MESH] == [-1, -1, 0, 0]
    made.messages("c", message())
    assert made.score("c") == -1
    made.messages("c", message())
    assert made.score("c") == -4, "whoever goes on sending it pays again"


def test_reject_costs_a_forwarder_that_has_left_meanwhile():
    made = router(score=one_topic(**P4))
    made.messages("a", message())
    made.engine.remove_peer(made.now, "a")
    made.verdict(b"m", REJECT)
    made.peer("a")
    assert made.score("a") == -1


def test_ignore_costs_nobody():
    made = router(score=one_topic(**P4))
    made.messages("a", message())
    made.verdict(b"m", IGNORE)
    made.messages("b", message())
    assert [made.score(peer) for peer in MESH] == [0] * 4
    assert made.delivered() == [b"m"]
    assert made.sent_messages() == {}


# verdicts that don't fit


def test_no_verdict_before_the_deadline_counts_as_ignore():
    made = router(score=one_topic(**P4), verdict_timeout=5)
    made.messages("a", message())
    made.engine.take()
    assert made.engine.next_wakeup() <= 5
    made.now = 5.0
    made.engine.expire(5.0)
    assert made.engine.take() == [Dropped(TOPIC, b"m", "timeout")]
    assert made.engine.counts["dropped_timeout"] == 1
    assert made.score("a") == 0
    made.messages("b", message())
    assert made.delivered() == [], "it stays seen"


def test_a_late_verdict_has_no_effect_and_is_no_error():
    made = router(verdict_timeout=5)
    made.messages("a", message())
    made.now = 6.0
    made.engine.expire(6.0)
    assert made.verdict(b"m", ACCEPT) is False
    assert made.sent_messages() == {}
    with pytest.raises(VerdictError, match="a verdict on it already"):
        made.verdict(b"m", ACCEPT)


@pytest.mark.parametrize("first", Verdict)
def test_a_second_verdict_is_an_error(first):
    made = router()
    made.messages("a", message())
    made.verdict(b"m", first)
    for second in Verdict:
        with pytest.raises(VerdictError, match="a verdict on it already: 6d"):
            made.verdict(b"m", second)


def test_a_verdict_on_nothing_is_an_error():
    with pytest.raises(VerdictError, match="no such message"):
        router().verdict(b"?")


def test_a_topic_may_have_its_own_deadline():
    made = router()
    made.engine.configure(TOPIC, TopicParams(verdict_timeout=2))
    made.messages("a", message())
    assert made.take(Deliver)[0].deadline == 2
    with pytest.raises(ValueError, match="verdict_timeout between 0 and 120"):
        made.engine.configure(TOPIC, TopicParams(verdict_timeout=120))


def test_pending_messages_of_a_topic_that_is_left_are_ignored():
    made = router()
    made.messages("a", message())
    made.engine.take()
    made.engine.unsubscribe(0.0, TOPIC)
    assert made.take(Dropped) == [Dropped(TOPIC, b"m", "unsubscribed")]
    assert made.verdict(b"m") is False
    assert made.engine.pending == (0, 0)


# bounds


def test_a_peer_over_its_bound_loses_its_own_messages_only():
    made = router(max_pending_messages_per_peer=2)
    made.messages("a", *(message(bytes([number])) for number in range(3)))
    made.messages("b", message(b"other"))
    assert made.delivered() == [b"\0", b"\1", b"other"]
    made.messages("b", message(b"\2"))
    assert made.delivered() == [b"\2"], "it isn't marked seen, so another may bring it"


def test_the_busiest_peer_makes_room_for_the_others():
    made = router(max_pending_messages=3, max_pending_messages_per_peer=3)
    made.messages("a", *(message(bytes([number])) for number in range(3)))
    made.engine.take()
    made.messages("b", message(b"other"))
    dropped, delivery = made.engine.take()
    assert dropped == Dropped(TOPIC, b"\2", "no_room")
    assert delivery.message_id == b"other"
    assert made.verdict(b"\2") is False


def test_what_does_not_fit_costs_nobody_and_is_not_announced_as_had():
    made = router(
        score=one_topic(**P4),
        max_pending_bytes_per_peer=3000,
        max_pending_bytes=3000,
        max_cache_bytes=3000,
        rpc=RpcLimits(max_size=3000),
    )
    made.messages("a", message(bytes(2000)), message(bytes(2001)))
    assert len(made.sent_control("idontwant")["b"][0].message_ids) == 1
    assert made.score("a") == 0
    assert made.engine.counts["no_room"] == 1


def test_when_too_much_was_seen_new_messages_are_ignored():
    made = router(max_seen=2)
    made.messages("a", message(b"1"), message(b"2"), message(b"3"))
    assert made.delivered() == [b"1", b"2"]
    assert made.engine.counts["seen_full"] == 1
    with pytest.raises(PublishError, match="max_seen"):
        made.publish()


def test_a_message_is_judged_once_within_the_ttl():
    made = router(seen_ttl=31)
    made.messages("a", message())
    made.verdict(b"m")
    made.heartbeat(30)
    made.messages("b", message())
    assert made.delivered() == [b"m"]
    made.heartbeat(2)
    made.messages("b", message())
    assert made.delivered() == [b"m"]


# IDs and checks


def test_the_usual_id_is_that_of_the_page():
    assert content_id(message(b"data", "topic")) == hashlib.sha256(b"topic\0data").digest()[:20]
    assert origin_id(PubsubMessage("t", b"", b"from", b"seq")) == b"fromseq"


def test_a_topics_own_id_is_honoured_everywhere():
    """Seen, cache, IHAVE, IWANT, IDONTWANT: all by the ID that the topic gives."""
    made = router(message_id=content_id, idontwant_message_threshold=0)
    made.engine.configure(TOPIC, TopicParams(message_id=lambda one: b"id:" + one.data[:1]))
    made.peer("far")
    made.idontwant("d", b"id:x")
    made.messages("a", message(b"x1"))
    made.messages("b", message(b"x2"))
    actions = made.engine.take()
    assert [one.message_id for one in actions if isinstance(one, Deliver)] == [b"id:x"]
    (unwanted,) = [one for one in actions if isinstance(one, Send)]
    assert unwanted.rpc.control.idontwant[0].message_ids == (b"id:x",)
    made.verdict(b"id:x")
    assert made.sent_messages() == {"c": [b"x1"]}
    made.heartbeat()
    assert made.sent_control("ihave")["far"][0].message_ids == (b"id:x",)
    made.iwant("far", b"id:x")
    assert made.sent_messages() == {"far": [b"x1"]}
    made.ihave("far", b"id:x")
    assert made.sent_control("iwant") == {}


def test_an_id_function_that_raises_drops_the_message():
    made = router()
    made.engine.configure(TOPIC, TopicParams(message_id=lambda one: one.data[100:101][0]))
    made.messages("a", message())
    assert made.delivered() == []
    assert made.engine.counts["no_message_id"] == 1


def test_what_fails_the_topics_check_costs_its_sender_and_hides_nothing():
    """A forged copy with the ID of a message that is on its way must not keep that message out."""
    made = router(score=one_topic(**P4), message_id=origin_id, idontwant_message_threshold=0)
    made.engine.configure(TOPIC, TopicParams(check=lambda one: one.signature == b"good"))
    made.messages("a", PubsubMessage(TOPIC, b"forged", b"author", b"1", b"bad"))
    assert made.engine.take() == []
    assert made.score("a") == -1
    made.messages("b", PubsubMessage(TOPIC, b"original", b"author", b"1", b"good"))
    assert [one.message.data for one in made.take(Deliver)] == [b"original"]


def test_a_check_that_raises_costs_nobody():
    made = router(score=one_topic(**P4))
    made.engine.configure(TOPIC, TopicParams(check=lambda one: 1 / 0))
    made.messages("a", message())
    assert made.delivered() == []
    assert made.score("a") == 0
    assert made.engine.counts["check_raised"] == 1


# scores of deliveries

P2 = {"first_message_deliveries_weight": 1, "first_message_deliveries_decay": 0.999}


def test_p2_is_for_the_first_forwarder_and_at_accept():
    made = router(score=one_topic(**P2))
    made.messages("a", message())
    made.messages("b", message())
    assert made.score("a") == 0
    made.verdict(b"m")
    assert [made.score(peer) for peer in MESH] == [1, 0, 0, 0]


@pytest.mark.parametrize("verdict", [REJECT, IGNORE])
def test_p2_is_not_for_what_is_not_accepted(verdict):
    made = router(score=one_topic(**P2))
    made.messages("a", message())
    made.verdict(b"m", verdict)
    assert made.score("a") == 0


def test_p3_counts_copies_during_validation_and_within_the_window():
    made = router(
        score=one_topic(
            mesh_message_deliveries_weight=-1,
            mesh_message_deliveries_threshold=5,
            mesh_message_deliveries_activation=1,
            mesh_message_deliveries_window=0.5,
            mesh_message_deliveries_decay=0.999999,
        )
    )
    made.peer("outside")
    made.messages("a", message())
    made.now = 2.0
    made.messages("b", message())
    made.messages("outside", message())
    made.verdict(b"m")
    made.now = 2.5
    made.messages("c", message())
    made.messages("c", message())
    made.messages("b", message())
    made.now = 2.6
    made.messages("d", message())
    made.engine.scores.refresh(3.0)
    assert [round(made.score(peer)) for peer in (*MESH, "outside")] == [-16, -16, -16, -25, 0]


def test_scoring_uses_our_defaults_where_a_topic_has_none():
    made = router(score=PeerScoreParams())
    made.messages("a", message())
    made.verdict(b"m")
    assert made.score("a") == pytest.approx(1)


# our own messages


def test_our_own_messages_echoed_back_are_ignored():
    made = router(score=one_topic(**P4))
    made.publish(b"mine")
    made.engine.take()
    made.messages("a", message(b"mine"))
    made.messages("b", message(b"old", from_=b"me"))
    assert made.engine.take() == []
    assert made.score("a") == made.score("b") == 0
    with pytest.raises(VerdictError):
        made.verdict(b"mine")


def test_our_own_messages_are_given_to_who_asks():
    made = router()
    made.peer("far")
    made.publish(b"mine")
    made.engine.take()
    made.iwant("far", b"mine")
    assert made.sent_messages() == {"far": [b"mine"]}


def test_a_message_is_published_once():
    made = router()
    made.publish(b"mine")
    with pytest.raises(PublishError, match="has been seen"):
        made.publish(b"mine")
    made.messages("a", message(b"theirs"))
    with pytest.raises(PublishError, match="has been seen"):
        made.publish(b"theirs")


def test_floodsub_and_direct_peers_get_every_accepted_message():
    made = router()
    made.peer("flood", protocol=FLOODSUB)
    made.peer("direct", direct=True)
    made.peer("other topic", direct=True, topics=("x",))
    made.messages("a", message())
    made.verdict(b"m")
    assert made.sent_messages() == {peer: [b"m"] for peer in ("flood", "direct", "b", "c", "d")}


def test_what_was_refused_gives_way_to_new_messages():
    """Spam that nobody accepts must not keep what is good out, for as long as the TTL."""
    router = Router(max_seen=4)
    router.peer("spammer", "honest", mesh=True)
    router.messages("honest", message(b"good"))
    router.verdict(b"good")
    for number in range(20):
        junk = b"junk%d" % number
        router.messages("spammer", message(junk))
        router.verdict(junk, IGNORE if number % 2 else REJECT)
    router.take(Deliver)
    router.messages("honest", message(b"new"), message(b"good"))
    assert router.delivered() == [b"new"]
    assert len(router.engine._seen) <= 4


def test_what_was_accepted_or_waits_gives_way_to_nothing():
    router = Router(max_seen=3)
    router.peer("a")
    for data in (b"1", b"2", b"3", b"4"):
        router.messages("a", message(data))
        if data == b"1":
            router.verdict(data)
    assert router.delivered() == [b"1", b"2", b"3"]
    assert router.engine.counts["seen_full"] == 1
