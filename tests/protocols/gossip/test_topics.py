"""What waits for whoever decides on a topic, or listens to it: bounded, and not longer than it is of use."""

from __future__ import annotations

import math

import trio

from protocols.gossip.topics import ByFunction, GossipMessage, Subscription, Verdict


def message(payload=b"", deadline=math.inf, decide=None):
    return GossipMessage(
        "t", payload, author="a", forwarder="f", message_id=b"i", received_at=0.0, deadline=deadline, decide=decide
    )


def subscription(limit=100, max_bytes=100):
    return Subscription("t", limit, decides=False, leave=lambda _: None, max_bytes=max_bytes)


async def test_what_waits_is_bounded_in_bytes(autojump_clock):
    waiting = subscription()
    assert waiting.offer(message(bytes(60)))
    assert waiting.offer(message(bytes(40)))
    assert not waiting.offer(message(b"1"))
    assert waiting.missed == 1
    await anext(waiting)
    assert waiting.offer(message(bytes(60)))


async def test_a_message_above_the_bound_fits_an_empty_queue(autojump_clock):
    waiting = subscription()
    assert waiting.offer(message(bytes(1000)))
    assert not waiting.offer(message())
    assert len((await anext(waiting)).payload) == 1000


async def test_messages_whose_time_is_over_make_room_and_are_not_shown(autojump_clock):
    waiting = subscription(limit=2)
    assert waiting.offer(message(b"old", deadline=10))
    assert waiting.offer(message(b"older", deadline=10))
    await trio.sleep(10)
    assert waiting.offer(message(b"new", deadline=30))
    assert waiting.offer(message(b"newer", deadline=20))
    await trio.sleep(10)
    assert (await anext(waiting)).payload == b"new"
    with trio.move_on_after(1) as scope:
        await anext(waiting)
    assert scope.cancelled_caught


async def test_a_validators_queue_is_bounded_in_bytes_too(autojump_clock):
    judged = []

    async def check(one):
        await trio.sleep(1)
        return Verdict.ACCEPT

    async with trio.open_nursery() as nursery:
        decider = ByFunction(
            check, at_once=1, limit=100, spawn=nursery.start_soon, failed=lambda error, _: judged.append(error)
        )
        big = bytes(20 << 20)
        given = [message(big, decide=lambda one, verdict, _: bool(judged.append(verdict)) or True) for _ in range(3)]
        assert [decider.offer(one) for one in given] == [True, False, False]
    assert judged == [Verdict.ACCEPT]
