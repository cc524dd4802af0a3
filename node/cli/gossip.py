"""`vouch publish` and `vouch subscribe`: gossip through the running node.

`subscribe` prints a line for each message: its author, and the payload if that is printable text in UTF-8, else its
length and first bytes. `--raw` writes payloads and nothing else, one after the other. `--json`, one object a line:

    {"event": "subscribed", "topic": "blocks", "relays": true}
    {"event": "message", "topic": "blocks", "message_id": "1f…", "author": "12D3…", "forwarder": "12D3…", "type": 0,
     "timestamp_ms": 1767225600000, "received_ns": 81234567890, "size": 5, "payload": "aGVsbG8="}
    {"event": "missed", "count": 3}                               what we were too slow for

With `--verdict` (`node.cli.deciding`) each message is printed once it has its verdict: a column before it, or the keys
"verdict" and "counted" (it came in time) in its object.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from node.api.client import Client
from node.cli.deciding import Deciding, Decision
from node.cli.parser import settings_from
from node.errors import UsageError

# what the wire takes at most is a little less: the node says so
MAX_PAYLOAD = 1 << 20
HEAD = 24  # bytes shown of a payload that is no text


def publish(args: argparse.Namespace) -> int:
    """Publishes a file, or standard input. Exit status 1 if it was handed to nobody."""
    config = settings_from(args).config
    with Client(config.control_socket) as client:  # first: who waits at a terminal should know that a node runs
        payload = _read(args.file)
        encoded = base64.b64encode(payload).decode()
        answer = client.call("publish", topic=args.topic, payload=encoded, type=args.type)
    peers = len(answer["peers"])
    if args.json:
        print(json.dumps(answer))
    elif peers:
        print(f"{answer['message_id']}  handed to {peers} {'peer' if peers == 1 else 'peers'}")
    if not peers:
        print("vouch: error:", _why_nobody(args.topic, answer), file=sys.stderr)
    return 0 if peers else 1


def subscribe(args: argparse.Namespace) -> int:
    """Prints a topic's messages, `--count` of them or until it is interrupted; with `--verdict`, decides on them."""
    config = settings_from(args).config
    left = args.count
    with ExitStack() as stack:
        client = stack.enter_context(Client(config.control_socket))
        deciding = None
        if args.verdict is not None:
            verdicts = stack.enter_context(Client(config.control_socket))
            begin = partial(_before, args) if args.verdict == "ask" else lambda _item: None
            deciding = Deciding(verdicts, args.verdict, begin, partial(_show_decided, args))
        decide = {"decide": True} if deciding is not None else {}
        items = stack.enter_context(closing(client.stream("subscribe", topic=args.topic, **decide)))
        if deciding is not None:
            stack.callback(deciding.close)  # before the items end, which would leave the last ones ignored
        for item in items:
            if item["event"] != "message":
                _show(item, args)
                continue
            if deciding is None:
                _show(item, args)
            elif not deciding.message(item):
                return 0
            if left is not None:
                left -= 1
                if not left:
                    return 0
    return 0


def _before(args: argparse.Namespace, item: dict[str, Any]) -> None:
    """Shows a message to whoever is asked for its verdict."""
    print(_line(item), file=sys.stderr, flush=True)


def _show_decided(args: argparse.Namespace, item: dict[str, Any], decision: Decision) -> None:
    if args.json:
        print(json.dumps({**item, "verdict": decision.verdict, "counted": decision.counted}), flush=True)
    elif args.raw:
        if decision.verdict == "accept" and decision.counted:
            _show(item, args)
    else:
        late = "" if decision.counted else " (too late, it has no effect)"
        print(f"{decision.verdict + late:8}  {_line(item)}", flush=True)
    if decision.verdict == "ignore" and decision.reason and args.verdict not in ("ask", "ignore"):
        print(f"vouch: warning: ignored {item['message_id'][:16]}…: {decision.reason}", file=sys.stderr)


def _show(item: dict[str, Any], args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps(item), flush=True)
        return
    match item["event"]:
        case "subscribed":
            how = "; nobody decides on it, so what is signed properly is accepted" if item["relays"] else ""
            print(f"vouch: listening to {item['topic']}{how}", file=sys.stderr)
        case "missed":
            print(f"vouch: warning: too slow, {item['count']} messages were missed here", file=sys.stderr)
        case "message" if args.raw:
            sys.stdout.buffer.write(base64.b64decode(item["payload"]))
            sys.stdout.buffer.flush()
        case "message":
            print(_line(item), flush=True)


def _line(item: dict[str, Any]) -> str:
    author = item["author"]
    kind = f"  type {item['type']}" if item["type"] else ""
    return f"{author[:8]}…{author[-6:]}{kind}  {shown(base64.b64decode(item['payload']))}"


def shown(payload: bytes) -> str:
    """A payload for people: its text, further lines indented, without the last line's end; or length and first bytes.

    What a terminal would take for commands is no text.
    """
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        text = "\0"
    lines = text.removesuffix("\n").split("\n")
    if all(line.replace("\t", "").isprintable() for line in lines):
        return "\n    ".join(lines)
    more = "…" if len(payload) > HEAD else ""
    return f"{len(payload)} bytes: {payload[:HEAD].hex(' ', -4)}{more}"


def _read(name: str) -> bytes:
    """The bytes of a file, or of standard input. Raises UsageError for what can't be read, or is too large."""
    try:
        if name == "-":
            payload = _bounded(sys.stdin.buffer)
        else:
            with Path(name).open("rb") as file:
                payload = _bounded(file)
    except OSError as error:
        raise UsageError(f"file {name}: expected to read it, got: {error.strerror}") from error
    if len(payload) > MAX_PAYLOAD:
        raise UsageError(f"expected a message of at most {MAX_PAYLOAD} bytes, got more from {name}")
    return payload


def _bounded(file: BinaryIO) -> bytes:
    return file.read(MAX_PAYLOAD + 1)


def _why_nobody(topic: str, answer: dict[str, Any]) -> str:
    connected, subscribers = answer["connected"], answer["subscribers"]
    if not connected:
        why = "the node has no peers: `vouch connect MULTIADDR` finds it one"
    elif not subscribers:
        why = f"of {connected} connected peers none subscribes to it: `vouch subscribe {topic}` or "
        why += f"`vouch run --topic {topic}` at one of them does"
    else:
        why = f"the {subscribers} that subscribe to it have full queues or too low a score"
    return f"the message on {topic} was handed to nobody: {why}"
