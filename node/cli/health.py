"""`vouch health`: does a node run here, and answer? For containers and monitors: it imports neither libp2p nor trio."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from node.api.client import Client
from node.cli.parser import settings_from
from node.errors import VouchError


def health(args: argparse.Namespace) -> int:
    """Exit status 0 if it does (with --ready: if it is ready too), else 1."""
    socket = settings_from(args).config.control_socket
    checks: list[dict[str, str]] = []
    try:
        with Client(socket, timeout=args.timeout) as client:
            call = "ready" if args.ready else "status"
            answer: dict[str, Any] = client.call(call)
        checks = answer.get("checks", [])
        error = ", ".join(f"{check['name']}: {check['detail']}" for check in checks if check["state"] == "fail")
    except VouchError as failed:
        error = str(failed)
    if args.json:
        print(json.dumps({"healthy": not error, "error": error, **({"checks": checks} if args.ready else {})}))
    elif not error:
        print("ready" if args.ready else "healthy")
    if error:
        print("vouch: error:", error, file=sys.stderr)
    return 1 if error else 0
