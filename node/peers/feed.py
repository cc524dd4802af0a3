"""What a source of peers is given, and how it is kept running. The pool's side of `node.discovery.source`."""

from __future__ import annotations

import random
import typing
from collections.abc import Sequence

import trio

from node.discovery.source import Source
from node.log import get_logger
from node.peers.backoff import Backoff

# after a source has failed, and between two of its questions
PAUSE, PAUSE_LONGEST = 1.0, 60.0

log = get_logger("peers")


class Keeper(typing.Protocol):
    """What a feed needs of `node.peers`."""

    def found(
        self, name: str, peer: str, addrs: Sequence[str], *, record: bytes | None = None, told_by: str = ""
    ) -> bool:
        """A candidate of the source `name`; whether the peer is new."""
        ...

    async def wanted(self, not_before: float) -> int:
        """Waits until candidates are wanted, and until `not_before`; how many."""
        ...


async def run_source(source: Source, pool: Keeper, rng: random.Random) -> None:
    """Runs a source until cancelled; what it raises is logged, and it is begun again after a pause."""
    backoff = Backoff(PAUSE, PAUSE_LONGEST, capacity=1, rng=rng)
    while True:
        started = trio.current_time()
        try:
            await source.run(PoolFeed(pool, source.name))
            return
        except Exception as error:  # a source talks to strangers; whatever goes wrong there ends only itself
            log.warning("source_failed", source=source.name, error=repr(error))
        if trio.current_time() - started > PAUSE_LONGEST:
            backoff.succeeded(source.name)
        await trio.sleep(backoff.failed(source.name, trio.current_time()))


class PoolFeed:
    """One source's way in."""

    def __init__(self, pool: Keeper, name: str) -> None:
        self._pool = pool
        self._name = name
        self._told = 0
        self._told_before = -1
        self._pause = 0.0
        self._next = -float("inf")

    def found(
        self,
        peer: str,
        addrs: Sequence[str],
        *,
        record: bytes | None = None,
        told_by: str = "",
    ) -> None:
        self._told += self._pool.found(self._name, peer, addrs, record=record, told_by=told_by)

    async def wanted(self) -> int:
        """A source that told nothing new since it was last asked is asked again less and less often."""
        idle = self._told == self._told_before
        self._pause = min(max(2 * self._pause, PAUSE), PAUSE_LONGEST) if idle else PAUSE
        count = await self._pool.wanted(self._next)
        self._told_before = self._told
        self._next = trio.current_time() + self._pause
        return count
