"""A block that must end in time, with an error that says who didn't do what."""

from __future__ import annotations

import typing

import trio

from protocols.base import StreamTimeout


class within:
    """A block that must end within its time. Raises StreamTimeout, which says who didn't do what."""

    __slots__ = ("_scope", "_text")

    def __init__(self, seconds: float, peer: str, name: str, what: str) -> None:
        self._scope = trio.CancelScope(deadline=trio.current_time() + seconds)
        self._text = (peer, name, what, seconds)

    def __enter__(self) -> None:
        self._scope.__enter__()

    def __exit__(self, *error: typing.Any) -> bool | None:
        swallowed = self._scope.__exit__(*error)
        if self._scope.cancelled_caught:
            peer, name, what, seconds = self._text
            raise StreamTimeout(f"{name}: {peer} didn't {what} within {seconds:g} s")
        return swallowed
