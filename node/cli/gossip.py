"""`vouch publish` and `vouch subscribe`: gossip through the running node.

`subscribe` prints a line for each message: its author, and the payload if that is printable text in UTF-8, else its
length and first bytes. `--raw` writes payloads and nothing else, one after the other. `--json`, one object a line:

    {"event": "subscribed", "topic": "blocks", "relays": true}
    {"event": "message", "topic": "blocks", "message_id": "1f…", "author": "12D3…", "forwarder": "12D3…", "type": 0,
     "timestamp_ms": 1767225600000, "received_ns": 81234567890, "size": 5, "payload": "aGVsbG8="}
    {"event": "missed", "count": 3}                               what we were too slow for
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from node.api.client import Client
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
    """Prints a topic's messages, `--count` of them or until it is interrupted."""
    left = args.count
    with (
        Client(settings_from(args).config.control_socket) as client,
        closing(client.stream("subscribe", topic=args.topic)) as items,
    ):
        for item in items:
            _show(item, args)
            if item["event"] == "message" and left is not None:
                left -= 1
                if not left:
                    return 0
    return 0


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
        case "message":
            payload = base64.b64decode(item["payload"])
            if args.raw:
                sys.stdout.buffer.write(payload)
                sys.stdout.buffer.flush()
            else:
                author = item["author"]
                kind = f"  type {item['type']}" if item["type"] else ""
                print(f"{author[:8]}…{author[-6:]}{kind}  {shown(payload)}", flush=True)


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
