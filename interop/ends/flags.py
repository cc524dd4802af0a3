"""What an end is started with."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

LISTEN = "/ip4/127.0.0.1/tcp/0"


@dataclass(frozen=True)
class Flags:
    """The flags, as `interop.ends` lists them."""

    listen: tuple[str, ...]
    security: str
    network_id: str
    client_version: str
    min_version: tuple[str, ...]
    handshake: bool
    pubsub: str
    kad: str
    kad_refresh: bool
    heartbeat: float

    @classmethod
    def parse(cls, argv: Sequence[str]) -> Flags:
        """The flags of a command line. Exits with status 2 for what is none."""
        parser = argparse.ArgumentParser(prog="interop.ends", description="One end of the matrix.", allow_abbrev=False)
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
        parser.add_argument("--timeout", metavar="SECONDS", help="of other peers' commands; ours have their own")
        args = parser.parse_args(argv)
        return cls(
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
