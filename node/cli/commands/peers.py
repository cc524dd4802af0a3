"""Commands about peers: `peers`, `connect`, `disconnect`, `ping`, `perf`, `ban`, `unban`, `bans`, `addressbook`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.cli.arguments import command, count, group, number, pause, seconds, size
from node.cli.commands import remote

if TYPE_CHECKING:
    from node.cli.arguments import Commands, Parser

TARGET = "ID of a connected peer, or an address to dial"
WITHOUT = "Without a running node a short-lived one of the same network does it, for MULTIADDR."


def add(commands: Commands) -> None:
    """Adds them."""
    peers = command(
        commands, "peers", "node.cli.remote:peers", "list the running node's peers", "vouch peers --data-dir ./harbour"
    )
    connect = command(
        commands,
        "connect",
        "node.cli.remote:connect",
        "connect with a peer",
        "vouch connect /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW...",
        after=WITHOUT,
    )
    connect.add_argument("address", metavar="MULTIADDR", help="address of the peer, ending in /p2p/PEERID")
    disconnect = command(
        commands,
        "disconnect",
        "node.cli.remote:disconnect",
        "close the connections with a peer",
        "vouch disconnect 12D3KooW...",
        after="The pool may dial it again, as it may dial us: `vouch ban` keeps it away.",
    )
    disconnect.add_argument("peer", metavar="PEER", help="ID of a connected peer")
    remote(peers, connect, disconnect, _ping(commands), _perf(commands), *_bans(commands), *_book(commands))


def _ping(commands: Commands) -> Parser:
    ping = command(
        commands,
        "ping",
        "node.cli.probe:ping",
        "measure the round trip to a peer",
        "vouch ping 12D3KooW... --count 10 --interval 0.2",
        after=f"{WITHOUT} Exit status 1 if an answer is missing.",
    )
    ping.add_argument("target", metavar="PEER|MULTIADDR", help=TARGET)
    ping.add_argument("--count", metavar="N", type=count, default=4, help="pings to send (default: %(default)s)")
    ping.add_argument(
        "--interval", metavar="S", type=pause, default=1.0, help="seconds between pings (default: %(default)s)"
    )
    ping.add_argument(
        "--timeout",
        metavar="S",
        type=seconds,
        default=5.0,
        help="seconds without an answer that make a ping lost, at most 30 (default: %(default)s)",
    )
    return ping


def _perf(commands: Commands) -> Parser:
    perf = command(
        commands,
        "perf",
        "node.cli.probe:perf",
        "measure how fast bytes go to a peer and back",
        "vouch perf /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW... --upload 64M --download 64M",
        after=f"The peer must serve /perf/1.0.0: vouch does with --perf on. {WITHOUT}",
    )
    perf.add_argument("target", metavar="PEER|MULTIADDR", help=TARGET)
    for flag, what in (("--upload", "send"), ("--download", "receive")):
        perf.add_argument(
            flag,
            metavar="BYTES",
            type=size,
            default=16 << 20,
            help=f"bytes to {what}, also with K, M or G for powers of 1024 (default: 16M)",
        )
    perf.add_argument("--count", metavar="N", type=count, default=1, help="times to do it (default: %(default)s)")
    perf.add_argument(
        "--streams", metavar="N", type=number, default=1, help="streams at once, at most 8 (default: %(default)s)"
    )
    return perf


def _bans(commands: Commands) -> list[Parser]:
    ban = command(
        commands,
        "ban",
        "node.cli.remote:ban",
        "keep a peer, an address or a network away, and disconnect who is there",
        'vouch ban 192.0.2.0/24 --for 86400 --reason "floods"',
    )
    ban.add_argument("target", metavar="PEER|IP|NETWORK", help="a peer's ID, an IP address, or a network as CIDR")
    ban.add_argument("--for", dest="seconds", metavar="S", type=seconds, help="seconds (default: for ever)")
    ban.add_argument("--reason", metavar="TEXT", default="by the operator", help="why (default: %(default)s)")
    unban = command(commands, "unban", "node.cli.remote:unban", "take a ban back", "vouch unban 192.0.2.0/24")
    unban.add_argument("target", metavar="PEER|IP|NETWORK", help="what was banned, as `vouch bans` tells it")
    bans = command(commands, "bans", "node.cli.remote:bans", "list who is banned, why, and until when", "vouch bans")
    return [ban, unban, bans]


def _book(commands: Commands) -> list[Parser]:
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
    return [listed, exported, imported]
