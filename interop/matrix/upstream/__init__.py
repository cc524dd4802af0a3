"""Defects of the libraries that peers are made of, each with a program that shows it without any code of this project.

A reproduction is run as `python PATH` or `node PATH`; it ends with status 0 if it has shown the defect, and with 1 if
it hasn't: then the defect is no excuse any more. What each shows is in README.md.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from interop.matrix.cells import Cell

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
NODE = ROOT / "interop/js/node_modules/.bin/node"
TIMEOUT = 90.0
NO_CONNECTION = "no connection"  # what a failure begins with that never came to what it checks


@dataclass(frozen=True)
class Defect:
    """What is wrong, the program that shows it, and the cells that it may spoil: None stands for any. `program` is a
    path from the project's folder. `symptom` is what a failure says that is this defect's, and no other is excused: a
    pattern.
    """

    what: str
    program: str
    peer: str
    symptom: str
    transport: str | None = None
    security: str | None = None
    direction: str | None = None
    checks: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Of its reproduction, from the project's folder."""
        return self.program

    def explains(self, cell: Cell, reason: str) -> bool:
        """Whether that failure of the cell is its doing, as far as a failure's words can tell."""
        return self.fits(cell) and not reason.startswith(NO_CONNECTION) and re.search(self.symptom, reason) is not None

    def fits(self, cell: Cell) -> bool:
        """Whether it may spoil that cell."""
        line = cell.line
        return (
            self.peer == line.peer
            and self.transport in (None, line.transport)
            and self.security in (None, line.security)
            and self.direction in (None, line.direction)
            and (not self.checks or cell.check in self.checks)
        )


_HERE, _JS = "interop/matrix/upstream", "interop/js/upstream"
# what reads, or closes, over Yamux
_OVER_YAMUX = ("tcp", "ws")
DEFECTS: tuple[Defect, ...] = (
    *(
        Defect(
            "py-libp2p reads a stream that was reset as ended properly",
            f"{_HERE}/stock_reset.py",
            "stock",
            r"was-reset failed: expected a reset, got StreamEOF",
            over,
            checks=("reset",),
        )
        for over in _OVER_YAMUX
    ),
    Defect(
        "py-libp2p's streams of QUIC are reset where they are half-closed",
        f"{_HERE}/stock_quic.py",
        "stock",
        r"^stock: .*StreamReset\(\)|^vouch: .*the peer has reset the stream",
        "quic-v1",
        checks=("streams", "half-close", "reset", "transfer"),
    ),
    Defect(
        "py-libp2p drops what comes over QUIC faster than it is read, and the end with it",
        f"{_HERE}/stock_quic_overflow.py",
        "stock",
        r"^vouch: echo failed: ProtocolError\('expected (\d+ (at offset \d+, got|bytes from \w+, got)|more, got [1-9])",
        "quic-v1",
        checks=("half-close", "transfer"),
    ),
    Defect(
        "rust-libp2p ends a stream of QUIC where it should reset it",
        f"{_HERE}/rust_quic_reset.py",
        "rust",
        r"^vouch: was-reset failed: .*got the end",
        "quic-v1",
        checks=("reset",),
    ),
    Defect(
        "js-libp2p's QUIC tells of a stream that was reset as if it had ended",
        f"{_JS}/quic_reset.js",
        "js",
        r"^js peer: was-reset failed: expected the stream to be reset, got its end",
        "quic-v1",
        checks=("reset",),
    ),
    Defect(
        "js-libp2p's WebSocket stays open when it is aborted, so that a refusal is only noticed at the deadline",
        f"{_JS}/websocket_abort.js",
        "js",
        r"got \['deadline'\]",
        "ws",
        checks=("other-network", "other-version"),
    ),
    Defect(
        "js-libp2p aborts a WebSocket that TLS pauses while its own sending waits, and its peer doesn't see it",
        f"{_JS}/websocket_paused.js",
        "js",
        r"js peer ended the connection: StreamBufferError: .* read status is paused",
        "ws",
        "tls",
        checks=("transfer",),
    ),
)


class Defects:
    """Known defects, each shown at most once in a run."""

    def __init__(self, known: tuple[Defect, ...] = DEFECTS) -> None:
        self._known = known
        self._shown: dict[str, bool] = {}
        self._lock = trio.Lock()

    def of(self, cell: Cell, reason: str) -> Defect | None:
        """The one that explains that failure."""
        return next((defect for defect in self._known if defect.explains(cell, reason)), None)

    async def shows(self, defect: Defect) -> bool:
        """Whether the reproduction shows it, now."""
        async with self._lock:
            if defect.program not in self._shown:
                self._shown[defect.program] = await trio.to_thread.run_sync(partial(reproduce, defect))
            return self._shown[defect.program]


def reproduce(defect: Defect) -> bool:
    """Runs the reproduction; whether it has shown the defect."""
    program = ROOT / defect.program
    runner = NODE if program.suffix == ".js" else Path(sys.executable)
    environ = {**os.environ, "PYTHONSAFEPATH": "1"}  # nothing beside it stands in for what it imports
    command = [str(runner), str(program)]
    try:
        done = subprocess.run(
            command, cwd=program.parent, env=environ, capture_output=True, timeout=TIMEOUT, check=False
        )
    except (subprocess.TimeoutExpired, FileNotFoundError):
        return False
    return done.returncode == 0
