"""`vouch explore`: walks the network outward from one node, and tells who is there and who knows whom.

It runs a short-lived node of its own, which listens nowhere and answers no questions about others. The result is a
table for people, `--json`, or `--dot` for Graphviz; how far it is goes to standard error. Ctrl-C ends the walk, and
what was found by then is told all the same (exit status 130). Status 1: the first node couldn't be reached.

    {"start": "12D3…", "ended": "complete", "seconds": 2.1, "left_out": 0, "nodes": [
      {"peer": "12D3…", "state": "reached", "reachable": true, "depth": 0, "agent": "…", "version": "vouch/0.1.0",
       "addrs": ["/ip4/…"], "rtt_us": 812, "protocols": ["/ipfs/id/1.0.0", …], "error": "", "knows": ["12D3…"],
       "known_by": ["12D3…"]}, …]}

`ended`: complete, timeout, interrupted. A node's `state`: reached, refused (it is there, and admits us not),
unreachable, waiting (not visited). `left_out`: how often a peer was named when there were --max-nodes of them.
What nodes say of themselves is theirs: it is shown without characters that a terminal or Graphviz would obey.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import tempfile
import typing
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio
from rich.console import Console
from rich.table import Table

from node.cli.parser import settings_from
from node.cli.shown import round_trip, safe, short
from node.config import Config
from node.errors import UsageError
from node.explore import Seen, Walk, explore, walk_from
from node.identity import Identity
from node.log import configure
from node.node import Node

PROGRESS_EVERY = 0.25
# where nobody watches, a line now and then
PROGRESS_LINES_EVERY = 2.0
MAX_TEXT = 60


def run(args: argparse.Namespace) -> int:
    """Walks, and writes what was found."""
    walk = walk_from(args.address, max_nodes=args.max_nodes, rate=args.rate)
    config = settings_from(args).config
    configure(form="text", level="error", stream=sys.stderr)
    with _destination(args.out) as write:
        ended, seconds = trio.run(_walk, config, walk, args.timeout)
        told = as_json(walk, ended, seconds) if args.json else as_dot(walk) if args.dot else ""
        if args.out is not None:
            dot = args.dot or (not args.json and args.out.suffix in (".dot", ".gv"))
            write(as_dot(walk) if dot else as_json(walk, ended, seconds))
        elif told:
            print(told)
    if not args.json and not args.dot:
        _show(walk, ended, seconds)
    if ended == "interrupted":
        return 130
    first = walk.nodes[walk.start]
    if first.state not in ("reached", "waiting", "under way"):
        print(f"vouch: error: {safe(first.error, 500)}", file=sys.stderr)
        return 1
    return 0


async def _walk(config: Config, walk: Walk, timeout: float) -> tuple[str, float]:
    """How the walk ended, and after how many seconds."""
    off = dict.fromkeys(("dht", "gossip", "heartbeat", "pool"), "off")
    config = dataclasses.replace(
        config, listen=(), bootstrap=(), exchange="on", addressbook="memory", **typing.cast("Any", off)
    )
    began, ended = trio.current_time(), "complete"
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, trio.CancelScope() as stopped:
        node = Node(config, identity=Identity.generate())
        node.peers.sources.clear()  # whom it meets is for the walk to say
        assert node.exchange is not None
        node.registry.remove(node.exchange.protocol.id)
        async with node, trio.open_nursery() as nursery:
            nursery.start_soon(_stop_at, signals, stopped)
            nursery.start_soon(_progress, walk, began)
            with trio.move_on_after(timeout) as deadline:
                await explore(node, walk)
            if deadline.cancelled_caught:
                ended = "timeout"
            nursery.cancel_scope.cancel()
    _erase_progress()
    if stopped.cancelled_caught:
        ended = "interrupted"
    return ended, trio.current_time() - began


async def _stop_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()
        return


async def _progress(walk: Walk, began: float) -> None:
    watched = sys.stderr.isatty()
    while True:
        await trio.sleep(PROGRESS_EVERY if watched else PROGRESS_LINES_EVERY)
        line = _line(walk, trio.current_time() - began)
        if watched:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(f"vouch: {line}", file=sys.stderr, flush=True)


def _erase_progress() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _line(walk: Walk, seconds: float) -> str:
    counts = walk.counts()
    count = len(walk.nodes)
    parts = [f"{count} {'node' if count == 1 else 'nodes'}", f"{counts['reached']} reached"]
    parts += [f"{counts[state]} {state}" for state in ("refused", "unreachable", "waiting") if counts[state]]
    parts += [f"{walk.left_out} named beyond --max-nodes"] if walk.left_out else []
    return f"{', '.join(parts)}; {seconds:.1f} s"


def _known_by(walk: Walk) -> dict[str, list[str]]:
    known_by: dict[str, list[str]] = {peer: [] for peer in walk.nodes}
    for seen in walk.nodes.values():
        for other in seen.knows:
            known_by[other].append(seen.peer)
    return known_by


def as_json(walk: Walk, ended: str, seconds: float) -> str:
    """The whole result, in the form of the module's docstring."""
    known_by = _known_by(walk)
    nodes: list[dict[str, Any]] = [
        {
            "peer": seen.peer,
            "state": "waiting" if seen.state == "under way" else seen.state,
            "reachable": seen.reachable,
            "depth": seen.depth,
            "agent": seen.agent,
            "version": seen.version,
            "addrs": list(seen.addrs),
            "rtt_us": None if seen.rtt is None else round(seen.rtt * 1e6),
            "protocols": list(seen.protocols),
            "error": seen.error,
            "knows": list(seen.knows),
            "known_by": known_by[seen.peer],
        }
        for seen in walk.nodes.values()
    ]
    result = {"start": walk.start, "ended": ended, "seconds": round(seconds, 3), "left_out": walk.left_out}
    return json.dumps(result | {"nodes": nodes}, indent=2)


