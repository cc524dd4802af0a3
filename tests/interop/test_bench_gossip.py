"""The search of the benchmark `gossip` for the highest rate, with routers that are made up."""

from __future__ import annotations

import pytest

from interop.bench.gossip import Gossiping, highest
from interop.peer import PeerError

WHOLE, QUICK = Gossiping(2.0, 1.15), Gossiping(0.5, 1.5)


class Router:
    """Takes so many messages/s. What is more waits, or is lost once `room` messages wait."""

    def __init__(self, capacity, room=10**9):
        self.capacity, self.room, self.runs = capacity, room, 0

    async def publish(self, rate, count):
        self.runs += 1
        lost = max(0, round(count * (1 - self.capacity / rate)) - self.room)
        seconds = 0.0 if lost else max((count - 1) / rate, count / self.capacity)
        return {"delivered": count - lost, "expected": count, "seconds": seconds, "runs": self.runs}


@pytest.mark.parametrize("capacity", [3, 90, 1200, 7000, 50_000])
@pytest.mark.parametrize("room", [0, 32, 10**9])
@pytest.mark.parametrize("gossiping", [WHOLE, QUICK])
async def test_the_highest_rate_is_found_in_few_runs(capacity, room, gossiping):
    router = Router(capacity, room)
    found = await highest(router.publish, 100, gossiping, "made up")
    # what may wait for a tenth of a second more is no error of the search
    assert capacity / gossiping.tolerance / 1.02 <= found.reached <= capacity * 1.01
    assert router.runs <= 17
    assert found.reply["delivered"] == found.reply["expected"]


async def test_a_router_that_always_loses_is_a_failure():
    async def publish(rate, count):
        return {"delivered": count - 1, "expected": count, "seconds": count / rate}

    with pytest.raises(PeerError, match="two processes: expected a rate at which everything arrives"):
        await highest(publish, 100, QUICK, "x, two processes")
