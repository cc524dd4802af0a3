"""The pool's rules: whom it dials, whom it drops, and when."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from node.peers.actions import Back, Dial, Drop, Low, Probe
from node.peers.addressbook import AddressBook
from node.peers.choice import Targets
from node.peers.faults import Faults
from node.peers.pool import SLOW, Pool
from node.peers.reserve import ALONE_PATIENCE
from node.peers.standing import Peer, extras, inbound_victim, subnet

SMALL = Targets(low=2, target=4, high=8, outbound=2, grace=10, feeler_interval=1e6)


class World:
    """A pool, its book, and a clock for both."""

    def __init__(self, targets: Targets = SMALL, **more) -> None:
        self.now = 0.0
        self.book = AddressBook(None, clock=lambda: 1e9 + self.now, rng=random.Random(1))
        self.pool = Pool(targets, self.book, us="US", now=0.0, rng=random.Random(1), **more)

    def know(self, *names: str, worked: bool = True, net: str = "", source: str = "exchange") -> None:
        for number, name in enumerate(names):
            addr = f"/ip4/{net or f'{20 + number}.{len(self.book) % 200}'}.0.{number + 1}/tcp/4001"
            self.book.learn(name, [addr], source)
            if worked:
                self.book.succeeded(name, addr)

    def poll(self) -> list:
        return self.pool.poll(self.now)

    def dials(self) -> list[Dial]:
        return [action for action in self.poll() if isinstance(action, Dial)]

    def at(self, now: float) -> World:
        self.now = now
        return self

    def connect(self, name: str, *, outbound: bool = True, addr: str = "") -> None:
        entry = self.book.get(name)
        self.pool.connected(
            self.now, name, addr or (entry.addrs[0].addr if entry else "/ip4/10.0.0.9/tcp/1"), outbound=outbound
        )
        self.pool.done(self.now, name)

    def fail(self, name: str, *, answered: bool = False) -> float:
        self.book.failed(name, "")
        return self.pool.failed(self.now, name, answered=answered)


def test_those_that_were_connected_last_are_dialled_first_and_only_as_many_as_are_wanted():
    world = World()
    for name in "abcdef":
        world.at(world.now + 1).know(name, net=f"{30 + ord(name)}.1")
    assert [dial.peer for dial in world.dials()] == list("fedc")
    assert world.dials() == []


def test_below_low_dials_that_take_long_are_not_waited_for():
    world = World(replace(SMALL, max_dials=6))
    world.know(*"abcdefgh")
    assert len(world.dials()) == 4
    world.at(world.pool.next_wakeup(0.0))
    assert world.now <= SLOW
    assert world.dials() == []
    assert world.pool.next_wakeup(world.now) <= SLOW
    assert len(world.at(SLOW).dials()) == 2  # with those under way, as many as there may be
    for name in list(world.pool.dialling)[:2]:
        world.at(SLOW + 0.1).connect(name)
    assert world.dials() == []


def test_from_low_on_dials_that_take_long_are_waited_for():
    world = World()
    world.know(*"abcdefgh")
    for name in [dial.peer for dial in world.dials()][:2]:
        world.at(0.1).connect(name)
    assert world.at(0.2).dials() == []
    assert world.at(SLOW + 1).dials() == []


def test_peers_that_never_worked_come_after_those_that_did():
    world = World()
    world.know("new1", "new2", "new3", worked=False)
    world.know("old", net="50.1")
    assert world.dials()[0].peer == "old"


def test_inbound_peers_fill_the_target_but_never_the_outbound_places():
    world = World()
    world.know("a", "b", "c", "d")
    for number in range(5):
        world.connect(f"in{number}", outbound=False, addr=f"/ip4/{60 + number}.0.0.1/tcp/9")
    assert len(world.dials()) == SMALL.outbound


def test_a_subnet_has_at_most_its_share_of_the_outbound_places():
    world = World(Targets(low=2, target=16, high=40, outbound=16, subnet_share=0.125))
    world.know(*(f"one{n}" for n in range(12)), net="80.1")
    world.know(*(f"two{n}" for n in range(3)))
    for dial in world.dials():
        world.connect(dial.peer)
    assert sum(peer.startswith("one") for peer in world.pool.peers) == 2
    assert sum(peer.startswith("two") for peer in world.pool.peers) == 3


def test_below_low_a_subnet_may_have_more_and_these_go_when_better_ones_have_come():
    world = World(Targets(low=3, target=8, high=40, outbound=8, grace=10, subnet_share=0.125))
    world.know("a", "b", "c", "d", net="80.1")
    for dial in world.dials():
        world.connect(dial.peer)
    for dial in world.at(1).dials():
        world.connect(dial.peer)
    assert len(world.pool.peers) >= 3
    assert len(world.pool.extras()) == len(world.pool.peers) - 1
    world.know("e", "f", "g")
    for dial in world.at(12).dials():
        world.connect(dial.peer)
    dropped = {action.peer for action in world.at(25).poll() if isinstance(action, Drop)}
    assert len(dropped) >= 1
    assert dropped <= set("abcd")
    assert set("efg") <= set(world.pool.peers)


def test_private_networks_and_loopback_have_no_limit():
    world = World(Targets(low=2, target=6, high=40, outbound=6))
    for number in range(6):
        world.book.learn(f"p{number}", [f"/ip4/10.0.0.{number + 1}/tcp/1"], "exchange")
    assert len(world.dials()) == 6
    assert subnet("/ip4/127.0.0.1/tcp/1") is None
    assert subnet("/ip4/10.1.2.3/tcp/1") is None
    assert subnet("/ip4/8.8.4.4/tcp/1") == "8.8.0.0/16"
    assert subnet("/ip6/2a00:1:2::3/tcp/1") == "2a00:1::/32"


def test_a_static_peer_is_dialled_again_for_ever_with_growing_waits_and_never_dropped():
    world = World()
    world.pool.add_static(0.0, "s", ["/ip4/9.9.9.9/tcp/1"])
    waits = []
    for _ in range(8):
        dials = world.dials()
        assert [dial.why for dial in dials] == ["static"]
        waits.append(world.fail("s"))
        assert world.dials() == []
        assert world.pool.next_wakeup(world.now) <= world.now + waits[-1]
        world.at(world.now + waits[-1])
    assert waits[0] <= 1.25
    assert 60 <= max(waits) <= 75
    world.connect("s")
    assert world.pool.peers["s"].kept
    assert inbound_victim(world.pool.peers.values(), lambda _: -9, 1e6, 0, 0) is None


def test_the_reserve_is_dialled_at_once_by_who_knows_few_others():
    world = World()
    world.pool.add_reserve(0.0, "boot", ["/ip4/9.9.9.9/tcp/1"])
    assert [(dial.peer, dial.why) for dial in world.dials()] == [("boot", "reserve")]


def test_with_a_filled_book_the_reserve_waits_until_the_others_do_not_answer():
    for answered, after in ((True, 60.0), (False, ALONE_PATIENCE)):
        world = World()
        world.know("a", "b", "c", "d")
        world.pool.add_reserve(0.0, "boot", ["/ip4/9.9.9.9/tcp/1"])
        first = None
        while first is None and world.now < 2000:
            for dial in world.dials():
                if dial.why == "reserve":
                    first = world.now
                else:
                    world.fail(dial.peer, answered=answered)
            world.at(max(world.pool.next_wakeup(world.now), world.now + 0.1))
        assert first is not None
        assert after <= first <= after + 15


def test_the_isolated_try_the_best_again_and_again_and_all_at_once_when_one_answers():
    world = World()
    world.know("a", "b", "c", "d")
    last = {}
    while world.now < 300:
        for dial in world.dials():
            last[dial.peer] = world.now
            world.fail(dial.peer)
        world.at(max(world.pool.next_wakeup(world.now), world.now + 0.1))
    assert len(last) == 4
    assert min(last.values()) > 300 - 45
    while not (found := world.dials()):
        world.at(world.now + 1)
    world.connect(found[0].peer)
    for dial in found[1:]:
        world.pool.failed(world.now, dial.peer)
    assert len(world.dials()) == 3


def test_what_failed_while_nobody_was_connected_is_forgiven():
    world = World(Targets(low=2, target=4, high=8, outbound=3, grace=10, feeler_interval=1e6))
    world.know("a")
    world.connect("a")
    world.know("b", worked=False, net="20.9")
    world.at(100).pool.disconnected(100, "a")
    for now in range(101, 2000):
        for dial in world.at(now).dials():
            world.book.failed(dial.peer, dial.addrs[0])
            world.pool.failed(world.now, dial.peer)
    assert world.pool.budget.wait("20.9.0.1", world.now) > 100, "on hearsay, ever more seldom"
    world.connect("a")
    actions = world.poll()
    assert actions[0] == Back(1899)
    assert [action.peer for action in actions if isinstance(action, Dial)] == ["b"]


def test_a_peer_that_leaves_at_once_is_left_alone_for_a_while():
    world = World()
    world.know("a")
    assert world.dials()
    world.connect("a")
    world.at(1).pool.disconnected(1.0, "a")
    world.connect("in", outbound=False)
    assert world.at(20).dials() == []
    assert [dial.peer for dial in world.at(45).dials()] == ["a"]


def test_dials_are_limited_in_number_and_rate():
    world = World(Targets(low=50, target=60, high=100, outbound=60, max_dials=5, dial_rate=1, source_share=1))
    world.know(*(f"p{n}" for n in range(60)))
    first = world.dials()
    assert len(first) == 5
    total = 5
    while world.now < 60:
        for peer in list(world.pool.dialling):
            world.fail(peer)
        world.at(world.now + 0.5)
        total += len(world.dials())
    assert total <= 5 + 60 + 1


def test_dials_on_hearsay_are_limited_for_each_address():
    world = World(Targets(low=50, target=60, high=100, outbound=60, source_share=1, subnet_share=1))
    for number in range(60):
        world.book.learn(f"p{number}", [f"/ip4/8.8.8.8/tcp/{number + 1}"], "exchange")
    total = 0
    while world.now < 60:
        for dial in world.dials():
            total += 1
            world.fail(dial.peer)
        world.at(world.now + 0.5)
    assert 1 <= total <= 5


def test_who_misbehaves_goes_first_then_who_came_last_of_a_crowd():
    def peer(name: str, since: float, net: str) -> Peer:
        return Peer(name, f"/ip4/{net}.0.1/tcp/1", False, since)

    rows = [peer("old", 0, "8.1"), peer("bad", 5, "9.1"), *(peer(f"c{n}", 10 + n, "7.1") for n in range(6))]
    scores = {"bad": -3.0}
    victim = inbound_victim(rows, lambda p: scores.get(p, 0.0), 100, 30, 4)
    assert victim is not None
    assert victim.peer == "bad"
    victim = inbound_victim(rows, lambda _: 0.0, 20, 30, 4)
    assert victim is not None
    assert victim.peer == "c5"
    assert inbound_victim(rows, lambda _: 0.0, 20, 30, 9) is None
    victim = inbound_victim(rows, lambda _: 0.0, 20, 30, 9, hard=True)
    assert victim is not None
    assert victim.peer == "c5"


def test_extras_are_the_youngest_of_a_subnet_but_never_who_is_kept_or_asked_for():
    rows = [Peer(f"p{n}", f"/ip4/7.1.0.{n + 1}/tcp/1", True, n, chosen=True) for n in range(4)]
    assert extras(rows, 2, 99) == {"p2", "p3"}
    rows[3].kept = rows[2].asked = True
    assert extras(rows, 2, 99) == {"p0", "p1"}


def test_who_dialled_us_is_tested_by_the_address_it_comes_from_first():
    world = World()
    world.book.learn("in", ["/ip4/8.8.8.8/tcp/1", "/ip4/9.9.9.9/tcp/4001"], "identify")
    world.connect("in", outbound=False, addr="/ip4/9.9.9.9/tcp/50000")
    tests = [action for action in world.poll() if isinstance(action, Probe)]
    assert tests == [Probe("in", "/ip4/9.9.9.9/tcp/4001")]
    world.book.failed("in", tests[0].addr)
    world.pool.tested(0.0, "in", tests[0].addr, ok=False)
    assert [a for a in world.at(3).poll() if isinstance(a, Probe)] == [Probe("in", "/ip4/8.8.8.8/tcp/1")]


def test_a_feeler_is_dropped_unless_its_peer_is_needed():
    world = World(Targets(low=1, target=1, high=8, outbound=1, feeler_interval=10))
    world.know("a")
    world.dials()
    world.connect("a")
    world.know("new", worked=False, net="77.1")
    dials = world.at(20).dials()
    assert [(dial.peer, dial.why) for dial in dials] == [("new", "feeler")]
    entry = world.book.get("new")
    world.pool.connected(20.0, "new", entry.addrs[0].addr, outbound=True)
    assert world.pool.done(20.0, "new") == Drop("new", "tested")


def test_low_is_told_once_when_peers_are_lost():
    world = World()
    world.connect("a"), world.connect("b")
    assert not [a for a in world.poll() if isinstance(a, Low)]
    world.pool.disconnected(1.0, "a")
    assert [a for a in world.poll() if isinstance(a, Low)] == [Low(1)]
    assert not [a for a in world.poll() if isinstance(a, Low)]


def test_what_is_banned_is_not_dialled():
    world = World(banned=lambda addr: "/20." in addr)
    world.know("a", "b")
    assert [dial.peer for dial in world.dials()] == ["b"]


def test_faults_fade_and_are_bounded():
    faults = Faults(limit=3, half_life=10, capacity=2)
    assert not faults.charge("a", 0)
    assert not faults.charge("a", 0)
    assert faults.points("a", 10) == 1
    assert not faults.charge("a", 10)
    assert faults.charge("a", 10)
    assert faults.points("a", 10) == 0
    for name in "bcd":
        faults.charge(name, 11)
    assert len(faults) == 2


@settings(max_examples=60)
@given(st.integers(0, 1 << 32), st.integers(1, 6))
def test_under_any_schedule_the_bounds_hold(seed: int, low: int):
    rng = random.Random(seed)
    targets = Targets(
        low=low, target=2 * low, high=4 * low, outbound=low, max_dials=4, dial_rate=1, grace=5, feeler_interval=3
    )
    world = World(targets)
    for number in range(40):
        world.know(
            f"p{number}", worked=rng.random() < 0.5, net=f"{20 + number % 7}.{number % 3}", source=f"s{number % 3}"
        )
    world.pool.add_reserve(0, "boot", ["/ip4/9.9.9.9/tcp/1"])
    for _ in range(150):
        for action in world.poll():
            match action:
                case Dial(peer):
                    assert peer not in world.pool.peers
                    assert peer != "US"
                case Drop(peer):
                    assert peer in world.pool.peers
                    assert not world.pool.peers[peer].kept
                    world.pool.disconnected(world.now, peer)
                case Probe(peer, addr):
                    world.pool.tested(world.now, peer, addr, ok=rng.random() < 0.5)
        assert len(world.pool.dialling) <= targets.max_dials + 1
        inbound = sum(not peer.outbound for peer in world.pool.peers.values())
        assert inbound <= targets.high - targets.outbound + targets.high // 4
        for peer in list(world.pool.dialling):
            if rng.random() < 0.6:
                world.connect(peer) if rng.random() < 0.6 else world.fail(peer, answered=rng.random() < 0.5)
        if rng.random() < 0.3 and world.pool.peers:
            world.pool.disconnected(world.now, rng.choice(list(world.pool.peers)))
        if rng.random() < 0.5:
            name = f"in{rng.randrange(100)}"
            if name not in world.pool.peers:
                world.connect(name, outbound=False, addr=f"/ip4/{rng.randrange(30, 33)}.0.0.{rng.randrange(9)}/tcp/1")
        wake = world.pool.next_wakeup(world.now)
        assert wake > world.now
        world.at(wake if rng.random() < 0.5 else world.now + rng.random())


def test_who_cant_be_dialled_now_keeps_no_other_from_being_chosen():
    world = World(replace(SMALL, target=1, outbound=1), banned=lambda addr: addr.startswith("/ip4/30.0.0.1/"))
    world.know("good", worked=False, net="40.0")
    for number in range(10):
        name = f"bad{number}"
        world.book.learn(name, ["/ip4/30.0.0.1/tcp/1", "/ip4/31.0.0.1/tcp/1"], "exchange")
        world.book.failed(name, "/ip4/31.0.0.1/tcp/1")
        world.book.seen(name)
    assert [dial.peer for dial in world.dials()] == ["good"]


def test_peers_that_are_dialled_by_names_count_with_the_subnets_in_which_they_are():
    world = World(Targets(low=2, target=16, high=40, outbound=16, subnet_share=0.125))
    for number in range(5):
        world.pool.connected(0.0, f"p{number}", f"/dns4/n{number}.evil.example/tcp/1", outbound=True, ip="80.1.0.1")
    assert len(world.pool.extras()) == 3
