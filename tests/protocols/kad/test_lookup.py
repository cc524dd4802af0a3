"""Look-ups as rules: networks that are a table of who names whom, and answers that mislead."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.kad.keyspace import point
from protocols.kad.lookup import Lookup, LookupParams
from protocols.kad.wire import Peer
from tests.protocols.kad.test_wire import peer_id

LOCAL = peer_id(0)
TARGET = point(b"target")
K = 20


def by_distance(peers):
    return sorted(peers, key=lambda peer: point(peer) ^ TARGET)


def named(peers):
    return [Peer(peer, (b"\x04abcd",)) for peer in peers]


class Network:
    """Peers by number; each knows some others, and names the K of them that are nearest to the target."""

    def __init__(self, count, *, knows=40, seed=1, dead=()):
        rng = random.Random(seed)
        self.peers = [peer_id(number) for number in range(1, count + 1)]
        self.dead = {self.peers[number] for number in dead}
        self.knows = {peer: rng.sample(self.peers, min(knows, count)) for peer in self.peers}
        self.seeds = rng.sample(self.peers, min(10, count))
        self.asked = []

    def answer(self, peer):
        self.asked.append(peer)
        return None if peer in self.dead else named(by_distance(self.knows[peer])[:K])

    def living(self):
        return [peer for peer in self.peers if peer not in self.dead]


def run(lookup, answer, *, took=lambda _peer: 0.1, now=0.0):
    """Answers everything, each after the time it takes (None: never, until the timeout); when it ended."""
    waiting = []
    while not lookup.done(now):
        for candidate in lookup.ask(now):
            seconds = took(candidate.peer)
            late = seconds is None or seconds > lookup.params.timeout
            reply = None if late else answer(candidate.peer)
            waiting.append((now + (lookup.params.timeout if late else seconds), candidate.peer, reply))
        waiting.sort(key=lambda item: item[0])
        wakeup = lookup.wakeup(now)
        if waiting and waiting[0][0] <= wakeup:
            now, peer, reply = waiting.pop(0)
            if reply is None:
                lookup.failed(peer)
            else:
                lookup.answered(peer, reply, now)
        else:
            assert wakeup > now or not waiting, "a lookup that isn't done says when to come again"
            now = max(now, wakeup)
    return now


def found(lookup):
    return [candidate.peer for candidate in lookup.closest()]


@pytest.mark.parametrize("paths", [1, 2, 3])
def test_the_nearest_of_all_are_found(paths):
    network = Network(300, knows=60)
    lookup = Lookup(TARGET, LOCAL, named(network.seeds), 0.0, paths=paths)
    run(lookup, network.answer)
    # whom some honest peer on the way knows; the very nearest are among them
    assert found(lookup)[:10] == by_distance(network.peers)[:10]
    assert len(network.asked) == len(set(network.asked)) == lookup.requests


def test_dead_peers_cost_one_patience_and_not_a_round_each():
    network = Network(50, knows=50, dead=range(0, 50, 5))
    # a table that was filled while all were alive: of twenty that the others name, some are dead
    lookup = Lookup(TARGET, LOCAL, named(network.peers), 0.0)
    ended = run(lookup, network.answer, took=lambda peer: None if peer in network.dead else 0.1)
    assert found(lookup) == by_distance(network.living())[:K]
    assert ended <= 2.0  # ten that never answer, with a timeout of 5 s each


def test_no_lock_step():
    """One slow answer holds nothing up: the next request goes out with each answer that comes."""
    lookup = Lookup(TARGET, LOCAL, named(peer_id(n) for n in range(1, 21)), 0.0, LookupParams(parallel=3))
    first = lookup.ask(0.0)
    assert len(first) == 3
    assert lookup.ask(0.01) == []
    lookup.answered(first[0].peer, [], 0.1)
    assert len(lookup.ask(0.1)) == 1
    lookup.failed(first[1].peer)
    assert len(lookup.ask(0.11)) == 1
    # the third is slow by now: others go out beside it
    assert lookup.wakeup(0.11) == pytest.approx(0.25)
    assert len(lookup.ask(0.36)) == 3


def test_never_more_than_most_parallel():
    params = LookupParams(parallel=3, most_parallel=5)
    lookup = Lookup(TARGET, LOCAL, named(peer_id(n) for n in range(1, 41)), 0.0, params)
    count, now = 0, 0.0
    while now < 4.9:
        count += len(lookup.ask(now))
        assert len(lookup._asked) == count <= 5
        now += 0.3
    assert count == 5


def test_nobody_known_and_nobody_answering():
    assert Lookup(TARGET, LOCAL, [], 0.0).done(0.0)
    lookup = Lookup(TARGET, LOCAL, named(peer_id(n) for n in range(1, 6)), 0.0)
    # as long as nobody has answered, everybody has their whole time
    assert run(lookup, lambda _: None, took=lambda _: None) == pytest.approx(5.0)
    assert found(lookup) == []
    assert lookup.hops == 0


def test_an_answer_that_names_too_many_names_k():
    lookup = Lookup(TARGET, LOCAL, named([peer_id(1)]), 0.0)
    lookup.ask(0.0)
    lookup.answered(peer_id(1), named(peer_id(n) for n in range(2, 10_000)), 0.1)
    assert len(lookup._candidates) == 1 + K
    assert lookup.get(peer_id(21)) is not None
    assert lookup.get(peer_id(22)) is None


def test_answers_that_name_us_or_go_round_in_circles_end():
    ring = [peer_id(n) for n in range(1, 31)]
    asked = []

    def answer(peer):
        asked.append(peer)
        return named([LOCAL, peer, ring[(ring.index(peer) + 1) % 30], *ring[:5]])

    lookup = Lookup(TARGET, LOCAL, named(ring[:1]), 0.0)
    run(lookup, answer)
    assert len(asked) == len(set(asked)) <= 30
    assert LOCAL not in asked
    assert lookup.get(LOCAL) is None


def test_endless_nearer_peers_end_at_the_bound():
    """Each answer names peers that are nearer still: an attacker can make keys for that."""
    params = LookupParams(max_requests=50, max_candidates=100)
    rng = random.Random(3)
    pool = by_distance(peer_id(n) for n in range(1, 5000))[::-1]  # farthest first

    def answer(peer):
        at = pool.index(peer)
        return named(pool[at + 1 : at + 2 + rng.randrange(20)])

    lookup = Lookup(TARGET, LOCAL, named(pool[:3]), 0.0, params)
    run(lookup, answer)
    assert lookup.requests == 50
    assert len(lookup._candidates) <= 100


def test_slow_drip_ends_at_the_deadline():
    """Peers that answer just before their timeout, and name others that do the same."""
    params = LookupParams(deadline=12.0)
    lookup = Lookup(TARGET, LOCAL, named([peer_id(1)]), 0.0, params)
    fresh = iter(range(2, 100_000))
    ended = run(lookup, lambda _: named(peer_id(next(fresh)) for _ in range(20)), took=lambda _: 4.9)
    assert ended <= 12.0
    assert lookup.requests <= params.max_requests


def test_answers_that_nobody_asked_for_change_nothing():
    lookup = Lookup(TARGET, LOCAL, named([peer_id(1)]), 0.0)
    lookup.answered(peer_id(1), named([peer_id(2)]), 0.0)
    lookup.answered(peer_id(9), named([peer_id(2)]), 0.0)
    lookup.failed(peer_id(9))
    assert lookup.get(peer_id(2)) is None
    (candidate,) = lookup.ask(0.0)
    lookup.answered(candidate.peer, [], 0.1)
    lookup.answered(candidate.peer, named([peer_id(2)]), 0.2)
    assert lookup.done(0.2)


def test_many_addresses_are_kept_beside_each_other_within_the_bound():
    lookup = Lookup(TARGET, LOCAL, [Peer(peer_id(1), (b"true",)), *named([peer_id(2)])], 0.0, LookupParams(parallel=1))
    first = lookup.ask(0.0)[0].peer
    other = peer_id(3 - [peer_id(1), peer_id(2)].index(first) - 1)
    lookup.answered(first, [Peer(other, tuple(b"false %d" % n for n in range(99)))], 0.1)
    assert len(lookup.get(other).addrs) == 16
    assert lookup.get(other).addrs[0] in (b"true", b"\x04abcd")


def test_one_of_three_paths_finds_the_target_though_sybils_surround_it():
    """Sybils are nearer to the target than any honest peer, and name each other only. One path in three meets none of
    them at first: it goes on until its own share of honest peers has answered, one of whom knows the target.
    """
    everyone = by_distance(peer_id(n) for n in range(1, 4000))
    target, sybils, honest = everyone[60], everyone[:60], everyone[61:400]
    keeper = honest[5]

    def answer(peer):
        if peer in sybils:
            return named(random.Random(peer).sample(sybils, K))
        if peer == keeper:
            return named([target, *honest[:10]])
        return named(honest[:K])

    def search(paths):
        lookup = Lookup(TARGET, LOCAL, named([sybils[-1], *honest[200:202]]), 0.0, paths=paths)
        asked = set()

        def ask(peer):
            asked.add(peer)
            return answer(peer) if peer != target else []

        run(lookup, ask)
        return target in asked, lookup

    # one path is led away: the nearest twenty that answer are all the attacker's
    assert search(1)[0] is False
    reached, lookup = search(3)
    assert reached
    honest_places = [c.peer for c in lookup.closest_of_paths() if c.peer not in sybils]
    assert len(honest_places) >= 7  # where to put what must be found again


@settings(max_examples=60)
@given(
    st.integers(1, 60),
    st.integers(1, 4),
    st.integers(0, 2**32),
    st.lists(st.sampled_from(["answers", "fails", "hangs", "lies", "drips"]), min_size=60, max_size=60),
)
def test_every_look_up_ends_within_its_bounds(count, paths, seed, moods):
    network = Network(count, knows=20, seed=seed)
    rng = random.Random(seed)
    mood = dict(zip(network.peers, moods, strict=False))

    def answer(peer):
        kind = mood.get(peer, "answers")
        if kind == "fails":
            return None
        if kind == "lies":
            return named([LOCAL, *(peer_id(rng.randrange(10**9)) for _ in range(50))])
        return network.answer(peer) if peer in network.knows else []

    took = {"hangs": None, "drips": 4.9}
    params = LookupParams(max_requests=80, max_candidates=120, deadline=20.0)
    lookup = Lookup(TARGET, LOCAL, named(network.seeds), 0.0, params, paths=paths)
    ended = run(lookup, answer, took=lambda peer: took.get(mood.get(peer, "answers"), 0.1))
    assert ended <= 20.0
    assert lookup.requests <= 80
    assert len(lookup._candidates) <= 120
    assert found(lookup) == by_distance(found(lookup))
