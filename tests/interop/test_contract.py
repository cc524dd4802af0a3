"""The node in libp2p's own suites (docs/contracts.md): its programs with each other and the Go peer, by a real Redis.

The Go peer is no program of the suites; what such a program does by itself, its address in Redis and whom it dials, is
done here. The suites' own programs: test_contract_suites. What needs no second process: test_contract_rules.
"""

from __future__ import annotations

import json
import os
import time

import pytest
import trio

from interop.contract import kad
from interop.contract.failing import FAILED, Failure
from interop.contract.redis import Redis
from interop.contract.script import identity_of
from interop.peer import Peer
from node.errors import VouchError
from tests.interop.contracting import (
    KAD_LINE,
    PERF_LINE,
    TRANSPORT_LINE,
    environment,
    finished,
    ours,
    redis_or_skip,
    redis_server,
    started,
)
from tests.ports import free_port

pytestmark = pytest.mark.interop

AMOUNTS = {
    "UPLOAD_BYTES": str(20 << 20),
    "DOWNLOAD_BYTES": str(30 << 20),
    "UPLOAD_ITERATIONS": "3",
    "DOWNLOAD_ITERATIONS": "2",
    "LATENCY_ITERATIONS": "8",
}
SECURED = [(transport, security) for transport in ("tcp", "ws", "wss") for security in ("noise", "tls")]
# each transport; what differs with the security is seen over TCP
SOME = [("tcp", "noise"), ("tcp", "tls"), ("ws", "noise"), ("wss", "tls")]
QUIC = ("quic-v1", "")


@pytest.fixture
async def redis():
    redis_or_skip()
    async with redis_server() as address:
        yield address


@pytest.fixture(scope="module")
def go(built):
    built("go")


def connect(address: str):
    host, _, port = address.rpartition(":")
    return Redis.connect(host, int(port), within=10.0)


def over(redis: str, transport: str, security: str) -> dict[str, str]:
    """The environment of one combination: QUIC has its own security and muxer."""
    variables = environment(redis, TRANSPORT=transport, SECURE_CHANNEL=security)
    if not security:
        del variables["SECURE_CHANNEL"], variables["MUXER"]
    return variables


def check_transport(figures: dict[str, dict[str, str]]) -> None:
    latency = figures["latency"]
    assert latency["unit"] == "ms"
    assert 0 < float(latency["ping_rtt"]) < float(latency["handshake_plus_one_rtt"])


# transport


@pytest.mark.parametrize(("transport", "security"), [*SOME, QUIC])
async def test_transport_between_two_of_ours(redis, transport, security):
    variables = over(redis, transport, security)
    async with started("transport", {**variables, "IS_DIALER": "false"}):
        outcome = await finished("transport", {**variables, "IS_DIALER": "true"})
    assert outcome.status == 0, outcome.stderr
    assert outcome.lines(TRANSPORT_LINE)
    check_transport(outcome.figures())


async def test_transport_by_the_older_contract(redis):
    variables = {"redis_addr": redis, "transport": "tcp", "security": "noise", "muxer": "yamux", "ip": "127.0.0.1"}
    async with started("transport", {**variables, "is_dialer": "false"}):
        outcome = await finished("transport", {**variables, "is_dialer": "true"})
    assert outcome.status == 0, outcome.stderr
    results = json.loads(outcome.stdout)
    assert results.keys() == {"handshakePlusOneRTTMillis", "pingRTTMilllis"}
    assert 0 < results["pingRTTMilllis"] < results["handshakePlusOneRTTMillis"]


@pytest.mark.usefixtures("go")
@pytest.mark.parametrize("command", ["RPUSH", "SET"])
async def test_transport_dials_go_however_its_address_is_published(redis, command):
    variables = environment(redis, IS_DIALER="true")
    async with Peer.go("--handshake=false") as listener, connect(redis) as client:
        await client.command(command, f"{variables['TEST_KEY']}_listener_multiaddr", listener.addr)
        outcome = await finished("transport", variables)
    assert outcome.status == 0, outcome.stderr
    check_transport(outcome.figures())


@pytest.mark.usefixtures("go")
@pytest.mark.parametrize("command", ["BLPOP", "GET"])
async def test_transport_is_dialled_by_go_however_it_asks(redis, command):
    variables = environment(redis, IS_DIALER="false")
    key = f"{variables['TEST_KEY']}_listener_multiaddr"
    async with Peer.go("--handshake=false") as dialer, connect(redis) as client, started("transport", variables):
        addr = await published(client, key, command)
        await dialer.call("connect", addr)
        reply = await dialer.call("ping", addr.rpartition("/")[2], "1")
        assert reply["rtt_us"]


