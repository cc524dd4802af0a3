"""The small parts: seen IDs, the message cache, backoffs, promises, what awaits its verdict."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocols.gossip.backoff import Backoffs
from protocols.gossip.mcache import MessageCache
from protocols.gossip.params import GossipParams, RpcLimits
from protocols.gossip.pending import Pending, Waiting
from protocols.gossip.promises import Promises
from protocols.gossip.rpc import PubsubMessage
from protocols.gossip.seen import Fate, Seen

# seen


def test_an_id_is_remembered_for_the_whole_ttl():
    seen = Seen(ttl=64, limit=100)
    seen.add(0.0, b"a", 1)
    seen.expire(63.9)
    assert seen.get(b"a") == 1
    seen.expire(65.1)
    assert seen.get(b"a") is None


def test_when_full_the_new_are_refused_rather_than_the_old_forgotten():
    seen = Seen(ttl=64, limit=2)
    seen.add(0.0, b"a", 1)
    seen.add(1.0, b"b", 1)
    assert seen.full(30.0)
    assert seen.get(b"a") == 1
    assert not seen.full(65.0), "what is due makes room"


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 50)), max_size=200))
def test_seen_ids_live_between_the_ttl_and_a_64th_more(steps):
    seen, now, added = Seen(ttl=20, limit=1000), 0.0, {}
    for wait, number in steps:
        now += wait
        seen.expire(now)
        message_id = bytes([number])
        for one, when in added.items():
            if now < when + 20:
                assert seen.get(one) is not None
            elif now >= when + 20 * (1 + 1 / 64) + 1e-6:
                assert seen.get(one) is None
        if seen.get(message_id) is None:
            seen.add(now, message_id, 1)
            added[message_id] = now


# the message cache


def message(data=b"x", topic="t"):
    return PubsubMessage(topic, data)


def test_messages_are_advertised_for_some_windows_and_kept_for_more():
    cache = MessageCache(5, 3, 1000)
    cache.put(b"1", message())
    for _ in range(3):
        assert cache.gossip_ids("t") == [b"1"]
        cache.shift()
    assert cache.gossip_ids("t") == []
    assert cache.get(b"1") is not None
    cache.shift()
    assert cache.get(b"1") is not None
    cache.shift()
    assert cache.get(b"1") is None
    assert len(cache) == 0


def test_gossip_ids_are_those_of_the_topic():
    cache = MessageCache(5, 3, 1000)
    cache.put(b"1", message(topic="a"))
    cache.put(b"2", message(topic="b"))
    assert cache.gossip_ids("a") == [b"1"]


def test_the_cache_counts_how_often_a_peer_asks():
    cache = MessageCache(5, 3, 1000)
    cache.put(b"1", message())
    assert [cache.ask(b"1", "p")[1] for _ in range(3)] == [1, 2, 3]
    assert cache.ask(b"1", "q")[1] == 1
    assert cache.ask(b"?", "q") == (None, 0)


def test_a_message_is_cached_once():
    cache = MessageCache(5, 3, 1000)
    cache.put(b"1", message(bytes(600)))
    cache.put(b"1", message(bytes(600)))
    assert cache.gossip_ids("t") == [b"1"]


def test_the_cache_is_bounded_in_bytes_and_the_oldest_go():
    cache = MessageCache(5, 3, 1000)
    for number in range(5):
        cache.put(bytes([number]), message(bytes(300)))
    assert cache.gossip_ids("t") == [b"\2", b"\3", b"\4"]
    assert cache.get(b"\0") is None


# backoffs


def test_a_backoff_holds_us_longer_than_it_holds_the_peer():
    backoffs = Backoffs(slack=2, limit=10)
    backoffs.add("t", "p", 60.0)
    assert backoffs.until("t", "p") == 60
    assert backoffs.held("t", "p", 61.9)
    assert not backoffs.held("t", "p", 62.0)
    assert not backoffs.held("t", "q", 0.0)


def test_a_backoff_is_extended_and_never_shortened():
    backoffs = Backoffs(slack=0, limit=10)
    backoffs.add("t", "p", 60.0)
    backoffs.add("t", "p", 10.0)
    assert backoffs.until("t", "p") == 60


def test_backoffs_are_bounded_and_expire():
    backoffs = Backoffs(slack=2, limit=2)
    for number in range(3):
        backoffs.add("t", number, 60.0 + number)
    assert [backoffs.until("t", number) for number in range(3)] == [0, 61, 62]
    backoffs.expire(63.0)
    assert [backoffs.until("t", number) for number in range(3)] == [0, 0, 62]
    backoffs.expire(100.0)
    assert backoffs._ends == {}


# promises


def test_a_promise_that_is_not_kept_is_broken_once():
    promises = Promises(followup=3)
    promises.add(0.0, "p", b"1")
    promises.add(2.0, "p", b"1")
    assert promises.broken(3.0) == {}
    assert promises.broken(3.1) == {"p": 1}, "asking again has put nothing off"
    assert promises.broken(10.0) == {}
    assert len(promises) == 0


def test_a_message_frees_everybody_who_promised_it():
    promises = Promises(followup=3)
    promises.add(0.0, "p", b"1")
    promises.add(0.0, "q", b"1")
    promises.add(0.0, "q", b"2")
    promises.kept(b"1")
    assert promises.broken(4.0) == {"q": 1}


# what awaits its verdict

PARAMS = GossipParams(
    max_pending_messages=6,
    max_pending_messages_per_peer=3,
    max_pending_bytes=2000,
    max_pending_bytes_per_peer=1000,
    max_cache_bytes=1000,
    rpc=RpcLimits(max_size=1000),
)


def pending(number, peer, size=10, timeout=30.0, now=0.0):
    return Pending(bytes([number]), message(bytes(size)), peer, now + timeout, timeout)


def test_a_peer_has_its_own_bounds():
    waiting = Waiting(PARAMS)
    assert all(waiting.add(pending(number, "p")) == (True, []) for number in range(3))
    assert waiting.add(pending(3, "p")) == (False, [])
    assert waiting.add(pending(4, "q", size=900))[0]
    assert waiting.add(pending(5, "q", size=101)) == (False, [])
    assert waiting.add(pending(6, "q", size=100))[0]


def test_the_newest_of_the_busiest_peer_gives_way_by_count():
    waiting = Waiting(PARAMS)
    for number in range(3):
        waiting.add(pending(number, "busy"))
    for number in range(3, 6):
        waiting.add(pending(number, f"p{number}"))
    taken, gone = waiting.add(pending(6, "new"))
    assert (taken, [one.message_id for one in gone]) == (True, [b"\2"])
    assert waiting.count == 6


def test_the_newest_of_the_busiest_peer_gives_way_by_bytes():
    waiting = Waiting(PARAMS)
    waiting.add(pending(0, "busy", size=500))
    waiting.add(pending(1, "busy", size=500))
    waiting.add(pending(2, "p", size=900))
    taken, gone = waiting.add(pending(3, "q", size=200))
    assert (taken, [one.message_id for one in gone]) == (True, [b"\1"])
    assert waiting.bytes == 1600


def test_a_newcomer_that_is_the_busiest_is_not_taken():
    waiting = Waiting(PARAMS)
    for number in range(6):
        waiting.add(pending(number, number % 3))
    assert waiting.add(pending(6, 0)) == (False, [])


def test_deadlines_come_in_order_whatever_the_timeouts():
    waiting = Waiting(PARAMS)
    waiting.add(pending(0, "p", timeout=30))
    waiting.add(pending(1, "p", timeout=5))
    waiting.add(pending(2, "q", timeout=30, now=1.0))
    assert waiting.next_deadline() == 5
    assert [one.message_id for one in waiting.expired(5.0)] == [b"\1"]
    assert waiting.next_deadline() == 30
    assert [one.message_id for one in waiting.expired(31.0)] == [b"\0", b"\2"]
    assert waiting.next_deadline() is None
    assert (waiting.count, waiting.bytes) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 900), st.booleans()), max_size=60))
def test_the_bounds_hold_and_nothing_leaks(steps):
    waiting, held = Waiting(PARAMS), {}
    for number, (peer, size, take) in enumerate(steps):
        taken, gone = waiting.add(pending(number, peer, size))
        for one in gone:
            del held[one.message_id]
        if taken:
            held[bytes([number])] = pending(number, peer, size)
        if take and held:
            oldest = next(iter(held))
            queue = next(iter(waiting._queues.values()))
            waiting.take(queue[oldest])
            del held[oldest]
        assert waiting.count == len(held) <= 6
        assert waiting.bytes == sum(len(one.message.data) for one in held.values()) <= 2000
        for account in waiting._accounts.values():
            assert 0 < len(account.held) <= 3
            assert account.bytes <= 1000


def test_an_id_that_gave_way_and_came_again_lives_for_the_whole_ttl():
    seen = Seen(64.0, 2)
    seen.add(0.0, b"a", Fate.IGNORED)
    seen.add(0.0, b"b", Fate.ACCEPTED)
    seen.give_way(b"a")
    assert not seen.full(10.0)
    assert b"a" not in seen.marks
    seen.add(10.0, b"a", Fate.ACCEPTED)
    seen.expire(70.0)
    assert list(seen.marks) == [b"a"]
    assert seen.full(70.0) is False


def test_an_id_that_may_give_way_expires_like_any():
    seen = Seen(64.0, 1)
    seen.add(0.0, b"a", Fate.IGNORED)
    seen.give_way(b"a")
    seen.expire(70.0)
    seen.add(71.0, b"a", Fate.ACCEPTED)
    assert seen.full(72.0), "what was said of it before is forgotten with it"
