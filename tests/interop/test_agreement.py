"""What metrics and answers must agree on: a true node does, and each lie is found."""

from __future__ import annotations

import msgspec
import pytest

from interop.soak.agreement import answers, between, numbers, numbers_of, same, total, within
from node.api import functions
from node.metrics import Metrics
from tests.nodes import eventually, running

CALLS = ("status", "peers", "topics", "gossip", "bans", "addressbook")
INBOUND = (("direction", "inbound"),)


@pytest.fixture
async def looked():
    """The numbers of a node with a peer and gossip, and what it tells."""
    async with running(topic={"blocks": ""}, heartbeat="on") as a, running(topic={"blocks": ""}) as b:
        metrics = Metrics(a)
        await b.connect(a.addrs[0])
        await eventually(lambda: a.gossip.engine.mesh("blocks"))
        await b.gossip.publish("blocks", b"block 17")
        await eventually(lambda: a.gossip.stats.delivered_messages)
        told = {name: msgspec.to_builtins(await functions.invoke(a, name, {})) for name in CALLS}
        yield numbers(metrics.text().decode()), numbers_of(metrics.snapshot()), told


async def test_a_true_node_agrees_with_itself(looked):
    scrape, snapshot, told = looked
    # events are counted from the making of the metrics, which was late here
    scrape["vouch_events_total"] = {(("event", "connected"),): 1.0}
    assert list(within(scrape)) == []
    assert list(between(scrape, snapshot)) == []
    assert list(same(scrape, snapshot)) == [
        text for text in same(scrape, snapshot) if text.startswith("vouch_events_total")
    ]
    compared = answers(scrape, told, snapshot)
    assert compared.faults == []
    assert compared.figures > 20


@pytest.mark.parametrize(
    ("name", "labels", "change", "said"),
    [
        ("vouch_connections", (("direction", "inbound"), ("transport", "tcp")), 1, "opened - ended"),
        ("vouch_connections_opened_total", (("direction", "inbound"), ("transport", "tcp")), 1, "events say so"),
        ("vouch_handshakes_total", (("direction", "inbound"), ("outcome", "admitted")), -1, "were admitted"),
        ("vouch_handshakes_total", (("direction", "inbound"), ("outcome", "deadline")), 1, "were decided"),
        ("vouch_peers", INBOUND, 1, "peers inbound"),
        ("vouch_bound_used", (("bound", "max_dials"),), 1000, "bound max_dials"),
        ("vouch_addressbook_peers", (("state", "heard"),), 1, "address book"),
        ("vouch_gossip_delivered_total", (), 1, "were delivered"),
        ("vouch_gossip_validation_seconds_count", (), 1, "were timed"),
        ("vouch_gossip_peers_by_score", (("range", "zero"),), 1, "have a score"),
        ("vouch_gossip_mesh_peers", (("topic", "blocks"),), 5, "in the mesh"),
    ],
)
async def test_a_scrape_that_lies_is_found(looked, name, labels, change, said):
    scrape, _, _ = looked
    scrape["vouch_events_total"] = {(("event", "connected"),): 1.0}
    scrape[name][labels] = scrape[name].get(labels, 0.0) + change
    assert said in "\n".join(within(scrape))


async def test_a_counter_that_falls_is_found(looked):
    scrape, later, _ = looked
    later["vouch_gossip_delivered_total"][()] -= 1
    assert "vouch_gossip_delivered_total {} fell" in "\n".join(between(scrape, later))
    del later["vouch_handshakes_total"][("direction", "inbound"), ("outcome", "admitted")]
    assert "vouch_handshakes_total" in "\n".join(between(scrape, later))


@pytest.mark.parametrize(
    ("call", "change", "said"),
    [
        ("status", lambda told: told.update(inbound=2, peers=2), "status inbound: the API tells 2"),
        ("status", lambda told: told.update(peers=7), "status: 7 peers"),
        ("status", lambda told: told["limits"]["max_inbound"].update(limit=1), "limit max_inbound"),
        ("peers", lambda told: told["peers"].clear(), "peers inbound: the API tells 0"),
        ("peers", lambda told: told["peers"].extend(told["peers"]), "somebody is there twice"),
        ("topics", lambda told: told["topics"][0].update(mesh=0), "mesh of blocks: the API tells 0"),
        ("gossip", lambda told: told.update(delivered=5), "gossip delivered: the API tells 5"),
        ("bans", lambda told: told["bans"].append({}), "bans: the API tells 1"),
        ("addressbook", lambda told: told["peers"].append({}), "address book: the API tells"),
    ],
)
async def test_an_answer_that_lies_is_found(looked, call, change, said):
    scrape, later, told = looked
    change(told[call])
    assert said in "\n".join(answers(scrape, told, later).faults)


async def test_what_changes_between_two_scrapes_is_not_held_to_them(looked):
    scrape, later, told = looked
    later["vouch_connections_ended_total"][("direction", "inbound"), ("reason", "lost"), ("transport", "tcp")] = 1.0
    told["peers"]["peers"].clear()
    assert answers(scrape, told, later).faults == []
    later["vouch_gossip_delivered_total"][()] = 9.0
    told["gossip"]["delivered"] = 4  # between the two
    assert answers(scrape, told, later).faults == []
    assert total(later, "vouch_gossip_delivered_total") == 9
