"""What the swarm counts as it works, for metrics: streams and bytes by protocol, connections, handshakes.

A `Flow` is one protocol's; every stream has one, and adds to it for each buffer that it takes or gives. Strangers make
no flows: those of streams that they open are of protocols that this node answers.
"""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Mapping
from typing import Any

from protocols.histogram import Histogram

# programs may name protocols too, many if they like: what is beyond shares one flow
MOST_FLOWS = 64
NEGOTIATION, OTHER = "negotiation", "other"


class Flow:
    """The streams of one protocol that were opened since the start, and their bytes."""

    __slots__ = ("inbound", "name", "outbound", "received", "sent")

    def __init__(self, name: str) -> None:
        self.name = name
        self.inbound = 0
        self.outbound = 0
        self.received = 0
        self.sent = 0


class Traffic:
    """The flows of one node. `negotiation` is of streams whose protocol isn't agreed on yet."""

    def __init__(self) -> None:
        self.negotiation = Flow(NEGOTIATION)
        self.flows: dict[str, Flow] = {NEGOTIATION: self.negotiation}

    def opened(self, protocol: str, *, inbound: bool) -> Flow:
        """The flow of a stream that has agreed on its protocol, and is counted with it."""
        flow = self.flows.get(protocol)
        if flow is None:
            if len(self.flows) >= MOST_FLOWS:
                protocol = OTHER
            flow = self.flows.setdefault(protocol, Flow(protocol))
        if inbound:
            flow.inbound += 1
        else:
            flow.outbound += 1
        return flow


class Connections:
    """What became of connections. The words of reasons and outcomes are this package's own."""

    def __init__(self) -> None:
        self.opened: Counter[tuple[str, str]] = Counter()  # direction, transport
        self.ended: Counter[tuple[str, str, str]] = Counter()  # and reason
        self.verdicts: Counter[tuple[str, str]] = Counter()  # direction, outcome of the admission
        self.dialled: Counter[tuple[str, str]] = Counter()  # transport, outcome: of addresses
        # from the socket to the admission, of those that were admitted
        self.seconds = {"inbound": Histogram(), "outbound": Histogram()}


class MetricsSource(typing.Protocol):
    """Who tells all numbers: `node.metrics.Metrics`."""

    def text(self) -> bytes:
        """In Prometheus' text format."""

    def snapshot(self) -> Mapping[str, Any]:
        """For programs."""


def transport_of(addr: str) -> str:
    """The transport in a multiaddr: quic, wss, ws, tcp or other."""
    parts = addr.split("/")
    if "quic-v1" in parts or "quic" in parts:
        return "quic"
    if "wss" in parts or ("ws" in parts and "tls" in parts):
        return "wss"
    if "ws" in parts:
        return "ws"
    return "tcp" if "tcp" in parts else OTHER
