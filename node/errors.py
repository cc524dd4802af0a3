"""Every error that the node raises on purpose.

`VouchError` is the base: catch it to catch them all. What a peer sent wrong is `protocols.ProtocolError`, what a caller
or operator gave wrong is `UsageError`; the command line turns the latter into one line and exit status 2.
"""

from __future__ import annotations


class VouchError(Exception):
    """The base of the node's own errors. Its text says what was expected, what came, and from whom."""


class UsageError(VouchError):
    """A flag, address, key or file that can't be used. The text is one line for whoever typed it."""


class OffError(UsageError):
    """The node's settings switch off what was asked for."""


class DialError(VouchError):
    """No connection to the peer came about; the text names the peer and what each address answered."""


class BackoffError(DialError):
    """The peer refused or failed lately and isn't dialled again before its backoff has passed."""


class RefusedError(DialError):
    """The connection came about, but one side didn't admit the other. `reason`: that of the event `Refused`."""

    def __init__(self, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason


class BannedError(DialError):
    """The peer, or its address, is banned on this node."""


class LimitError(VouchError):
    """One of the node's own limits is reached; the text names the limit and its value."""


class TooSlowError(VouchError):
    """What was asked for isn't done within its time."""


class NotConnectedError(VouchError):
    """There is no admitted connection to the peer."""


class NotFoundError(VouchError):
    """Nobody who was asked has it."""
