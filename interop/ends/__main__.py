"""`python -m interop.ends vouch|stock [flags]`: see the package."""

from __future__ import annotations

import argparse
import logging
import os

from interop.ends import mutate
from interop.ends.flags import LISTEN, Flags


def main() -> None:
    parser = argparse.ArgumentParser(prog="interop.ends", description="One end of the matrix.", allow_abbrev=False)
    parser.add_argument("name", choices=("vouch", "stock"))
    parser.add_argument("--listen", metavar="MULTIADDR", action="append")
    parser.add_argument("--security", default="noise")
    parser.add_argument("--network-id", default="vouch-local")
    parser.add_argument("--client-version", default="vouch/1.0.0")
    parser.add_argument("--min-version", metavar="NAME=N.N.N", action="append", default=[])
    parser.add_argument("--handshake", choices=("true", "false"), default="true")
    parser.add_argument("--pubsub", choices=("signed", "unsigned"), default="")
    parser.add_argument("--kad", metavar="PREFIX", default="")
    parser.add_argument("--kad-refresh", choices=("on", "off"), default="on")
    parser.add_argument("--heartbeat", metavar="SECONDS", type=float, default=1.0)
    parser.add_argument(
        "--timeout", metavar="SECONDS", help="taken for the other peers' sake: each command has its own"
    )
    args = parser.parse_args()
    flags = Flags(
        listen=tuple(args.listen or (LISTEN,)),
        security=args.security,
        network_id=args.network_id,
        client_version=args.client_version,
        min_version=tuple(args.min_version),
        handshake=args.handshake == "true",
        pubsub=args.pubsub,
        kad=args.kad,
        kad_refresh=args.kad_refresh == "on",
        heartbeat=args.heartbeat,
    )
    mutate.install(os.environ.get(mutate.VARIABLE, ""))
    if not os.environ.get("INTEROP_LOGS"):
        logging.disable(logging.CRITICAL)  # what it says of connections that end is not of interest
    # only now: what they import may be changed by then
    import trio

    from interop.bench.ends.lines import serve

    if args.name == "vouch":
        from interop.ends.vouch import vouch

        trio.run(serve, vouch(flags))
    else:
        from interop.ends.stock import stock

        trio.run(serve, stock(flags))


if __name__ == "__main__":
    main()
