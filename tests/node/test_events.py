"""Events as a stream: bounded for each listener, oldest first to go, ended with the node."""

from __future__ import annotations

import pytest
import trio

import node as public
from node import Admitted, Connected, Disconnected, Listening, PeerLost, PeerSteady, Refused
from node.errors import RefusedError
from node.events import Events
from tests.memnet import MemNet, mem_node

A, B = "10.0.0.1", "10.0.0.2"


def listening(number: int) -> Listening:
    return Listening(f"/ip4/127.0.0.1/tcp/{number}")


async def test_a_listener_hears_what_it_asked_for_in_order():
    events = Events()
    async with events.listen(Listening, PeerLost) as heard:
        for event in (listening(1), Disconnected("p", "a", "inbound", "lost"), PeerLost("p", 45.0), listening(2)):
            events.emit(event)
        events.close()
        assert [event async for event in heard] == [listening(1), PeerLost("p", 45.0), listening(2)]
        assert heard.missed == 0


async def test_without_classes_everything_is_heard_from_the_beginning_of_the_block_to_its_end():
    events = Events()
    events.emit(listening(1))
    stream = events.listen()
    events.emit(listening(2))
    async with stream:
        events.emit(listening(3))
        assert await anext(stream) == listening(3)
    events.emit(listening(4))
    assert [event async for event in stream] == []
    assert not events._listeners


async def test_a_slow_listener_misses_the_oldest_and_knows_how_many():
    events = Events()
    async with events.listen(limit=3) as slow, events.listen(limit=100) as patient:
        for number in range(10):
            events.emit(listening(number))
        assert slow.missed == 7
        assert patient.missed == 0
        events.close()
        assert [event async for event in slow] == [listening(number) for number in (7, 8, 9)]
        assert [event async for event in patient] == [listening(number) for number in range(10)]
    assert slow.missed == 7


async def test_who_waits_is_woken_and_a_cancelled_wait_loses_nothing(autojump_clock):
    events = Events()
    heard = []

    async def listen(stream) -> None:
        async for event in stream:
            heard.append(event)

    async with events.listen() as stream:
        for _ in range(3):
            with trio.move_on_after(1) as patience:
                await anext(stream)
            assert patience.cancelled_caught
        events.emit(listening(0))
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await anext(stream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, stream)
            for number in range(1, 5):
                await trio.sleep(1)
                assert len(heard) == number
                events.emit(listening(number))
            await trio.sleep(1)
            events.close()
    assert heard == [listening(number) for number in range(5)]


async def test_reading_what_waits_lets_others_run():
    events = Events()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with events.listen() as stream, trio.open_nursery() as nursery:
        for number in range(20):
            events.emit(listening(number))
        events.close()
        nursery.start_soon(count)
        assert len([event async for event in stream]) == 20
        nursery.cancel_scope.cancel()
    assert turns >= 10


async def test_after_the_close_a_new_listener_is_told_the_end():
    events = Events()
    events.close()
    events.close()
    async with events.listen() as stream:
        assert [event async for event in stream] == []


async def test_misuse_is_told():
    events = Events()
    with pytest.raises(ValueError, match="limit of at least 1 event, got 0"):
        events.listen(limit=0)
    with pytest.raises(ValueError, match=r"expected classes of events such as Admitted, got <class 'str'>"):
        events.listen(str)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="expected classes of events"):
        events.listen("Admitted")  # type: ignore[arg-type]
    stream = events.listen()
    with pytest.raises(RuntimeError, match="expected `async with"):
        await anext(stream)
    async with stream:
        with pytest.raises(RuntimeError, match="entered before"):
            await stream.__aenter__()


def test_every_public_name_is_there():
    for name in public.__all__:
        assert getattr(public, name) is not None


async def test_a_node_tells_from_before_its_start_to_its_end(autojump_clock):
    async with MemNet() as net, mem_node(net, B, dht="off") as b:
        a = mem_node(net, A, dht="off")
        async with a.events.listen() as events:
            async with a:
                await a.connect(b.addrs[0])
                await trio.sleep(1)
            told = [event async for event in events]
        assert [type(event).__name__ for event in told] == [
            "Listening",
            "Connected",
            "Admitted",
            "Identified",
            "Disconnected",
        ]
        connected, admitted, disconnected = (
            next(event for event in told if isinstance(event, kind)) for kind in (Connected, Admitted, Disconnected)
        )
        assert connected == Connected(b.peer_id, f"{b.addrs[0]}", "outbound")
        assert (admitted.peer, disconnected.peer, disconnected.reason) == (b.peer_id, b.peer_id, "stopping")


async def test_a_refused_peer_was_connected_first(autojump_clock):
    async with (
        MemNet() as net,
        mem_node(net, A, dht="off", network_id="one") as a,
        mem_node(net, B, dht="off", network_id="two") as b,
        b.events.listen(Connected, Admitted, Refused) as events,
    ):
        with pytest.raises(RefusedError):
            await a.connect(b.addrs[0])
        first, second = await anext(events), await anext(events)
        assert (type(first), first.peer, first.direction) == (Connected, a.peer_id, "inbound")
        assert (type(second), second.reason) == (Refused, "network_id")


async def test_a_listener_that_raises_is_logged_and_keeps_nothing_from_others(caplog):
    events, heard = Events(), []

    def raises(event):
        raise RuntimeError("a listener's own")

    events.subscribe(raises)
    events.subscribe(heard.append)
    events.emit(PeerSteady("a"))
    assert heard == [PeerSteady("a")]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
