"""What grows: how much every table of every object of ours holds, to be compared with an earlier moment."""

from __future__ import annotations

import gc
from collections import Counter, deque
from types import ModuleType

# by that many, and by this share, a table may differ between two quiet moments
SLACK, SHARE = 40, 0.25
# modules whose tables, or caches of their objects, have a capacity of their own, which takes longer than a day to fill;
# what exchange tells in an hour goes with who is asked in it
BOUNDED = ("node.peers.backoff", "protocols.messages.authors", "protocols.exchange.share")


def census() -> dict[str, int]:
    """How much every container holds that is an attribute of an object of ours, by class and attribute."""
    gc.collect()
    found: Counter[str] = Counter()
    counted: set[int] = set()
    for one in gc.get_objects():
        kind = type(one)
        module = getattr(kind, "__module__", None)
        if not isinstance(module, str) or not module.startswith(("node.", "protocols.")) or module in BOUNDED:
            continue
        if isinstance(one, type | ModuleType):
            continue
        found[f"{module}.{kind.__qualname__}"] += 1
        names = [*getattr(one, "__dict__", ()), *(name for base in kind.__mro__ for name in _slots(base))]
        for name in names:
            value = getattr(one, name, None)
            if id(value) in counted:
                continue
            counted.add(id(value))  # an object's parts may refer to its own table
            if isinstance(value, dict | list | set) or (isinstance(value, deque) and value.maxlen is None):
                found[f"{module}.{kind.__qualname__}.{name}"] += len(value)
    return dict(found)


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def grown(early: dict[str, int], late: dict[str, int]) -> dict[str, tuple[int, int]]:
    """What holds so much more that it isn't chance."""
    return {
        name: (early.get(name, 0), count)
        for name, count in sorted(late.items())
        if count > early.get(name, 0) * (1 + SHARE) + SLACK
    }
