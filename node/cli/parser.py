"""The command line: reading it, and which function runs each command.

argparse, because `vouch --help` must answer before anybody wonders. The commands are `node.cli.commands`, by purpose.
The flags for settings come from the table in `node.config`, so they can't differ from the file's keys and the
variables. They stay text here and are absent unless given: `settings_from` lets `node.settings.load` convert and check
them together with the other layers.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from importlib import import_module

from node.cli.arguments import Parser, Root, Version
from node.cli.commands import looking, machine, network, nodes, peers
from node.settings import Loaded, load

Handler = Callable[[argparse.Namespace], int]

PURPOSES = (
    ("run nodes", nodes.add),
    ("look at the running node", looking.add),
    ("its peers", peers.add),
    ("the network: messages, content, who is there", network.add),
    ("this machine and its files", machine.add),
)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line. UsageError for what isn't understood; SystemExit(0) once help or version is printed."""
    args, left_over = build().parse_known_args(argv)
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
    flags = {name: value for name, value in vars(args).items() if name in args.settings}
    return load(flags, file=args.config, environ=os.environ)


def build() -> Parser:
    """The whole command line."""
    root = Root(
        prog="vouch",
        description="A libp2p node: admission first, gossip with verdicts, peers that are kept.",
        epilog="example: vouch demo\n\nvouch COMMAND --help tells more about each.",
    )
    root.add_argument("--version", action=Version)
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for purpose, add in PURPOSES:
        before = set(commands.choices)
        add(commands)
        root.purposes[purpose] = [(name, made.summary) for name, made in commands.choices.items() if name not in before]
    return root
