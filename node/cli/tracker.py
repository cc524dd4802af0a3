"""`vouch tracker`: a node that is a rendezvous point. `vouch rendezvous list|discover`: who is registered there.

`tracker --json` prints events to standard output, one object a line, and its log to standard error:

    {"event": "listening", "addr": "/ip4/…/p2p/12D3…"}
    {"event": "registered", "peer": "12D3…", "namespace": "vouch/harbour", "ttl": 7200.0}
    {"event": "unregistered", "peer": "12D3…", "namespace": "vouch/harbour", "reason": "expired"}
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from typing import TYPE_CHECKING, Any

from node.api.client import Client
from node.cli.parser import settings_from
from node.cli.remote import with_node
from node.cli.run import stop
from node.cli.shown import safe
from node.config import Config

if TYPE_CHECKING:
    from node.events import Event
    from node.node import Node


def tracker(args: argparse.Namespace) -> int:
    """Runs a rendezvous point until it is interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if "rendezvous_point" not in vars(args):
        args.rendezvous_point = "on"
    loaded = settings_from(args)
    from node.cli.serve import serve  # libp2p with it, which takes a second

    if args.json:
        serve(loaded, on_node=_print_events, log_to=sys.stderr)
    else:
        serve(loaded)
    return 0


def listed(args: argparse.Namespace) -> int:
    """Lists who is registered at the running node."""
    rows: list[dict[str, Any]] = []
    after, answer = 0, dict[str, Any]()
    with Client(settings_from(args).config.control_socket) as client:
        while not answer or after:
            answer = client.call("registrations", namespace=args.namespace, after=after)
            rows += answer["registrations"]
            after = answer["next"]
    if args.json:
        print(json.dumps({"registrations": rows, "total": answer["total"], "refused": answer["refused"]}))
        return 0
    _print_rows(rows, "nobody is registered here")
    return 0


def discover(args: argparse.Namespace) -> int:
    """Asks a rendezvous point who is registered there."""

    def command(ask: Any) -> int:
        answer = ask("discover", address=args.address, namespace=args.namespace, every=args.all, limit=args.limit)
        if args.json:
            print(json.dumps(answer))
            return 0
        _print_rows(answer["registrations"], "nobody is registered there")
        if answer["bad"]:
            print(f"vouch: warning: {answer['bad']} registrations have records that aren't valid", file=sys.stderr)
        return 0

    config: Config = settings_from(args).config
    return with_node(config, command)


def _print_rows(rows: list[dict[str, Any]], nobody: str) -> None:
    if not rows:
        print(nobody)
    for row in rows:
        print(f"{row['peer']}  {row['ttl'] / 60:5.0f} min  {safe(row['namespace'])}  {safe(' '.join(row['addrs']))}")


def _print_events(node: Node) -> None:
    from node.events import Listening, Registered, Unregistered

    def tell(event: Event) -> None:
        match event:
            case Listening(addr):
                item: dict[str, Any] = {"event": "listening", "addr": addr}
            case Registered(peer, namespace, ttl):
                item = {"event": "registered", "peer": peer, "namespace": namespace, "ttl": ttl}
            case Unregistered(peer, namespace, reason):
                item = {"event": "unregistered", "peer": peer, "namespace": namespace, "reason": reason}
            case _:
                return
        with contextlib.suppress(OSError):  # nobody reads any more: the point goes on
            print(json.dumps(item), flush=True)

    node.events.subscribe(tell)
