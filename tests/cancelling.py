"""Cancels a call at each of its awaits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when the task that opened it, or one under it, has taken its n-th step."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self.scope = scope
        self.steps = steps
        self.root = trio.lowlevel.current_task()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        current: trio.lowlevel.Task | None = task
        while current is not None and current is not self.root:
            current = current.parent_nursery.parent_task if current.parent_nursery else None
        if current is not None:
            self.steps -= 1
            if self.steps == 0:
                self.scope.cancel()


async def cancelled_at(steps: int, call: Callable[[], Awaitable[object]]) -> bool:
    """Runs `call` in a task of its own and cancels it after so many steps; whether it was still running then."""
    cut = False

    async def run() -> None:
        nonlocal cut
        with trio.CancelScope() as scope:
            instrument = CancelAt(scope, steps)
            trio.lowlevel.add_instrument(instrument)
            try:
                await call()
            finally:
                trio.lowlevel.remove_instrument(instrument)
        cut = scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
    return cut
