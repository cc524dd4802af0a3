"""How much of one peer's work is taken on at once: back-pressure first, refusal after. No I/O; `now` is injected.

    a message --> its token (rate)  --> its place (count, bytes) --> handled --> its place is free
                  further away than     none free, and none for
                  `patience`: REFUSED   `patience`: REFUSED at once, until one is

While a message waits for its token or its place the stream isn't read, so the peer's own sends come to wait. A peer
has one gate for each sub-protocol, over all its streams; it outlives them, or reconnecting would fill the bucket.
"""

from __future__ import annotations

from protocols.rate import TokenBucket


class Gate:
    """One peer's tokens and places for one sub-protocol."""

    __slots__ = ("_bucket", "_full_since", "bytes_taken", "max_bytes", "max_taken", "patience", "taken")

    def __init__(self, *, bucket: TokenBucket | None, max_taken: int, max_bytes: int, patience: float) -> None:
        self._bucket = bucket
        self._full_since: float | None = None
        self.max_taken = max_taken
        self.max_bytes = max_bytes
        self.patience = patience
        self.taken = 0
        self.bytes_taken = 0

    def token(self, now: float) -> float | None:
        """Seconds until this message's token is there; None if that is too far away, and no token is taken."""
        if self._bucket is None:
            return 0.0
        wait = self._bucket.take(now)
        if wait > self.patience:
            self._bucket.give_back()
            return None
        return wait

    def take(self, size: int, now: float) -> bool:
        """Whether a message of `size` bytes has a place; one alone always has."""
        if self.taken and (self.taken >= self.max_taken or self.bytes_taken + size > self.max_bytes):
            if self._full_since is None:
                self._full_since = now
            return False
        self._full_since = None
        self.taken += 1
        self.bytes_taken += size
        return True

    def give_up_at(self) -> float:
        """Until when it is worth waiting for a place."""
        assert self._full_since is not None, "asked only after take() said no"
        return self._full_since + self.patience

    def leave(self, size: int) -> None:
        """A message of `size` bytes is done."""
        self.taken -= 1
        self.bytes_taken -= size
