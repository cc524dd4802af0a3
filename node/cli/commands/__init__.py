"""The commands by purpose, a module for each: their flags and help, and the function that runs each.

A module's `add(commands)` adds its own to the command line. What needs a running node ends with `remote`, which adds
--json and what finds that node. A handler takes the parsed arguments and returns an exit status. It finds there,
beside the settings, what the command's `add_argument`s name; `json` (bool) in all but `run` and `completion`; and
`config` (Path or None) wherever there are settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.cli.arguments import add_json, add_settings

if TYPE_CHECKING:
    from node.cli.arguments import Parser

# What a command needs to find the running node's control socket; a file or environment for `run` serves these as well.
REMOTE_SETTINGS = ("data_dir", "network_id")

LAYERS = """\
Each setting is also a key of the TOML file and a variable: --max-streams, max_streams, VOUCH_MAX_STREAMS (several
values separated by commas). Flags go before variables, these before the file, that before the defaults.
"""


def remote(*parsers: Parser) -> None:
    """The flags of commands that ask a running node."""
    for parser in parsers:
        add_json(parser)
        add_settings(parser, REMOTE_SETTINGS)
