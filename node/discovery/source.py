"""Where peers come from: a `Source` finds candidates and tells them to a `Feed`, which is the pool's.

    async def run(self, feed):
        while True:
            count = await feed.wanted()             # the pool is hungry: waits until it is
            for peer, addrs in await look_for(count):
                feed.found(peer, addrs)             # never blocks; the pool checks, keeps and dials, or doesn't

A source says what it was told and decides nothing: no dialling, no limits on who, no memory of failures. What it finds
without being asked (mDNS) it may tell at any time; what costs others something (a question to a peer, a walk) waits for
`wanted`. A source ends with its cancellation only: what it raises is logged, and it is begun again after a pause that
grows with each failure.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence


class Feed(typing.Protocol):
    """What a source is given."""

    def found(
        self,
        peer: str,
        addrs: Sequence[str],
        *,
        record: bytes | None = None,
        told_by: str = "",
    ) -> None:
        """A candidate: a peer ID and multiaddrs as text, with or without /p2p/PEERID. Never blocks, never raises for
        what strangers said: what is malformed, banned or too much is dropped. `record` is the peer's own signed record
        as it came, which the source has verified (`node.records.accept`): it is passed on to others. `told_by`: the
        connected peer whose word it is, so that no single one's flood counts as much as all others' together.
        """

    async def wanted(self) -> int:
        """Waits until the pool wants more candidates; how many, at least 1. A source that asks again at once waits
        longer and longer, up to a minute, while it has nothing new to tell."""
        ...


class Source(typing.Protocol):
    """One way to find peers."""

    @property
    def name(self) -> str:
        """`bootstrap`, `exchange`, `dht`, `mdns`, `rendezvous`, `manual`: what the address book and diversity count."""
        ...

    async def run(self, feed: Feed) -> None:
        """Runs until cancelled."""
