"""Commands about this machine and its files: `doctor`, `measure`, `key`, `config`, `completion`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from node.cli.arguments import add_json, add_settings, command, count, group, number, rate
from node.cli.commands import LAYERS
from node.config import SETTINGS

if TYPE_CHECKING:
    from node.cli.arguments import Commands

SHELLS = ("bash", "zsh", "fish")
COMPLETION = """\
bash:  vouch completion bash > ~/.local/share/bash-completion/completions/vouch
zsh:   vouch completion zsh > "${fpath[1]}/_vouch"
fish:  vouch completion fish > ~/.config/fish/completions/vouch.fish
A new shell knows it then.
"""


def add(commands: Commands) -> None:
    """Adds them."""
    doctor = command(
        commands,
        "doctor",
        "node.cli.doctor:doctor",
        "check what a node of these settings needs, and say what to do",
        "vouch doctor --config vouch.toml",
        after="Exit status 1 if something would keep the node from its work. Give it the settings of the node:\n"
        "it looks at their folders, ports and bootstraps, and changes nothing.\n\n" + LAYERS,
    )
    add_json(doctor)
    doctor.add_argument("--offline", action="store_true", help="dial no bootstrap")
    add_settings(doctor, SETTINGS)
    doctor.usage = f"{doctor.prog} [--json] [--offline] [--config FILE] [--SETTING VALUE ...]"
    _measure(commands)
    _key(commands)
    config = group(commands, "config", "look at the settings", "vouch config show")
    show = command(
        config,
        "show",
        "node.cli.settings:show",
        "print every setting and where it comes from, in TOML that can be pasted into a file",
        "vouch config show --config vouch.toml --max-streams 64",
        after=LAYERS,
    )
    add_json(show)
    add_settings(show, SETTINGS)
    completion = command(
        commands,
        "completion",
        "node.cli.completion:completion",
        "print what completes this command line in a shell",
        "vouch completion bash",
        after=COMPLETION,
    )
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def _measure(commands: Commands) -> None:
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


def _key(commands: Commands) -> None:
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
