"""`python -m interop.bench [NAME] [flags]`: runs one benchmark, or all.

    --peers vouch,go,stock   who takes part; a peer whose toolchain is missing is left out by name
    --repeats N              measurements of each (default 50; with --quick 10)
    --quick                  a look, not a measurement
    --json                   one line of JSON for each benchmark (`report`), all else on standard error

Exit status: 0 measured; 1 something that is checked on the way failed; 2 bad arguments.
"""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from interop.bench import dial

BENCHMARKS = {"dial": dial.run}
REPEATS = 50
QUICK_REPEATS = 10


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(2)


def main(argv: list[str] | None = None) -> int:
    parser = _Parser(prog="interop.bench", description="Run the benchmarks.", allow_abbrev=False)
    parser.add_argument("name", nargs="?", metavar="NAME", choices=BENCHMARKS, help=f"{', '.join(BENCHMARKS)}, or all")
    parser.add_argument("--peers", metavar="LIST", type=_peers, default=dial.ENDS, help=",".join(dial.ENDS))
    parser.add_argument("--repeats", metavar="N", type=_count, help=f"measurements of each (default: {REPEATS})")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_REPEATS} measurements of each")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each benchmark")
    args = parser.parse_args(argv)
    repeats = args.repeats or (QUICK_REPEATS if args.quick else REPEATS)
    names = [args.name] if args.name else list(BENCHMARKS)
    return max(BENCHMARKS[name](args.peers, repeats, as_json=args.json) for name in names)


def _peers(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in dial.ENDS]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(dial.ENDS)}, got {unknown[0]!r}")
    return names


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
