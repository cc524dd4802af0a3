"""The transport suite's program: connect, ping, and how long both took (docs/write-a-transport-test-app.md there).

    listener: listens, publishes its address, serves until it is ended or the time is over (which is a failure)
    dialer:   waits for the address, connects, pings once, prints

    latency:                           test-plans: {"handshakePlusOneRTTMillis": 5.011, "pingRTTMilllis": 0.599}
      handshake_plus_one_rtt: 5.011
      ping_rtt: 0.599
      unit: ms

The first is the time from the dial to the ping's answer. unified-testing's document says "set the value" and "poll";
its programs (Go, Rust, JavaScript, Python) all RPUSH and BLPOP, as test-plans has it. The listener does as they do, and
turns the key into a plain value once nobody has taken it for TAKEN_AFTER and somebody asks with GET; the dialer takes
either.
"""

from __future__ import annotations

import json
import sys

import trio

from interop.contract.failing import Failure
from interop.contract.hosts import node_for, own_address
from interop.contract.redis import Redis
from interop.contract.variables import Variables
from protocols.ping import ping

LOOK_EVERY = 0.5
# seconds in which whoever takes lists has taken it; whole seconds since somebody's GET, for Redis counts no others
TAKEN_AFTER = 5.0
GET_WITHIN = 2


async def run(variables: Variables) -> None:
    """One role to its end. Raises what of the test fails."""
    with trio.move_on_after(variables.timeout):
        if variables.is_dialer:
            await _dial(variables)
            return
        await _listen(variables)
    raise Failure(f"expected the test to be over within {variables.timeout:g} s, it isn't")


async def _listen(variables: Variables) -> None:
    async with (
        Redis.connect(variables.redis_host, variables.redis_port, within=variables.timeout) as redis,
        node_for(variables) as node,
    ):
        addr = own_address(node.addrs, redis)
        print(f"listening on {addr}", file=sys.stderr)
        await redis.push(variables.redis_key, addr)
        await trio.sleep(TAKEN_AFTER)
        while await redis.kind_of(variables.redis_key) == "list":
            if await redis.somebody_gets(GET_WITHIN):
                await redis.set(variables.redis_key, addr)
            await trio.sleep(LOOK_EVERY)
        await trio.sleep_forever()


async def _dial(variables: Variables) -> None:
    async with (
        Redis.connect(variables.redis_host, variables.redis_port, within=variables.timeout) as redis,
        node_for(variables) as node,
    ):
        addr = await redis.wait_for(variables.redis_key)
        print(f"dialing {addr}", file=sys.stderr)
        began = trio.current_time()
        connection = await node.connect(addr)
        [rtt] = await ping(node, connection.peer)
        took = trio.current_time() - began
        print(results(took, rtt, legacy=variables.legacy), flush=True)


def results(handshake_and_ping: float, rtt: float, *, legacy: bool) -> str:
    """What is printed, of times in seconds."""
    total, one = round(handshake_and_ping * 1000, 3), round(rtt * 1000, 3)
    if legacy:
        return json.dumps({"handshakePlusOneRTTMillis": total, "pingRTTMilllis": one})
    return f"# Measurements from dialer\nlatency:\n  handshake_plus_one_rtt: {total}\n  ping_rtt: {one}\n  unit: ms"


if __name__ == "__main__":  # python -m interop.contract.transport
    from interop.contract.__main__ import main

    sys.exit(main(["transport"]))
