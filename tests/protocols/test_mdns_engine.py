"""When a node asks and tells on a link, by exact times, and what strangers there can make it do."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.mdns import wire
from protocols.mdns.engine import MIN_PAUSE, NEVER, Engine, Params
from protocols.mdns.wire import Found, Known, Query

SERVICE = "_p2p._udp.local"
ME = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
MY_ADDR = "/ip4/192.0.2.1/tcp/4001"
ADDR = "/ip4/192.0.2.2/tcp/4001"


def peer(number):
    return "12D3KooW" + "".join(random.Random(number).choices(ALPHABET, k=44))


def told(number=2, addrs=(ADDR,), ttl=120, name=None):
    return wire.answer(SERVICE, name or f"name{number}", peer(number), list(addrs), ttl)


class Clock:
    """An engine, woken when it asks for it. `sent` holds (time, "ask" or "tell" or "list", decoded)."""

    def __init__(self, addrs=(MY_ADDR,), seed=1, **params):
        self.addrs = list(addrs)
        self.now = 0.0
        self.engine = Engine(SERVICE, ME, lambda: self.addrs, now=0.0, params=Params(**params), rng=random.Random(seed))
        self.sent = []
        self.senders = 0

    def until(self, when):
        while self.engine.next_wakeup <= when:
            self.now = max(self.now, self.engine.next_wakeup)
            packets = self.engine.wake(self.now)
            assert packets or not self.addrs
            self.sent += [(self.now, *kind(packet)) for packet in packets]
        self.now = when

    def hears(self, packet, sender=None):
        """By default each packet comes from a sender of its own."""
        self.senders += 1
        return self.engine.received(packet, self.now, sender or f"sender {self.senders}")

    def times(self, wanted):
        return [when for when, what, _ in self.sent if what == wanted]


def kind(packet):
    said = wire.decode(packet, SERVICE)
    if isinstance(said, Query):
        return "ask", said
    return ("tell", said) if said else ("list", None)


def test_a_start_asks_and_tells_and_then_ever_more_seldom():
    clock = Clock(interval=60)
    clock.until(400)
    asked = clock.times("ask")
    assert 0.02 <= asked[0] <= 0.12
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    for gap, planned in zip(gaps, [1, 3, 9, 27, 60, 60], strict=False):
        assert planned * 0.8 <= gap <= planned * 1.2 or gap == MIN_PAUSE
    first, second = clock.times("tell")  # twice, and then only to who asks
    assert 0.02 <= first <= 0.12
    assert second == pytest.approx(first + 1)
    assert clock.sent[0][2] is not None


def test_what_is_told_is_who_we_are():
    clock = Clock()
    clock.until(0.5)
    (said,) = [said for _, what, said in clock.sent if what == "tell"]
    assert said == [Found(ME, (MY_ADDR,), 120, f"{clock.engine.name}.{SERVICE}.")]
    assert 32 <= len(clock.engine.name) <= 63


def test_a_question_is_answered_soon_and_once_a_second_at_most():
    clock = Clock()
    clock.until(10)
    before = len(clock.times("tell"))
    for step in range(100):  # ten questions a second, for ten seconds
        clock.until(10 + step / 10)
        clock.hears(wire.query(SERVICE)[0])
    clock.until(25)
    answers = clock.times("tell")[before:]
    assert 0.02 <= answers[0] - 10 <= 0.12
    assert all(later - earlier >= MIN_PAUSE for earlier, later in itertools.pairwise(answers))
    assert 9 <= len(answers) <= 11


def test_who_knows_us_gets_no_answer():
    clock = Clock()
    clock.until(10)
    before = len(clock.times("tell"))
    name = f"{clock.engine.name}.{SERVICE}."
    clock.hears(wire.query(SERVICE, [Known(name.upper(), 60)])[0])
    clock.until(12)
    assert len(clock.times("tell")) == before
    clock.hears(wire.query(SERVICE, [Known(name, 59)])[0])  # soon forgotten
    clock.until(14)
    assert len(clock.times("tell")) == before + 1


def test_a_question_of_ours_names_whom_we_know():
    clock = Clock()
    clock.hears(told(2))
    clock.until(0.5)
    (asked,) = [said for _, what, said in clock.sent if what == "ask"]
    (known,) = asked.known
    assert known.name == f"name2.{SERVICE}."
    assert 118 <= known.ttl <= 120
    clock.until(300)
    assert clock.sent[-1][2].known == ()


def test_who_asks_what_we_would_asks_for_us():
    clock = Clock(interval=60)
    clock.until(3)  # our own two
    assert len(clock.times("ask")) == 2
    for second in range(3, 200):
        clock.until(second)
        clock.hears(wire.query(SERVICE)[0])
    assert len(clock.times("ask")) <= 4
    clock.until(400)
    assert len(clock.times("ask")) > 4


def test_who_knows_others_than_we_do_doesnt_ask_for_us():
    clock = Clock()
    clock.until(3)
    due = clock.engine.next_wakeup
    clock.hears(
        wire.query(SERVICE, [Known(f"unheard.{SERVICE}.", 100), Known(f"{clock.engine.name}.{SERVICE}.", 100)])[0]
    )
    assert clock.engine.next_wakeup == due


def test_a_peer_is_found_once_until_it_moves_or_is_forgotten():
    clock = Clock()
    assert [found.peer for found in clock.hears(told())] == [peer(2)]
    assert clock.hears(told()) == []
    (moved,) = clock.hears(told(addrs=["/ip4/192.0.2.3/tcp/1"]))
    assert moved.addrs == ("/ip4/192.0.2.3/tcp/1",)
    clock.until(119)
    assert len(clock.engine.known(clock.now)) == 1
    clock.until(121)
    assert clock.engine.known(clock.now) == []
    assert len(clock.hears(told(addrs=["/ip4/192.0.2.3/tcp/1"]))) == 1


def test_goodbyes():
    clock = Clock()
    clock.hears(told())
    assert clock.hears(told(ttl=0)) == []
    assert clock.engine.known(clock.now) == []
    clock.until(1)
    (last,) = clock.engine.goodbye()
    assert wire.decode(last, SERVICE)[0].ttl == 0
    assert Clock().engine.goodbye() == []  # nothing was told


def test_we_are_no_news():
    clock = Clock()
    clock.until(0.5)
    assert clock.hears(wire.answer(SERVICE, "x", ME, [MY_ADDR], 120)) == []
    assert clock.engine.known(clock.now) == []


def test_addresses_of_no_use_are_not_remembered():
    clock = Clock()
    assert clock.engine.received(told(), 0.0, usable=lambda found: []) == []
    (found,) = clock.engine.received(
        told(addrs=[ADDR, "/ip4/10.0.0.1/tcp/1"]), 0.0, usable=lambda found: found.addrs[1:]
    )
    assert found.addrs == ("/ip4/10.0.0.1/tcp/1",)


def test_new_addresses_are_told_unasked():
    clock = Clock()
    clock.until(10)
    clock.engine.check_addrs(clock.now)
    clock.until(11)
    before = len(clock.times("tell"))
    clock.addrs = ["/ip4/192.0.2.9/tcp/4001"]
    clock.engine.check_addrs(clock.now)
    clock.until(20)
    assert len(clock.times("tell")) == before + 2


def test_without_addresses_we_only_ask():
    clock = Clock(addrs=())
    clock.hears(wire.query(SERVICE)[0])
    clock.hears(wire.query(wire.META_SERVICE)[0])
    clock.until(30)
    assert clock.times("ask")
    assert not clock.times("tell") + clock.times("list")


def test_who_looks_around_sees_the_service():
    clock = Clock()
    clock.until(5)
    for _ in range(5):
        clock.hears(wire.query(wire.META_SERVICE)[0])
    clock.until(8)
    assert len(clock.times("list")) == 1


def test_wanting_more_asks_soon_but_not_more_than_once_a_second():
    clock = Clock()
    clock.until(100)
    before = len(clock.times("ask"))
    for _ in range(10):
        clock.engine.ask_now(clock.now)
        clock.until(clock.now + 0.1)
    clock.until(102)
    assert len(clock.times("ask")) - before == 2


def test_a_flood_is_heard_in_part_and_remembered_in_part():
    clock = Clock(packets_per_second=50, burst=100, max_peers=80)
    clock.until(5)
    found = [clock.hears(told(number)) for number in range(10, 1010)]
    assert sum(map(len, found)) == 80
    assert clock.engine.ignored == 1000 - 80
    clock.until(6)
    assert clock.hears(told(10)) == []  # heard again, and known already
    assert len(clock.engine.known(clock.now)) == 80
    for _ in range(200):  # what isn't for us takes nothing from those who are
        clock.hears(wire.query("_ipp._tcp.local")[0])
    clock.hears(wire.query(SERVICE)[0])
    assert clock.engine.next_wakeup <= clock.now + 1


def test_one_who_floods_doesnt_drown_the_others():
    clock = Clock()
    clock.until(5)
    for number in range(1000):
        clock.hears(told(number % 40), "flooder")
    assert len(clock.engine.known(clock.now)) == 25
    assert len(clock.hears(told(777), "another")) == 1
    for number in range(1000):
        clock.hears(wire.query(SERVICE)[0], f"invented {number}")
    assert len(clock.engine._senders) <= 64


@settings(max_examples=150)
@given(
    st.integers(0, 1000),
    st.lists(
        st.tuples(st.floats(0, 3), st.sampled_from(["ask", "ask-known", "tell", "bye", "list", "junk", "want", "move"]))
    ),
)
def test_whatever_happens_the_link_stays_quiet(seed, happenings):
    """At most one question, one answer and one list a second, whoever says what."""
    clock = Clock(seed=seed)
    for pause, what in happenings:
        clock.until(clock.now + pause)
        match what:
            case "ask":
                clock.hears(wire.query(SERVICE)[0])
            case "ask-known":
                clock.hears(wire.query(SERVICE, [Known(f"{clock.engine.name}.{SERVICE}.", 100)])[0])
            case "tell":
                clock.hears(told(seed % 7))
            case "bye":
                clock.hears(told(seed % 7, ttl=0))
            case "list":
                clock.hears(wire.query(wire.META_SERVICE)[0])
            case "junk":
                clock.hears(b"\x04_p2p" * 9)
            case "want":
                clock.engine.ask_now(clock.now)
            case _:
                clock.addrs = [f"/ip4/192.0.2.{seed % 250}/tcp/{len(clock.sent) + 1}"]
                clock.engine.check_addrs(clock.now)
    clock.until(clock.now + 100)
    for kind_of in ("ask", "tell", "list"):
        times = clock.times(kind_of)
        assert all(later - earlier >= MIN_PAUSE - 1e-6 for earlier, later in itertools.pairwise(times))
    assert clock.engine.next_wakeup < NEVER  # it never stops asking
    assert clock.times("ask")[-1] >= clock.now - 80
