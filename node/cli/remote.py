"""Commands that ask the running node one thing: `status`, `metrics`, `peers`, `connect`, `ban`, `topics`, `log level` …

`connect` (and `ping` and `perf`, `node.cli.probe`) can do without one: if none runs with that data directory, a
short-lived node of the same network is started, which listens nowhere, asks, and ends. The others are about a node that
runs, and say so.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from node.api.client import Client, NoNodeError
from node.cli.parser import settings_from
from node.cli.shown import duration, round_trip, safe
from node.config import Config
from node.errors import UsageError

Ask = Callable[..., dict[str, Any]]

MAX_AGENT = 64  # characters of it in a line


def status(args: argparse.Namespace) -> int:
    """Prints how the running node is."""
    with Client(settings_from(args).config.control_socket) as client:
        answer = client.call("status")
    if args.json:
        print_json(answer)
        return 0
    rows = [
        ("peer ID", answer["peer_id"]),
        ("network", answer["network_id"]),
        ("version", answer["client_version"]),
        ("up for", duration(answer["uptime"])),
        ("peers", f"{answer['peers']} ({answer['inbound']} inbound, {answer['outbound']} outbound)"),
        ("routing table", f"{len(answer['routing_table'])} peers"),
        *(("listens on", addr) for addr in answer["addrs"]),
        ("HTTP API", answer["api"] or "off"),
        *((name, f"{use['used']} of {use['limit']}") for name, use in answer["limits"].items()),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}} {value}")
    return 0


def metrics(args: argparse.Namespace) -> int:
    """Prints the running node's metrics: in Prometheus' text format, or as JSON."""
    if args.json:
        print_json(ask_node(args, "metrics_snapshot"))
    else:
        print(ask_node(args, "metrics")["text"], end="")
    return 0


def peers(args: argparse.Namespace) -> int:
    """Lists the running node's peers."""
    with Client(settings_from(args).config.control_socket) as client:
        answer = client.call("peers")
    if args.json:
        print_json(answer)
        return 0
    if not answer["peers"]:
        print("no peers are connected")
        return 0
    for peer in answer["peers"]:
        agent = safe(peer["client_version"] or peer["agent"] or "-", MAX_AGENT)
        connected, rtt = duration(peer["connected_for"]), round_trip(peer["rtt"])
        mark = "  flaky" if peer["flaky"] else ""
        print(
            f"{peer['peer']}  {peer['direction']:8}  {agent:16}  {connected:>8}  {rtt:>9}  {safe(peer['addr'])}{mark}"
        )
    return 0


def connect(args: argparse.Namespace) -> int:
    """Connects with a peer."""

    def command(ask: Ask) -> int:
        answer = ask("connect", address=args.address)
        if args.json:
            print_json(answer)
        elif answer["already"]:
            print(f"{answer['peer']} is connected already ({answer['direction']}, {safe(answer['addr'])})")
        else:
            print(f"connected with {answer['peer']} in {answer['seconds'] * 1000:.1f} ms")
        return 0

    return with_node(settings_from(args).config, command)


def disconnect(args: argparse.Namespace) -> int:
    """Closes the connections with a peer."""
    answer = ask_node(args, "disconnect", peer=args.peer)
    _done(args, answer, f"disconnected {args.peer}")
    return 0


def ban(args: argparse.Namespace) -> int:
    """Bans a peer, an address or a network."""
    answer = ask_node(args, "ban", target=args.target, reason=args.reason, seconds=args.seconds)
    lasts = "for ever" if args.seconds is None else f"for {duration(args.seconds)}"
    _done(args, answer, f"banned {args.target} {lasts}")
    return 0


def unban(args: argparse.Namespace) -> int:
    """Takes a ban back."""
    _done(args, ask_node(args, "unban", target=args.target), f"{args.target} is banned no more")
    return 0


def bans(args: argparse.Namespace) -> int:
    """Lists who is banned."""
    answer = ask_node(args, "bans")
    if args.json:
        print_json(answer)
        return 0
    if not answer["bans"]:
        print("nobody is banned")
    for row in answer["bans"]:
        left = "for ever" if row["until"] is None else f"{duration(max(0.0, row['until'] - time.time()))} left"
        print(f"{row['target']:52}  {left:>12}  {safe(row['reason'])}")
    return 0


