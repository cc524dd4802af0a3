"""The line language of a peer on another host: `python -m interop.compose.line HOST:PORT`.

Joins standard input and output with a peer that was started with `--control`, so that `interop.peer.Peer` drives it as
one of its own. Ends when the peer closes; the end of the input is passed on. Exit status 1 if nobody listens there.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import suppress

CHUNK = 64 * 1024
DIAL_TIMEOUT = 10.0


def main() -> int:
    host, _, port = sys.argv[1].rpartition(":")
    try:
        peer = socket.create_connection((host, int(port)), timeout=DIAL_TIMEOUT)
    except OSError as error:
        print(f"expected a peer's control at {host}:{port}, got: {error}", file=sys.stderr)
        return 1
    peer.settimeout(None)
    # a daemon: nobody may be left to end the input when the peer has closed
    threading.Thread(target=_pass_on, args=(peer,), daemon=True).start()
    while data := peer.recv(CHUNK):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    return 0


def _pass_on(peer: socket.socket) -> None:
    with suppress(OSError):  # it has closed, which the other direction sees
        while data := os.read(sys.stdin.fileno(), CHUNK):
            peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    sys.exit(main())
