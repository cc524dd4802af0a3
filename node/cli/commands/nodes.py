"""Commands that run nodes: `run`, `tracker`, `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from node.cli.arguments import add_json, add_settings, command, count, seconds
from node.cli.commands import LAYERS
from node.config import SETTINGS

if TYPE_CHECKING:
    from node.cli.arguments import Commands


def add(commands: Commands) -> None:
    """Adds them."""
    run = command(
        commands,
        "run",
        "node.cli.run:run",
        "run a node until it is interrupted",
        "vouch run --network-id harbour --listen /ip4/0.0.0.0/tcp/4001 --data-dir ./harbour",
        after=LAYERS,
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
        "libp2p networks need --admission open.\n\n" + LAYERS,
    )
    tracker.add_argument("--json", action="store_true", help="print who registers as JSON; the log to standard error")
    add_settings(tracker, SETTINGS)
    tracker.usage = f"{tracker.prog} [--json] [--config FILE] [--SETTING VALUE ...]"

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
