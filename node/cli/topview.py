"""What `vouch top` shows: rules without I/O. Two looks at a node make rates; a look makes a screen.

`Look` holds what the node answered; `rates` compares two; `render` draws the lines for a screen of any size, the most
important first, each cut to its width. Text of strangers (agents, topics) is shown without what a terminal would take
for commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from node.cli.probe import size
from node.cli.remote import duration

Answer = dict[str, Any]
BAR = 10
# part of a limit from which it is shown as nearly used up
FULL = 0.8


@dataclass(frozen=True)
class Look:
    """A look at a node, at a time of the monotonic clock in seconds."""

    at: float
    status: Answer
    peers: list[Answer]
    gossip: Answer | None  # None: it speaks none
    topics: list[Answer] = field(default_factory=list)


def rates(before: Look | None, now: Look) -> dict[str, float]:
    """What the node does in a second, since the look before (0 without one, and after a new start)."""
    counters = now.gossip or {}
    old = before.gossip if before is not None and before.gossip is not None else {}
    seconds = now.at - before.at if before is not None else 0.0
    again = before is not None and now.status["uptime"] < before.status["uptime"]
    names = {
        "published": "published",
        "delivered": "delivered",
        "duplicates": "duplicates",
        "gossip_bytes": "bytes_received",
    }
    found = {name: _rate(old.get(key), counters.get(key), seconds) for name, key in names.items()}
    cpu = _rate(old.get("cpu_ns"), counters.get("cpu_ns"), seconds) / 1e9
    if again:
        return dict.fromkeys([*names, "cpu"], 0.0)
    return {**found, "cpu": cpu}


def _rate(before: float | None, now: float | None, seconds: float) -> float:
    if before is None or now is None or seconds <= 0:
        return 0.0
    return max(0.0, now - before) / seconds


def as_dict(look: Look, found: Mapping[str, float]) -> Answer:
    """A look for programs."""
    return {
        "status": look.status,
        "peers": look.peers,
        "gossip": look.gossip,
        "topics": look.topics,
        "rates": {name: round(value, 3) for name, value in found.items()},
    }


def render(look: Look, found: Mapping[str, float], height: int) -> Group:
    """The screen, at most `height` lines."""
    limits = _limits(look.status["limits"])
    topics = look.topics[:5]
    head = [_identity(look.status), _counts(look, found), _gossip(look, found)]
    left = height - len(head) - limits.row_count - (len(topics) + 2 if topics else 0) - 3
    parts: list[Any] = [*head, limits]
    if topics:
        parts += [Text(), _topics(topics)]
    return Group(*parts, Text(), _peers(look.peers, max(1, left)))


def safe(text: str) -> str:
    """A stranger's text for a terminal."""
    return "".join(one if one.isprintable() else "�" for one in text)


def short(peer: str) -> str:
    return peer if len(peer) <= 16 else f"{peer[:8]}…{peer[-6:]}"


def _line(*parts: tuple[str, str] | str) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _identity(status: Answer) -> Text:
    return _line(
        (short(status["peer_id"]), "bold"),
        f"  {safe(status['network_id'])}  {status['client_version']}  up {duration(status['uptime'])}",
        f"  {', '.join(status['addrs'][:1])}",
    )


def _counts(look: Look, found: Mapping[str, float]) -> Text:
    status = look.status
    return _line(
        "peers ",
        (str(status["peers"]), "bold"),
        f" ({status['inbound']} in, {status['outbound']} out, {sum(peer['flaky'] for peer in look.peers)} flaky)",
        f"  routing table {len(status['routing_table'])}  CPU {found['cpu']:.0%}",
    )


def _gossip(look: Look, found: Mapping[str, float]) -> Text:
    if look.gossip is None:
        return _line(("gossip is off", "dim"))
    return _line(
        f"gossip  in {size(found['gossip_bytes'])}/s  delivered {found['delivered']:.1f}/s",
        f"  copies {found['duplicates']:.1f}/s  published {found['published']:.1f}/s",
    )


def _limits(limits: Mapping[str, Answer]) -> Table:
    """The limits, those nearest to being used up first."""
    table = Table.grid(padding=(0, 2))
    rows = sorted(limits.items(), key=lambda row: -_part(row[1]))
    for name, use in rows[:4]:
        part = _part(use)
        filled = min(BAR, round(part * BAR))
        style = "red" if part >= FULL else "green"
        bar = Text.assemble(("█" * filled, style), ("░" * (BAR - filled), "dim"))
        table.add_row(Text(name), bar, Text(f"{use['used']} of {use['limit']}", style=style if part >= FULL else ""))
    return table


def _part(use: Answer) -> float:
    return float(use["used"]) / use["limit"] if use["limit"] else 0.0


def _columns(*columns: tuple[str, bool]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), expand=False, header_style="bold", pad_edge=False)
    for name, right in columns:
        table.add_column(name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis")
    return table


def _topics(topics: list[Answer]) -> Table:
    table = _columns(("topic", False), ("mesh", True), ("subscribers", True), ("decided by", False))
    for row in topics:
        decides = row["decided_by"] or "nobody"
        table.add_row(Text(safe(row["topic"])), str(row["mesh"]), str(row["subscribers"]), decides)
    return table


def _peers(peers: list[Answer], room: int) -> Table:
    """The peers: flaky ones first, then the lowest scores, as many as there is room for."""
    table = _columns(
        ("peer", False),
        ("way", False),
        ("agent", False),
        ("rtt", True),
        ("score", True),
        ("for", True),
        ("addr", False),
    )
    ordered = sorted(peers, key=lambda peer: (not peer["flaky"], peer["score"], peer["peer"]))
    for peer in ordered[:room] if len(ordered) <= room else ordered[: max(0, room - 1)]:
        style = "red" if peer["flaky"] else ""
        table.add_row(
            Text(short(peer["peer"]), style=style),
            "in" if peer["direction"] == "inbound" else "out",
            Text(safe(peer["client_version"] or peer["agent"] or "-")[:16]),
            "-" if peer["rtt"] is None else f"{peer['rtt'] * 1000:.1f}ms",
            f"{peer['score']:.1f}",
            duration(peer["connected_for"]),
            Text(safe(peer["addr"]).partition("/p2p/")[0]),
        )
    if len(ordered) > room:
        table.add_row(Text(f"… {len(ordered) - room + 1} more", style="dim"))
    if not peers:
        table.add_row(Text("no peers", style="dim"))
    return table
