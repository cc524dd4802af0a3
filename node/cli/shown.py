"""How commands show things to people: durations, bytes, peers, and what strangers say. Rules without I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence


def safe(text: str, most: int = 0) -> str:
    """A stranger's text for a terminal: in one line, without what a terminal would take for commands, and with `most`
    characters at most (0: all of them).
    """
    shown = "".join(letter if letter.isprintable() else "�" for letter in (text[: most + 1] if most else text))
    return f"{shown[: most - 1]}…" if most and len(shown) > most else shown


def short(peer: str) -> str:
    """A peer ID, short enough for a line."""
    return peer if len(peer) <= 16 else f"{peer[:8]}…{peer[-6:]}"


def duration(seconds: float) -> str:
    """Seconds for people, in one unit."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172800 else f"{seconds / 86400:.0f} d"


def round_trip(seconds: float | None) -> str:
    """A smoothed round trip; "-" as long as there is none."""
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"


def size(count: float) -> str:
    """Bytes for people: 512 B, 1.5 KiB, 3.2 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def rank(ordered: Sequence[float], part: float) -> float:
    """The value that `part` of the values are at most (nearest rank). There is at least one value."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]
