"""One connection for each peer: which of several stays. Rules only, and the same answer on both sides.

Of two admitted connections to a peer the one initiated by the smaller peer ID (compared as bytes) is kept; of two by
the same initiator, the newer. Connections admitted without a handshake are left alone. (docs/wire.md)
The caller closes the others once their streams have ended.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence


class Candidate(typing.Protocol):
    """What the rule looks at."""

    @property
    def initiated(self) -> bool:
        """Whether we initiated the connection."""

    @property
    def shaken(self) -> bool:
        """Whether both sides were admitted by a handshake."""


C = typing.TypeVar("C", bound=Candidate)


def surplus(connections: Sequence[C], ours: bytes, theirs: bytes) -> list[C]:
    """Those of one peer's connections, given in the order of admission, that are to go. `ours`, `theirs`: peer IDs."""
    shaken = [connection for connection in connections if connection.shaken]
    if len(shaken) < 2:
        return []
    ours_stays = ours < theirs
    by_the_smaller = [connection for connection in shaken if connection.initiated == ours_stays]
    kept = (by_the_smaller or shaken)[-1]
    return [connection for connection in shaken if connection is not kept]
