"""`python interop/lab/probe.py COMMAND ...`: what a network does, asked with sockets alone. JSON lines come out.

    serve PORT                      answers on UDP (whom it sees), takes and counts on TCP; {"event": "listening"}
                                    first, then {"event": "took", "bytes", "seconds"} for each TCP connection
    ping ADDR PORT [COUNT [EVERY]]  UDP there and back: {"sent", "received", "rtt_ms": [...]}; EVERY is in seconds
    seen ADDR:PORT ...              from one UDP socket: as whom each sees it, {"ADDR:PORT": [IP, PORT] or null}
    send ADDR PORT SECONDS          over TCP, as much as goes; {"bytes": N}
    punch ADDR:PORT NAME OTHER      asks the server there to introduce it to OTHER, which does the same with the names
                                    changed about; then both send to each other: {"heard": true or false}

All end by themselves but `serve`, which is ended by the end of its input.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

WAIT = 2.0
PUNCH_SECONDS = 3.0
BLOCK = 65536


def say(**message: object) -> None:
    """One line out."""
    print(json.dumps(message), flush=True)


def serve(port: str) -> None:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("0.0.0.0", int(port)))
    tcp = socket.create_server(("0.0.0.0", int(port)))
    say(event="listening")
    threading.Thread(target=_take_connections, args=(tcp,), daemon=True).start()
    waiting: dict[str, tuple[str, int]] = {}
    while True:
        ready, _, _ = select.select([udp.fileno(), 0], [], [])
        if 0 in ready and not os.read(0, BLOCK):
            return
        if udp.fileno() in ready:
            data, sender = udp.recvfrom(BLOCK)
            asked = json.loads(data)
            reply: dict[str, object] = {"number": asked["number"], "from": sender}
            if "name" in asked:
                waiting[asked["name"]] = sender
                reply["other"] = waiting.get(asked["other"])
            udp.sendto(json.dumps(reply).encode(), sender)


def _take_connections(tcp: socket.socket) -> None:
    while True:
        connection, _ = tcp.accept()
        with connection:
            began, total = 0.0, 0
            while data := connection.recv(1 << 20):
                began = began or time.monotonic()
                total += len(data)
            say(event="took", bytes=total, seconds=round(time.monotonic() - began, 4))


def ping(addr: str, port: str, count: str = "10", every: str = "0.05") -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        sent: dict[int, float] = {}
        rtts: dict[int, float] = {}
        began = time.monotonic()
        for number in range(int(count)):
            sent[number] = time.monotonic()
            _send(udp, (addr, int(port)), number=number)
            last = number == int(count) - 1
            until = time.monotonic() + WAIT if last else began + (number + 1) * float(every)
            while not (last and len(rtts) == len(sent)) and (reply := _next(udp, until)) is not None:
                rtts[reply["number"]] = time.monotonic() - sent[reply["number"]]
        say(sent=len(sent), received=len(rtts), rtt_ms=[round(rtt * 1000, 3) for rtt in rtts.values()])


def seen(*servers: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        found: dict[str, object] = dict.fromkeys(servers)
        for number, server in enumerate(servers):
            _send(udp, _endpoint(server), number=number)
            reply = _next(udp, time.monotonic() + WAIT)
            found[server] = reply and reply["from"]
        say(**found)


def send(addr: str, port: str, seconds: str) -> None:
    total, block = 0, bytes(BLOCK)
    with socket.create_connection((addr, int(port)), timeout=10 * WAIT) as tcp:
        until = time.monotonic() + float(seconds)
        while time.monotonic() < until:
            tcp.sendall(block)
            total += len(block)
    say(bytes=total)


def punch(server: str, name: str, other: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        until = time.monotonic() + PUNCH_SECONDS
        there: tuple[str, int] | None = None
        heard = False
        while time.monotonic() < until:
            if there is None:
                _send(udp, _endpoint(server), number=0, name=name, other=other)
            else:
                _send(udp, there, hello=name)
            pause = time.monotonic() + 0.1
            while (message := _next(udp, pause)) is not None:
                if message.get("other"):
                    there = (message["other"][0], message["other"][1])
                heard = heard or message.get("hello") == other
        say(heard=heard)


def _endpoint(text: str) -> tuple[str, int]:
    addr, _, port = text.rpartition(":")
    return addr, int(port)


def _send(udp: socket.socket, to: tuple[str, int], **message: object) -> None:
    with suppress(OSError):  # nothing leads there just now: as if it had been lost
        udp.sendto(json.dumps(message).encode(), to)


def _next(udp: socket.socket, until: float) -> dict[str, Any] | None:
    """The next message, None if none comes in time."""
    while (left := until - time.monotonic()) > 0:
        udp.settimeout(left)
        try:
            message: dict[str, Any] = json.loads(udp.recv(BLOCK))
            return message
        except TimeoutError:
            return None
        except OSError:
            continue  # what was sent before has come back as an ICMP error
    return None


COMMANDS: dict[str, Callable[..., None]] = {"serve": serve, "ping": ping, "seen": seen, "send": send, "punch": punch}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(str(__doc__))
    COMMANDS[sys.argv[1]](*sys.argv[2:])
