"""The kad-dht suite's program (kad-dht/README.md there): three roles on one Kademlia network.

    ROLE         bootstrap, provider or querier
    REDIS_ADDR   HOST:PORT
    TEST_KEY     first part of all keys, in Redis and in the network

    bootstrap    serves; its address in Redis under KEY_bootstrap_addr
    provider     joins there, provides "interop-test-key-KEY", puts "hello from …" under "/example/data/KEY",
                 then sets KEY_provider_done
    querier      joins as a client, once that is set; looks for both; prints "status: pass", or "error: …" and
                 "status: fail", and ends with 0 or 1

The README names the keys without -KEY; its programs (Python, .NET) add it, and so does this. They take the provider's
key as it is, without hashing it, and any value that contains "hello from". A look-up that finds nothing is tried again
for `PATIENCE`.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio

from interop.contract.failing import Failure, UnsupportedError
from interop.contract.hosts import make_node, own_address
from interop.contract.redis import Redis
from interop.contract.variables import NOT_SET, one_of, parse_redis
from node.errors import NotFoundError, VouchError
from node.node import Node

PROTOCOL = "/ipfs/kad/1.0.0"
NAMESPACE = "example"
GREETING = b"hello from vouch"
EXPECTED = b"hello from"
# seconds: for the others to come, as the suite's Python program has it, and for a look-up to find something
WAIT = 60.0
PATIENCE = 30.0
PAUSE = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class Role:
    """What one program of kad-dht is told."""

    name: str
    redis_host: str
    redis_port: int
    key: str

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Role:
        """Raises UnsupportedError."""
        host, port = parse_redis(environ.get("REDIS_ADDR", ""))
        key = environ.get("TEST_KEY", "")
        if key in NOT_SET:
            raise UnsupportedError("TEST_KEY: expected the test's key, got none")
        return cls(one_of("ROLE", environ.get("ROLE", ""), "bootstrap", "provider", "querier"), host, port, key)

    @property
    def provided(self) -> bytes:
        return f"interop-test-key-{self.key}".encode()

    @property
    def stored(self) -> bytes:
        return f"/{NAMESPACE}/data/{self.key}".encode()


class AnyValue:
    """The validator of /example/: the suite's takes everything."""

    def validate(self, key: bytes, value: bytes) -> None:
        pass

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        return 0


async def run(role: Role) -> None:
    """One role to its end; bootstrap and provider have none. Listens on the address that leads to Redis.

    Raises Failure, VouchError; a querier has said so on its standard output then.
    """
    async with Redis.connect(role.redis_host, role.redis_port, within=WAIT) as redis:
        node = make_node(
            listen=(f"/{'ip6' if ':' in redis.own_ip else 'ip4'}/{redis.own_ip}/tcp/0",),
            dht="client" if role.name == "querier" else "server",
            kad_protocol=PROTOCOL,
            dht_store="memory",
        )
        assert node.dht is not None
        node.dht.register(NAMESPACE, AnyValue())
        async with node:
            print(f"{role.name} on {node.addrs[0]}", file=sys.stderr)
            match role.name:
                case "bootstrap":
                    await redis.set(f"{role.key}_bootstrap_addr", own_address(node.addrs, redis))
                case "provider":
                    await _provide(role, redis, node)
                case _:
                    await _query(role, redis, node)
                    return
            await trio.sleep_forever()


async def _provide(role: Role, redis: Redis, node: Node) -> None:
    assert node.dht is not None
    dht = node.dht
    await _join(role, redis, node)
    await _try(lambda: dht.provide(role.provided), "a peer that takes our provider record")
    # py-libp2p stores it and doesn't say so: whether it is there, the querier finds out
    print(f"{await dht.put(role.stored, GREETING)} peers say that they store our value", file=sys.stderr)
    await redis.set(f"{role.key}_provider_done", "done")


async def _query(role: Role, redis: Redis, node: Node) -> None:
    assert node.dht is not None
    dht = node.dht
    try:
        await _wait_for(redis, f"{role.key}_provider_done")
        await _join(role, redis, node)
        providers = await _try(lambda: dht.find_providers(role.provided), f"a provider of {role.provided.decode()}")
        print(f"provided by {', '.join(one.peer for one in providers)}", file=sys.stderr)
        value = await _try(lambda: dht.get(role.stored), f"a value under {role.stored.decode()}")
        if EXPECTED not in value:
            raise Failure(f"expected a value with {EXPECTED.decode()!r} in it, got {value[:64]!r}")
    except (Failure, VouchError) as failure:
        print(f"error: {failure}\nstatus: fail", flush=True)
        raise
    print("status: pass", flush=True)


async def _join(role: Role, redis: Redis, node: Node) -> None:
    assert node.dht is not None
    dht = node.dht
    addr = await _wait_for(redis, f"{role.key}_bootstrap_addr")
    connection = await node.connect(addr)

    async def known() -> bool:
        return connection.peer in dht.table()

    await _try(known, f"{connection.peer} to serve {PROTOCOL}", pause=PAUSE / 10)


async def _wait_for(redis: Redis, key: str) -> str:
    with trio.move_on_after(WAIT):
        return await redis.wait_for(key)
    raise Failure(f"expected {key} in Redis within {WAIT:g} s, it isn't there")


async def _try(attempt: Callable[[], Awaitable[T]], what: str, *, pause: float = PAUSE) -> T:
    """What the first attempt finds that finds something. Raises Failure."""
    with trio.move_on_after(PATIENCE):
        while True:
            try:
                if found := await attempt():
                    return found
            except NotFoundError as error:
                print(error, file=sys.stderr)
            await trio.sleep(pause)
    raise Failure(f"expected {what} within {PATIENCE:g} s, got none")


if __name__ == "__main__":  # python -m interop.contract.kad
    from interop.contract.__main__ import main

    sys.exit(main(["kad"]))
