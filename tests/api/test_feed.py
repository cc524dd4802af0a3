"""What happens, as it is told: everything in order and with its own time, or how much was left out."""

from __future__ import annotations

import time

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from node.api.feed import Feed
from node.api.functions import stream
from node.events import Banned, Events, Unbanned
from tests.nodes import running


@settings(max_examples=60)
@given(
    steps=st.lists(st.integers(1, 6) | st.none(), max_size=20),  # so many events, or the listener reads one
    kept=st.integers(1, 8),
    leaves=st.integers(0, 12),
)
def test_everything_is_told_in_order_or_counted(steps, kept, leaves):
    """A listener that reads now and then, and comes back once with the last ID that it saw."""

    async def run():
        events = Events()
        feed = Feed(events, kept)
        last = 0
        seen, missed, count = [], 0, 0
        turns, room = trio.open_memory_channel[None](1000)

        async def tell(number, item):
            nonlocal last, missed
            await room.receive()
            last = number
            if item.event == "missed":
                missed += item.count
            else:
                seen.append(int(item.fields["reason"]))

        async def listen():
            nonlocal scope
            with trio.CancelScope() as scope:
                await feed.listen(feed.since(f"{feed.start}-{last}"), (), tell)

        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for number, step in enumerate(steps):
                if number == leaves:
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(listen)
                if step is None:
                    turns.send_nowait(None)
                    await trio.testing.wait_all_tasks_blocked()
                else:
                    for _ in range(step):
                        events.emit(Banned("x", str(count)))
                        count += 1
            for _ in range(count + 2):
                turns.send_nowait(None)
            events.close()
        assert seen == sorted(set(seen))
        assert len(seen) + missed == count

    trio.run(run)


async def test_kinds():
    events = Events()
    feed = Feed(events)
    heard = []

    async def tell(number, item):
        heard.append((number, item.event, item.fields))

    events.emit(Banned("x", "because"))
    events.emit(Unbanned("x"))
    events.close()
    await feed.listen(0, {Unbanned}, tell)
    assert heard == [(2, "unbanned", {"target": "x"})]


async def test_an_event_has_the_time_when_it_happened_not_when_it_was_told():
    heard, room = [], trio.Semaphore(0)

    async def tell(item):
        heard.append(item)
        await room.acquire()

    async with running() as node, trio.open_nursery() as nursery:
        nursery.start_soon(stream, node, "events", {"kinds": ["unbanned"]}, tell)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            node.events.emit(Unbanned("x"))
        happened = time.time()
        await trio.sleep(0.2)
        room.release()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(heard) == 2
    assert heard[1].time <= happened


@pytest.mark.parametrize(
    "given_id", ["", "x", "-1", "{start}-x", "{start}--1", "{start}-99", "{start}-" + "9" * 99, "other-0"]
)
async def test_ids_that_are_none_of_ours_begin_now(given_id):
    events = Events()
    feed = Feed(events)
    for _ in range(3):
        events.emit(Unbanned("x"))
    assert feed.since(given_id.format(start=feed.start)) == 3
    assert feed.since(f"{feed.start}-1") == 1
