"""Kademlia. What only one of the two has is made before they are connected, so that the other must ask for it."""

from __future__ import annotations

import base64
import hashlib

from interop.matrix.ends import Pair, eventually, expect, without_peer
from interop.peer import Peer, PeerError

# what each has or provides, before they are connected and after
OURS, THEIRS, OURS_LATER, THEIRS_LATER = "/v/ours", "/v/theirs", "/v/ours-later", "/v/theirs-later"
VALUE = base64.b64encode(b"buoy").decode()
MULTIHASHES = {
    name: "1220" + hashlib.sha256(name.encode()).hexdigest() for name in (OURS, THEIRS, OURS_LATER, THEIRS_LATER)
}


async def seed_values(pair: Pair) -> None:
    """Each keeps a value by itself: some say that nobody else took it, and that it failed."""
    await pair.ours.call("put", OURS, VALUE, check=False)
    await pair.theirs.call("put", THEIRS, VALUE, check=False)


async def seed_providers(pair: Pair) -> None:
    """Each provides something that nobody else hears of."""
    await pair.ours.call("provide", MULTIHASHES[OURS], check=False)
    await pair.theirs.call("provide", MULTIHASHES[THEIRS], check=False)


async def values(pair: Pair) -> None:
    """GET_VALUE and PUT_VALUE, of each."""
    ours, theirs = pair.ours, pair.theirs
    await _know_each_other(pair)
    for one, key in ((theirs, OURS), (ours, THEIRS)):
        await _gets(one, key)
    put = await ours.call("put", OURS_LATER, VALUE)
    expect(put["stored"] == 1, f"the peer to have stored our value, got {put}")
    await theirs.call("put", THEIRS_LATER, VALUE)

    async def kept() -> bool:
        return bool((await ours.call("local", THEIRS_LATER))["value"] == VALUE)

    await eventually(kept, "we have stored the peer's value")
    await _gets(theirs, OURS_LATER)
    await _gets(ours, THEIRS_LATER)
    for one, _ in pair.both:
        reply = await one.call("get", "/v/nobody-has-it", check=False)
        expect(not reply["ok"], f"{one.name} to find no value that nobody has, got {reply}")


async def providers(pair: Pair) -> None:
    """GET_PROVIDERS and ADD_PROVIDER, of each."""
    ours, theirs = pair.ours, pair.theirs
    await _know_each_other(pair)
    await _finds(theirs, OURS, ours)
    await _finds(ours, THEIRS, theirs)
    told = await ours.call("provide", MULTIHASHES[OURS_LATER])
    expect(told["stored"] == 1, f"the peer to have been told what we provide, got {told}")
    await theirs.call("provide", MULTIHASHES[THEIRS_LATER])

    async def told_us() -> bool:
        return theirs.peer_id in (await ours.call("local-providers", MULTIHASHES[THEIRS_LATER]))["peers"]

    await eventually(told_us, "we have been told what the peer provides")
    await _finds(theirs, OURS_LATER, ours)
    await _finds(ours, THEIRS_LATER, theirs)


async def peers(pair: Pair) -> None:
    """FIND_NODE, of each."""
    await _know_each_other(pair)
    for one, other in pair.both:
        third = await pair.third.fresh(kad=True)
        await third.call("connect", other.addr)
        await _has_in_table(other, third)
        found = await one.call("find-peer", third.peer_id)
        addrs = [without_peer(addr) for addr in found["addrs"]]
        expect(found["found"] and without_peer(third.addr) in addrs, f"{one.name} to find {third.addr}, got {found}")


async def _know_each_other(pair: Pair) -> None:
    for one, other in pair.both:
        await _has_in_table(one, other)


async def _has_in_table(one: Peer, other: Peer) -> None:
    async def there() -> bool:
        return other.peer_id in (await one.call("table"))["peers"]

    await eventually(there, f"{one.name} has {other.name} in its routing table")


async def _gets(one: Peer, key: str) -> None:
    got = (await one.call("get", key))["value"]
    expect(got == VALUE, f"{one.name} to get {VALUE} of {key}, got {got}")


async def _finds(one: Peer, name: str, provider: Peer) -> None:
    async def there() -> bool:
        try:
            found = (await one.call("find-providers", MULTIHASHES[name]))["providers"]
        except PeerError as error:
            if error.reply:
                return False  # some call it a failure if there is none
            raise
        return provider.peer_id in [entry["peer"] for entry in found]

    # nobody answers ADD_PROVIDER: it may still be under way
    await eventually(there, f"{one.name} finds {provider.name}, which provides {name}")
