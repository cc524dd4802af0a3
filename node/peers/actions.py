"""What the pool asks of its caller. Each `Drop` is followed by `disconnected`, each `Dial` by `done` or `failed`, each
`Probe` by `tested`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Dial:
    """Dial a peer. `why`: pool, static, reserve, feeler; `since`: when that was said, by the pool's clock."""

    peer: str
    addrs: tuple[str, ...]
    why: str
    source: str = ""
    since: float = 0.0


@dataclass(frozen=True)
class Drop:
    """Close a peer's connections. `reason`: surplus, tested."""

    peer: str
    reason: str


@dataclass(frozen=True)
class Probe:
    """See whether a connected peer answers at an address, and leave again."""

    peer: str
    addr: str


@dataclass(frozen=True)
class Low:
    """There are fewer peers than `low`, and were not before."""

    peers: int


@dataclass(frozen=True)
class Back:
    """A peer is connected after so many seconds without any: what failed meanwhile says nothing of the others."""

    seconds: float


Action: TypeAlias = Dial | Drop | Probe | Low | Back
