"""Log lines that say the same again and again: the first is printed, then one line says how many there were. Rules,
without I/O.

Two lines are the same if event, level, logger and every field are, but for measures like `retry_in`; a traceback
counts as a field, so that errors with different texts are never one. What strangers can cause as fast as they like is
told apart by less (`node.logkeys.STRANGERS`), what tells a state isn't collapsed at all (STATES).

    first -------- printed
    again -------- counted, within `window` seconds of the first
    window over -- "repeated", with `what`, `count`, `seconds` from the first to the last, and the fields that were the
                   same; then the next one is a first again

So a key costs two lines in `window` seconds. At most `limit` keys are watched: the oldest is told and forgotten then.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.logkeys import MEASURES, STATES, STRANGERS

LIMIT = 512
# of a field in the line that tells of repeats: more than a peer ID and an address have
MAX_TEXT = 128
_NOT_SUMMED = frozenset({"event", "exception"})


@dataclass
class _Watched:
    fields: dict[str, Any]
    started: float
    last: float
    count: int = 0


class Repeats:
    """The rules' state. `window` in seconds."""

    def __init__(self, window: float, *, limit: int = LIMIT) -> None:
        self.window = window
        self.collapsed = 0
        self._limit = limit
        self._watched: OrderedDict[bytes, _Watched] = OrderedDict()  # in the order of `started`

    def __len__(self) -> int:
        return len(self._watched)

    @property
    def next_due(self) -> float | None:
        """When `due` has something to do, as far as is known."""
        return next((row.started + self.window for row in self._watched.values() if row.count), None)

    def line(self, fields: Mapping[str, Any], now: float) -> tuple[bool, list[dict[str, Any]]]:
        """Whether a line is printed, and what is to be told before."""
        told = self.due(now)
        if fields.get("event") in STATES:
            return True, told
        apart = told_apart(fields)
        # unlike repr of a mapping, the order of a call's keys doesn't count
        key = hashlib.blake2b(repr(sorted(apart.items())).encode("utf8", "backslashreplace"), digest_size=16).digest()
        row = self._watched.get(key)
        if row is not None:
            row.count += 1
            row.last = now
            self.collapsed += 1
            return False, told
        if len(self._watched) >= self._limit:
            _, oldest = self._watched.popitem(last=False)
            told += _summaries([oldest])
        self._watched[key] = _Watched({name: value for name, value in apart.items() if name != "exception"}, now, now)
        return True, told

    def due(self, now: float) -> list[dict[str, Any]]:
        """What is to be told of windows that are over."""
        over = []
        while self._watched:
            row = next(iter(self._watched.values()))
            if now < row.started + self.window:
                break
            over.append(self._watched.popitem(last=False)[1])
        return _summaries(over)

    def close(self) -> list[dict[str, Any]]:
        """What is to be told at the end."""
        rows = list(self._watched.values())
        self._watched.clear()
        return _summaries(rows)


def told_apart(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that two lines must share to be the same."""
    if fields.get("event") in STRANGERS and fields.get("direction", "inbound") == "inbound":
        names = ["event", "level", "logger", "direction", "reason"]
        if fields.get("level") in ("warning", "error"):
            names += ["error", "exception"]
        kept = {name: fields[name] for name in names if name in fields}
        return kept | {"addr": host_of(str(fields.get("addr", "")))}
    return {name: value for name, value in fields.items() if name not in MEASURES and not name.startswith("_")}


def worth_a_warning(failures: int) -> bool:
    """Whether an attempt that fails for the `failures`-th time in a row is told at level warning, or at debug. The
    first five are, then whenever their number has doubled, so that what is down for days costs a few lines.
    """
    return failures <= 5 or failures.bit_count() == 1


def host_of(addr: str) -> str:
    """A multiaddr's first part, like /ip4/192.0.2.1; anything else is its own host."""
    return "/".join(addr.split("/")[:3]) if addr.startswith("/") else addr


def _in_brief(value: Any) -> Any:
    """The first line has it all; here it is there to find that."""
    return f"{value[:MAX_TEXT]}…" if isinstance(value, str) and len(value) > MAX_TEXT else value


def _summaries(rows: list[_Watched]) -> list[dict[str, Any]]:
    return [
        {
            "event": "repeated",
            "what": row.fields.get("event", ""),
            "count": row.count,
            "seconds": round(row.last - row.started, 1),
            **{name: _in_brief(value) for name, value in row.fields.items() if name not in _NOT_SUMMED},
        }
        for row in rows
        if row.count
    ]
