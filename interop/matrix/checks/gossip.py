"""Gossip in a line of three: what its middle says of a message decides whether the last hears of it.

third --- the peer --- our node         the peer decides
the peer --- our node --- third         we decide
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from interop.matrix.ends import Pair, eventually, expect
from interop.peer import Peer

SIZE = "200"
QUIET = 0.5  # seconds in which what was not to come would have


async def accept(pair: Pair) -> None:
    """What is accepted reaches both that didn't publish it; and so does what the middle publishes."""
    for middle in (pair.theirs, pair.ours):
        topic, source, last = await _line(pair, middle, "accept")
        await _travels(topic, source, middle, last)
        sent = (await middle.call("publish", topic, SIZE))["sha256"]
        for peer in (source, last):
            await peer.event("gossip", topic=topic, sha256=sent)


async def ignore(pair: Pair) -> None:
    """What is ignored doesn't travel, and nobody pays: what its author says next is listened to."""
    for middle in (pair.theirs, pair.ours):
        if middle is pair.theirs and pair.line.peer == "stock":
            continue  # py-libp2p's validators know yes and no
        topic, source, last = await _line(pair, middle, "ignore")
        await source.call("publish", topic, SIZE)
        await _nothing_came(topic, last)
        await _score(pair, source, middle, lambda score: score >= 0, "not to pay for what was ignored")
        await middle.call("validate", topic, "accept")
        await _travels(topic, source, middle, last)
        expect(len(last.seen("gossip", topic=topic)) == 1, "only what was accepted to have come")


async def reject(pair: Pair) -> None:
    """What is rejected doesn't travel, and who brought it pays."""
    for middle in (pair.theirs, pair.ours):
        topic, source, last = await _line(pair, middle, "reject")
        await source.call("publish", topic, SIZE)
        await _nothing_came(topic, last)
        await _score(pair, source, middle, lambda score: score < 0, "to pay for what was rejected")


async def _line(pair: Pair, middle: Peer, verdict: str) -> tuple[str, Peer, Peer]:
    """A topic with that verdict at the middle, whose meshes stand; its source, and the last."""
    third = await pair.third.fresh()
    source, last = (third, pair.ours) if middle is pair.theirs else (pair.theirs, third)
    topic = f"{verdict}-by-{'peer' if middle is pair.theirs else 'vouch'}"
    await source.call("subscribe", topic)
    await last.call("subscribe", topic)
    await third.call("connect", middle.addr)
    await middle.call("subscribe", topic)
    await middle.call("validate", topic, verdict)
    for one, others in ((middle, (source, last)), (source, (middle,)), (last, (middle,))):
        wanted = {other.peer_id for other in others}

        async def stands(one: Peer = one, wanted: set[str] = wanted) -> bool:
            return wanted <= set((await one.call("mesh", topic))["peers"])

        await eventually(stands, f"{one.name} has {' and '.join(other.name for other in others)} in its mesh")
    return topic, source, last


async def _travels(topic: str, source: Peer, middle: Peer, last: Peer) -> None:
    sent = (await source.call("publish", topic, SIZE))["sha256"]
    for peer in (middle, last):
        await peer.event("gossip", topic=topic, sha256=sent)


async def _nothing_came(topic: str, last: Peer) -> None:
    await trio.sleep(QUIET)
    expect(not last.seen("gossip", topic=topic), f"nothing to have come to {last.name}")


async def _score(pair: Pair, source: Peer, middle: Peer, fits: Callable[[float], bool], what: str) -> None:
    """Looks at the score that the middle keeps of the source, where it can be asked."""
    if middle is pair.theirs and pair.line.peer == "stock":
        return

    async def right() -> bool:
        return fits((await middle.call("score", source.peer_id))["score"])

    await eventually(right, f"{source.name} {what} at {middle.name}")
