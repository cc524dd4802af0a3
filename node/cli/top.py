"""`vouch top`: the running node on the screen, again and again. What is shown is `node.cli.topview`.

With --json it prints an object a line for each look instead, for programs; --once or --count end it.
A node that stops or isn't there ends it with the error; a terminal that is no terminal gets plain text.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.live import Live

from node.api.client import Client
from node.cli.parser import settings_from
from node.cli.topview import Look, as_dict, rates, render
from node.errors import OffError


def top(args: argparse.Namespace) -> int:
    """Shows the node until it is interrupted; that is no failure."""
    looks = 1 if args.once else args.count
    with Client(settings_from(args).config.control_socket) as client:
        try:
            if args.json:
                _lines(client, args.interval, looks)
            elif looks == 1:
                console = Console(soft_wrap=False)
                console.print(render(*_first(client), height=max(24, console.height)))
            else:
                _screen(client, args.interval, looks)
        except KeyboardInterrupt:
            pass
    return 0


def look(client: Client) -> Look:
    """One look at the node."""
    status = client.call("status")
    peers = client.call("peers")["peers"]
    gossip: dict[str, Any] | None = None
    topics: list[dict[str, Any]] = []
    with suppress(OffError):
        gossip, topics = client.call("gossip"), client.call("topics")["topics"]
    return Look(time.monotonic(), status, peers, gossip, topics)


def _first(client: Client) -> tuple[Look, dict[str, float]]:
    """A look with rates of a moment, which needs two."""
    before = look(client)
    time.sleep(0.5)
    now = look(client)
    return now, rates(before, now)


def _lines(client: Client, interval: float, looks: int | None) -> None:
    now, found = _first(client)
    while True:
        print(json.dumps(as_dict(now, found)), flush=True)
        if looks is not None:
            looks -= 1
            if not looks:
                return
        time.sleep(interval)
        before, now = now, look(client)
        found = rates(before, now)


def _screen(client: Client, interval: float, looks: int | None) -> None:
    console = Console()
    before: Look | None = None
    with Live(console=console, screen=console.is_terminal, auto_refresh=False, vertical_overflow="crop") as live:
        while looks is None or looks:
            now = look(client)
            live.update(render(now, rates(before, now), height=console.height), refresh=True)
            before = now
            looks = None if looks is None else looks - 1
            if looks != 0:
                time.sleep(interval)
