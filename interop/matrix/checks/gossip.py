"""Gossip in a line of three: what its middle says of a message decides whether the third hears of it.

source --- middle --- third         the two ends are source and middle in turn; the third is a node of ours
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from interop.matrix.ends import Pair, eventually, expect
from interop.peer import Peer

SIZE = "200"
QUIET = 0.5  # seconds in which what was not to come would have


async def accept(pair: Pair) -> None:
    """What is accepted reaches both that didn't publish it."""
    for source, middle in pair.both:
        topic, third = await _line(pair, source, middle, "accept")
        await _travels(topic, source, middle, third)
        # and by the middle's own hand, both ways
        sent = (await middle.call("publish", topic, SIZE))["sha256"]
        for peer in (source, third):
            await peer.event("gossip", topic=topic, sha256=sent)
    await pair.third.fresh()


async def ignore(pair: Pair) -> None:
    """What is ignored doesn't travel, and nobody pays: what its author says next is listened to."""
    for source, middle in pair.both:
        if middle.name == "stock":
            continue  # py-libp2p's validators know yes and no
        topic, third = await _line(pair, source, middle, "ignore")
        await source.call("publish", topic, SIZE)
        await _nothing_came(topic, third)
        await _score(pair, source, middle, lambda score: score >= 0, "not to pay for what was ignored")
        await middle.call("validate", topic, "accept")
        await _travels(topic, source, middle, third)
        expect(len(third.seen("gossip", topic=topic)) == 1, "only what was accepted to have come")
    await pair.third.fresh()


async def reject(pair: Pair) -> None:
    """What is rejected doesn't travel, and who brought it pays."""
    for source, middle in pair.both:
        topic, third = await _line(pair, source, middle, "reject")
        await source.call("publish", topic, SIZE)
        await _nothing_came(topic, third)
        await _score(pair, source, middle, lambda score: score < 0, "to pay for what was rejected")
    await pair.third.fresh()


async def _line(pair: Pair, source: Peer, middle: Peer, verdict: str) -> tuple[str, Peer]:
    """A topic with that verdict at the middle, whose meshes stand; and the third."""
    topic = f"{verdict}-by-{middle.name.split()[0]}"
    third = await pair.third.fresh()
    await source.call("subscribe", topic)
    await third.call("subscribe", topic)
    await third.call("connect", middle.addr)
    await middle.call("subscribe", topic)
    await middle.call("validate", topic, verdict)
    for one, others in ((middle, (source, third)), (source, (middle,)), (third, (middle,))):
        wanted = {other.peer_id for other in others}

        async def stands(one: Peer = one, wanted: set[str] = wanted) -> bool:
            return wanted <= set((await one.call("mesh", topic))["peers"])

        await eventually(stands, f"{one.name} has {' and '.join(other.name for other in others)} in its mesh")
    return topic, third


async def _travels(topic: str, source: Peer, middle: Peer, third: Peer) -> None:
    sent = (await source.call("publish", topic, SIZE))["sha256"]
    for peer in (middle, third):
        await peer.event("gossip", topic=topic, sha256=sent)


async def _nothing_came(topic: str, third: Peer) -> None:
    await trio.sleep(QUIET)
    expect(not third.seen("gossip", topic=topic), "nothing to have come to the third")


async def _score(pair: Pair, source: Peer, middle: Peer, fits: Callable[[float], bool], what: str) -> None:
    """Looks at the score that the middle keeps of the source, where it can be asked."""
    if middle is pair.theirs and pair.line.peer not in ("go", "rust"):
        return

    async def right() -> bool:
        return fits((await middle.call("score", source.peer_id))["score"])

    await eventually(right, f"{source.name} {what} at {middle.name}")
