"""`vouch dht`: the network's Kademlia through the running node.

    vouch dht find-peer PEER             its addresses; exit status 1 if nobody knows it
    vouch dht provide CID                we have it; the node says so again every 22 h, until `withdraw`
    vouch dht find-providers CID         who has it; exit status 1 if nobody does
    vouch dht put KEY [FILE]             a value under /pk/PEER, or a namespace that a program has registered
    vouch dht get KEY [--out FILE]       the value itself on standard output; exit status 1 if nobody has it
    vouch dht withdraw KEY|CID           the node publishes it no more

With --json each prints one object; values are base64 there.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from pathlib import Path
from typing import Any

from node.api.client import Client
from node.cli.parser import settings_from
from node.cli.shown import safe
from node.errors import NotFoundError, UsageError

# what Kademlia's messages hold at most; the node says so too
MAX_VALUE = 12 * 1024


def find_peer(args: argparse.Namespace) -> int:
    """Prints a peer's addresses."""
    answer = _ask(args, "find_peer", peer=args.peer)
    if args.json:
        print(json.dumps(answer))
    for addr in () if args.json else answer["addrs"]:
        print(f"{safe(addr)}/p2p/{answer['peer']}")
    if not answer["addrs"]:
        _complain(f"{args.peer} wasn't found: no peer that was asked knows it")
    return 0 if answer["addrs"] else 1


def provide(args: argparse.Namespace) -> int:
    """Says that we have what a CID stands for."""
    return _placed(args, _ask(args, "dht_provide", cid=args.cid), "told")


def find_providers(args: argparse.Namespace) -> int:
    """Prints who has what a CID stands for."""
    answer = _ask(args, "dht_find_providers", cid=args.cid, limit=args.count)
    if args.json:
        print(json.dumps(answer))
    for provider in () if args.json else answer["providers"]:
        print("  ".join([provider["peer"], *map(safe, provider["addrs"])]))
    if not answer["providers"]:
        _complain(f"nobody is known to provide {args.cid}")
    return 0 if answer["providers"] else 1


def put(args: argparse.Namespace) -> int:
    """Stores a file, or standard input, under a key."""
    value = _read(args.file)
    return _placed(args, _ask(args, "dht_put", key=args.key, value=base64.b64encode(value).decode()), "stored at")


def get(args: argparse.Namespace) -> int:
    """Writes the value of a key to standard output, or a file."""
    try:
        answer = _ask(args, "dht_get", key=args.key)
    except NotFoundError as error:
        _complain(str(error))
        return 1
    if args.json:
        print(json.dumps(answer))
        return 0
    value = base64.b64decode(answer["value"])
    if args.out is None:
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()
        return 0
    try:
        args.out.write_bytes(value)
    except OSError as error:
        raise UsageError(f"file {args.out}: expected to write it, got: {error.strerror}") from error
    return 0


def withdraw(args: argparse.Namespace) -> int:
    """Publishes a key or CID no more."""
    answer = _ask(args, "dht_withdraw", key=args.key)
    if args.json:
        print(json.dumps(answer))
    elif answer["published"]:
        print(f"{args.key} is published no more; peers forget it within 48 h")
    if not answer["published"]:
        _complain(f"this node doesn't publish {args.key}")
    return 0 if answer["published"] else 1


def _ask(args: argparse.Namespace, call: str, **params: Any) -> dict[str, Any]:
    with Client(settings_from(args).config.control_socket) as client:
        return client.call(call, **params)


def _placed(args: argparse.Namespace, answer: dict[str, Any], done: str) -> int:
    peers = answer["peers"]
    if args.json:
        print(json.dumps(answer))
    elif peers:
        print(f"{done} {peers} {'peer' if peers == 1 else 'peers'}")
    if not peers:
        why = "none of them took it" if answer["table"] else "its routing table is empty"
        _complain(f"the node has reached no peer for it: {why}")
    return 0 if peers else 1


def _read(name: str) -> bytes:
    try:
        if name == "-":
            value = sys.stdin.buffer.read(MAX_VALUE + 1)
        else:
            with Path(name).open("rb") as file:
                value = file.read(MAX_VALUE + 1)
    except OSError as error:
        raise UsageError(f"file {name}: expected to read it, got: {error.strerror}") from error
    if len(value) > MAX_VALUE:
        raise UsageError(f"expected a value of at most {MAX_VALUE} bytes, got more from {name}")
    return value


def _complain(text: str) -> None:
    print("vouch: error:", safe(text), file=sys.stderr)
