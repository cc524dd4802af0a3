"""An outage: every link is cut for five minutes, then they are back. Whole nodes on the in-memory network."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

from node import Node
from tests.memnet import MemNet, mem_node

OUTAGE = 300.0
BACK = 60.0
LOW, TARGET = 4, 6
POOL = {
    "pool": "on",
    "heartbeat": "on",
    "dht": "off",
    "gossip": "off",
    "low_peers": LOW,
    "target_peers": TARGET,
    "outbound_peers": 3,
    "high_peers": 24,
}


class Counting(MemNet):
    """Counts who dials whom."""

    dials: list[tuple[float, str, str]]

    async def connect(self, source, target, port):  # type: ignore[no-untyped-def]
        self.dials.append((trio.current_time(), source, target))
        return await super().connect(source, target, port)


async def outage(count: int) -> dict[str, float]:
    async with Counting(seed=3) as net, AsyncExitStack() as stack:
        net.dials = []
        first = await stack.enter_async_context(mem_node(net, "10.0.0.1", **POOL))
        nodes: list[Node] = []
        for number in range(count):
            node = mem_node(net, f"10.0.1.{number + 1}", bootstrap=(first.addrs[0],), **POOL)
            nodes.append(await stack.enter_async_context(node))

        def at_target() -> bool:
            return all(len(node.connected_peers()) >= TARGET for node in nodes)

        async def until_at_target(timeout: float) -> float:
            began = trio.current_time()
            with trio.fail_after(timeout):
                while not at_target():  # noqa: ASYNC110
                    await trio.sleep(0.25)
            return trio.current_time() - began

        formed = await until_at_target(300)
        # each of them knows as many as it needs, without the bootstrap
        with trio.fail_after(600):
            while any(  # noqa: ASYNC110
                sum(e.worked and e.peer != first.peer_id for e in node.addressbook.entries()) < LOW for node in nodes
            ):
                await trio.sleep(1)
        cut = trio.current_time()
        net.partition(*([node.config.listen[0].split("/")[2]] for node in [first, *nodes]))
        await trio.sleep(OUTAGE)
        alone = sum(not node.connected_peers() for node in nodes)
        net.heal()
        back = await until_at_target(BACK)
        used = [dial for dial in net.dials if dial[0] > cut and dial[2] == "10.0.0.1"]
        during = sum(cut < dial[0] < cut + OUTAGE for dial in net.dials)
        return {
            "formed_s": formed,
            "alone_at_the_end": alone,
            "back_s": back,
            "dials_of_the_bootstrap": len(used),
            "dials_per_node_and_minute_of_outage": during / (count + 1) / (OUTAGE / 60),
        }


def check(result: dict[str, float], count: int) -> None:
    print({name: round(value, 2) for name, value in result.items()})
    assert result["alone_at_the_end"] == count, result
    assert result["dials_of_the_bootstrap"] == 0, result


@pytest.mark.bar_quick
async def test_bar_outage_quick(autojump_clock) -> None:
    check(await outage(8), 8)


@pytest.mark.bar
async def test_bar_outage(autojump_clock) -> None:
    check(await outage(24), 24)
