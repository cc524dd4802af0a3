"""How late the event loop is: a task that sleeps a little and looks at when it was woken."""

from __future__ import annotations

import time
from typing import NoReturn

import trio

from protocols.histogram import Histogram

PAUSE = 0.25


class Lag:
    """`seconds` that tasks which are due have waited. By the machine's clock: simulated time is never late."""

    def __init__(self) -> None:
        self.seconds = Histogram()

    async def run(self) -> NoReturn:
        """Runs until cancelled."""
        while True:
            due = time.perf_counter() + PAUSE
            await trio.sleep(PAUSE)
            self.seconds.observe(max(0.0, time.perf_counter() - due))
