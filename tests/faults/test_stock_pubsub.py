"""What is wrong with py-libp2p's pubsub, so that the node has a router of its own: docs/upstream.md names these tests.

One that fails here is good news: py-libp2p has changed, and the row can be looked at again.
"""

from __future__ import annotations

import gc
import inspect
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from google.protobuf.message import DecodeError
from libp2p.abc import IHost
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.mcache import MessageCache
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from interop.bench.ends.stock_host import make_host
from node.names import parse_peer_addr

TOPIC = "blocks"
LIMIT = 20.0

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def _sockets_that_it_leaves_open() -> Iterator[None]:
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@asynccontextmanager
async def _speaking(**settings: Any) -> AsyncIterator[tuple[IHost, Pubsub, GossipSub]]:
    host = make_host()
    settings = {"degree": 6, "degree_low": 5, "degree_high": 12, "heartbeat_interval": 1} | settings
    router = GossipSub(protocols=[PROTOCOL_ID_V11], **settings)
    pubsub = Pubsub(host, router, strict_signing=True)
    async with (
        host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]),
        background_trio_service(pubsub),
        background_trio_service(router),
    ):
        await pubsub.wait_until_ready()
        yield host, pubsub, router


@asynccontextmanager
async def _running() -> AsyncIterator[IHost]:
    host = make_host()
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        yield host


async def _dial(host: IHost, other: IHost) -> None:
    addr = str(other.get_addrs()[0]).partition("/p2p/")[0]
    peer_id, multiaddr = parse_peer_addr(f"{addr}/p2p/{other.get_id()}")
    await host.get_network().dial_addr(multiaddr, peer_id)


async def _until(done: Callable[[], bool]) -> None:
    while not done():  # noqa: ASYNC110 - it tells nobody
        await trio.sleep(0.02)


def test_its_heartbeat_is_two_minutes_by_default() -> None:
    assert inspect.signature(GossipSub).parameters["heartbeat_interval"].default == 120


def test_its_message_cache_ignores_a_message_id_of_the_program() -> None:
    cache = MessageCache(3, 5)
    for data in (b"one", b"two"):  # of unsigned networks: neither author nor number
        cache.put(rpc_pb2.Message(data=data, topicIDs=[TOPIC]))
    assert len(cache.msgs) == 1


async def test_of_a_burst_ten_messages_arrive() -> None:
    with trio.fail_after(LIMIT):
        async with _speaking() as (one, sending, router), _speaking() as (other, receiving, _):
            got = []
            subscription = await receiving.subscribe(TOPIC)
            await sending.subscribe(TOPIC)
            await _dial(one, other)
            await _until(lambda: bool(router.mesh.get(TOPIC)))
            for number in range(100):
                await sending.publish(TOPIC, b"%d" % number)
            with trio.move_on_after(2):
                while True:
                    got.append(await subscription.get())
            assert len(got) == 10


async def test_a_message_is_validated_and_delivered_once_for_each_peer_that_brings_it() -> None:
    asked: list[ID] = []

    async def slowly(forwarder: ID, _message: rpc_pb2.Message) -> bool:
        if forwarder != judge_host.get_id():
            asked.append(forwarder)
            await trio.sleep(1.5)
        return True

    with trio.fail_after(LIMIT):
        async with (
            _speaking() as (a_host, a, a_router),
            _speaking() as (b_host, b, b_router),
            _speaking() as (judge_host, judge, judge_router),
        ):
            judge.set_topic_validator(TOPIC, slowly, True)
            delivered = await judge.subscribe(TOPIC)
            await a.subscribe(TOPIC)
            await b.subscribe(TOPIC)
            await _dial(a_host, b_host)
            await _dial(a_host, judge_host)
            await _dial(b_host, judge_host)
            for router in (a_router, b_router, judge_router):
                await _until(lambda router=router: len(router.mesh.get(TOPIC, ())) == 2)  # type: ignore[misc]
            await a.publish(TOPIC, b"once")
            assert [(await delivered.get()).data for _ in range(2)] == [b"once"] * 2
            assert len(asked) == 2


@pytest.mark.parametrize("fault", ["slow", "raises"])
async def test_a_validator_that_is_slow_or_fails_makes_the_sender_pay(fault: str) -> None:
    async def check(_forwarder: ID, _message: rpc_pb2.Message) -> bool:
        if fault == "raises":
            raise RuntimeError("a fault of ours")
        await trio.sleep_forever()
        return True

    with trio.fail_after(LIMIT):
        async with _speaking() as (one, sending, router), _speaking() as (other, receiving, its):
            receiving.validation_timeout = 0.3
            receiving.set_topic_validator(TOPIC, check, True)
            await receiving.subscribe(TOPIC)
            await sending.subscribe(TOPIC)
            await _dial(one, other)
            await _until(lambda: bool(router.mesh.get(TOPIC)))
            await sending.publish(TOPIC, b"honest")
            await _until(lambda: its.scorer is not None and its.scorer.invalid_messages[one.get_id()][TOPIC] > 0)


async def test_a_malformed_rpc_stops_the_host() -> None:
    with trio.fail_after(LIMIT), pytest.RaisesGroup(DecodeError, flatten_subgroups=True, allow_unwrapped=True):
        async with _speaking() as (other, _, _), _running() as one:
            await _dial(one, other)
            stream = await one.new_stream(other.get_id(), [PROTOCOL_ID_V11])
            await stream.write(b"\x05\xff\xff\xff\xff\xff")
            await trio.sleep_forever()
