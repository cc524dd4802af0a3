"""`vouch run`: one node, until it is interrupted; with `--profile FILE` profiled (`node.cli.profiled`).

SIGINT and SIGTERM close everything and exit with status 0, also while the node is still being loaded.
"""

from __future__ import annotations

import argparse
import signal
from contextlib import ExitStack
from types import FrameType
from typing import NoReturn

from node.cli.parser import settings_from


def run(args: argparse.Namespace) -> int:
    """Runs the node of the arguments' settings."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    loaded = settings_from(args)
    from node.cli.serve import serve  # libp2p with it, which takes a second

    with ExitStack() as stack:
        if args.profile is not None:
            from node.cli.profiled import profiled

            stack.enter_context(profiled(args.profile))
        serve(loaded)
    return 0


def stop(_number: int, _frame: FrameType | None) -> NoReturn:
    """Ends the process properly, for a signal that comes while the node is still being loaded."""
    raise SystemExit(0)
