"""Streams end, are stopped and reset while the window is full, and the connection goes on."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.quic.frames import Frames
from node.quic.guard import QuicError
from tests.node.test_quic_ends import Lossy
from tests.node.test_quic_native import HERE, THERE

UPLOADS = 4
# of the client's first datagrams so many are acknowledged before its streams end: which of its frames go out then, and
# which are made and wait, is qh3's affair
ACKNOWLEDGED = range(1, 10)


def send(pair: Lossy, side: str, most: int = 1000) -> list[bytes]:
    """What one side sends now."""
    one, sent = getattr(pair, side), []
    while len(sent) < most and (found := one.next_datagram(pair.now)) is not None:
        sent.append(found[0])
    if one.overdue:
        one.catch_up()
    return sent


def deliver(pair: Lossy, side: str, datagrams: list[bytes]) -> None:
    for data in datagrams:
        getattr(pair, side).receive(data, len(data), THERE if side == "client" else HERE, pair.now)


def stopped_with_a_full_window(acknowledged: int) -> tuple[Lossy, list[int]]:
    """The client stops reading streams, and the server ends them while the client's window is full of uploads."""
    pair = Lossy()
    streams = [pair.client.open() for _ in range(3)]
    for stream in streams:
        pair.client.send(stream, b"question", fin=True)
    pair.run(0.5)
    for stream in streams:
        pair.server.send(stream, b"answer")
    pair.run(0.5)
    for _ in range(UPLOADS):
        pair.client.send(pair.client.open(), bytes(100_000))
    uploaded = send(pair, "client")
    for stream in streams:
        pair.client.stop(stream, 0)
    deliver(pair, "server", uploaded[:acknowledged])
    pass_acknowledgements(pair)
    uploaded += send(pair, "client")
    for stream in streams:
        pair.server.send(stream, b"", fin=True)
    deliver(pair, "client", send(pair, "server"))
    deliver(pair, "server", uploaded[acknowledged:])
    pair.run(3.0)
    return pair, streams


def stopped_by_the_other(acknowledged: int) -> tuple[Lossy, list[int]]:
    """The client's last words on some streams come late, when the server has stopped reading these. So qh3 resets them,
    and then learns that they have ended.
    """
    pair = Lossy()
    streams = [pair.client.open() for _ in range(3)]
    for stream in streams:
        pair.client.send(stream, b"question")
    pair.run(0.5)
    for stream in streams:
        pair.server.send(stream, b"answer")
    pair.run(0.5)
    for stream in streams:
        pair.client.send(stream, bytes(3000), fin=True)
    last_words = send(pair, "client")
    for _ in range(UPLOADS):
        pair.client.send(pair.client.open(), bytes(100_000))
    uploaded = send(pair, "client")
    for stream in streams:
        pair.server.stop(stream, 0)
    for _ in range(acknowledged):
        deliver(pair, "server", uploaded[:2])
        del uploaded[:2]
        pass_acknowledgements(pair)
        uploaded += send(pair, "client")
    deliver(pair, "server", last_words)
    for stream in streams:
        pair.server.send(stream, b"", fin=True)
    pass_acknowledgements(pair)
    deliver(pair, "server", uploaded)
    pair.run(3.0)
    return pair, streams


def pass_acknowledgements(pair: Lossy) -> None:
    """The server's, as soon as they are due."""
    pair.now += 0.03
    pair.server.tick(pair.now)
    deliver(pair, "client", send(pair, "server"))
    pair.now += 0.01


WAYS = [stopped_with_a_full_window, stopped_by_the_other]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("acknowledged", ACKNOWLEDGED)
def test_a_stream_that_ends_before_its_frames_have_gone_harms_nothing(way, acknowledged):
    pair, streams = way(acknowledged)
    assert {event[1] for event in pair.of("client", "stream_finished")} == set(streams)
    assert not pair.client.unsent()
    assert not pair.client.overdue


@pytest.mark.parametrize("way", WAYS)
def test_qh3_itself_fails(monkeypatch, way):
    """When this fails, `node.quic.frames` isn't needed any more."""
    monkeypatch.setattr(Frames, "hold", lambda frames, core: False)
    raised = []
    for acknowledged in ACKNOWLEDGED:
        try:
            way(acknowledged)
        except QuicError as error:
            raised.append(str(error))
    assert any("reserved stream is missing" in text for text in raised)


ACTS = ("send", "send", "send", "send", "end", "end", "stop", "stop", "reset")


@settings(max_examples=40)
@given(st.integers(0, 1 << 32), st.sampled_from([0.0, 0.0, 0.02, 0.2]))
def test_whatever_is_stopped_and_reset_all_streams_end(seed, loss):
    rng = random.Random(seed)
    pair = Lossy(seed)
    pair.loss = loss
    opened: set[int] = set()
    for _ in range(60):
        for _ in range(rng.randrange(8)):
            side = rng.choice(("client", "server"))
            one = getattr(pair, side)
            if one.may_open() and rng.random() < 0.5:
                stream = one.open()
                opened.add(stream)
                one.send(stream, b"open")
                continue
            if opened:
                stream, what = rng.choice(sorted(opened)), rng.choice(ACTS)
                with suppress(ValueError, RuntimeError):  # it isn't known there, or that side of it is over
                    if what == "send":
                        one.send(stream, bytes(rng.choice((10, 5000, 60_000))))
                    elif what == "end":
                        one.send(stream, b"", fin=True)
                    else:
                        getattr(one, what)(stream, 0)
        pair.run(0.005 * rng.randrange(4))
    pair.loss = 0.0
    pair.run(5.0)
    for one in (pair.client, pair.server):
        for stream in opened:
            for end in (one.reset, one.stop):
                with suppress(ValueError, RuntimeError):
                    end(stream, 0)
    pair.run(20.0)
    for side in ("client", "server"):
        assert {event[1] for event in pair.of(side, "stream_finished")} == opened
        assert not getattr(pair, side).overdue


@pytest.mark.parametrize("silence", [0.5, 2.0, 8.0])
def test_an_outage_while_several_streams_upload_ends_nothing(silence):
    """As when a path has become narrow nothing is acknowledged, but what waits was made for a wide one."""
    pair = Lossy()
    pair.run(1.0)  # larger datagrams are found out
    streams = [pair.client.open() for _ in range(6)]
    for stream in streams:
        pair.client.send(stream, bytes(50_000))
    pair.loss = 1.0
    pair.run(silence)
    pair.loss = 0.0
    pair.run(10.0)
    assert sum(len(event[2]) for event in pair.of("server", "stream_data")) == 6 * 50_000


def test_a_stream_that_was_reset_ends_when_that_is_said_again():
    """qh3 forgets that a reset was acknowledged when data that was sent before is found lost."""
    pair = Lossy()
    stream = pair.client.open()
    pair.client.send(stream, b"open")
    pair.run(0.5)
    pair.client.send(stream, bytes(500))
    send(pair, "client")  # and lost
    pair.client.reset(stream, 0)
    pair.run(1.0)
    pair.server.send(stream, b"", fin=True)
    pair.run(1.0)
    assert not pair.of("client", "stream_finished")  # else it needn't be said again
    pair.client.reset(stream, 0)
    pair.run(1.0)
    assert pair.of("client", "stream_finished")
