"""Commands that look at the running node: `status`, `health`, `top`, `events`, `metrics`, `log`, `token`, `open`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.cli.arguments import command, count, group, seconds
from node.cli.commands import remote

if TYPE_CHECKING:
    from node.cli.arguments import Commands

HEALTH = """\
exit status 0: a node runs and answers. 1: none does, or not in time. It asks nothing else: whether the node has peers
is what --ready asks, and /ready of the HTTP API.
"""


def add(commands: Commands) -> None:
    """Adds them."""
    status = command(
        commands, "status", "node.cli.remote:status", "tell how the running node is doing", "vouch status --json"
    )
    health = command(
        commands,
        "health",
        "node.cli.health:health",
        "tell whether a node runs and answers, for containers and monitors",
        "vouch health --ready",
        after=HEALTH,
    )
    health.add_argument("--ready", action="store_true", help="whether it is ready too, and if not, why")
    health.add_argument(
        "--timeout", metavar="S", type=seconds, default=5.0, help="seconds for the answer (default: %(default)s)"
    )
    top = command(
        commands,
        "top",
        "node.cli.top:top",
        "watch the running node: peers, traffic, gossip, limits",
        "vouch top --interval 1",
        after="Ctrl-C ends it. --json prints a line for each look instead; --once looks once.",
    )
    top.add_argument(
        "--interval", metavar="S", type=seconds, default=2.0, help="seconds between looks (default: %(default)s)"
    )
    top.add_argument("--once", action="store_true", help="look once, without taking over the screen")
    top.add_argument("--count", metavar="N", type=count, help="end after so many looks")
    happens = command(
        commands,
        "events",
        "node.cli.happenings:events",
        "print what happens at the running node: peers that come and go, refusals, bans",
        "vouch events admitted disconnected",
        after="Kinds are in docs/operating.md; without any it prints all. Ctrl-C ends it.",
    )
    happens.add_argument("kinds", metavar="KIND", nargs="*", help="kind of event")
    happens.add_argument("--count", metavar="N", type=count, help="end after so many events")
    metrics = command(
        commands,
        "metrics",
        "node.cli.remote:metrics",
        "print the running node's metrics, as Prometheus gets them (docs/metrics.md)",
        "vouch metrics --json",
    )
    logs = group(commands, "log", "see and change how much the running node logs", "vouch log level gossip debug")
    level = command(
        logs,
        "level",
        "node.cli.remote:log_level",
        "tell the levels of the log, or change that of a part, or of all that have none of their own",
        "vouch log level gossip debug",
        after="LEVEL: debug, info, warning, error; `default` lets a part go along with the others again.\n"
        "Without arguments it tells. It holds until the node ends; the setting log_level holds longer.",
    )
    level.add_argument("words", metavar="[PART] LEVEL", nargs="*", help="part of the node, and its level")
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
    remote(status, health, top, happens, metrics, level, token, opened)
    level.usage = f"{level.prog} [[PART] LEVEL] [--json] [--config FILE] [--data-dir PATH]"
