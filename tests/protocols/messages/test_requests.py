"""Which answer is whose, and the places at the gate, against models: in any order, nothing is mixed up or left."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from protocols.messages.gate import Gate
from protocols.messages.requests import Requests
from protocols.rate import TokenBucket


class Matching(RuleBasedStateMachine):
    """A network that delays, reorders, repeats, loses and invents answers; callers that give up."""

    waiting, on_the_way = Bundle("waiting"), Bundle("on the way")

    def __init__(self) -> None:
        super().__init__()
        self.requests: Requests[object] = Requests()
        self.callers: dict[int, object] = {}  # who waits, by request
        self.used: set[int] = set()
        self.late = self.unknown = 0

    @rule(target=on_the_way, copies=st.integers(0, 3))
    def ask(self, copies: int) -> Any:
        caller = object()
        number = self.requests.open(caller)
        assert number not in self.used, "an ID is used once"
        assert number > 0
        self.used.add(number)
        self.callers[number] = caller
        return multiple(*[number] * copies)  # as many answers will come

    @rule(number=consumes(on_the_way))
    def answer(self, number: int) -> None:
        caller = self.callers.pop(number, None)
        assert self.requests.answer(number) is caller, "the answer is its caller's, or nobody's"
        self.late += caller is None

    @rule(number=st.integers(0, (1 << 64) - 1))
    def invented_answer(self, number: int) -> None:
        if number not in self.used:
            assert self.requests.answer(number) is None
            self.unknown += 1

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if self.used:
            number = data.draw(st.sampled_from(sorted(self.used)))
            self.callers.pop(number, None)
            self.requests.forget(number)

    @rule()
    def lose_the_stream(self) -> None:
        told = self.requests.fail_all()
        assert list(map(id, told)) == [id(self.callers[number]) for number in sorted(self.callers)]
        self.callers.clear()
        assert len(self.requests) == 0

    @invariant()
    def holds_who_waits_and_nobody_else(self) -> None:
        assert len(self.requests) == len(self.callers)
        assert (self.requests.late, self.requests.unknown) == (self.late, self.unknown)

    def teardown(self) -> None:
        for number in self.used:
            self.requests.forget(number)
        assert len(self.requests) == 0


TestMatching = Matching.TestCase


class Places(RuleBasedStateMachine):
    """Messages that come, wait, are worked on and done, at any times."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate(bucket=None, max_taken=4, max_bytes=100, patience=5.0)
        self.now = 0.0
        self.sizes: list[int] = []

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=taken, size=st.integers(0, 150))
    def come(self, size: int) -> Any:
        fits = not self.sizes or (len(self.sizes) < 4 and sum(self.sizes) + size <= 100)
        assert self.gate.take(size, self.now) is fits
        if not fits:
            assert self.gate.give_up_at() <= self.now + 5.0
            return multiple()
        self.sizes.append(size)
        return size

    @rule(size=consumes(taken))
    def done(self, size: int) -> None:
        self.gate.leave(size)
        self.sizes.remove(size)

    @invariant()
    def counts_what_is_worked_on(self) -> None:
        assert (self.gate.taken, self.gate.bytes_taken) == (len(self.sizes), sum(self.sizes))

    def teardown(self) -> None:
        for size in self.sizes:
            self.gate.leave(size)
        assert (self.gate.taken, self.gate.bytes_taken) == (0, 0)


TestPlaces = Places.TestCase


def test_a_message_waits_for_a_place_as_long_as_the_gates_patience():
    gate = Gate(bucket=None, max_taken=1, max_bytes=100, patience=5.0)
    assert gate.take(10, 0.0)
    assert not gate.take(10, 1.0)
    assert gate.give_up_at() == 6.0
    assert not gate.take(10, 4.0)
    assert gate.give_up_at() == 6.0, "the next isn't let in later"
    gate.leave(10)
    assert gate.take(10, 5.0)
    assert not gate.take(10, 100.0)
    assert gate.give_up_at() == 105.0, "once there was a place, patience begins anew"


def test_one_message_alone_has_a_place_whatever_its_size():
    gate = Gate(bucket=None, max_taken=4, max_bytes=10, patience=5.0)
    assert gate.take(1000, 0.0)
    assert not gate.take(0, 0.0)


def test_tokens_are_waited_for_up_to_the_patience_and_a_refusal_costs_none():
    gate = Gate(bucket=TokenBucket(1.0, 2.0, 0.0), max_taken=1, max_bytes=1, patience=3.0)
    assert [gate.token(0.0) for _ in range(7)] == [0.0, 0.0, 1.0, 2.0, 3.0, None, None]
    assert gate.token(1.0) == 3.0
    assert gate.token(1.0) is None


def test_without_a_rate_there_is_always_a_token():
    gate = Gate(bucket=None, max_taken=1, max_bytes=1, patience=3.0)
    assert {gate.token(0.0) for _ in range(100)} == {0.0}


@pytest.mark.parametrize(("answers", "late", "unknown"), [([1, 1], 1, 0), ([2], 0, 1), ([0], 0, 1), ([1 << 63], 0, 1)])
def test_late_and_unknown_answers_are_told_apart(answers, late, unknown):
    requests: Requests[str] = Requests()
    requests.open("caller")
    for number in answers:
        requests.answer(number)
    assert (requests.late, requests.unknown) == (late, unknown)
