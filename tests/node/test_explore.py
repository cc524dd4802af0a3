"""The walk through a network: its rules, and on whole nodes in memory; its output."""

from __future__ import annotations

import json

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from node.cli.explore import as_dot, as_json
from node.cli.shown import safe
from node.explore import BUDGET_BURST, MAX_ADDRS, MAX_NAMED, Walk, explore, walk_from
from node.identity import Identity
from node.records import seal
from protocols import Protocol
from protocols.kad.keyspace import to_bytes
from protocols.kad.wire import MAX_FRAME, Message, Peer, Type, decode, encode
from protocols.messages.authors import Ed25519Signer
from tests.integration.test_exchange import lying, meet, quiet_node
from tests.memnet import MemNet

ADDR = "/ip4/127.0.0.1/tcp/1"
VICTIM = "93.184.216.34"


def walk(**bounds):
    return Walk("start", ADDR, **({"rate": 1e6} | bounds))


def visit(one, now=0.0, *names, addr=ADDR):
    seen = one.next(now)
    for name in names:
        one.named(seen.peer, name, [addr])
    one.visited(seen, "reached", now)
    return seen.peer


# the rules


def test_it_goes_breadth_first_and_visits_each_once():
    one = walk()
    assert visit(one, 0.0, "a", "b") == "start"
    assert visit(one, 1.0, "c", "b", "start") == "a"
    assert visit(one, 2.0, "c", "d") == "b"
    assert [visit(one, 3.0), visit(one, 4.0)] == ["c", "d"]
    assert one.done
    assert one.next(5.0) is None
    assert [list(one.nodes[name].knows) for name in ("start", "a", "b")] == [
        ["a", "b"],
        ["c", "b", "start"],
        ["c", "d"],
    ]
    assert [seen.depth for seen in one.nodes.values()] == [0, 1, 1, 2, 2]


def test_nodes_names_and_addresses_are_bounded():
    one = walk(max_nodes=10)
    seen = one.next(0.0)
    for number in range(5000):
        one.named("start", f"p{number}", [ADDR])
    assert len(one.nodes) == 10
    assert one.left_out == 4991
    for number in range(100):
        one.named("start", "p0", [f"/ip4/127.0.0.1/tcp/{number + 1}"])
    assert len(one.nodes["p0"].addrs) == MAX_ADDRS
    one.visited(seen, "reached", 0.0)
    large = walk(max_nodes=10**6)
    large.next(0.0)
    for number in range(5000):
        large.named("start", f"p{number}", [ADDR])
    assert len(large.nodes["start"].knows) == MAX_NAMED


def test_the_rate_holds():
    one = walk(rate=10)
    one.next(0.0)
    for number in range(50):
        one.named("start", f"p{number}", [ADDR])
    now, visits = 0.0, 1
    while now < 2.0:
        if one.next(now) is not None:
            visits += 1
        now += 0.01
    assert 18 <= visits <= 21
    assert 0 < one.wait(now - 0.01) <= 0.1


def test_a_victim_is_dialled_a_bounded_number_of_times():
    one = walk(max_nodes=10_000)
    one.next(0.0)
    for number in range(1000):
        one.named("start", f"p{number}", [f"/ip4/{VICTIM}/tcp/{number + 1}"])
    dialled, now = 0, 0.0
    while now < 60:
        while (seen := one.next(now)) is not None:
            dialled += 1
            one.visited(seen, "unreachable", now)
        assert one.wait(now) > 0
        now += 0.5
    assert BUDGET_BURST <= dialled <= BUDGET_BURST + 6


def test_a_visit_that_was_cut_off_is_still_to_be_made():
    one = walk()
    seen = one.next(0.0)
    one.visited(seen, "waiting", 0.0)
    assert one.counts()["waiting"] == 1
    assert one.nodes["start"].reachable is None
    assert one.next(1.0) is seen


