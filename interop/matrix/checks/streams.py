"""Streams of bytes, compared with what was sent."""

from __future__ import annotations

from interop.matrix.ends import COMMAND_TIMEOUT, Pair

FEW = 1000


async def streams(pair: Pair) -> None:
    """Many at once."""
    for one, other in pair.both:
        await one.call("echo", other.peer_id, str(FEW), str(pair.size.streams))


async def half_close(pair: Pair) -> None:
    """What is sent is ended before all of it has come back."""
    for one, other in pair.both:
        await one.call("echo", other.peer_id, str(pair.size.half_close), "1")


async def reset(pair: Pair) -> None:
    """Resets, given and taken."""
    for one, other in pair.both:
        await one.call("reset", other.peer_id)
        await one.call("was-reset", other.peer_id)


async def transfer(pair: Pair) -> None:
    """Both ways at once, every byte compared; then one way after the other, asked for by the peer."""
    size = str(pair.size.transfer)
    await pair.ours.call("echo", pair.theirs.peer_id, size, "1", timeout=COMMAND_TIMEOUT)
    await pair.theirs.call("perf", pair.ours.peer_id, size, size, timeout=COMMAND_TIMEOUT)
    await pair.ours.event("perf", peer=pair.theirs.peer_id, received=pair.size.transfer, sent=pair.size.transfer)
