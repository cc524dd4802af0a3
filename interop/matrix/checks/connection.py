"""Connections, identify, ping."""

from __future__ import annotations

from interop.matrix.ends import Pair, event, eventually, expect, without_peer
from interop.peer import Peer

PING_ID, IDENTIFY_ID = "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"
# docs/wire.md's and the specifications', not taken from the code
WIRE = (
    *(PING_ID, IDENTIFY_ID, "/ipfs/id/push/1.0.0", "/perf/1.0.0", "/vouch/heartbeat/1.0.0"),
    *("/vouch/peer-exchange/1.0.0", "/vouch/msg/interop/1.0.0", "/rendezvous/1.0.0"),
    *("/meshsub/1.2.0", "/meshsub/1.1.0", "/floodsub/1.0.0"),
)
PUSHED = "/vouch/pushed/1.0.0"


async def connect(pair: Pair) -> None:
    """Each lists the other; ours knows who dialled."""
    for one, other in pair.both:
        await eventually(lambda one=one, other=other: _lists(one, other), f"{one.name} lists its connection")  # type: ignore[misc]
    (entry,) = [entry for entry in (await pair.ours.call("peers"))["peers"] if entry["peer"] == pair.theirs.peer_id]
    direction = "outbound" if pair.line.direction == "out" else "inbound"
    expect(entry["direction"] == direction, f"a connection that is {direction} to us, got {entry}")


async def _lists(one: Peer, other: Peer) -> bool:
    return other.peer_id in [entry["peer"] for entry in (await one.call("peers"))["peers"]]


async def identify(pair: Pair) -> None:
    """What is said by each: its protocols, its addresses, its name where it can be asked."""
    for one, other in pair.both:
        said = await one.call("identify", other.peer_id)
        for protocol in (PING_ID, IDENTIFY_ID):
            expect(protocol in said["protocols"], f"{other.name} to name {protocol}, got {said['protocols']}")
        addrs = [without_peer(addr) for addr in said["addrs"]]
        expect(without_peer(other.addr) in addrs, f"{other.name} to name {without_peer(other.addr)}, got {addrs}")
        expect(said.get("agent", "unknown"), f"{other.name} to name its agent")
        if other is pair.ours:
            missing = {*WIRE} - {*said["protocols"]}
            expect(not missing, f"us to name {sorted(missing)} too, got {said['protocols']}")
        if pair.line.peer == "go":
            expect(said["signed_record"], f"{other.name} to tell a signed record that is good")


async def identify_push(pair: Pair) -> None:
    """A protocol that is added is told without being asked."""
    for one, other in pair.both:  # neither is told what it is about to ask anyway
        await one.call("identify", other.peer_id)
    for one, other in pair.both:
        await other.call("push-identify")
        await event(
            one, "identified", lambda told: PUSHED in told["protocols"], f"{PUSHED} of {other.name}", peer=other.peer_id
        )


async def ping(pair: Pair) -> None:
    """Each measures round trips."""
    for one, other in pair.both:
        times = (await one.call("ping", other.peer_id, str(pair.size.pings)))["rtt_us"]
        expect(len(times) == pair.size.pings and all(0 < time < 5e6 for time in times), f"round trips, got {times}")


async def disconnect(pair: Pair) -> None:
    """The end of a connection is heard of."""
    await pair.dialler.call("disconnect", pair.dialled.peer_id)
    await pair.dialled.event("disconnected", peer=pair.dialler.peer_id)
