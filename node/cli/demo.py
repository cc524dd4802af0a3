"""`vouch demo`: a few real nodes on this machine, and a view of how they find each other.

    node 1 <--bootstrap-- nodes 2 to N      each a process with a data directory of its own, on loopback
       \\----------- control sockets, asked every POLL seconds -----------> table or JSON lines

Nodes 2 to N are told of node 1 alone; the rest they find through Kademlia. The demo is over when each node's routing
table holds all others and one has pinged another, or at the timeout; then nodes and directories are removed, whatever
happened. Who knows whom is `Progress`, which does no I/O.

`--json`, one object a line; nodes go by number, `seconds` are those until the tables were complete:

    {"event": "started", "node": 1, "peer": "12D3KooW...", "addrs": ["/ip4/127.0.0.1/tcp/..."]}
    {"event": "table", "node": 2, "peers": 3, "routing_table": [1, 3, 4]}          whenever it changes
    {"event": "ping", "from": 1, "to": 4, "rtt_us": 640}                           the best of PINGS
    {"event": "complete", "nodes": 4, "seconds": 5.1}                              exit status 0
    {"event": "timeout", "missing": {"2": [3, 4]}}                                 instead of the last two; 1
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from node.cli.processes import EndedError, Nodes, noted_signals, raise_noted
from node.errors import UsageError, VouchError

# as many as a bucket of Kademlia's holds: past that, two nodes may rightly never be in each other's tables
MAX_NODES = 20
POLL = 0.3
PINGS = 5
PING_TIMEOUT = 10.0


@dataclass(frozen=True)
class Row:
    """One node as it was last seen: its peer ID ("" before it answers), its peers' count, whom its table holds."""

    node: int
    peer: str = ""
    peers: int = 0
    routing_table: tuple[int, ...] = ()


class Progress:
    """Who knows whom, from what the nodes answer. Nodes are numbered from 1."""

    def __init__(self, count: int) -> None:
        self.numbers = range(1, count + 1)
        self._peers: dict[int, str] = {}
        self._seen: dict[int, tuple[int, frozenset[str]]] = {}
        self._told = {number: Row(number) for number in self.numbers}

    def answered(self, node: int, peer: str, peers: int, routing_table: Iterable[str]) -> bool:
        """Takes in a node's answer. Whether it was the node's first."""
        first = node not in self._peers
        self._peers[node] = peer
        self._seen[node] = peers, frozenset(routing_table)
        return first

    def row(self, node: int) -> Row:
        """The node's row. Peer IDs of nodes that haven't answered yet aren't in it: they have no number so far."""
        peers, held = self._seen.get(node, (0, frozenset()))
        table = tuple(number for number in self.numbers if number != node and self._peers.get(number) in held)
        return Row(node, self._peers.get(node, ""), peers, table)

    def rows(self) -> list[Row]:
        """Every node's row."""
        return [self.row(number) for number in self.numbers]

    def changes(self) -> list[Row]:
        """The rows whose peers or table differ from those of the last call."""
        changed = []
        for row in self.rows():
            told = self._told[row.node]
            if (row.peers, row.routing_table) != (told.peers, told.routing_table):
                changed.append(row)
            self._told[row.node] = row
        return changed

    def missing(self) -> dict[int, list[int]]:
        """For each node whose table isn't complete, whom it lacks. Empty when all are complete."""
        lacks = {
            row.node: [number for number in self.numbers if number != row.node and number not in row.routing_table]
            for row in self.rows()
        }
        return {node: others for node, others in lacks.items() if others}


def demo(args: argparse.Namespace) -> int:
    """Runs the nodes until they know each other; exit status 1 if they don't within `--timeout`."""
    if not 2 <= args.nodes <= MAX_NODES:
        raise UsageError(f"--nodes: expected at least 2 and at most {MAX_NODES}, got {args.nodes}")
    progress = Progress(args.nodes)
    display: _Display = _Lines() if args.json else _Screen(progress)
    with noted_signals() as noted, tempfile.TemporaryDirectory(prefix="vouch-demo-") as folder:
        nodes = Nodes(Path(folder), MAX_NODES)
        try:
            with display:
                _run(progress, nodes, display, args.timeout, noted)
        except EndedError as error:
            print(error.log, file=sys.stderr)
            raise
        finally:
            nodes.stop()
    return 0


