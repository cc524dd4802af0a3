"""The soak: a few seconds of it find nothing, and what it is there to find it finds. CI runs it for a minute."""

from __future__ import annotations

import json

import pytest
import trio

from interop.soak import asking, run, traffic, watch
from interop.soak.__main__ import main
from interop.soak.run import soak
from node.log import get_logger
from node.streams import ConnStream
from protocols import StreamReset


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """So few nodes are idle sooner than fifty."""
    monkeypatch.setattr(watch, "SETTLED", 0.3)


async def test_five_seconds_find_nothing():
    result = await soak(5.0, 8, seed=1)
    assert result.faults == []
    assert set(result.actions) == {action.__name__ for action in traffic.ACTIONS}
    assert result.moved.bytes > 0
    assert result.reconnects + result.cuts > 0
    assert result.warm_bytes > 0
    assert result.end_bytes > 0
    assert result.looks >= 5
    assert result.figures > 100


async def test_what_the_api_tells_wrongly_is_found(monkeypatch):
    async def miscounts(node, peer, rng, moved):
        node.swarm.counts.opened["inbound", "tcp"] += 1

    monkeypatch.setattr(run, "ACTIONS", {miscounts: 1})
    monkeypatch.setattr(asking, "PAUSE", 0.3)
    result = await soak(2.0, 2, seed=1)
    assert any("the hub tells: connections inbound tcp: opened - ended is" in fault for fault in result.faults)


async def test_faults_of_every_kind_are_found(monkeypatch):
    kept = []

    async def leaves_a_task(node, peer, rng, moved):
        node.swarm.background_nursery.start_soon(trio.sleep_forever)

    async def leaves_a_stream(node, peer, rng, moved):
        kept.append(await node.swarm.admitted_connections()[0].open(traffic.ECHO))

    async def keeps_memory(node, peer, rng, moved):
        kept.append(bytes(range(256)) * (1 << 14))

    async def logs(node, peer, rng, moved):
        get_logger("node").warning("something_odd", peer=peer)

    async def fails(node, peer, rng, moved):
        raise StreamReset("for no reason")

    async def hangs(node, peer, rng, moved):
        await trio.sleep_forever()

    async def raises(node, peer, rng, moved):
        raise KeyError(peer)

    actions = [leaves_a_task, leaves_a_stream, keeps_memory, logs, fails, hangs, raises]
    monkeypatch.setattr(run, "ACTIONS", dict.fromkeys(actions, 1))
    monkeypatch.setattr(run, "MAX_FAULTS", 10_000)
    monkeypatch.setattr(run, "CUT", 0.0)
    monkeypatch.setattr(run, "RECONNECT", 0.0)
    monkeypatch.setattr(run, "IDLE_TIMEOUT", 1.5)
    monkeypatch.setattr(run, "END_TIMEOUT", 0.5)
    monkeypatch.setattr(run, "ACTION_TIMEOUT", 0.05)

    result = await soak(3.0, 2, seed=1)

    assert result.faults_in_all == len(result.faults)
    for text in (
        "after the traffic: task trio.sleep_forever: expected 0, counted ",
        "after the traffic: streams of muxers: expected 0, counted ",
        "after the traffic: slots of /soak/echo/1.0.0: expected 0, counted ",
        "after the traffic: objects protocols.base.Stream: expected ",  # other tests may have left some
        "MB of memory in the end",
        "logged by vouch.node: ",
        "fails: StreamReset('for no reason')",
        "hangs: expected it to end within 0.05 s",
        "raises: KeyError(",
        "after the nodes were closed: objects protocols.base.Stream: expected ",
    ):
        assert any(text in fault for fault in result.faults), (text, set(result.faults))


