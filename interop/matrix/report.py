"""What the matrix tells: a line of JSON for each cell, and docs/interop.md."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence

from interop.matrix.cells import CHECKS, DIRECTIONS, PEERS, RESULTS, Line, Result, lines

NAMES = {"go": "Go", "rust": "Rust", "js": "JavaScript", "stock": "py-libp2p"}
TRANSPORT_NAMES = {"tcp": "TCP", "ws": "WebSocket", "quic-v1": "QUIC"}
SECURITY_NAMES = {"noise": "Noise", "tls": "TLS"}
_PEER_ID = re.compile(r"12D3KooW\w{44}")  # another one in every run
HEAD = """# The matrix: our node with each other implementation

Made by `make interop`; not edited by hand. Each cell is one check on two processes that talk over loopback: pass; fail;
upstream where a program without any code of ours shows a defect of a library; na where there is nothing to check.
What didn't pass has its reason below its table. *out*: our node dials; *in*: the peer does.
"""


def as_json(result: Result) -> str:
    """One line."""
    line = result.cell.line
    fields = {
        "peer": line.peer,
        "transport": line.transport,
        "security": line.security,
        "direction": line.direction,
        "check": result.cell.check,
        "result": result.result,
        "seconds": round(result.seconds, 3),
    }
    if result.reason:
        fields["reason"] = result.reason
    if result.reproduction:
        fields["reproduction"] = result.reproduction
    return json.dumps(fields)


def summary(results: Iterable[Result]) -> str:
    """How many of each kind."""
    counts = dict.fromkeys(RESULTS, 0)
    for result in results:
        counts[result.result] += 1
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def document(
    results: Sequence[Result], versions: Mapping[str, Mapping[str, str]], date: datetime.date, seconds: float
) -> str:
    """docs/interop.md: a table for each peer, rows checks, columns what they talk over and who dials."""
    parts = [HEAD, f"{date.isoformat()}, in {seconds:.0f} s: {summary(results)}.\n", _versions(versions), _checks()]
    by_cell = {(result.cell.line, result.cell.check): result for result in results}
    for peer in PEERS:
        columns = [line for line in lines((peer,)) if any(key[0] == line for key in by_cell)]
        if columns:
            parts.append(_table(peer, columns, by_cell))
    return "\n".join(parts)


def column(line: Line) -> str:
    """A line of the matrix as the head of a column."""
    over = TRANSPORT_NAMES[line.transport]
    if line.transport != "quic-v1":
        over += f" {SECURITY_NAMES[line.security]}"
    return f"{over} {line.direction}"


def _versions(versions: Mapping[str, Mapping[str, str]]) -> str:
    rows = []
    for name in ("vouch", "stock", *(f"{peer} peer" for peer in PEERS)):
        said = versions.get(name)
        if said:
            rows.append(f"- {name}: {', '.join(f'{what} {version}' for what, version in sorted(said.items()))}")
    return "\n".join(rows) + "\n"


def _checks() -> str:
    return "\n".join(["## What is checked", "", *(f"- `{name}`: {what}" for name, what in CHECKS.items()), ""])


def _table(peer: str, columns: Sequence[Line], by_cell: Mapping[tuple[Line, str], Result]) -> str:
    rows = [f"## {NAMES[peer]}", "", "| | " + " | ".join(map(column, columns)) + " |"]
    rows.append("|---|" + "---|" * len(columns))
    reasons: dict[str, list[str]] = {}
    for check in CHECKS:
        entries = []
        for line in columns:
            result = by_cell.get((line, check))
            entries.append(result.result if result is not None else "")
            if result is not None and result.reason:
                text = _PEER_ID.sub("PEER", result.reason)
                text += f" (`{result.reproduction}`)" if result.reproduction else ""
                reasons.setdefault(f"**{result.result}** {text}", []).append(f"{check}: {column(line)}")
        rows.append(f"| {check} | " + " | ".join(entries) + " |")
    rows.append("")
    for text, where in reasons.items():
        rows.append(f"- {text.replace('|', chr(92) + '|')}  \n  {_shortened(where, len(columns))}")
    if reasons:
        rows.append("")
    return "\n".join(rows)


def _shortened(where: Sequence[str], columns: int) -> str:
    """The cells of one reason; a check that has it in all columns is named once."""
    by_check: dict[str, list[str]] = {}
    for text in where:
        check, _, over = text.partition(": ")
        by_check.setdefault(check, []).append(over)
    return "; ".join(
        check if len(overs) == columns else f"{check}: {', '.join(overs)}" for check, overs in by_check.items()
    )


def parse(text: str) -> dict[tuple[Line, str], str]:
    """What a document says of each cell."""
    heads = {column(line): line for line in lines(("go",))}
    peers = {name: peer for peer, name in NAMES.items()}
    found: dict[tuple[Line, str], str] = {}
    peer, columns = "", list[Line]()
    for row in text.splitlines():
        if row.startswith("## "):
            peer = peers.get(row.removeprefix("## "), "")
        if not peer or not row.startswith("| "):
            continue
        first, *rest = [part.strip() for part in row.strip("|").split("|")]
        if not first:
            columns = [Line(peer, *_rest(heads[head])) for head in rest]
        else:
            found |= {(line, first): entry for line, entry in zip(columns, rest, strict=True)}
    return found


def _rest(line: Line) -> tuple[str, str, str]:
    assert line.direction in DIRECTIONS
    return line.transport, line.security, line.direction
