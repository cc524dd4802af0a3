"""`vouch events`: what happens at the running node, a line each, until it ends or is interrupted.

    12:04:31  admitted       peer=12D3KooW… direction=inbound client_version=vouch/0.1.0

With `--json` one object a line, as `/v1/events` has them; the kinds are those of docs/operating.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing
from typing import Any

from node.api.client import Client
from node.cli.parser import settings_from


def events(args: argparse.Namespace) -> int:
    """Prints events, `--count` of them or until the node stops."""
    left = args.count
    with (
        Client(settings_from(args).config.control_socket) as client,
        closing(client.stream("events", kinds=args.kinds)) as items,
    ):
        for item in items:
            if args.json:
                print(json.dumps(item), flush=True)
            elif item["event"] == "missed":
                print(f"vouch: warning: too slow, {item['count']} events were missed here", file=sys.stderr)
            else:
                print(line(item), flush=True)
            if left is not None and item["event"] != "missed":
                left -= 1
                if not left:
                    break
    return 0


def line(item: dict[str, Any]) -> str:
    """An event for people. What a terminal would take for commands is escaped: a stranger chose some of the words."""
    fields = ((name, _shown(value)) for name, value in item["fields"].items())
    told = " ".join(f"{name}={value}" for name, value in fields if value)
    return f"{time.strftime('%H:%M:%S', time.localtime(item['time']))}  {item['event']:14} {told}"


def _shown(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if text.isprintable() and " " not in text else json.dumps(text)
