"""`python -m interop.bench [NAME…] [flags]`: runs the named benchmarks, or all, in one run that shares its processes.

    NAME                     a benchmark, or a line of one (ping-p50): then only that line is told
    --peers vouch,go,…       who takes part; a peer whose toolchain is missing is left out by name
    --repeats N              measurements of each (default: the benchmark's own, with --quick fewer)
    --quick                  a look, not a measurement: fewer repeats, less data
    --json                   one line of JSON for each line of the report, and nothing else, on standard output
    --floors                 also what our node is to reach at least, and whether it does
    --out DIR                writes results.json, results.md and results.png there (`interop.bench.report`)

What is going on is told on standard error. Exit status: 0 measured; 1 something that is checked on the way failed, or
nothing was measured; 2 bad arguments.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from interop.bench import report, runner
from interop.bench.benchmarks import BENCHMARKS
from interop.bench.runner import Results
from interop.bench.stage import CONTENDERS

LINES = {line.name: benchmark for benchmark in BENCHMARKS for line in benchmark.lines}
NAMES = {benchmark.name: benchmark for benchmark in BENCHMARKS}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(2)


def main(argv: list[str] | None = None) -> int:
    parser = _Parser(prog="interop.bench", description="Run the benchmarks.", allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", type=_name, help=f"{', '.join(NAMES)}; default: all")
    parser.add_argument("--peers", metavar="LIST", type=_peers, default=CONTENDERS, help=",".join(CONTENDERS))
    parser.add_argument("--repeats", metavar="N", type=_count, help="measurements of each")
    parser.add_argument("--quick", action="store_true", help="fewer measurements of each, and less data")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each line of the report")
    parser.add_argument("--floors", action="store_true", help="also what our node is to reach at least")
    parser.add_argument("--out", metavar="DIR", type=Path, help="write results.json, results.md and results.png there")
    args = parser.parse_args(argv)
    names = args.names or list(NAMES)
    benchmarks = [name if name in NAMES else LINES[name].name for name in names]
    results = runner.run(benchmarks, args.peers, _say, quick=args.quick, repeats=args.repeats)
    lines = [line for name in names for line in (_lines(name) if name in NAMES else [name])]
    return _tell(results, lines, args)


def _tell(results: Results, lines: list[str], args: argparse.Namespace) -> int:
    if args.json:
        for line in report.json_lines(results, lines):
            print(line)
    else:
        print(report.text(results, lines))
    if args.floors and (floors := report.floors_text(results)):
        print(f"\n{floors}", file=sys.stderr if args.json else sys.stdout)
    if args.out:
        try:
            for sentence in report.write(results, args.out):
                _say(sentence)
        except OSError as error:
            _say(f"--out: can't write into {args.out}: {error}")
            return 1
    return 1 if results.failures or not results.medians() else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _lines(benchmark: str) -> list[str]:
    return [line.name for line in NAMES[benchmark].lines]


def _name(text: str) -> str:
    if text not in NAMES and text not in LINES:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(NAMES)}, got {text!r}")
    return text


def _peers(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(CONTENDERS)}, got {unknown[0]!r}")
    return names


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
