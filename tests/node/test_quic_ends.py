"""A stream's end comes, and the stream is finished, whatever is lost on the way."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.node.test_quic_native import HERE, THERE, Pair

SOME = 100_000


class Lossy(Pair):
    """Loses of what either sends the part `loss`."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.run()
        self.loss = 0.0
        self._random = random.Random(seed)

    def run(self, seconds: float = 0.2) -> Pair:
        end = self.now + seconds
        while self.now < end:
            self.pass_on()
            self.now += 0.005
            for one in (self.client, self.server):
                if one.deadline is not None and one.deadline <= self.now:
                    one.tick(self.now)
        return self

    def pass_on(self) -> None:
        for one, other, addr in ((self.client, self.server, HERE), (self.server, self.client, THERE)):
            while (found := one.next_datagram(self.now)) is not None:
                if getattr(self, "loss", 0.0) <= 0 or self._random.random() >= self.loss:
                    other.receive(found[0], len(found[0]), addr, self.now)
            if one.overdue:
                one.catch_up()

    def lose_all(self) -> None:
        """What is sent now is lost."""
        self.loss = 1.0
        self.pass_on()
        self.loss = 0.0

    def got(self, stream: int) -> tuple[bytes, bool]:
        """What has come at the client."""
        events = [event for event in self.of("client", "stream_data") if event[1] == stream]
        return b"".join(event[2] for event in events), any(event[3] for event in events)


def sent_and_ended(pair: Lossy, *, by_itself: bool = True) -> int:
    """A stream of the server's, all of which is lost at first."""
    stream = pair.server.open()
    pair.server.send(stream, bytes(SOME))
    for _ in range(50):  # as much as the congestion window lets out, and then all
        if not pair.server.unsent():
            break
        pair.run(0.05)
    pair.server.send(stream, bytes(8000))
    if by_itself:
        pair.lose_all()
    pair.server.send(stream, b"", fin=True)
    pair.lose_all()
    return stream


@pytest.mark.parametrize("by_itself", [True, False])
def test_an_end_that_is_lost_with_the_data_before_it_comes(by_itself):
    pair = Lossy()
    stream = sent_and_ended(pair, by_itself=by_itself)
    pair.run(1.0)
    assert pair.got(stream) == (bytes(SOME + 8000), True)
    pair.client.send(stream, b"", fin=True)
    pair.run(1.0)
    assert pair.of("server", "stream_finished")
    assert not pair.server.ends_wait


def test_qh3_itself_loses_it():
    """When this fails, `node.quic.ends` isn't needed any more."""
    pair = Lossy()
    pair.server._ends.takes = lambda core, stream: False
    stream = sent_and_ended(pair)
    pair.run(20.0)
    assert pair.got(stream) == (bytes(SOME + 8000), False)


def test_an_end_waits_for_nothing_when_all_has_been_acknowledged():
    pair = Lossy()
    stream = pair.server.open()
    pair.server.send(stream, b"some")
    pair.run(0.2)
    pair.server.send(stream, b"", fin=True)
    assert not pair.server.ends_wait
    pair.pass_on()
    assert pair.got(stream) == (b"some", True)


def test_an_end_that_waits_costs_a_round_trip():
    pair = Lossy()
    stream = pair.server.open()
    pair.server.send(stream, b"some")
    pair.lose_all()
    pair.run(1.0)
    pair.server.send(stream, b"more")
    found, _ = pair.server.next_datagram(pair.now)
    pair.server.send(stream, b"", fin=True)
    assert pair.server.ends_wait
    pair.client.receive(found, len(found), THERE, pair.now)
    for _ in range(2):
        pair.pass_on()
    assert pair.got(stream) == (b"somemore", True)


def test_one_that_is_reset_doesnt_end():
    pair = Lossy()
    stream = sent_and_ended(pair)
    assert pair.server.ends_wait
    pair.server.reset(stream, 0)
    assert not pair.server.ends_wait
    pair.run(1.0)
    assert not pair.got(stream)[1]
    assert pair.of("client", "stream_reset")


def test_nothing_waits_on_a_connection_that_is_over():
    pair = Lossy()
    sent_and_ended(pair)
    pair.server.shut(0)
    pair.run(0.1)
    assert not pair.server.ends_wait


@settings(max_examples=30)
@given(
    st.integers(0, 1000),
    st.floats(0.0, 0.3),
    st.lists(st.tuples(st.lists(st.integers(1, 5000), max_size=5), st.booleans()), min_size=1, max_size=5),
)
def test_whatever_is_lost_all_streams_end(seed, loss, plans):
    pair = Lossy(seed)
    pair.loss = loss
    expected = {}
    for writes, by_itself in plans:
        stream = pair.server.open()
        for size in writes:
            pair.server.send(stream, bytes(size))
            pair.run(0.005 * (seed % 3))
        if by_itself:
            pair.pass_on()
        pair.server.send(stream, b"", fin=True)
        pair.pass_on()
        expected[stream] = bytes(sum(writes)), True
    pair.run(3.0)
    pair.loss = 0.0  # or a few in a row may be lost for long
    pair.run(20.0)
    assert {stream: pair.got(stream) for stream in expected} == expected
    for stream in expected:
        pair.client.send(stream, b"", fin=True)
    pair.run(1.0)
    assert {event[1] for event in pair.of("server", "stream_finished")} == set(expected)
