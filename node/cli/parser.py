"""The command line: its commands, their flags and help, and which function runs each.

argparse, because `vouch --help` must answer before anybody wonders. The flags for settings come from the table in
`node.config`, so they can't differ from the file's keys and the variables. They stay text here and are absent
unless given: `settings_from` lets `node.settings.load` convert and check them together with the other layers.

A handler takes the parsed arguments and returns an exit status. Beside the settings it finds there:

    run       profile (or None)
    connect   address              demo           nodes, timeout
    ping      target, count,       key generate   out (Path or None)
              interval             key inspect    file (Path)
    publish   topic, file, type    subscribe      topic, count (or None), raw
    addressbook list, export       addressbook import  file
    tracker   (see run)                 rendezvous discover  address, namespace, all, limit
                                        rendezvous list      namespace
    dht find-peer         peer     dht find-providers  cid, count
    dht provide           cid      dht withdraw        key
    dht put               key,     dht get             key, out (Path or None)
                          file
    measure propagation            nodes, messages, size, rate, seed, full_mesh, out (Path or None)
    all but run: json (bool)       run, config show and those that ask a running node: config (Path or None)
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from node.cli.arguments import (
    Parser,
    Version,
    add_json,
    add_settings,
    command,
    count,
    group,
    number,
    pause,
    rate,
    seconds,
)
from node.config import SETTINGS
from node.settings import Loaded, load

if TYPE_CHECKING:
    from node.cli.arguments import Commands

Handler = Callable[[argparse.Namespace], int]

# What a command needs to find the running node's control socket; a file or environment for `run` serves these as well.
REMOTE_SETTINGS = ("data_dir", "network_id")

_LAYERS = """\
Each setting is also a key of the TOML file and a variable: --max-streams, max_streams, VOUCH_MAX_STREAMS (several
values separated by commas). Flags go before variables, these before the file, that before the defaults.
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line. UsageError for what isn't understood; SystemExit(0) once help or version is printed."""
    args, left_over = _build().parse_known_args(argv)
    if left_over:
        args.parser.unexpected(left_over[0])
    return args


def handler(args: argparse.Namespace) -> Handler:
    """The function that runs the chosen command; imports its module."""
    module, _, name = args.handler.partition(":")
    function: Handler = getattr(import_module(module), name)
    return function


def settings_from(args: argparse.Namespace) -> Loaded:
    """The settings of the flags in `args` on top of environment, file and defaults; UsageError as `load` raises it."""
    flags = {name: value for name, value in vars(args).items() if name in SETTINGS}
    return load(flags, file=args.config, environ=os.environ)


