"""What our node is to reach at least: ratios of medians within one run. Told, not enforced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Medians = Mapping[str, Mapping[str, float]]  # by line and pairing


@dataclass(frozen=True)
class Floor:
    """`pairing` reaches `bound` times what `yardstick` does in that line, or stays under it where less is better."""

    line: str
    bound: float
    yardstick: str = ""  # none: the bound is a value in the line's own unit
    pairing: str = "vouch"
    less: bool = False
    of: str = ""  # the yardstick's line, if it is another one

    def __str__(self) -> str:
        sense = ("at most" if self.yardstick else "under") if self.less else "at least"
        than = f" times {self.yardstick}" + (f"'s {self.of}" if self.of else "") if self.yardstick else ""
        return f"{sense} {self.bound:g}{than}"


@dataclass(frozen=True)
class Verdict:
    """One floor, with the ratio (or value) that was measured."""

    floor: Floor
    measured: float

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.measured <= self.floor.bound if self.floor.less else self.measured >= self.floor.bound


FLOORS = (
    *(
        Floor(line, bound, yardstick)
        for line in ("bulk-up", "bulk-down")
        for yardstick, bound in (("go", 1.5), ("rust", 1.2), ("stock", 3.5))
    ),
    Floor("bulk-both", 2.2, "go"),
    Floor("bulk-up-cpu", 5, "stock"),
    Floor("bulk-down-cpu", 5, "stock"),
    *(Floor(line, 0.9, "go", pairing) for pairing in ("vouch-go", "go-vouch") for line in ("bulk-up", "bulk-down")),
    Floor("ping-p50", 2.2, "tcp", less=True),
    Floor("streams-16", 4.5, "stock"),
    Floor("requests-16", 8, "stock"),
    Floor("signed-requests", 1.5, "stock"),
    Floor("unsigned-requests", 6, "stock"),
    Floor("connection-cpu", 0.5, "stock", less=True),
    Floor("connection-memory", 1, "stock", less=True),
    Floor("idle-cpu", 1, less=True),
    Floor("gossip-messages", 6, "stock"),
    Floor("gossip-deliveries", 12, "stock"),
    Floor("gossip-p99", 1, "stock", less=True, of="gossip-p50"),
    Floor("gossip-cpu", 2, "go", less=True),
)


def verdicts(medians: Medians) -> Iterator[Verdict]:
    """Of those floors that can be judged with what was measured."""
    for floor in FLOORS:
        values = medians.get(floor.line, {})
        measured = values.get(floor.pairing)
        by = medians.get(floor.of or floor.line, {}).get(floor.yardstick) if floor.yardstick else 1.0
        if measured is not None and by:
            yield Verdict(floor, measured / by)
