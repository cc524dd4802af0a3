"""Our programs with the suites' own, in both roles, on two hosts of the lab, as their containers would be.

The suites' programs aren't part of this repository. Whoever has built some (docs/contracts.md) names them:

    CONTRACT_GO_TRANSPORT, CONTRACT_GO_PERF    programs of unified-testing
    CONTRACT_GO_GOSSIPSUB                      of test-plans
    CONTRACT_PY_KAD                            of unified-testing: its interpreter, a space, node.py
"""

from __future__ import annotations

import json
import os
import time
from contextlib import asynccontextmanager

import pytest
import trio

from interop.contract.script import identity_of
from interop.lab.network import Lab
from tests.interop.contracting import environment, finished, ours, redis_or_skip, redis_server, started
from tests.interop.test_contract import (
    AMOUNTS,
    QUIC,
    SECURED,
    TOPIC,
    check_perf,
    check_transport,
    experiment,
    over,
    start_time,
)
from tests.lab import lab_or_skip

pytestmark = pytest.mark.interop

A, B, REDIS = "10.77.0.1", "10.77.0.2", "10.77.0.9"


def theirs(name: str) -> list[str]:
    """The command that a variable names, or a skip."""
    command = os.environ.get(name, "").split()
    if not command:
        pytest.skip(f"{name} names no program of the suites (docs/contracts.md)")
    lab_or_skip()
    redis_or_skip()
    return command


@asynccontextmanager
async def two_hosts():
    """Two hosts and the Redis that both reach: their `enter`, and its HOST:PORT."""
    async with Lab() as lab:
        a, b, server = [await lab.host(addrs=(addr,)) for addr in (A, B, REDIS)]
        async with redis_server(host=REDIS, enter=server.enter) as address:
            yield list(a.enter), list(b.enter), address


def roles(listens: str, other: list[str], suite: str) -> tuple[list[str], list[str]]:
    """The commands of listener and dialer."""
    return (ours(suite), other) if listens == "ours" else (other, ours(suite))


@pytest.mark.parametrize("listens", ["ours", "theirs"])
@pytest.mark.parametrize(("transport", "security"), [*SECURED, QUIC])
async def test_transport(transport, security, listens):
    listener, dialer = roles(listens, theirs("CONTRACT_GO_TRANSPORT"), "transport")
    async with two_hosts() as (a, b, redis):
        variables = {**over(redis, transport, security), "LISTENER_IP": "0.0.0.0"}
        async with started([*a, *listener], {**variables, "IS_DIALER": "false"}):
            outcome = await finished([*b, *dialer], {**variables, "IS_DIALER": "true"})
    assert outcome.status == 0, outcome.stderr
    check_transport(outcome.figures())


@pytest.mark.parametrize("listens", ["ours", "theirs"])
async def test_perf(listens):
    """Go's measures nothing: its figures are of its sleeps, ours say that there was nothing to measure."""
    listener, dialer = roles(listens, theirs("CONTRACT_GO_PERF"), "perf")
    async with two_hosts() as (a, b, redis):
        variables = environment(redis, LISTENER_IP="0.0.0.0", **AMOUNTS)
        async with started([*a, *listener], {**variables, "IS_DIALER": "false"}):
            outcome = await finished([*b, *dialer], {**variables, "IS_DIALER": "true"})
    assert outcome.status == 0, outcome.stderr
    figures = outcome.figures()
    if listens == "ours":
        check_perf(figures)
    else:
        assert [figures[name]["iterations"] for name in ("upload", "download", "latency")] == ["0", "0", "8"]


@pytest.mark.parametrize("of_ours", ["bootstrap", "provider", "querier"])
async def test_kad(of_ours):
    other = theirs("CONTRACT_PY_KAD")
    async with two_hosts() as (a, b, redis):
        variables = {"REDIS_ADDR": redis, "TEST_KEY": "0badcafe"}

        def command(role: str) -> tuple[list[str], dict[str, str]]:
            enter = b if role == of_ours else a
            return [*enter, *(ours("kad") if role == of_ours else other)], {**variables, "ROLE": role}

        async with started(*command("bootstrap")), started(*command("provider")):
            outcome = await finished(*command("querier"))
    assert outcome.status == 0, outcome.stdout + outcome.stderr
    assert "status: pass" in outcome.stdout.splitlines()


async def test_gossipsub(tmp_path):
    """Two of each, named as Shadow names hosts, each finding the others by name."""
    other = theirs("CONTRACT_GO_GOSSIPSUB")
    params, hosts = tmp_path / "params.json", tmp_path / "hosts"
    params.write_text(json.dumps(experiment()))
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"10.77.0.{node + 1} node{node}\n" for node in range(4)))
    outcomes = {}
    wait = start_time()

    async def one(node: int, enter: list[str]) -> None:
        if node % 2:
            command = ours("gossipsub", "--start", str(time.time() + wait))
        else:  # starts at once
            command = other
            await trio.sleep(wait)
        named = f'hostname node{node} && mount --bind {hosts} /etc/hosts && exec "$@"'
        apart = [*enter, "unshare", "--uts", "--mount", "sh", "-c", named, "sh"]
        outcomes[node] = await finished([*apart, *command, "--params", str(params)])

    async with Lab() as lab:
        places = [await lab.host(addrs=(f"10.77.0.{node + 1}",)) for node in range(4)]
        async with trio.open_nursery() as nursery:
            for node, place in enumerate(places):
                nursery.start_soon(one, node, list(place.enter))
    for node, outcome in outcomes.items():
        assert outcome.status == 0, outcome.stderr
        events = [json.loads(line) for line in outcome.stdout.splitlines() if line.startswith("{")]
        [own] = [event for event in events if event["msg"] == "PeerID"]
        assert own["id"] == identity_of(node).peer_id
        came = {event["id"] for event in events if event["msg"] == "Received Message" and event["topic"] == TOPIC}
        assert came >= {"1", "2"} - {str(node)}, outcome.stderr
