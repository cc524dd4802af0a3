"""The node in libp2p's own test suites: `python -m interop.contract transport|perf|kad|gossipsub`, or with a dot in
place of the space (docs/contracts.md).

What each is told comes by the environment, gossipsub's by `--params FILE`. Standard output is the suite's; everything
else goes to standard error. Exit status: 0 the test passes, 1 it fails, 2 it can't be tried: a variable makes no sense,
or this node doesn't offer what it asks for.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NoReturn

import trio

from interop.contract import gossipsub, kad, perf, transport
from interop.contract.failing import FAILED, UNSUPPORTED, Failure, UnsupportedError
from interop.contract.variables import Variables, boolean
from node import log
from node.errors import UsageError, VouchError
from protocols import ProtocolError, StreamError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(UNSUPPORTED)


def main(argv: Sequence[str] | None = None) -> int:
    parser = _Parser(prog="interop.contract", description="The node in libp2p's own test suites.", allow_abbrev=False)
    suites = parser.add_subparsers(dest="suite", required=True, metavar="SUITE")
    for name in ("transport", "perf", "kad"):
        suites.add_parser(name, help="configured by the environment", allow_abbrev=False)
    gossip = suites.add_parser("gossipsub", help="follows a script", allow_abbrev=False)
    gossip.add_argument("--params", type=Path, required=True, metavar="FILE", help="the experiment, in JSON")
    gossip.add_argument("--node-id", type=int, metavar="N", help="which node this is, unless the host name says it")
    gossip.add_argument(
        "--hosts", type=Path, metavar="FILE", help='where the nodes are, {"0": "127.0.0.1:9000", …}, without Shadow'
    )
    gossip.add_argument("--start", type=float, metavar="SECONDS", help="Unix time that the script counts from")
    args = parser.parse_args(argv)
    try:
        log.configure(form="text", level="debug" if _debug() else "warning", stream=sys.stderr)
        trio.run(_program(args))
    except (UnsupportedError, UsageError) as error:
        return _told(error, UNSUPPORTED)
    except (Failure, VouchError, StreamError, ProtocolError) as error:
        return _told(error, FAILED)
    except KeyboardInterrupt:
        return FAILED
    return 0


def _debug() -> bool:
    return boolean("DEBUG", os.environ.get("DEBUG") or "false")


def _program(args: argparse.Namespace) -> Callable[[], Awaitable[None]]:
    environ = os.environ
    match args.suite:
        case "transport":
            variables = Variables.read(environ)
            return lambda: transport.run(variables)
        case "perf":
            variables, amounts = Variables.read(environ), perf.Amounts.read(environ)
            return lambda: perf.run(variables, amounts)
        case "kad":
            role = kad.Role.read(environ)
            return lambda: kad.run(role)
    return gossipsub.program(args.params, node=args.node_id, hosts=args.hosts, start=args.start)


def _told(error: Exception, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
