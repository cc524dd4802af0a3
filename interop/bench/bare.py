"""What the machine leaves of bulk: `python -m interop.bench.bare [MIB]`, two processes, a socket and the cipher.

Each side seals messages of Noise's largest size and sends them, receives and opens: no event loop, no muxer, no
protocol, nothing kept. Whatever a node in one thread does comes on top, so that this is its ceiling. It prints MB/s one
way, and both ways at once with both directions together, each the best of three.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time

from node.upgrade.noise import LENGTH, MAX_MESSAGE, MAX_PLAINTEXT, Cipher

BATCH = 8
WIRE = LENGTH.size + MAX_MESSAGE
KEY = bytes(32)


def move(sock: socket.socket, sending: int, receiving: int) -> None:
    """Sends and receives so many messages, whichever goes."""
    sock.setblocking(False)
    seals, opens = Cipher(KEY), Cipher(KEY)
    text = bytes(MAX_PLAINTEXT)
    out, into = memoryview(bytearray(BATCH * WIRE)), memoryview(bytearray(4 * WIRE))
    unsent, filled = out[:0], 0
    while sending or len(unsent) or receiving:
        if not len(unsent) and sending:
            count = min(BATCH, sending)
            for at in range(0, count * WIRE, WIRE):
                LENGTH.pack_into(out, at, MAX_MESSAGE)
                seals.seal_into(text, out[at + LENGTH.size : at + WIRE])
            unsent, sending = out[: count * WIRE], sending - count
        readable, writable, _ = select.select([sock] if receiving else [], [sock] if len(unsent) else [], [])
        if writable:
            unsent = unsent[sock.send(unsent) :]
        if readable:
            filled += sock.recv_into(into[filled:])
            whole = filled // WIRE
            for at in range(0, whole * WIRE, WIRE):
                opens.open(into[at + LENGTH.size : at + WIRE])
            receiving -= whole
            rest = filled - whole * WIRE
            into[:rest] = into[whole * WIRE : filled]
            filled = rest


def measure(up: int, down: int) -> float:
    """MB/s of so many messages each way."""
    here, there = _connected()
    child = os.fork()
    if not child:
        here.close()
        move(there, down, up)
        os._exit(0)
    there.close()
    started = time.perf_counter()
    move(here, up, down)
    os.waitpid(child, 0)
    seconds = time.perf_counter() - started
    here.close()
    return (up + down) * MAX_PLAINTEXT / seconds / 1e6


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = socket.create_connection(server.getsockname())
        return here, server.accept()[0]


if __name__ == "__main__":
    messages = int(sys.argv[1] if len(sys.argv) > 1 else "256") * (1 << 20) // MAX_PLAINTEXT
    print(f"one way   {max(measure(messages, 0) for _ in range(3)):.0f} MB/s")
    print(f"both ways {max(measure(messages // 2, messages // 2) for _ in range(3)):.0f} MB/s")
