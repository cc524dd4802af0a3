"""Which cells there are, and which aren't applicable. Rules only, no I/O."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

PEERS = ("go", "rust", "js", "stock")
TRANSPORTS = ("tcp", "ws", "quic-v1")
SECURITIES = ("noise", "tls")
DIRECTIONS = ("out", "in")  # who dials: our node, or the peer
RESULTS = ("pass", "fail", "upstream", "na")

# in the order in which they are run on one pair of ends: what leaves traces comes last
CHECKS = {
    "connect": "who dials is connected, and both ends know it",
    "handshake": "both of the same network: each admits the other",
    "identify": "each learns the other's name, protocols and addresses",
    "identify-push": "each hears of a protocol that the other adds",
    "ping": "round trips, asked for by each",
    "streams": "64 streams at once, opened by each; every byte is checked",
    "half-close": "each sends, ends its direction, and still gets all that comes back, and its end",
    "reset": "each resets a stream, and each has one reset: the connection lives on",
    "transfer": "100 MiB each way at once, every byte checked, and 100 MiB each way asked for by the peer",
    "kad-values": "put and get, by each; a value that only the other has is found",
    "kad-providers": "provide and find, by each",
    "kad-peers": "each finds a peer that only the other knows",
    "gossip-accept": "what one accepts travels on to a third; either in the middle",
    "messages": "signed messages: one-way, requests, error answers, by each",
    "gossip-ignore": "what one ignores goes no further",
    "gossip-reject": "what one rejects goes no further, and its sender pays",
    "other-network": "a peer of another network is refused, by either, and hears nothing",
    "other-version": "a peer whose version is too low is refused, by either",
    "disconnect": "who dialled closes, and the other end hears of it",
}

NO_HANDSHAKE = (
    "py-libp2p's host has no admission: it answers and asks as soon as it is connected, so the handshake on it would "
    "be this project's code at both ends"
)
NO_MESSAGES = "py-libp2p has no signed messages: they would be this project's code at both ends"
NOT_ON_STOCK = {
    "handshake": NO_HANDSHAKE,
    "other-network": NO_HANDSHAKE,
    "other-version": NO_HANDSHAKE,
    "messages": NO_MESSAGES,
}


@dataclass(frozen=True, order=True)
class Line:
    """What one pair of ends has in common. QUIC's security is TLS, always."""

    peer: str
    transport: str
    security: str
    direction: str

    def __str__(self) -> str:
        who = "python dials" if self.direction == "out" else f"{self.peer} dials"
        return f"{self.peer} {self.transport} {self.security}, {who}"


@dataclass(frozen=True, order=True)
class Cell:
    """One check on one line."""

    line: Line
    check: str


@dataclass(frozen=True)
class Result:
    """What came of a cell. `reproduction` is a path, of results that say upstream."""

    cell: Cell
    result: str
    reason: str = ""
    seconds: float = 0.0
    reproduction: str = ""

    def __post_init__(self) -> None:
        if self.result not in RESULTS:
            raise ValueError(f"expected a result of {', '.join(RESULTS)}, got {self.result!r}")
        if self.result != "pass" and not self.reason:
            raise ValueError(f"expected a reason for {self.result}")
        if (self.result == "upstream") != bool(self.reproduction):
            raise ValueError("expected a reproduction for upstream, and for nothing else")


def lines(
    peers: Collection[str] = PEERS,
    transports: Collection[str] = TRANSPORTS,
    securities: Collection[str] = SECURITIES,
    directions: Collection[str] = DIRECTIONS,
) -> list[Line]:
    """The lines of those, in the order of the document."""
    return [
        Line(peer, transport, security, direction)
        for peer in PEERS
        for transport in TRANSPORTS
        for security in SECURITIES
        for direction in DIRECTIONS
        if peer in peers and transport in transports and security in securities and direction in directions
        if transport != "quic-v1" or security == "tls"
    ]


def cells(line: Line, checks: Collection[str] = tuple(CHECKS)) -> list[Cell]:
    """The line's cells, in the order in which they are run."""
    known = [check for check in CHECKS if check in checks]
    return [Cell(line, check) for check in (*known, *(check for check in checks if check not in CHECKS))]


def not_applicable(cell: Cell) -> str:
    """Why there is nothing to check; empty if there is."""
    return NOT_ON_STOCK.get(cell.check, "") if cell.line.peer == "stock" else ""
