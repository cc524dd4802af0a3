"""What is counted of the node's events. Their words are fixed; peers and addresses in them aren't looked at."""

from __future__ import annotations

from collections import Counter

from node.events import Event, Misbehaved, kind_of


class EventCounts:
    """Listens to the events of a node. `events` by kind, `faults` by reason."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def on_event(self, event: Event) -> None:
        """For `Events.subscribe`."""
        self.events[kind_of(type(event))] += 1
        if isinstance(event, Misbehaved):
            self.faults[event.reason] += 1
