"""Commands that ask the running node: `status`, `peers`, `metrics`, `connect`, `ping`.

`connect` and `ping` can do without one: if none runs with that data directory, a short-lived node of the same network
is started, which listens nowhere, asks, and ends. `status` and `peers` are about a node that runs, and say so.
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
from node.config import Config

Ask = Callable[..., dict[str, Any]]


def status(args: argparse.Namespace) -> int:
    """Prints how the running node is."""
    with Client(settings_from(args).config.control_socket) as client:
        answer = client.call("status")
    if args.json:
        _print_json(answer)
        return 0
    rows = [
        ("peer ID", answer["peer_id"]),
        ("network", answer["network_id"]),
        ("version", answer["client_version"]),
        ("up for", _duration(answer["uptime"])),
        ("peers", f"{answer['peers']} ({answer['inbound']} inbound, {answer['outbound']} outbound)"),
        ("routing table", f"{len(answer['routing_table'])} peers"),
        *(("listens on", addr) for addr in answer["addrs"]),
        *((name, f"{use['used']} of {use['limit']}") for name, use in answer["limits"].items()),
    ]
    for name, value in rows:
        print(f"{name:16} {value}")
    return 0


def metrics(args: argparse.Namespace) -> int:
    """Prints the running node's metrics: in Prometheus' text format, or as JSON."""
    with Client(settings_from(args).config.control_socket) as client:
        if args.json:
            _print_json(client.call("metrics_snapshot"))
        else:
            print(client.call("metrics")["text"], end="")
    return 0


def peers(args: argparse.Namespace) -> int:
    """Lists the running node's peers."""
    with Client(settings_from(args).config.control_socket) as client:
        answer = client.call("peers")
    if args.json:
        _print_json(answer)
        return 0
    if not answer["peers"]:
        print("no peers are connected")
        return 0
    for peer in answer["peers"]:
        agent = peer["client_version"] or peer["agent"] or "-"
        connected = _duration(peer["connected_for"])
        rtt = "-" if peer["rtt"] is None else f"{peer['rtt'] * 1000:.1f} ms"
        mark = "  flaky" if peer["flaky"] else ""
        print(f"{peer['peer']}  {peer['direction']:8}  {agent:16}  {connected:>8}  {rtt:>9}  {peer['addr']}{mark}")
    return 0


def connect(args: argparse.Namespace) -> int:
    """Connects with a peer."""

    def command(ask: Ask) -> int:
        answer = ask("connect", address=args.address)
        if args.json:
            _print_json(answer)
        elif answer["already"]:
            print(f"{answer['peer']} is connected already ({answer['direction']}, {answer['addr']})")
        else:
            print(f"connected with {answer['peer']} in {answer['seconds'] * 1000:.1f} ms")
        return 0

    return with_node(settings_from(args).config, command)


def ping(args: argparse.Namespace) -> int:
    """Pings a peer; exit status 1 if an answer is missing."""

    def command(ask: Ask) -> int:
        rtts: list[float] = []
        lost, reason, peer = 0, "", ""
        while len(rtts) < args.count and not lost:
            if rtts:
                time.sleep(args.interval)
            answer = ask("ping", target=args.target)
            peer, lost, reason = answer["peer"], answer["lost"], answer["error"]
            rtts += answer["rtts"]
            if not args.json:
                print(f"{len(rtts) + lost}: {reason if lost else f'{rtts[-1] * 1e6:.0f} µs'}", flush=True)
        if args.json:
            _print_json({"peer": peer, "rtts": rtts, "lost": lost, "error": reason})
        elif rtts:
            least, mean, most = (value * 1e6 for value in (min(rtts), sum(rtts) / len(rtts), max(rtts)))
            print(f"{len(rtts)} answered, {lost} lost; min/avg/max {least:.0f}/{mean:.0f}/{most:.0f} µs")
        return 1 if lost else 0

    return with_node(settings_from(args).config, command)


def with_node(config: Config, command: Callable[[Ask], int]) -> int:
    """Runs the command on the running node, or on a short-lived one if none runs."""
    try:
        client = Client(config.control_socket)
    except NoNodeError:
        from node.cli import short_lived  # libp2p with it, which takes a second

        return short_lived.run(config, command)
    with client:
        return command(client.call)


def _print_json(answer: dict[str, Any]) -> None:
    json.dump(answer, sys.stdout)
    print()


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172800 else f"{seconds / 86400:.0f} d"
