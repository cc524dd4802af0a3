"""Values and providers: what is kept, for how long, and that floods get no more than their share."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.kad.keyspace import point
from protocols.kad.records import HOUR, Own, Provider, RecordParams, RecordRefusedError, Records, Value
from protocols.kad.validators import InvalidValueError, Validators
from protocols.kad.wire import Peer
from tests.protocols.kad.test_wire import ED25519, peer_id

LOCAL = peer_id(0)


class Numbers:
    """Values are numbers: the greater is the better."""

    def validate(self, key, value):
        int(value)

    def select(self, key, values):
        return max(range(len(values)), key=lambda index: int(values[index]))


def made(**params):
    validators = Validators()
    validators.register("n", Numbers())
    return Records(LOCAL, validators, RecordParams(**params))


def key(number):
    return b"/n/%d" % number


# validators


def test_public_keys():
    validators = Validators()
    rsa = b"\x08\x00\x12\x04long enough to be hashed, as RSA's keys are"
    validators.validate(b"/pk/\x12\x20" + hashlib.sha256(rsa).digest(), rsa)
    validators.validate(b"/pk/" + peer_id(1), peer_id(1)[2:])
    for value in (b"", rsa, peer_id(2)[2:], peer_id(1)):
        with pytest.raises(InvalidValueError, match="expected under /pk/PEER the public key"):
            validators.validate(b"/pk/" + peer_id(1), value)


@pytest.mark.parametrize("bad", [b"", b"/", b"n/1", b"/n", b"/n/", b"/free/1", b"/\xff/1", b"//1", b"/n/" + b"x" * 254])
def test_keys_without_rules_are_refused(bad):
    with pytest.raises(InvalidValueError, match=r"under /n/…, /pk/…"):
        made().put(bad, b"1", peer_id(1), 0.0)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_key_and_value_is_kept_or_refused(some_key, value):
    records = made()
    try:
        records.put(some_key, value, peer_id(1), 0.0)
    except ValueError:
        assert records.stored(some_key) is None


def test_namespaces_are_registered_once():
    validators = Validators()
    with pytest.raises(ValueError, match="has a validator already"):
        validators.register("/pk/", Numbers())
    for bad in ("", "a/b", "a b", "x" * 65):
        with pytest.raises(ValueError, match="expected a namespace"):
            validators.register(bad, Numbers())


def test_what_a_validator_raises_is_the_values_fault():
    with pytest.raises(InvalidValueError, match="invalid literal"):
        made().put(key(1), b"no number", peer_id(1), 0.0)

    class Broken(Numbers):
        def validate(self, key, value):
            raise RuntimeError("a bug")

        def select(self, key, values):
            return 99

    validators = Validators()
    validators.register("b", Broken())
    with pytest.raises(InvalidValueError, match="a bug"):
        validators.validate(b"/b/1", b"")
    assert validators.best(b"/b/1", [b"x", b"y"]) == b"x"


# values


def test_the_better_value_stays():
    records = made()
    records.put(key(1), b"5", peer_id(1), 0.0)
    with pytest.raises(RecordRefusedError, match="got an older"):
        records.put(key(1), b"4", peer_id(2), 1.0)
    records.put(key(1), b"6", peer_id(2), 2.0)
    assert records.value(key(1), 3.0) == Value(key(1), b"6", peer_id(2), 2.0)
    # the same again is a renewal, and still its author's
    records.put(key(1), b"6", peer_id(3), 9.0)
    assert records.value(key(1), 9.0) == Value(key(1), b"6", peer_id(2), 9.0)


def test_values_expire():
    records = made()
    records.put(key(1), b"5", peer_id(1), 0.0)
    assert records.value(key(1), 48 * HOUR - 1) is not None
    assert records.value(key(1), 48 * HOUR) is None
    records.put(key(2), b"5", peer_id(1), 48 * HOUR)
    records.expire(48 * HOUR)
    assert records.stored(key(1)) is None
    assert records.stored(key(2)) is not None
    records.put(key(1), b"1", peer_id(1), 49 * HOUR)  # no better one is there any more
    records.expire(0.0)  # the clock went back by days
    assert records.stored(key(1)) is None


def test_a_flood_of_one_peer_gets_its_share():
    records = made(max_values_per_peer=10)
    taken = 0
    for number in range(1000):
        try:
            records.put(key(number), b"1", peer_id(1), 0.0)
            taken += 1
        except RecordRefusedError:
            pass
    assert taken == 10
    records.put(key(5000), b"1", peer_id(2), 0.0)
    records.put(key(0), b"2", peer_id(1), 1.0)  # its own it may renew
    records.forget_value(key(0))
    records.put(key(6000), b"2", peer_id(1), 1.0)


def test_of_a_flood_by_many_what_is_near_is_kept():
    records = made(max_values=50)
    keys = [key(number) for number in range(500)]
    for number, each in enumerate(keys):
        with contextlib.suppress(RecordRefusedError):
            records.put(each, b"1", peer_id(number + 1), 0.0)
    kept = [each for each in keys if records.stored(each) is not None]
    assert sorted(kept) == sorted(sorted(keys, key=lambda each: point(each) ^ point(LOCAL))[:50])


def test_bytes_are_bounded_and_a_refused_renewal_loses_nothing():
    records = made(max_bytes=2000)
    near, far = sorted((key(number) for number in range(100)), key=lambda each: point(each) ^ point(LOCAL))[::99]
    records.put(far, b"1", peer_id(1), 0.0)
    records.put(near, b"1" * 1900, peer_id(2), 0.0)
    with pytest.raises(RecordRefusedError, match="room for a value"):
        records.put(far, b"2" * 500, peer_id(1), 1.0)
    assert records.value(far, 1.0).value == b"1"
    assert records._bytes == len(far) + 1 + len(near) + 1900


# providers


def test_providers_are_kept_48_hours_the_latest_first():
    records = made()
    for number in range(3):
        records.provide(b"k", Peer(peer_id(number), (b"a",)), number * HOUR)
    assert [p.peer for p in records.providers(b"k", 3 * HOUR)] == [peer_id(2), peer_id(1), peer_id(0)]
    assert [p.peer for p in records.providers(b"k", 49 * HOUR)] == [peer_id(2)]
    records.expire(49 * HOUR)
    assert [p.peer for p in records.all_providers()] == [peer_id(2)]


def test_a_flood_of_providers_for_one_key():
    records = made(max_providers_per_key=8)
    honest = [peer_id(number) for number in range(4)]
    for number, peer in enumerate(honest):
        records.provide(b"k", Peer(peer), 0.0, f"net {number}")
    taken = 0
    for number in range(100, 1000):
        try:
            records.provide(b"k", Peer(peer_id(number)), 1.0, "the attacker's")
            taken += 1
        except RecordRefusedError:
            pass
    assert taken == 4
    # one more of another subnet takes the place of one of the crowd
    records.provide(b"k", Peer(peer_id(50)), 2.0, "net 50")
    kept = {provider.peer for provider in records.providers(b"k", 2.0)}
    assert {*honest, peer_id(50)} <= kept
    assert len(kept) == 8


def test_floods_of_keys():
    records = made(max_provided=30, max_provided_per_peer=10)
    for sender in range(1, 5):
        for number in range(100):
            try:
                records.provide(b"%d %d" % (sender, number), Peer(peer_id(sender)), 0.0)
            except RecordRefusedError:
                assert number >= 10 or sender == 4
    assert sum(1 for _ in records.all_providers()) == 30
    records.provide(b"1 0", Peer(peer_id(1), (b"new",)), 5.0)  # its own it may renew
    assert records.provider(b"1 0", peer_id(1)).addrs == (b"new",)
    records.forget_provider(b"1 0", peer_id(1))
    records.provide(b"new", Peer(peer_id(9)), 5.0)


def test_a_flood_of_keys_by_many_of_one_subnet_takes_no_place_from_others():
    records = made(max_provided=100, max_provided_per_peer=10)
    records.provide(b"ours", Peer(LOCAL), 0.0, "a crowd")
    for sender in range(1, 12):
        for number in range(10):
            with contextlib.suppress(RecordRefusedError):
                records.provide(b"%d %d" % (sender, number), Peer(peer_id(sender)), 0.0, "a crowd")
    assert records.sizes()[2] == 100
    for number in range(49):
        records.provide(b"other", Peer(peer_id(100 + number)), 1.0, f"net {number}")
    assert records.sizes()[2] == 100
    assert len(records.providers(b"other", 1.0)) == 49
    assert records.provider(b"ours", LOCAL)
    with pytest.raises(RecordRefusedError, match="providers in all"):
        records.provide(b"more", Peer(peer_id(200)), 1.0, "a crowd")


# our own, and the disk


def test_our_own_is_due_after_22_hours():
    records = made(max_own=2)
    records.add_own(key(1), b"1", 0.0)
    records.add_own(b"cid", None, HOUR)
    with pytest.raises(RecordRefusedError, match="at most 2 records of our own"):
        records.add_own(b"more", None, HOUR)
    assert records.due(22 * HOUR - 1) == []
    assert [own.key for own in records.due(23 * HOUR)] == [key(1), b"cid"]
    records.add_own(key(1), b"1", 23 * HOUR)
    assert [own.key for own in records.due(24 * HOUR)] == [b"cid"]
    assert [own.key for own in records.due(0.0)] == [b"cid", key(1)]  # the clock was wrong
    assert records.forget_own(b"cid")
    assert not records.forget_own(b"cid")


def test_changes_are_noted_and_taken_back():
    records = made()
    records.put(key(1), b"1", peer_id(1), 0.0)
    records.provide(b"k", Peer(peer_id(2)), 0.0)
    records.add_own(b"k", None, 0.0)
    changed = records.changed
    assert changed
    assert (changed.values, changed.providers, changed.own) == ({key(1)}, {(b"k", peer_id(2))}, {(b"k", False)})
    again = made()
    for item in (records.stored(key(1)), records.provider(b"k", peer_id(2)), Own(b"k", None, 0.0)):
        again.restore(item)
    again.restore(Value(b"/gone/1", b"1", peer_id(1), 0.0))  # its program isn't there any more
    assert again.value(key(1), 1.0) == records.value(key(1), 1.0)
    assert again.providers(b"k", 1.0) == [Provider(b"k", peer_id(2), (), 0.0)]
    assert again.stored(b"/gone/1") is None
    assert not again.changed


operations = st.lists(
    st.tuples(st.sampled_from("vpxyo"), st.integers(0, 8), st.integers(0, 5), st.integers(0, 30)), max_size=150
)


@given(operations)
def test_bounds_hold_and_counts_are_right_whatever_happens(events):
    records = made(
        max_values=5, max_values_per_peer=3, max_provided=8, max_provided_per_peer=3, max_providers_per_key=2
    )
    now = 0.0
    for kind, number, sender, hours in events:
        now += hours * HOUR
        peer = ED25519 + bytes([sender]) * 32
        try:
            match kind:
                case "v":
                    records.put(key(number), b"%d" % hours, peer, now)
                case "p":
                    records.provide(key(number), Peer(peer), now, f"net {sender % 3}")
                case "x":
                    records.forget_value(key(number))
                case "y":
                    records.forget_provider(key(number), peer)
                case "o":
                    records.expire(now)
        except RecordRefusedError:
            pass
        values = [value for n in range(9) if (value := records.stored(key(n)))]
        assert len(values) == len(records._by_distance) <= 5
        assert records._bytes == sum(len(value.key) + len(value.value) for value in values)
        assert records._senders.total() == len(values)
        assert all(count <= 3 for count in records._senders.values())
        providers = list(records.all_providers())
        assert len(providers) == records._provided == records._provides.total() <= 8
        crowded = {(p.key, p.peer) for p in providers}
        assert {where for crowd in records._crowds.values() for where in crowd} == crowded
        assert sum(map(len, records._crowds.values())) == len(providers)
        assert all(count <= 3 for count in records._provides.values())