async def published(client: Redis, key: str, command: str) -> str:
    """The address, asked for as the suites' programs do (BLPOP), or as their document says (GET)."""
    with trio.fail_after(60):
        while True:
            try:
                answer = await client.command(*(["BLPOP", key, "1"] if command == "BLPOP" else ["GET", key]))
            except Failure:  # a list, until the listener sees us asking
                answer = None
            if answer is not None:
                return str(answer[1]) if isinstance(answer, list) else str(answer)
            await trio.sleep(0.2)


async def test_a_listener_without_a_dialer_ends_with_a_failure(redis):
    outcome = await finished("transport", environment(redis, IS_DIALER="false", TEST_TIMEOUT_SECS="1"))
    assert outcome.status == FAILED
    assert outcome.stdout == ""
    assert "within 1 s" in outcome.stderr


@pytest.mark.parametrize("suite", ["transport", "perf"])
async def test_a_dialer_without_a_listener_ends_with_a_failure(redis, suite):
    outcome = await finished(suite, environment(redis, IS_DIALER="true", TEST_TIMEOUT_SECS="1"))
    assert (outcome.status, outcome.stdout) == (FAILED, "")


# perf


def check_perf(figures: dict[str, dict[str, str]]) -> None:
    units = {"upload": "Gbps", "download": "Gbps", "latency": "ms"}
    iterations = {"upload": "3", "download": "2", "latency": "8"}
    assert {name: section["unit"] for name, section in figures.items()} == units
    assert {name: section["iterations"] for name, section in figures.items()} == iterations
    for section in figures.values():
        assert len(json.loads(section["samples"])) == int(section["iterations"])
        assert 0 < float(section["min"]) <= float(section["max"])
        assert float(section["q1"]) <= float(section["median"]) <= float(section["q3"])


@pytest.mark.parametrize(("transport", "security"), [("tcp", "noise"), QUIC])
async def test_perf_between_two_of_ours(redis, transport, security):
    variables = over(redis, transport, security)
    async with started("perf", {**variables, "IS_DIALER": "false"}):
        outcome = await finished("perf", {**variables, **AMOUNTS, "IS_DIALER": "true"})
    assert outcome.status == 0, outcome.stderr
    assert outcome.lines(PERF_LINE)
    check_perf(outcome.figures())


@pytest.mark.usefixtures("go")
async def test_perf_dials_go(redis):
    variables = environment(redis, IS_DIALER="true", **AMOUNTS)
    async with Peer.go("--handshake=false") as listener, connect(redis) as client:
        await client.set(f"{variables['TEST_KEY']}_listener_multiaddr", listener.addr)
        outcome = await finished("perf", variables)
        assert outcome.status == 0, outcome.stderr
        check_perf(outcome.figures())
        amounts = [(event["received"], event["sent"]) for event in listener.seen("perf")]
    # the first asks for the form of the request
    assert amounts == [(8, 1), *[(20 << 20, 0)] * 3, *[(0, 30 << 20)] * 2, *[(1, 1)] * 8]


@pytest.mark.usefixtures("go")
async def test_perf_is_dialled_by_go(redis):
    variables = environment(redis, IS_DIALER="false")
    async with Peer.go("--handshake=false") as dialer, connect(redis) as client, started("perf", variables):
        addr = await published(client, f"{variables['TEST_KEY']}_listener_multiaddr", "GET")
        await dialer.call("connect", addr)
        peer = addr.rpartition("/")[2]
        for upload, download in (20 << 20, 0), (0, 30 << 20), (1, 1), (1 << 20, 2 << 20):
            reply = await dialer.call("perf", peer, str(upload), str(download))
            assert reply["upload_s"] > 0


async def test_perf_with_a_listener_that_measures_nothing_says_so(redis):
    """As the suite's Go and JavaScript programs are: they listen, and don't answer /perf/1.0.0."""
    variables = environment(redis)
    async with started("transport", {**variables, "IS_DIALER": "false"}):
        outcome = await finished("perf", {**variables, **AMOUNTS, "IS_DIALER": "true"})
    assert outcome.status == 0, outcome.stderr
    figures = outcome.figures()
    assert figures["upload"]["iterations"] == figures["download"]["iterations"] == "0"
    assert figures["upload"]["samples"] == figures["download"]["samples"] == "[]"
    assert len(json.loads(figures["latency"]["samples"])) == 8
    assert "doesn't answer /perf/1.0.0" in outcome.stderr


# kad-dht


async def test_kad_querier_says_that_it_reaches_nobody(redis, capsys):
    async with connect(redis) as client:
        nobody = f"/ip4/127.0.0.1/tcp/{free_port()}/p2p/{identity_of(1).peer_id}"
        await client.set("0badcafe_bootstrap_addr", nobody)
        await client.set("0badcafe_provider_done", "done")
    with pytest.raises(VouchError):
        await kad.run(kad.Role.read({"ROLE": "querier", "REDIS_ADDR": redis, "TEST_KEY": "0badcafe"}))
    error, status = capsys.readouterr().out.splitlines()
    assert error.startswith("error: ")
    assert status == "status: fail"


