"""What goes on telling: whoever listens is told everything, in order, or how much was left out."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from node.api.http.stream import Feed
from node.events import Banned, Unbanned


def told(frames):
    """IDs, kinds and contents of frames."""
    for frame in frames:
        number, kind, data, *rest = frame.decode().split("\n")
        assert rest == ["", ""]
        yield number.removeprefix("id: "), kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.integers(1, 6) | st.none(), max_size=20),  # so many events, or the listener reads one
    kept=st.integers(1, 8),
    leaves=st.integers(0, 12),
)
def test_everything_is_told_in_order_or_counted(steps, kept, leaves):
    """A listener that reads now and then, and comes back once with the last ID that it saw."""

    async def run():
        feed = Feed(kept)
        last = f"{feed.start}-0"
        seen, missed, count = [], 0, 0
        turns, room = trio.open_memory_channel[None](1000)

        async def send(frame):
            nonlocal last, missed
            await room.receive()
            ((last, kind, data),) = told([frame])
            if kind == "missed":
                missed += data["count"]
            else:
                seen.append(int(data["fields"]["reason"]))

        async def listen():
            nonlocal scope
            with trio.CancelScope() as scope:
                await feed.listen(feed.since(last), [], send)

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
                        feed.put(Banned("x", str(count)))
                        count += 1
            for _ in range(count + 2):
                turns.send_nowait(None)
            feed.close()
        assert seen == sorted(set(seen))
        assert len(seen) + missed == count

    trio.run(run)


async def test_kinds_and_ids():
    feed = Feed()
    frames = []

    async def send(frame):
        frames.append(frame)

    feed.put(Banned("x", "because"))
    feed.put(Unbanned("x"))
    feed.close()
    await feed.listen(0, ["unbanned"], send)
    ((number, kind, data),) = told(frames)
    assert (number, kind, data["fields"]) == (f"{feed.start}-2", "unbanned", {"target": "x"})


@pytest.mark.parametrize(
    "given_id", ["", "x", "-1", "{start}-x", "{start}--1", "{start}-99", "{start}-" + "9" * 99, "other-0"]
)
async def test_ids_that_are_none_of_ours_begin_now(given_id):
    feed = Feed()
    for _ in range(3):
        feed.put(Unbanned("x"))
    assert feed.since(given_id.format(start=feed.start)) == 3
    assert feed.since(f"{feed.start}-1") == 1
