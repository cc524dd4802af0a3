"""What is checked only to see that a change of our wire is noticed: protocols that no other language speaks, or one."""

from __future__ import annotations

from interop.matrix.ends import Pair, eventually, expect

NAMESPACE, ELSEWHERE = "matrix", "open-sea"


async def exchange(pair: Pair) -> None:
    """The other end tells of a third that it has dialled."""
    third = await pair.third.fresh()
    await pair.theirs.call("connect", third.addr)
    await pair.theirs.call("identify", third.peer_id)
    told = await pair.ours.call("exchange", pair.theirs.peer_id)
    expect(third.peer_id in told["peers"], f"to be told of the third, got {told}")


async def heartbeat(pair: Pair) -> None:
    """Each has its heartbeats answered."""
    for one, other in pair.both:
        await one.call("heartbeat", other.peer_id)


async def rendezvous(pair: Pair) -> None:
    """The peer registers at our node, a rendezvous point, is found there, and is gone when it says so."""
    ours, theirs = pair.ours, pair.theirs
    told = await theirs.call("register", ours.peer_id, NAMESPACE)
    expect(told["ttl"] > 0, f"seconds that the registration holds, got {told}")
    found = await theirs.call("discover", ours.peer_id, NAMESPACE)
    expect([entry["peer"] for entry in found["peers"]] == [theirs.peer_id], f"to be found, got {found}")
    again = await theirs.call("discover", ours.peer_id, NAMESPACE, "10", found["cookie"])
    expect(again["peers"] == [], f"nothing new behind the cookie, got {again}")
    elsewhere = await theirs.call("discover", ours.peer_id, ELSEWHERE)
    expect(elsewhere["peers"] == [], f"nobody in a namespace without registrations, got {elsewhere}")
    await theirs.call("unregister", ours.peer_id, NAMESPACE)

    async def gone() -> bool:
        return not (await theirs.call("discover", ours.peer_id, NAMESPACE))["peers"]

    # nobody answers UNREGISTER: it may still be under way
    await eventually(gone, "nobody is registered any more", timeout=5.0)
