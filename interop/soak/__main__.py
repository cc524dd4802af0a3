"""`python -m interop.soak [--minutes M] [--connections N] [--seed S] [--upgrade U] [--json]`.

    --minutes M        how long the traffic goes on (default 10); fractions are welcome
    --connections N    connections to the hub (default 50)
    --seed S           the random choices of an earlier run; it prints its own
    --upgrade U        the nodes' setting of that name: fast (default) or stock, which doesn't pass (docs/upstream.md)
    --json             the result as one line of JSON on standard output

A line of progress every 10 s on standard error. Exit status: 0 nothing found; 1 something that must not happen has
(`traffic`, `watch`); 2 bad arguments.
"""

from __future__ import annotations

import argparse
import json
import math
import secrets
import sys

import trio

from interop.soak.run import MB, Result, soak


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="interop.soak", description="Random traffic for a long time.")
    parser.add_argument("--minutes", metavar="M", type=_minutes, default=10.0, help="of traffic (default: 10)")
    parser.add_argument("--connections", metavar="N", type=_count, default=50, help="to the hub (default: 50)")
    parser.add_argument("--seed", metavar="S", type=int, help="of an earlier run (default: a new one)")
    parser.add_argument("--upgrade", choices=("fast", "stock"), default="fast", help="whose muxer (default: fast)")
    parser.add_argument("--json", action="store_true", help="one line of JSON for the result")
    args = parser.parse_args(argv)
    seed = secrets.randbits(32) if args.seed is None else args.seed
    print(f"soak: seed {seed}, {args.connections} connections, {args.minutes:g} minutes", file=sys.stderr, flush=True)
    result = trio.run(soak, args.minutes * 60, args.connections, seed, args.upgrade)
    print(json.dumps(result.as_json()) if args.json else _text(result))
    return 1 if result.faults_in_all else 0


def _text(result: Result) -> str:
    actions = ", ".join(f"{name} {number}" for name, number in sorted(result.actions.items()))
    lines = [
        f"seed          {result.seed}",
        f"traffic       {result.seconds:.0f} s on {result.connections} connections",
        f"checked       {result.moved.bytes / MB:.0f} MB",
        f"actions       {actions}",
        f"connections   {result.reconnects} closed and dialled again, {result.cuts} cut under {result.cut_off} actions",
        f"asked         {result.looks} times over HTTP, {result.figures} figures compared",
        f"memory        {result.warm_bytes / MB:.1f} MB after the warm-up, {result.end_bytes / MB:.1f} MB in the end",
        f"faults        {result.faults_in_all or 'none'}",
        *(f"    {fault}" for fault in result.faults),
    ]
    return "\n".join(lines)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"expected minutes above 0, got {text!r}")
    return minutes


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