def as_dot(walk: Walk) -> str:
    """A directed graph for Graphviz: an arrow to whom a node has named; dashed who wasn't reached."""
    lines = ["digraph network {", "  rankdir=LR;", "  node [shape=box, fontsize=10];"]
    for seen in walk.nodes.values():
        label = "\\n".join(_quoted(text) for text in (short(seen.peer), _agent(seen), _rtt(seen)) if text)
        style = "" if seen.state == "reached" else ", style=dashed"
        mark = ", penwidth=2" if seen.peer == walk.start else ""
        lines.append(f'  "{_quoted(seen.peer)}" [label="{label}"{style}{mark}];')
    for seen in walk.nodes.values():
        lines += [f'  "{_quoted(seen.peer)}" -> "{_quoted(other)}";' for other in seen.knows]
    return "\n".join([*lines, "}"])


def _show(walk: Walk, ended: str, seconds: float) -> None:
    table = Table(box=None, header_style="")
    for name in ("peer", "state", "agent", "rtt", "knows", "known by", "address"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("rtt", "knows", "known by") else "left")
    known_by = _known_by(walk)
    for seen in walk.nodes.values():
        addr = next(iter(seen.addrs), "-")
        row = (_agent(seen) or "-", _rtt(seen) or "-", str(len(seen.knows)), str(len(known_by[seen.peer])))
        table.add_row(seen.peer, "waiting" if seen.state == "under way" else seen.state, *row, safe(addr, MAX_TEXT))
    width = None if sys.stdout.isatty() else 240
    Console(width=width, highlight=False, markup=False, soft_wrap=True).print(table)
    print(f"{_line(walk, seconds)}, {ended}")


def _agent(seen: Seen) -> str:
    agent, version = safe(seen.agent, MAX_TEXT), safe(seen.version, MAX_TEXT)
    return agent if not version or version == agent else f"{agent} ({version})".strip()


def _rtt(seen: Seen) -> str:
    return "" if seen.rtt is None else round_trip(seen.rtt)


def _quoted(text: str) -> str:
    """Text inside the quotes of a Graphviz string."""
    return safe(text, 200).replace("\\", "\\\\").replace('"', '\\"')


@contextmanager
def _destination(out: Path | None) -> Iterator[Any]:
    """A function that puts the result into `out`, whole or not at all. Raises UsageError before the walk begins."""
    if out is None:
        yield None
        return
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{out.name}-", dir=out.parent)
        os.fchmod(descriptor, 0o644)
    except OSError as error:
        raise UsageError(f"--out {out}: expected a file that can be written, got: {error.strerror}") from error
    temporary = Path(name)

    def write(text: str) -> None:
        try:
            with open(descriptor, "w", encoding="utf-8", closefd=False) as file:
                file.write(text + "\n")
            temporary.replace(out)
        except OSError as error:
            raise UsageError(f"--out {out}: expected a file that can be written, got: {error.strerror}") from error

    try:
        yield write
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)
