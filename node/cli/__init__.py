"""The command `vouch`: reads the command line, runs the chosen command, turns errors into one line.

    exit status   0    done
                  1    it was tried and failed
                  2    the command line, a setting or a file can't be used as given
                  130  interrupted (128 + SIGINT)
                  141  the reader of our output went away (128 + SIGPIPE)

A command's module is imported when the command is chosen, so that `vouch --help` answers at once. Any other exception
is a fault of ours and leaves a traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from node.cli.parser import handler, parse
from node.cli.shown import safe
from node.errors import UsageError, VouchError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. `argv` leaves out the program's name; None: the process's own."""
    try:
        try:
            args = parse(sys.argv[1:] if argv is None else argv)
        except SystemExit as answered:  # --help and --version; errors don't come this way
            status = int(answered.code or 0)
        else:
            status = handler(args)(args)
        print(end="", flush=True)  # here, where a reader that went away is caught, not at the interpreter's end
        return status
    except (VouchError, KeyboardInterrupt, OSError, BaseExceptionGroup) as error:
        return _status_of(error)


def _status_of(error: BaseException) -> int:
    """Say what went wrong, in one line where it is meant for the user, and return the exit status."""
    cause = error
    while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:  # trio's nurseries wrap what they raise
        cause = cause.exceptions[0]
    if isinstance(cause, VouchError):
        print("vouch: error:", safe(" ".join(str(cause).split())), file=sys.stderr)
        return 2 if isinstance(cause, UsageError) else 1
    if isinstance(cause, KeyboardInterrupt):
        return 130
    if isinstance(cause, OSError) and cause.errno in (errno.EPIPE, errno.ENOSPC):
        # What is left in the buffer would raise once more when the interpreter flushes it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if cause.errno == errno.EPIPE:
            return 141
        print("vouch: error:", cause.strerror, file=sys.stderr)
        return 1
    raise error
