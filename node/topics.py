"""Who decides on a node's topics, where no program does so in its own code.

    --topic NAME            what is signed properly is accepted
    --topic NAME=COMMAND    a program decides (`node.verdicts`)
    listening(NAME)         if nobody decides on it: as the first, as long as somebody listens

A topic has one decider; who listens sees what was accepted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from node.errors import UsageError
from node.program import AT_ONCE
from node.verdicts import Program
from protocols.gossip import Gossip, Subscription


class Topics:
    """The topics of one router."""

    def __init__(self, gossip: Gossip, configured: Mapping[str, str]) -> None:
        """Joins the topics of the settings: names, and commands or "". Raises UsageError."""
        self._gossip = gossip
        self._relayed: Counter[str] = Counter()  # how many listen to a topic that we decide on for their sake
        for topic, command in configured.items():
            try:
                if command:
                    program = Program(topic, command, gossip.params.verdict_timeout)
                    gossip.validator(topic, at_once=AT_ONCE)(program)
                else:
                    gossip.relay(topic)
            except ValueError as error:
                raise UsageError(f"topic: {error}") from None

    @contextmanager
    def listening(self, topic: str) -> Iterator[tuple[Subscription, bool]]:
        """The messages that are accepted from now on, and whether we accept them because nobody else decides.

        Raises UsageError for what is no topic.
        """
        try:
            subscription = self._gossip.subscribe(topic, decide=False)
        except ValueError as error:
            raise UsageError(f"topic: {error}") from None
        relays = self._begin(topic)
        try:
            yield subscription, relays
        finally:
            subscription.close()
            if relays:
                self._end(topic)

    def _begin(self, topic: str) -> bool:
        if not self._relayed[topic]:
            try:
                self._gossip.relay(topic)
            except ValueError:  # somebody decides: the name was checked
                return False
        self._relayed[topic] += 1
        return True

    def _end(self, topic: str) -> None:
        self._relayed[topic] -= 1
        if not self._relayed[topic]:
            del self._relayed[topic]
            self._gossip.leave(topic)
