"""`python -m interop.matrix`: see the package.

Exit status: 0 no cell failed; 1 one did; 2 bad arguments, or a peer isn't built; 130 interrupted.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import trio

from interop.matrix import mutations, report
from interop.matrix.cells import CHECKS, DIRECTIONS, PEERS, SECURITIES, TRANSPORTS, Result, cells, lines
from interop.matrix.run import WORKERS, MissingPeerError, Plan, check_built, run

DOCUMENT = Path(__file__).parents[2] / "docs/interop.md"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(2)


def main(argv: list[str] | None = None) -> int:
    args = _arguments().parse_args(argv)
    chosen = lines(args.peer, args.transport, args.security, args.direction)
    plan = Plan(lines=chosen, checks=args.check, quick=args.quick, workers=args.workers)
    if not sum(len(cells(line, plan.checks)) for line in chosen):
        print("interop.matrix: expected at least one cell, got none: QUIC is tls", file=sys.stderr)
        return 2
    everything = chosen == lines() and list(args.check) == list(CHECKS)
    try:
        check_built(chosen)
        if args.mutate:
            return 0 if trio.run(mutations.run_all, args.json) else 1
        return _run(plan, args.json, args.out or (DOCUMENT if everything and not args.quick else None))
    except MissingPeerError as error:
        print(f"interop.matrix: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _run(plan: Plan, as_json: bool, out: Path | None) -> int:
    started = time.monotonic()
    results: list[Result] = []
    total = sum(len(cells(line, plan.checks)) for line in plan.lines)

    def tell(result: Result) -> None:
        results.append(result)
        if as_json:
            print(report.as_json(result), flush=True)
        cell = result.cell
        text = f"[{len(results)}/{total}] {cell.line}: {cell.check}: {result.result}"
        print(f"{text} {result.reason}".rstrip(), file=sys.stderr, flush=True)

    versions = trio.run(run, plan, tell)
    seconds = time.monotonic() - started
    print(f"{report.summary(results)}, in {seconds:.1f} s", file=sys.stderr)
    if out is not None:
        out.write_text(report.document(results, versions, datetime.date.today(), seconds))
        print(f"written: {out}", file=sys.stderr)
    return 1 if any(result.result == "fail" for result in results) else 0


def _arguments() -> _Parser:
    parser = _Parser(
        prog="interop.matrix",
        description="Our node with each other implementation: what works, over what, whoever dials.",
        allow_abbrev=False,
    )
    for name, known in (
        ("peer", PEERS),
        ("transport", TRANSPORTS),
        ("security", SECURITIES),
        ("direction", DIRECTIONS),
        ("check", tuple(CHECKS)),
    ):
        text = f"some of {', '.join(known)} (default all)"
        parser.add_argument(f"--{name}", metavar="NAME[,NAME]", type=_some_of(known), default=known, help=text)
    parser.add_argument("--quick", action="store_true", help="4 MiB in place of 100, and fewer of everything")
    parser.add_argument("--json", action="store_true", help="one cell a line on standard output")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="where to write the table (default docs/interop.md, if all is run)"
    )
    parser.add_argument("--workers", metavar="N", type=int, default=WORKERS, help=f"lines at once (default {WORKERS})")
    parser.add_argument("--mutate", action="store_true", help="instead: our wire changed by a byte at a time")
    return parser


def _some_of(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, got {name!r}")
        return tuple(name for name in known if name in names)

    return parse


if __name__ == "__main__":
    sys.exit(main())
