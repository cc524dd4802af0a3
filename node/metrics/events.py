"""What is counted of the node's events. Their words are fixed; peers and addresses in them aren't looked at."""

from __future__ import annotations

import re
from collections import Counter

from node.events import Event, Misbehaved, event_classes

NAMES: dict[type[Event], str] = {
    kind: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower() for kind in event_classes()
}


class EventCounts:
    """Listens to the events of a node. `events` by kind, `faults` by reason."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def on_event(self, event: Event) -> None:
        """For `Events.subscribe`."""
        self.events[NAMES[type(event)]] += 1
        if isinstance(event, Misbehaved):
            self.faults[event.reason] += 1