def _build() -> Parser:
    root = Parser(
        prog="vouch",
        description="A libp2p node: admission first, gossip with verdicts, peers that are kept.",
        epilog="example: vouch demo\n\nvouch COMMAND --help tells more about each.",
    )
    root.add_argument("--version", action=Version)
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)

    run = command(
        commands,
        "run",
        "node.cli.run:run",
        "run a node until it is interrupted",
        "vouch run --network-id harbour --listen /ip4/0.0.0.0/tcp/4001 --data-dir ./harbour",
        after=_LAYERS,
    )
    run.add_argument(
        "--profile", metavar="FILE", type=Path, help="write there where the run's time went, for python -m pstats"
    )
    add_settings(run, SETTINGS)
    run.usage = f"{run.prog} [--profile FILE] [--config FILE] [--SETTING VALUE ...]"

    tracker = command(
        commands,
        "tracker",
        "node.cli.tracker:tracker",
        "run a node that is a rendezvous point: peers register there and find each other",
        "vouch tracker --network-id harbour --listen /ip4/0.0.0.0/tcp/4002 --data-dir ./tracker",
        after="Registrations are kept in the data folder. Name the point to others with --rendezvous. Peers of other\n"
        "libp2p networks need --admission open.\n\n" + _LAYERS,
    )
    tracker.add_argument("--json", action="store_true", help="print who registers as JSON; the log to standard error")
    add_settings(tracker, SETTINGS)
    tracker.usage = f"{tracker.prog} [--json] [--config FILE] [--SETTING VALUE ...]"

    status = command(
        commands, "status", "node.cli.remote:status", "tell how the running node is doing", "vouch status --json"
    )
    peers = command(
        commands, "peers", "node.cli.remote:peers", "list the running node's peers", "vouch peers --data-dir ./harbour"
    )
    metrics = command(
        commands,
        "metrics",
        "node.cli.remote:metrics",
        "print the running node's metrics, as Prometheus gets them (docs/metrics.md)",
        "vouch metrics --json",
    )
    connect = command(
        commands,
        "connect",
        "node.cli.remote:connect",
        "connect with a peer",
        "vouch connect /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW...",
    )
    connect.add_argument("address", metavar="MULTIADDR", help="address of the peer, ending in /p2p/PEERID")
    ping = command(
        commands,
        "ping",
        "node.cli.remote:ping",
        "measure the round trip to a peer",
        "vouch ping 12D3KooW... --count 10 --interval 0.2",
    )
    ping.add_argument("target", metavar="PEER|MULTIADDR", help="ID of a connected peer, or an address to dial")
    ping.add_argument("--count", metavar="N", type=count, default=4, help="pings to send (default: %(default)s)")
    ping.add_argument(
        "--interval", metavar="S", type=pause, default=1.0, help="seconds between pings (default: %(default)s)"
    )
    publish = command(
        commands,
        "publish",
        "node.cli.gossip:publish",
        "send a message to a topic through the running node",
        "echo hello | vouch publish blocks",
    )
    publish.add_argument("topic", metavar="TOPIC", help="name of the topic")
    publish.add_argument("file", metavar="FILE", nargs="?", default="-", help="the message; - is standard input")
    publish.add_argument(
        "--type", metavar="N", type=number, default=0, help="the message's type, a number of your own (default: 0)"
    )
    subscribe = command(
        commands,
        "subscribe",
        "node.cli.gossip:subscribe",
        "join a topic with the running node, and print its messages",
        "vouch subscribe blocks --count 10",
        after="If nobody decides on the topic there (vouch run --topic), what is signed properly is accepted.",
    )
    subscribe.add_argument("topic", metavar="TOPIC", help="name of the topic")
    subscribe.add_argument("--count", metavar="N", type=count, help="end after so many messages")
    subscribe.add_argument("--raw", action="store_true", help="write payloads and nothing else")
    book = group(commands, "addressbook", "look at the peers that are known", "vouch addressbook list")
    listed = command(
        book, "list", "node.cli.addressbook:show", "list the peers that are known", "vouch addressbook list --json"
    )
    exported = command(
        book,
        "export",
        "node.cli.addressbook:export",
        "write the peers that are known, a line of JSON for each",
        "vouch addressbook export > peers.jsonl",
        after="With --json they are one JSON document. Without a running node the file in the data folder is read.",
    )
    imported = command(
        book,
        "import",
        "node.cli.addressbook:load",
        "add exported peers to those that are known; all of them, or none if one is wrong",
        "vouch addressbook import peers.jsonl",
    )
    imported.add_argument("file", metavar="FILE", nargs="?", default="-", help="what was exported; - is standard input")
    token = command(
        commands, "token", "node.cli.web:token", "print the token of the HTTP API, which changes need", "vouch token"
    )
    opened = command(
        commands,
        "open",
        "node.cli.web:open_",
        "print the URL of the running node's dashboard, with the token in it",
        "vouch open --browser",
    )
    opened.add_argument("--browser", action="store_true", help="open it in the browser of this machine too")
    web = (token, opened)
    for parser in (
        status,
        peers,
        metrics,
        connect,
        ping,
        publish,
        subscribe,
        listed,
        exported,
        imported,
        *web,
        *_add_dht(commands),
    ):
        add_json(parser)
        add_settings(parser, REMOTE_SETTINGS)

    rendezvous = group(
        commands, "rendezvous", "look at who is registered at a rendezvous point", "vouch rendezvous list"
    )
    listed = command(
        rendezvous,
        "list",
        "node.cli.tracker:listed",
        "list who is registered at the running node",
        "vouch rendezvous list --data-dir ./tracker",
    )
    discover = command(
        rendezvous,
        "discover",
        "node.cli.tracker:discover",
        "ask a rendezvous point who is registered there",
        "vouch rendezvous discover /ip4/192.0.2.7/tcp/4002/p2p/12D3KooW...",
    )
    discover.add_argument("address", metavar="MULTIADDR", help="address of the point, ending in /p2p/PEERID")
    discover.add_argument("--all", action="store_true", help="of every namespace")
    discover.add_argument(
        "--limit", metavar="N", type=count, default=1000, help="registrations, at most 1000 (default: %(default)s)"
    )
    for parser, whose in ((listed, "every namespace"), (discover, "the network's")):
        parser.add_argument("--namespace", metavar="NAME", help=f"registrations of this one (default: {whose})")
        add_json(parser)
        # a point of another network can be asked by a short-lived node that is open
        add_settings(parser, (*REMOTE_SETTINGS, "admission") if parser is discover else REMOTE_SETTINGS)

    walk = command(
        commands,
        "explore",
        "node.cli.explore:run",
        "walk the network outward from one node, and tell who is there and who knows whom",
        "vouch explore /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW... --dot --out network.dot",
        after="It runs a short-lived node of its own. Ctrl-C ends the walk and tells what was found so far.",
    )
    walk.add_argument("address", metavar="MULTIADDR", help="address of the first node, ending in /p2p/PEERID")
    walk.add_argument(
        "--max-nodes", metavar="N", type=count, default=500, help="nodes to look for at most (default: %(default)s)"
    )
    walk.add_argument(
        "--timeout", metavar="S", type=seconds, default=60.0, help="seconds to walk at most (default: %(default)s)"
    )
    walk.add_argument(
        "--rate", metavar="N", type=rate, default=20.0, help="dials a second at most (default: %(default)s)"
    )
    walk.add_argument("--out", metavar="FILE", type=Path, help="write JSON there, or DOT if it ends in .dot or .gv")
    form = walk.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="JSON for programs instead of text for people")
    form.add_argument("--dot", action="store_true", help="a graph for Graphviz instead")
    add_settings(walk, ("network_id", "admission", "client_version", "kad_protocol", "dial_timeout"))

    demo = command(
        commands,
        "demo",
        "node.cli.demo:demo",
        "start a few nodes on this machine and watch them find each other",
        "vouch demo --nodes 4",
    )
    demo.add_argument("--nodes", metavar="N", type=count, default=4, help="nodes to start (default: %(default)s)")
    demo.add_argument(
        "--timeout", metavar="S", type=seconds, default=30.0, help="seconds before giving up (default: %(default)s)"
    )
    add_json(demo)

    measure = group(commands, "measure", "measure real nodes on this machine", "vouch measure propagation --nodes 20")
    propagation = command(
        measure,
        "propagation",
        "node.cli.measure:propagation",
        "start nodes, publish messages, and tell how long these take to each of them",
        "vouch measure propagation --nodes 20 --messages 100 --size 1024 --json",
        after="The result is Markdown; --out writes it there too, with JSON, and a PNG if matplotlib is installed.",
    )
    for flag, metavar, kind, default, text in (
        ("--nodes", "N", count, 20, "nodes to start"),
        ("--messages", "M", count, 100, "messages to publish, each at a node drawn by lot"),
        ("--size", "BYTES", count, 1024, "bytes of a message"),
        ("--rate", "R", rate, 10.0, "messages published in a second"),
        ("--seed", "S", number, 1, "what is drawn by lot: links, publishers"),
    ):
        propagation.add_argument(flag, metavar=metavar, type=kind, default=default, help=f"{text} (default: {default})")
    propagation.add_argument(
        "--full-mesh", action="store_true", help="link every two nodes; else eight at each, by lot"
    )
    propagation.add_argument("--out", metavar="DIR", type=Path, help="folder for the result's files")
    add_json(propagation)

    key = group(commands, "key", "make and look at key files", "vouch key generate --out node.key")
    generate = command(
        key,
        "generate",
        "node.cli.key:generate",
        "make an identity; print its peer ID, and under it the secret unless that goes to a file",
        "vouch key generate --out node.key",
    )
    generate.add_argument(
        "--out", metavar="FILE", type=Path, help="write the secret there, readable by you alone; never overwrites"
    )
    add_json(generate)
    inspect = command(
        key, "inspect", "node.cli.key:inspect", "print the peer ID of a key file", "vouch key inspect node.key"
    )
    inspect.add_argument("file", metavar="FILE", type=Path, help="64 hex digits or 32 raw bytes")
    add_json(inspect)

    config = group(commands, "config", "look at the settings", "vouch config show")
    show = command(
        config,
        "show",
        "node.cli.settings:show",
        "print every setting and where it comes from, in TOML that can be pasted into a file",
        "vouch config show --config vouch.toml --max-streams 64",
        after=_LAYERS,
    )
    add_json(show)
    add_settings(show, SETTINGS)
    return root