async def test_kad_between_three_of_ours(redis):
    variables = {"REDIS_ADDR": redis, "TEST_KEY": "0badcafe"}
    async with (
        started("kad", {**variables, "ROLE": "bootstrap"}),
        started("kad", {**variables, "ROLE": "provider"}),
    ):
        outcome = await finished("kad", {**variables, "ROLE": "querier"})
        async with connect(redis) as client:
            assert await client.wait_for("0badcafe_provider_done") == "done"
            assert "/p2p/" in await client.wait_for("0badcafe_bootstrap_addr")
    assert outcome.status == 0, outcome.stderr
    assert outcome.lines(KAD_LINE) == ["status: pass"]


@pytest.mark.parametrize("missing", ["provider_done", "bootstrap_addr"])
async def test_kad_querier_says_what_is_missing(redis, missing, monkeypatch, capsys):
    monkeypatch.setattr(kad, "WAIT", 0.5)
    async with connect(redis) as client:
        if missing != "provider_done":
            await client.set("0badcafe_provider_done", "done")
    with pytest.raises(Failure):
        await kad.run(kad.Role.read({"ROLE": "querier", "REDIS_ADDR": redis, "TEST_KEY": "0badcafe"}))
    error, status = capsys.readouterr().out.splitlines()
    assert error.startswith(f"error: expected 0badcafe_{missing}")
    assert status == "status: fail"


# gossipsub

TOPIC = "a-subnet"
NODES = 4


def start_time() -> float:
    """Seconds in which NODES programs have surely started: each computes for three, beside what else runs here."""
    return 5.0 + 3.0 * (NODES + os.getloadavg()[0]) / (os.cpu_count() or 1)


def experiment() -> dict[str, list[dict[str, object]]]:
    """All connected, all subscribed, two that publish: like the suite's subnet-blob-msg, in seconds.

    Outside Shadow a Python program takes seconds to start: the experiment begins `start_time` after that.
    """

    def only(node: int, instruction: dict[str, object]) -> dict[str, object]:
        return {"type": "ifNodeIDEquals", "nodeID": node, "instruction": instruction}

    init = [
        only(
            node, {"type": "initGossipSub", "gossipSubParams": {"HeartbeatInitialDelay": 100_000_000 + node * 100_000}}
        )
        for node in range(NODES)
    ]
    connects = [only(node, {"type": "connect", "connectTo": list(range(node + 1, NODES))}) for node in range(NODES - 1)]
    publishes = [
        only(node, {"type": "publish", "topicID": TOPIC, "messageID": node, "messageSizeBytes": size})
        for node, size in ((1, 98304), (2, 8))
    ]
    return {
        "script": [
            *init,
            {"type": "setTopicValidationDelay", "topicID": TOPIC, "delaySeconds": 0.005},
            {"type": "waitUntil", "elapsedSeconds": 2},
            *connects,
            {"type": "subscribeToTopic", "topicID": TOPIC, "partial": False},
            {"type": "waitUntil", "elapsedSeconds": 6},
            *publishes,
            {"type": "waitUntil", "elapsedSeconds": 10},
        ]
    }


async def test_gossipsub_between_four_of_ours(tmp_path):
    params, hosts = tmp_path / "params.json", tmp_path / "hosts.json"
    params.write_text(json.dumps(experiment()))
    hosts.write_text(json.dumps({node: f"127.0.0.1:{free_port()}" for node in range(NODES)}))
    outcomes = {}
    start = str(time.time() + start_time())

    async def one(node: int) -> None:
        where = ["--node-id", str(node), "--hosts", str(hosts)]
        command = ours("gossipsub", "--params", str(params), *where, "--start", start)
        outcomes[node] = await finished(command)

    async with trio.open_nursery() as nursery:
        for node in range(NODES):
            nursery.start_soon(one, node)

    for node, outcome in outcomes.items():
        assert outcome.status == 0, outcome.stderr
        first, *rest = map(json.loads, outcome.stdout.splitlines())
        assert first["msg"] == "PeerID"
        assert (first["id"], first["node_id"]) == (identity_of(node).peer_id, node)
        assert all({"time", "msg"} <= event.keys() for event in rest)
        assert {event["msg"] for event in rest} == {"Received Message"}
        came = {event["id"] for event in rest}
        assert came >= {"1", "2"} - {str(node)}
        peers = {identity_of(other).peer_id for other in range(NODES)}
        assert {event["from"] for event in rest} <= peers
        assert {event["topic"] for event in rest} == {TOPIC}
