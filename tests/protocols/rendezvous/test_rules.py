"""A point's rules: bounds, TTLs, cookies; against a plain model under any order of what happens."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from protocols.rendezvous.rules import BOTH, Form, Limits, Rates, Registrations, Row, SignedRecord
from protocols.rendezvous.upkeep import LOST_MAX, LOST_MIN, Asking, Pace, Upkeep
from protocols.rendezvous.wire import HOUR, MAX_TTL, MIN_TTL, Discover, Refused, Register, Status

KEY = bytes(32)


def point(**limits: int) -> Registrations:
    return Registrations(Limits(**limits), KEY)


def put(
    registrations: Registrations,
    peer: str,
    namespace: str = "ns",
    *,
    ttl: int | None = None,
    now: float = 0.0,
    seq: int = 1,
    form: Form = Form.STANDARD,
    record: bytes = b"record",
    subnet: str = "",
) -> Row:
    asked = Register(namespace, record, ttl)
    signed = SignedRecord(peer, seq, ("/ip4/1.2.3.4/tcp/1",), form)
    return registrations.register(peer, asked, signed, now, subnet)[0]


def refused_as(status: Status, call, *args, **more) -> str:
    with pytest.raises(Refused) as refused:
        call(*args, **more)
    assert refused.value.status == status
    return refused.value.text


def found(registrations: Registrations, namespace: str | None = "ns", cookie: bytes = b"", now: float = 0.0, **more):
    limit, forms = more.get("limit"), more.get("forms", BOTH)
    answer = registrations.discover(more.get("by", "asker"), Discover(namespace, cookie, limit), now, forms)
    return [registration.record for registration in answer.registrations], answer.cookie


# registering


def test_only_a_peers_own_record_is_taken():
    asked, foreign = Register("ns", b"r"), SignedRecord("other", 1, ("/ip4/1.2.3.4/tcp/1",))
    text = refused_as(Status.NOT_AUTHORIZED, point().register, "peer", asked, foreign, 0.0)
    assert text == "expected the record of peer, who asks, got that of other"


@pytest.mark.parametrize("ttl", [0, 1, MIN_TTL - 1, MAX_TTL + 1, 2**64 - 1])
def test_a_ttl_outside_of_2_to_72_hours_is_refused(ttl):
    refused_as(Status.INVALID_TTL, put, point(), "peer", ttl=ttl)


@pytest.mark.parametrize(("asked", "holds"), [(None, 2 * HOUR), (MIN_TTL, MIN_TTL), (MAX_TTL, MAX_TTL)])
def test_a_ttl_is_what_was_asked_or_two_hours(asked, holds):
    assert put(point(), "peer", ttl=asked, now=5.0).expires == 5.0 + holds


def test_quotas_hold_and_a_renewal_is_no_new_registration():
    registrations = point(max_registrations=4, max_per_peer=2, max_per_namespace=3)
    put(registrations, "a", "1")
    put(registrations, "a", "2")
    assert "2 registrations of one peer" in refused_as(Status.UNAVAILABLE, put, registrations, "a", "3")
    put(registrations, "a", "2", seq=2)
    put(registrations, "b", "1")
    put(registrations, "c", "1")
    assert "3 registrations in one namespace" in refused_as(Status.UNAVAILABLE, put, registrations, "d", "1")
    assert "4 registrations, and has" in refused_as(Status.UNAVAILABLE, put, registrations, "d", "4")
    put(registrations, "c", "1", seq=2)
    assert len(registrations) == 4
    assert registrations.unregister("c", "1")
    put(registrations, "d", "4")


def test_one_subnet_with_many_identities_takes_its_own_places_only():
    registrations = point(max_registrations=10, max_per_subnet=3)
    for number in range(3):
        put(registrations, f"many {number}", subnet="8.8.0.0/16")
    text = refused_as(Status.UNAVAILABLE, put, registrations, "many 3", subnet="8.8.0.0/16")
    assert text == "this point takes 3 registrations from 8.8.0.0/16, and has them"
    put(registrations, "many 0", seq=2, subnet="8.8.0.0/16")
    put(registrations, "moved", subnet="9.9.0.0/16")
    refused_as(Status.UNAVAILABLE, put, registrations, "moved", subnet="8.8.0.0/16")
    for number in range(4):  # a private network
        put(registrations, f"near {number}")
    again = Registrations(registrations.limits, KEY, list(registrations), registrations.next_number)
    refused_as(Status.UNAVAILABLE, put, again, "many 3", subnet="8.8.0.0/16")
    assert again.unregister("many 1", "ns")
    put(again, "moved", seq=2, subnet="8.8.0.0/16")
    assert again._per_subnet == {"8.8.0.0/16": 3}


def test_bytes_are_bounded_too():
    registrations = point(max_bytes=2000)
    put(registrations, "a", record=b"r" * 1000)
    assert "2000 bytes" in refused_as(Status.UNAVAILABLE, put, registrations, "b", record=b"r" * 1000)
    put(registrations, "a", record=b"r" * 1500)


def test_refused_strangers_leave_nothing_behind():
    registrations = point(max_registrations=1)
    put(registrations, "first")
    for number in range(100):
        refused_as(Status.UNAVAILABLE, put, registrations, f"stranger {number}", f"ns {number}")
    assert len(registrations._per_peer) == len(registrations._by_namespace) == 1


def test_an_older_record_does_not_replace_a_newer_one():
    registrations = point()
    put(registrations, "a", seq=5)
    refused_as(Status.INVALID_SIGNED_PEER_RECORD, put, registrations, "a", seq=4)
    put(registrations, "a", seq=5)
    put(registrations, "a", seq=1, form=Form.LEGACY)  # that form counts otherwise
    registrations.unregister("a", "ns")
    put(registrations, "a", seq=4)


# discovering


def test_a_cookie_asks_for_what_is_new():
    registrations = point()
    put(registrations, "a", record=b"a")
    put(registrations, "b", record=b"b")
    put(registrations, "x", "other", record=b"x")
    records, cookie = found(registrations)
    assert records == [b"a", b"b"]
    assert found(registrations, cookie=cookie) == ([], cookie)
    put(registrations, "c", record=b"c")
    put(registrations, "a", record=b"a2", seq=2)
    records, cookie = found(registrations, cookie=cookie)
    assert records == [b"c", b"a2"]
    assert found(registrations, None)[0] == [b"b", b"x", b"c", b"a2"]


@given(st.integers(1, 40), st.integers(1, 50))
def test_pages_give_each_registration_once(count, limit):
    registrations = point()
    for number in range(count):
        put(registrations, f"peer {number}", record=b"%d" % number)
    seen, cookie = [], b""
    while True:
        records, cookie = found(registrations, cookie=cookie, limit=limit)
        if not records:
            break
        assert len(records) <= limit
        seen += records
    assert seen == [b"%d" % number for number in range(count)]


def test_an_answer_is_bounded_in_number_and_bytes():
    registrations = point(max_found=3, max_answer=1000)
    for number in range(10):
        put(registrations, f"peer {number}", "few")
        put(registrations, f"peer {number}", "large", record=b"r" * 400)
    assert len(found(registrations, "few")[0]) == len(found(registrations, "few", limit=2**64 - 1)[0]) == 3
    assert len(found(registrations, "few", limit=0)[0]) == 3
    assert len(found(registrations, "large")[0]) == 2


def test_cookies_are_for_one_peer_and_namespace_of_one_point():
    registrations = point()
    put(registrations, "a")
    cookie = found(registrations, by="me")[1]
    every = found(registrations, None, by="me")[1]
    assert found(registrations, cookie=cookie, by="me")[0] == []
    for ask in (
        {"cookie": cookie, "by": "other"},
        {"cookie": cookie, "by": "me", "namespace": "ns2"},
        {"cookie": cookie, "by": "me", "namespace": None},
        {"cookie": every, "by": "me"},
        {"cookie": (9).to_bytes(8, "big") + cookie[8:], "by": "me"},
        {"cookie": cookie[:-1], "by": "me"},
        {"cookie": cookie + b"=", "by": "me"},
    ):
        refused_as(Status.INVALID_COOKIE, found, registrations, **ask)
    refused_as(Status.INVALID_COOKIE, found, Registrations(Limits(), b"k" * 32), cookie=cookie, by="me")
    assert found(Registrations(Limits(), KEY), cookie=cookie, by="me") == ([], cookie)


@given(st.binary(min_size=1, max_size=100))
def test_no_bytes_are_a_cookie(cookie):
    refused_as(Status.INVALID_COOKIE, found, point(), cookie=cookie)


@given(st.integers(0, 2**63 - 1), st.none() | st.text(min_size=1, max_size=60))
def test_rust_libp2p_can_hold_a_cookie(number, namespace):
    """Eight bytes, and text of at most 255 bytes."""
    cookie = point()._cookie("peer", namespace, number)
    assert len(cookie) >= 8
    assert len(cookie[8:].decode()) <= 255


def test_a_reader_is_given_the_form_it_reads():
    registrations = point()
    put(registrations, "both", record=b"standard")
    put(registrations, "both", record=b"legacy", form=Form.LEGACY)
    put(registrations, "rust", record=b"rust", form=Form.LEGACY)
    assert found(registrations, forms={Form.LEGACY})[0] == [b"legacy", b"rust"]
    assert found(registrations, forms={Form.STANDARD})[0] == [b"standard"]
    assert found(registrations)[0] == [b"standard", b"rust"]
    assert len(registrations.unregister("both", "ns")) == 2


# time, restarts, any order


def test_what_is_over_goes():
    registrations = point()
    put(registrations, "a", now=0.0)
    put(registrations, "b", now=10.0)
    put(registrations, "a", now=20.0)
    assert registrations.next_expiry is not None
    assert registrations.expire(2 * HOUR + 9) == []
    assert [row.peer for row in registrations.expire(2 * HOUR + 10)] == ["b"]
    assert found(registrations, now=2 * HOUR + 21)[0] == []
    assert [row.peer for row in registrations.expire(2 * HOUR + 20)] == ["a"]
    assert registrations.next_expiry is None
    assert registrations.bytes == 0


def test_renewals_do_not_pile_up():
    registrations = point()
    for number in range(10_000):
        put(registrations, "a", now=number / 10)
    assert len(registrations._ends) < 100
    assert len(registrations._all._numbers) < 100


def test_a_cookie_and_the_order_survive_a_restart():
    before = point()
    for peer in "abc":
        put(before, peer, record=peer.encode())
    _, cookie = found(before, limit=2)
    after = Registrations(Limits(), KEY, reversed(list(before)), before.next_number)
    assert found(after, cookie=cookie)[0] == [b"c"]
    put(after, "d", record=b"d")
    assert found(after, cookie=cookie)[0] == [b"c", b"d"]


class AnyOrder(RuleBasedStateMachine):
    """The registrations beside a dictionary that is searched through."""

    LIMITS = Limits(max_registrations=12, max_per_peer=4, max_per_namespace=6, max_per_subnet=5, max_bytes=1500)

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.point = Registrations(self.LIMITS, KEY)
        self.model: dict[tuple[str, str, Form], Row] = {}

    @rule(
        peer=st.sampled_from("abcdef"),
        namespace=st.sampled_from("xyz"),
        form=st.sampled_from(Form),
        ttl=st.integers(MIN_TTL, MAX_TTL),
        size=st.integers(1, 200),
        subnet=st.sampled_from(["", "8.8.0.0/16"]),
    )
    def register(self, peer, namespace, form, ttl, size, subnet):
        given = {"now": self.now, "form": form, "record": b"r" * size, "subnet": subnet}
        try:
            row = put(self.point, peer, namespace, ttl=ttl, **given)
        except Refused:
            refused_as(Status.UNAVAILABLE, put, self.point, peer, namespace, **given)
            old = self.model.get((peer, namespace, form))
            rows = self.model.values()
            full = old is None and (
                len(rows) >= 12
                or sum(row.peer == peer for row in rows) >= 4
                or sum(row.namespace == namespace for row in rows) >= 6
            )
            if subnet and (old is None or old.subnet != subnet):
                full = full or sum(row.subnet == subnet for row in rows) >= 5
            assert full or sum(row.size for row in rows) - (old.size if old else 0) + size + 33 > 1500
        else:
            self.model[row.key] = row

    @rule(peer=st.sampled_from("abcdef"), namespace=st.sampled_from("xyz"))
    def unregister(self, peer, namespace):
        gone = [key for key in self.model if key[:2] == (peer, namespace)]
        assert sorted(row.key for row in self.point.unregister(peer, namespace)) == sorted(gone)
        for key in gone:
            del self.model[key]

    @rule(seconds=st.integers(0, 40 * HOUR))
    def pass_time(self, seconds):
        self.now += seconds
        over = {key for key, row in self.model.items() if row.expires <= self.now}
        assert {row.key for row in self.point.expire(self.now)} == over
        for key in over:
            del self.model[key]

    @rule()
    def restart(self):
        self.point = Registrations(self.LIMITS, KEY, list(self.point), self.point.next_number)

    @invariant()
    def the_same_is_found(self):
        assert list(self.point) == sorted(self.model.values(), key=lambda row: row.number)
        assert self.point.bytes == sum(row.size for row in self.model.values())
        for namespace in "xyz":
            rows = [row for row in self.point if row.namespace == namespace and row.form is Form.STANDARD]
            records = found(self.point, namespace, now=self.now, forms={Form.STANDARD})[0]
            assert records == [row.record for row in rows if row.expires - self.now >= 1]


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=30)


# rates


def test_a_flood_is_slowed_and_only_its_own():
    rates = Rates(2.0, 10.0)
    assert sum(rates.allows("flood", now / 100) for now in range(1000)) in range(28, 31)  # 10 s: 10 and 2 a second
    assert rates.allows("other", 10.0)


def test_rates_remember_so_many_peers():
    rates = Rates(1.0, 1.0, capacity=10)
    for number in range(1000):
        assert rates.allows(f"peer {number}", 0.0)
    assert len(rates) == 10
    assert not rates.allows("peer 999", 0.0)


# the client's


def test_a_registration_is_renewed_about_half_way():
    upkeep = Upkeep(Pace(), random.Random(1), 0.0)
    assert upkeep.due_at == 0.0
    upkeep.registered([Form.STANDARD], 7200, 10.0)
    assert 10 + 0.4 * 7200 <= upkeep.due_at <= 10 + 0.6 * 7200
    upkeep.lost(100.0)
    assert 100 + LOST_MIN <= upkeep.due_at <= 100 + LOST_MAX
    upkeep.changed(101.0)
    assert upkeep.due_at == 101.0


def test_failures_double_the_pause_and_a_refused_ttl_is_not_asked_again():
    upkeep = Upkeep(Pace(ttl=60), random.Random(1), 0.0)
    pauses = [upkeep.failed(0.0) for _ in range(100)]
    assert pauses[0] < 7
    assert 450 <= pauses[20] <= 750
    assert all(pause <= 750 for pause in pauses)
    assert upkeep.ttl == 60
    upkeep.failed(0.0, Refused(Status.INVALID_TTL, "too short"))
    assert upkeep.ttl == 2 * HOUR


@given(st.integers(0, 2**64 - 1))
def test_whatever_a_point_says_the_renewal_is_within_reason(ttl):
    upkeep = Upkeep(Pace(), random.Random(1), 0.0)
    upkeep.registered([Form.STANDARD], ttl, 0.0)
    assert 24 <= upkeep.due_at <= MAX_TTL


def test_a_point_is_offered_what_it_has_taken():
    upkeep = Upkeep(Pace(), random.Random(1), 0.0)
    assert list(upkeep.forms()) == [Form.STANDARD, Form.LEGACY]
    assert not upkeep.wants_more([Form.STANDARD])
    upkeep.registered([Form.LEGACY], 7200, 0.0)
    assert list(upkeep.forms()) == [Form.LEGACY]
    upkeep.failed(0.0)
    assert list(upkeep.forms()) == [Form.STANDARD, Form.LEGACY]
    assert Upkeep(Pace(), random.Random(1), 0.0, every_form=True).wants_more([Form.STANDARD])


def test_questions_slow_down_and_begin_anew_when_nothing_is_new():
    asking = Asking(Pace(), random.Random(1), 0.0)
    asking.found(0, b"cookie", 0.0)
    assert 1.5 <= asking.next_at <= 2.5
    asking.found(5, b"cookie", 0.0)
    assert asking.cookie == b"cookie"
    assert 22 <= asking.next_at <= 38
    for _ in range(10):
        asking.found(0, b"cookie", 0.0)
    assert asking.cookie == b""
    assert 225 <= asking.next_at <= 375