def _add_dht(commands: Commands) -> list[Parser]:
    dht = group(commands, "dht", "find and store in the network's hash table", "vouch dht find-peer 12D3KooW...")
    key, cid = "/pk/PEER, or of a namespace that a program has registered", "content identifier, such as bafkrei..."
    table = (
        ("find-peer", "find_peer", "find a peer's addresses", "12D3KooW...", "peer", "ID of the peer"),
        ("provide", "provide", "tell the network that this node has something", "bafkrei...", "cid", cid),
        ("find-providers", "find_providers", "find who has something", "bafkrei... --count 5", "cid", cid),
        ("put", "put", "store a value in the network", "/pk/12D3KooW... key.pb", "key", key),
        ("get", "get", "print the value under a key", "/pk/12D3KooW... --out key.pb", "key", key),
        ("withdraw", "withdraw", "publish a value or CID no more", "bafkrei...", "key", "the key, or the CID"),
    )
    made = {}
    for name, function, text, example, argument, what in table:
        made[name] = command(dht, name, f"node.cli.dht:{function}", text, f"vouch dht {name} {example}")
        made[name].add_argument(argument, metavar=argument.upper(), help=what)
    made["put"].add_argument("file", metavar="FILE", nargs="?", default="-", help="the value; - is standard input")
    made["get"].add_argument("--out", metavar="FILE", type=Path, help="write the value there")
    made["find-providers"].add_argument(
        "--count", metavar="N", type=count, default=20, help="providers at most (default: %(default)s)"
    )
    return list(made.values())
