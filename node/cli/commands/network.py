"""Commands about what is in the network: `topics`, `publish`, `subscribe`, `dht`, `rendezvous`, `explore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from node.cli.arguments import add_json, add_settings, command, count, group, number, rate, seconds
from node.cli.commands import REMOTE_SETTINGS, remote

if TYPE_CHECKING:
    from node.cli.arguments import Commands, Parser

VERDICTS = """\
Who decides on the messages:
  (nothing)             whoever decides on the topic there (vouch run --topic); if nobody does, what is signed
                        properly is accepted
  --verdict COMMAND     this command, once for each message, as vouch run --topic NAME=COMMAND would run it:
                        the payload on its standard input; exit status 0 accepts, 65 rejects, others ignore
  --verdict ask         whoever sits at this terminal: a, r or i, and Enter
  --verdict accept      nobody: all that is signed properly is accepted. reject and ignore are there for tests
A message that has its verdict from here is printed with it. No verdict in time is as good as ignore.
"""


def add(commands: Commands) -> None:
    """Adds them."""
    topics = command(
        commands,
        "topics",
        "node.cli.remote:topics",
        "list the topics that the running node has joined, or who is in one",
        "vouch topics blocks",
    )
    topics.add_argument("topic", metavar="TOPIC", nargs="?", help="tell its peers, and who of them is in the mesh")
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
        "join a topic with the running node, print its messages, and decide on them if you like",
        "vouch subscribe blocks --count 10 --verdict ./check",
        after=VERDICTS,
    )
    subscribe.add_argument("topic", metavar="TOPIC", help="name of the topic")
    subscribe.add_argument("--count", metavar="N", type=count, help="end after so many messages")
    subscribe.add_argument("--raw", action="store_true", help="write payloads and nothing else")
    subscribe.add_argument(
        "--verdict", metavar="COMMAND|ask|accept|reject|ignore", help="decide on messages from here, see below"
    )
    remote(topics, publish, subscribe, *_dht(commands))
    _rendezvous(commands)
    _explore(commands)


def _dht(commands: Commands) -> list[Parser]:
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


def _rendezvous(commands: Commands) -> None:
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


def _explore(commands: Commands) -> None:
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
