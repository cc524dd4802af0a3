"""`python -m interop.bench [NAME…] [flags]`: runs the named benchmarks, or all.

    --peers vouch,go,…       who takes part; a peer whose toolchain is missing is left out by name
    --repeats N              measurements of each (default: the benchmark's own, with --quick fewer)
    --quick                  a look, not a measurement: fewer repeats, less data
    --json                   one line of JSON for each benchmark (`report`), all else on standard error

Exit status: 0 measured; 1 something that is checked on the way failed; 2 bad arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from interop.bench import bulk, dial


@dataclass(frozen=True)
class Benchmark:
    """One row of the table: who can take part, how often it measures. `run` gives the exit status."""

    run: Callable[..., int]  # (ends, repeats, *, quick, as_json)
    ends: tuple[str, ...]
    repeats: int
    quick_repeats: int


def _dial(ends: Sequence[str], repeats: int, *, quick: bool, as_json: bool) -> int:
    return dial.run(ends, repeats, as_json=as_json)


BENCHMARKS = {
    "dial": Benchmark(_dial, dial.ENDS, 50, 10),
    "bulk-up": Benchmark(partial(bulk.run_bulk, "up"), bulk.ENDS, 7, 3),
    "bulk-down": Benchmark(partial(bulk.run_bulk, "down"), bulk.ENDS, 7, 3),
    "ping": Benchmark(bulk.run_ping, bulk.ENDS, 9, 3),
}
ENDS = tuple(dict.fromkeys(end for benchmark in BENCHMARKS.values() for end in benchmark.ends))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(2)


def main(argv: list[str] | None = None) -> int:
    parser = _Parser(prog="interop.bench", description="Run the benchmarks.", allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", type=_name, help=f"{', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--peers", metavar="LIST", type=_peers, default=ENDS, help=",".join(ENDS))
    parser.add_argument("--repeats", metavar="N", type=_count, help="measurements of each")
    parser.add_argument("--quick", action="store_true", help="fewer measurements of each, and less data")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each benchmark")
    args = parser.parse_args(argv)
    status = 0
    for name in dict.fromkeys(args.names or BENCHMARKS):
        benchmark = BENCHMARKS[name]
        repeats = args.repeats or (benchmark.quick_repeats if args.quick else benchmark.repeats)
        status = max(status, benchmark.run(args.peers, repeats, quick=args.quick, as_json=args.json))
    return status


def _name(text: str) -> str:
    if text not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(BENCHMARKS)}, got {text!r}")
    return text


def _peers(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in ENDS]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(ENDS)}, got {unknown[0]!r}")
    return names


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
