"""`vouch completion SHELL`: a script that completes this command line, made by shtab from the parser itself."""

from __future__ import annotations

import argparse

from node.cli.parser import build
from node.errors import VouchError


def completion(args: argparse.Namespace) -> int:
    """Prints the script."""
    try:
        import shtab
    except ImportError:
        raise VouchError("expected the package shtab to be installed, which makes the scripts") from None
    root = build()
    _complete_files(root, shtab.FILE)
    print(shtab.complete(root, shell=args.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser, file: object) -> None:
    """Arguments that are files are completed as such."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _complete_files(child, file)
        elif action.metavar in ("FILE", "DIR", "PATH"):
            action.complete = file  # type: ignore[attr-defined]  # what shtab looks for
