"""The handshake: who is admitted, and that nobody else is."""

from __future__ import annotations

from interop.matrix.ends import OTHER_NETWORK, THEIR_VERSION, Pair, expect, their_end
from interop.peer import Peer


async def handshake(pair: Pair) -> None:
    """Each has admitted the other, once."""
    (told,) = pair.ours.seen("admitted", peer=pair.theirs.peer_id)
    expect(told["client_version"] == THEIR_VERSION, f"the client version {THEIR_VERSION}, got {told}")
    if not pair.theirs.seen("admitted", peer=pair.ours.peer_id):
        await pair.theirs.event("admitted", peer=pair.ours.peer_id)


async def other_network(pair: Pair) -> None:
    """Neither admits the other, and neither tells anything."""
    async with their_end(pair.line, f"--network-id={OTHER_NETWORK}") as stranger:
        await _is_refused(pair, stranger)
        for one, other in ((pair.ours, stranger), (stranger, pair.ours)):
            expect(not one.seen("admitted", peer=other.peer_id), f"{one.name} to admit nobody of another network")
        reasons = {told["reason"] for told in pair.ours.seen("refused", peer=stranger.peer_id)}
        wanted = {"no_hello", "closed_by_peer"} if pair.line.direction == "out" else {"network_id"}
        expect(reasons <= wanted, f"the reason to be one of {sorted(wanted)}, got {sorted(reasons)}")


async def other_version(pair: Pair) -> None:
    """We refuse a peer that is too old, and one that finds us too old refuses us."""
    async with their_end(pair.line, "--client-version=matrix-peer/0.9.9") as old:
        await _is_refused(pair, old)
        (told,) = pair.ours.seen("refused", peer=old.peer_id)
        expect(told["reason"] == "client_version", f"the reason client_version, got {told}")
        expect(not pair.ours.seen("admitted", peer=old.peer_id), "us to admit no peer that is too old")
    async with their_end(pair.line, "--min-version=matrix-vouch=1.0.1") as picky:
        await _is_refused(pair, picky, by_them=True)
        expect(not picky.seen("admitted"), "the peer not to admit us, who are too old for it")


async def _is_refused(pair: Pair, stranger: Peer, *, by_them: bool = False) -> None:
    """The two end without a connection, and without having been identified."""
    ours = pair.ours
    if pair.line.direction == "out":
        reply = await ours.call("connect", stranger.addr, check=False)
        # a recipient admits before the initiator's verdict: only then may connecting have gone well
        expect(not reply["ok"], f"connecting to fail, got {reply}")
    else:
        reply = await stranger.call("connect", ours.addr, check=False)
        expect(not reply["ok"], f"the peer's connecting to fail, got {reply}")
    if by_them:
        await stranger.event("refused", peer=ours.peer_id)
    elif not ours.seen("refused", peer=stranger.peer_id):
        await ours.event("refused", peer=stranger.peer_id)
    await stranger.event("disconnected", peer=ours.peer_id)
    expect(not ours.seen("identified", peer=stranger.peer_id), "us not to have learnt anything of the peer")
    if not by_them:
        expect(not stranger.seen("identified", peer=ours.peer_id), "the peer not to have learnt anything of us")