@pytest.mark.parametrize(
    "addr", ["/ip4/198.51.100.{}/tcp/1", "/dns4/n{}.example.org/tcp/1"], ids=["behind a first address", "names"]
)
def test_other_addresses_and_names_do_not_aim_a_walk_at_a_victim_either(addr):
    one = walk(max_nodes=10_000)
    one.next(0.0)
    for number in range(200):
        first = addr.format(number)
        more = [f"/ip4/{VICTIM}/tcp/{number + 1}"] if "ip4" in addr else []
        one.named("start", f"p{number}", [first, *more])
    dialled, now = 0, 0.0
    while (seen := one.next(now := now + 1e-5)) is not None:
        dialled += sum(VICTIM in known or "example" in known for known in seen.dials)
    assert dialled == BUDGET_BURST


def test_a_node_that_invents_peers_takes_its_own_turns_and_places():
    one = walk(max_nodes=40)
    start = one.next(0.0)
    for name in ("liar", "b", "c"):
        one.named("start", name, [f"/ip4/93.184.0.{len(name)}/tcp/1"])
    one.visited(start, "reached", 0.0)
    liar = one.next(1.0)
    assert liar.peer == "liar"
    for number in range(1000):
        one.named("liar", f"fake {number}", [f"/ip4/93.{number % 200}.1.{number // 200}/tcp/1"])
    one.visited(liar, "reached", 1.0)
    order, now = [], 1.0
    while not one.done:
        now += 1000.0
        seen = one.next(now)
        order.append(seen.peer)
        for number in range(10 if seen.peer in "bc" else 0):
            one.named(seen.peer, f"{seen.peer}{number}", [f"/ip4/94.{number}.{ord(seen.peer)}.1/tcp/1"])
        one.visited(seen, "unreachable" if "fake" in seen.peer else "reached", now)
    true = [peer for peer in order if "fake" not in peer]
    assert sorted(true) == sorted(["b", "c", *(f"{name}{number}" for name in "bc" for number in range(10))])
    assert order.index(true[-1]) <= 3 * len(true) // 2 + 2, "by turns"
    assert len(one.nodes) == 40
    assert all(other in one.nodes for seen in one.nodes.values() for other in seen.knows)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 30), st.booleans()), max_size=80), st.integers(1, 12))
def test_a_walk_ends_whatever_is_named(steps, most):
    one = walk(max_nodes=most)
    now = 0.0
    for count, first, reached in steps:
        now += 1000.0
        seen = one.next(now)
        if seen is None:
            break
        for number in range(first, first + count):
            one.named(seen.peer, f"p{number}", [f"/ip4/93.184.216.{number}/tcp/1"])
        one.visited(seen, "reached" if reached else "unreachable", now)
        assert len(one.nodes) <= most
    while (seen := one.next(now := now + 1000.0)) is not None:
        one.visited(seen, "unreachable", now)
    assert one.done
    assert one.counts()["waiting"] == 0


# what is printed


def strange():
    one = walk()
    one.next(0.0)
    one.named("start", "other", [ADDR])
    seen = one.nodes["start"]
    seen.agent = 'evil"];\x1b[31m\\ \n}' + "x" * 500
    one.visited(seen, "reached", 0.0)
    return one


def test_what_strangers_say_cannot_leave_its_quotes():
    dot = as_dot(strange())
    assert "\x1b" not in dot
    assert dot.count('[label="') == 2
    label = next(line for line in dot.splitlines() if "evil" in line)
    assert '\\"]' in label
    assert label.endswith('", penwidth=2];')
    assert len(label) < 400
    assert "\x1b" not in safe(strange().nodes["start"].agent)
    result = json.loads(as_json(strange(), "timeout", 1.23456))
    assert result["nodes"][0]["agent"] == strange().nodes["start"].agent  # JSON has quotes of its own
    assert (result["ended"], result["seconds"], result["start"]) == ("timeout", 1.235, "start")
    assert [node["state"] for node in result["nodes"]] == ["reached", "waiting"]
    assert result["nodes"][1]["known_by"] == ["start"]


# on nodes


@pytest.fixture
async def net(autojump_clock):
    async with MemNet(seed=1, latency=0.01) as net:
        yield net


def explorer(net, **config):
    return quiet_node(net, "10.0.9.9", listen=(), **config)


async def walked(net, start, *, timeout=120.0, **bounds):
    async with explorer(net) as node:
        one = walk_from(start.addrs[0], **({"max_nodes": 100, "rate": 100.0} | bounds))
        with trio.move_on_after(timeout):
            await explore(node, one)
        assert node.connected_peers() == [] or not one.done
        return one