async def test_one_wrong_byte_is_found_by_whoever_reads_it(monkeypatch):
    send_all = ConnStream.send_all

    async def spoil(self, data):
        await send_all(self, data[:-1] + bytes([(data[-1] + 1) % 256]) if len(data) > 1000 else data)

    monkeypatch.setattr(ConnStream, "send_nowait", lambda self, data: False)
    monkeypatch.setattr(ConnStream, "send_all", spoil)
    monkeypatch.setattr(run, "ACTIONS", {traffic.upload: 1, traffic.download: 1, traffic.requests: 1})

    missing = {"an upload from ", "download: a download: byte ", "requests: an answer: byte "}
    for seed in range(1, 6):  # what is done in a second is a matter of chance, and of the machine
        result = await soak(1.0, 2, seed=seed)
        missing -= {text for text in missing if any(fault.startswith(text) for fault in result.faults)}
        if not missing:
            break
    assert not missing, set(result.faults)


@pytest.mark.parametrize("upgrade", ["fast", "stock"])
async def test_a_reset_never_looks_like_an_end(monkeypatch, upgrade):
    monkeypatch.setattr(run, "ACTIONS", {traffic.reset_by_peer: 1})
    result = await soak(1.0, 2, 1, upgrade)
    assert result.actions["reset_by_peer"] > 0
    assert result.faults == []


LEAK = "py-libp2p's Yamux keeps a stream that this side has reset until the connection ends, and it counts as open"


@pytest.mark.parametrize("upgrade", ["fast", pytest.param("stock", marks=pytest.mark.xfail(strict=True, reason=LEAK))])
async def test_streams_that_were_reset_leave_nothing(monkeypatch, upgrade):
    monkeypatch.setattr(run, "ACTIONS", {traffic.reset_by_us: 1})
    monkeypatch.setattr(run, "CUT", 0.0)
    monkeypatch.setattr(run, "RECONNECT", 0.0)
    # stock's are never idle again
    monkeypatch.setattr(run, "IDLE_TIMEOUT", 3.0 if upgrade == "fast" else 1.0)
    result = await soak(1.0, 2, 1, upgrade)
    assert result.faults == []


@pytest.mark.parametrize(
    ("got", "whole", "text"),
    [
        (b"abX", True, "byte 2 of 3 is 88, expected 99"),
        (b"ab", True, "expected 3 bytes, got 2"),
        (b"abcd", False, "expected 3 bytes, got 4"),
        (b"X", False, "byte 0 of 3 is 88, expected 97"),
    ],
)
def test_payloads_are_compared_byte_by_byte(got, whole, text):
    moved = traffic.Moved()
    with pytest.raises(traffic.Fault, match=f"^it: {text}$"):
        moved.check(got, b"abc", "it", whole=whole)
    assert moved.bytes == 0
    moved.check(b"ab", b"abc", "it", whole=False)
    assert moved.bytes == 2


def test_memory_may_grow_by_a_share_or_a_little():
    assert watch.may_grow_to(1 << 20, 60.0) == (1 << 20) + watch.TOLERANCE_BYTES
    assert watch.may_grow_to(1 << 20, 1.0) == (1 << 20) + watch.SHORT_TOLERANCE_BYTES
    assert watch.may_grow_to(1 << 30, 60.0) == int((1 << 30) * (1 + watch.TOLERANCE_SHARE))


@pytest.mark.parametrize("faulty", [False, True])
def test_the_command_prints_its_result_and_its_status_tells(monkeypatch, capsys, faulty):
    async def wrong(node, peer, rng, moved):
        raise traffic.Fault("a wrong byte")

    monkeypatch.setattr(run, "ACTIONS", {wrong: 1} if faulty else {traffic.upload: 1})
    status = main(["--minutes", "0.01", "--connections", "1", "--seed", "5", "--json"])
    out, errors = capsys.readouterr()
    (line,) = out.splitlines()
    result = json.loads(line)
    assert (status, result["ok"]) == ((1, False) if faulty else (0, True))
    assert result["seed"] == 5
    assert "soak: seed 5, 1 connections, 0.01 minutes" in errors
    assert ("soak: FAULT wrong: a wrong byte" in errors) == faulty


def test_bad_arguments_are_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--minutes", "0"])
    assert ended.value.code == 2
    assert "expected minutes above 0, got '0'" in capsys.readouterr().err