def protect(args: argparse.Namespace) -> int:
    """Keeps the pool from dropping a peer."""
    _done(args, ask_node(args, "protect_peer", peer=args.peer, tag=args.tag), f"{args.peer} is protected ({args.tag})")
    return 0


def unprotect(args: argparse.Namespace) -> int:
    """Takes a tag's protection back."""
    answer = ask_node(args, "unprotect_peer", peer=args.peer, tag=args.tag)
    _done(args, answer, f"{args.peer} isn't protected by {args.tag}")
    return 0


def add_peer(args: argparse.Namespace) -> int:
    """Tells the running node of a peer."""
    answer = ask_node(args, "add_peer", address=args.address, static=args.static)
    _done(args, answer, f"added {args.address}{', to be kept connected' if args.static else ''}")
    return 0


def remove_peer(args: argparse.Namespace) -> int:
    """Makes the running node forget a peer."""
    _done(args, ask_node(args, "remove_peer", peer=args.peer), f"removed {args.peer}")
    return 0


def topics(args: argparse.Namespace) -> int:
    """Lists the joined topics, or the peers of one."""
    if args.topic is not None:
        return _mesh(args, ask_node(args, "mesh", topic=args.topic))
    answer = ask_node(args, "topics")
    if args.json:
        print_json(answer)
        return 0
    if not answer["topics"]:
        print("no topic is joined: `vouch subscribe TOPIC` or `vouch run --topic NAME` joins one")
    for row in answer["topics"]:
        decides = {"": "nobody decides", "relay": "what is signed properly is accepted"}
        who = decides.get(row["decided_by"], f"a {row['decided_by']} decides")
        print(f"{row['topic']:32}  mesh {row['mesh']:>3}  subscribers {row['subscribers']:>3}  {who}")
    return 0


def _mesh(args: argparse.Namespace, answer: dict[str, Any]) -> int:
    if args.json:
        print_json(answer)
        return 0
    if not answer["peers"]:
        print(f"no connected peer subscribes to {args.topic}")
    for row in answer["peers"]:
        print(f"{row['peer']}  {'mesh' if row['in_mesh'] else '-':4}  score {row['score']:.1f}")
    if not answer["joined"]:
        print(f"this node hasn't joined {args.topic}: `vouch subscribe {args.topic}` does", file=sys.stderr)
    return 0


def log_level(args: argparse.Namespace) -> int:
    """Tells or changes the levels of the log."""
    if len(args.words) > 2:
        raise UsageError(f"expected at most PART and LEVEL, got {len(args.words)} words (see vouch log level --help)")
    if args.words:
        *part, level = args.words
        given = "" if level == "default" else level
        answer = ask_node(args, "set_loglevel", part=part[0] if part else "", level=given)
    else:
        answer = ask_node(args, "loglevel")
    if args.json:
        print_json(answer)
        return 0
    levels = answer["levels"]
    for part_name in answer["parts"]:
        own = part_name in levels
        print(f"{part_name:16} {levels[part_name] if own else levels['']}{'' if own else ' (as all)'}")
    print(f"{'all others':16} {levels['']}")
    return 0


def ask_node(args: argparse.Namespace, call: str, **params: Any) -> dict[str, Any]:
    """Asks the running node one thing."""
    with Client(settings_from(args).config.control_socket) as client:
        return client.call(call, **params)


def with_node(config: Config, command: Callable[[Ask], int]) -> int:
    """Runs the command on the running node, or on a short-lived one if none runs."""
    try:
        client = Client(config.control_socket)
    except NoNodeError:
        from node.cli import short_lived  # libp2p with it, which takes a second

        return short_lived.run(config, command)
    with client:
        return command(client.call)


def _done(args: argparse.Namespace, answer: dict[str, Any], text: str) -> None:
    if args.json:
        print_json(answer)
    else:
        print(text)


def print_json(answer: dict[str, Any]) -> None:
    """One line of JSON."""
    json.dump(answer, sys.stdout)
    print()