async def test_a_chain_is_walked_to_its_end_by_exchange(net, autojump_clock):
    async with (
        quiet_node(net, "10.0.0.1") as a,
        quiet_node(net, "10.0.0.2") as b,
        quiet_node(net, "10.0.0.3") as c,
    ):
        await meet(a, b)
        await meet(b, c)
        one = await walked(net, a)
        assert [(seen.peer, seen.state, seen.depth) for seen in one.nodes.values()] == [
            (a.peer_id, "reached", 0),
            (b.peer_id, "reached", 1),
            (c.peer_id, "reached", 2),
        ]
        assert all(seen.version == "vouch/0.1.0" == seen.agent for seen in one.nodes.values())
        assert all(0.019 < seen.rtt < 0.05 for seen in one.nodes.values())
        assert list(one.nodes[a.peer_id].knows) == [b.peer_id]
        assert list(one.nodes[a.peer_id].addrs) == ["/ip4/10.0.0.1/tcp/4001"]


async def test_nodes_are_found_by_kademlia_alone_and_dead_ones_are_told(net, autojump_clock):
    settings = {"exchange": "off", "dht": "server"}
    async with quiet_node(net, "10.0.0.1", **settings) as a, quiet_node(net, "10.0.0.2", **settings) as b:
        gone = quiet_node(net, "10.0.0.3", **settings)
        async with gone:
            await meet(a, b)
            await meet(a, gone)
            await trio.sleep(10)
            whole = await walked(net, b)
            assert {seen.state for seen in whole.nodes.values()} == {"reached"}
            assert set(whole.nodes) == {a.peer_id, b.peer_id, gone.peer_id}
            net.partition(["10.0.9.9"], ["10.0.0.3"])
            one = await walked(net, b)
            assert one.nodes[gone.peer_id].state == "unreachable"
            assert one.nodes[gone.peer_id].reachable is False
            assert one.nodes[gone.peer_id].error


async def test_another_networks_node_is_refused(net, autojump_clock):
    async with quiet_node(net, "10.0.0.1", network_id="other") as a:
        one = await walked(net, a)
        (seen,) = one.nodes.values()
        assert (seen.state, seen.reachable) == ("refused", True)
        assert "admit" in seen.error


async def test_a_flood_of_names_is_bounded_and_true_peers_are_found_beside_it(net, autojump_clock):
    fakes = [seal(Ed25519Signer(bytes([1, number]) * 16), [f"/ip4/10.9.0.{number}/tcp/1"], 1) for number in range(100)]
    protocol, _ = lying(lambda: fakes)
    identity = Identity.generate()
    protocol.own[0] = to_bytes(identity.peer_id)
    kad = Protocol("/vouch/766f7563682d6c6f63616c/kad/1.0.0", max_frame=MAX_FRAME)

    @kad.serve
    async def answer(stream):
        async for frame in stream:
            decode(frame)
            named = tuple(
                Peer(to_bytes(Identity.generate().peer_id), (b"\x04\x0a\x09\x01" + bytes([number]) + b"\x06\x00\x01",))
                for number in range(20)
            )
            await stream.send(encode(Message(Type.FIND_NODE, b"", closer=named)))

    liar = quiet_node(net, "10.0.0.6", exchange="off", identity=identity, protocols=[protocol, kad])
    async with quiet_node(net, "10.0.0.1") as a, quiet_node(net, "10.0.0.2") as b, liar:
        await meet(a, liar)
        await meet(a, b)
        one = await walked(net, a, timeout=300.0, max_nodes=150)
        assert len(one.nodes) == 150
        assert one.left_out > 0
        assert one.nodes[b.peer_id].state == "reached"
        counts = one.counts()
        assert counts["reached"] == 3
        assert counts["unreachable"] == 147


async def test_a_deadline_leaves_what_was_found(net, autojump_clock):
    async with quiet_node(net, "10.0.0.1") as a, quiet_node(net, "10.0.0.2") as b, quiet_node(net, "10.0.0.3") as c:
        await meet(a, b)
        await meet(b, c)
        one = await walked(net, a, timeout=0.6)
        assert not one.done
        assert one.nodes[a.peer_id].state == "reached"
        assert {"under way"}.isdisjoint(seen.state for seen in one.nodes.values())
