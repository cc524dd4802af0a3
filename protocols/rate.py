"""A token bucket: `rate` tokens a second flow in, at most `burst` are kept. Rules only, no clock of its own.

rate tokens/s
     |            full: what flows in is lost
 +---v---+ <----- burst
 |       |
 +---+---+
     v  one token for each frame; none left: wait, the debt is paid in order
"""

from __future__ import annotations


class TokenBucket:
    """Says how long to wait before the next frame may be taken."""

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError(f"expected rate > 0 and burst >= 1, got {rate} and {burst}")
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._at = now

    def take(self, now: float, tokens: float = 1.0) -> float:
        """Takes the tokens, on credit if need be; the seconds to wait until the debt is paid (0 if there is none)."""
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        self._tokens -= tokens
        return max(0.0, -self._tokens / self.rate)

    def give_back(self, tokens: float = 1.0) -> None:
        """Tokens that were taken and not used."""
        self._tokens = min(self.burst, self._tokens + tokens)