def _run(progress: Progress, nodes: Nodes, display: _Display, timeout: float, noted: Sequence[int]) -> None:
    began = time.monotonic()
    bootstrap, last = progress.numbers[0], progress.numbers[-1]
    nodes.start(bootstrap)
    while True:
        _look(progress, nodes, display)
        if not progress.missing():
            break
        if nodes.addrs and len(nodes.processes) == 1:
            for number in progress.numbers[1:]:
                nodes.start(number, "--bootstrap", nodes.addrs[bootstrap])
        left = began + timeout - time.monotonic()
        if left <= 0:
            missing = progress.missing()
            display.timed_out(missing)
            lacks = "; ".join(f"{node} lacks {', '.join(map(str, others))}" for node, others in missing.items())
            raise VouchError(f"routing tables aren't complete after {timeout:g} s: node {lacks} (see --timeout)")
        time.sleep(min(POLL, left))
        raise_noted(noted)
    seconds = time.monotonic() - began
    display.pinged(bootstrap, last, round(_ping(nodes, bootstrap, last) * 1e6))
    display.complete(len(progress.numbers), seconds)


def _look(progress: Progress, nodes: Nodes, display: _Display) -> None:
    """Asks each node that runs, and shows what is new."""
    for number in list(nodes.processes):
        answer = nodes.status(number)
        if answer is None:
            continue
        if progress.answered(number, answer["peer_id"], answer["peers"], answer["routing_table"]):
            display.started(number, answer["peer_id"], answer["addrs"])
    display.changed(progress.changes())


def _ping(nodes: Nodes, number: int, other: int) -> float:
    """The best round trip from one node to another, in seconds."""
    with nodes.client(number, PING_TIMEOUT) as client:
        answer = client.call("ping", target=nodes.addrs[other], count=PINGS)
    if answer["lost"]:
        raise VouchError(f"node {number} had no answer to a ping of node {other}: {answer['error']}")
    return float(min(answer["rtts"]))


class _Display(Protocol):
    """How progress is shown; entered before the first call."""

    def __enter__(self) -> object: ...
    def __exit__(self, *error: object) -> None: ...
    def started(self, node: int, peer: str, addrs: list[str]) -> None: ...
    def changed(self, rows: list[Row]) -> None: ...
    def pinged(self, node: int, other: int, rtt_us: int) -> None: ...
    def complete(self, nodes: int, seconds: float) -> None: ...
    def timed_out(self, missing: dict[int, list[int]]) -> None: ...


class _Lines:
    """For programs: the events of the module's docstring."""

    def __enter__(self) -> object:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def started(self, node: int, peer: str, addrs: list[str]) -> None:
        self._print("started", node=node, peer=peer, addrs=addrs)

    def changed(self, rows: list[Row]) -> None:
        for row in rows:
            self._print("table", node=row.node, peers=row.peers, routing_table=row.routing_table)

    def pinged(self, node: int, other: int, rtt_us: int) -> None:
        self._print("ping", **{"from": node, "to": other, "rtt_us": rtt_us})

    def complete(self, nodes: int, seconds: float) -> None:
        self._print("complete", nodes=nodes, seconds=round(seconds, 2))

    def timed_out(self, missing: dict[int, list[int]]) -> None:
        self._print("timeout", missing=missing)

    def _print(self, event: str, **values: Any) -> None:
        print(json.dumps({"event": event, **values}), flush=True)


class _Screen:
    """For people: a table that fills up, and a line for each result under it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._console = Console(highlight=False)
        # drawn by hand: a thread of rich's could be in the middle of a line when we stop
        self._live = Live(self._table(), console=self._console, auto_refresh=False)

    def __enter__(self) -> object:
        return self._live.__enter__()

    def __exit__(self, *error: object) -> None:
        if self._live.is_started:
            self._live.stop()
            if not self._console.is_terminal:
                self._console.line()  # rich leaves it out there

    def started(self, node: int, peer: str, addrs: list[str]) -> None:
        self._draw()

    def changed(self, rows: list[Row]) -> None:
        if rows:
            self._draw()

    def pinged(self, node: int, other: int, rtt_us: int) -> None:
        self.__exit__()
        self._console.print(f"node {node} pinged node {other}: {rtt_us} µs, the best of {PINGS}")

    def complete(self, nodes: int, seconds: float) -> None:
        self._console.print(f"complete: each of {nodes} nodes has the others in its routing table, {seconds:.1f} s")

    def timed_out(self, missing: dict[int, list[int]]) -> None:
        pass  # the table shows it, and the error says it

    def _draw(self) -> None:
        self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        table = Table("node", "peer ID", "peers", "routing table")
        for row in self._progress.rows():
            others = [number for number in self._progress.numbers if number != row.node]
            held = " ".join(str(number) if number in row.routing_table else "·" for number in others)
            style = "green" if len(row.routing_table) == len(others) else None
            peer = f"{row.peer[:8]}…{row.peer[-6:]}" if row.peer else "starting"
            table.add_row(str(row.node), peer, str(row.peers), held, style=style)
        return table
