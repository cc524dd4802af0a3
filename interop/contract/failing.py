"""How the programs end: 0 for a test that passes, 1 for one that fails, 2 for one that can't be tried here."""

from __future__ import annotations

FAILED = 1
UNSUPPORTED = 2


class Failure(Exception):
    """The test fails. The text says what was expected and what came."""


class UnsupportedError(Exception):
    """A variable that is missing or makes no sense, or a combination that this node doesn't offer."""
