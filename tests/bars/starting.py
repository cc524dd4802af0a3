"""Starts nodes for tests/bars/test_restart.py: for each line {"args": [...], "log": FILE} one more `vouch run`.

    python -m tests.bars.starting exec    each from the beginning, as a user would: an interpreter, and all imports
    python -m tests.bars.starting fork    each a fork of this process, which has imported everything already

Prints each one's process ID. Who was killed is gone from the table of processes once it has ended. At the end of the
input those that are left are killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress


def start(args: list[str], log: str, *, imported: bool) -> int:
    """A new process that runs `vouch run ARGS`; its ID."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if not imported:
            os.execv(sys.executable, [sys.executable, "-m", "node", "run", *args])
        from node.cli import main

        status = main(["run", *args])
    finally:
        os._exit(status)


def serve(*, imported: bool) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if imported:
        import node.cli.serve  # noqa: F401
    children: list[int] = []
    for line in sys.stdin:
        asked = json.loads(line)
        children.append(start(asked["args"], asked["log"], imported=imported))
        os.write(1, b"%d\n" % children[-1])
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    serve(imported=sys.argv[1] == "fork")
