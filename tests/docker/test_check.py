"""What the check of the network counts as knowing each other."""

from __future__ import annotations

import pytest

from interop.compose.members import View, unknown

PEERS = {"go", "rust"}


def network() -> dict[str, View | str]:
    """Two nodes and two peers, each connected with every other; peers have each other in their tables."""
    ids = {"one": "1", "two": "2", "go": "3", "rust": "4"}
    nodes = {name: View(ids[name], connected=set(ids.values()) - {ids[name]}) for name in ("one", "two")}
    peers = {name: View(ids[name], known=set(ids.values())) for name in PEERS}
    return {**nodes, **peers}


def test_all_know_all():
    assert unknown(network(), PEERS, book=False) == []


@pytest.mark.parametrize(
    ("who", "whom", "missing"),
    [
        ("one", "2", ["one doesn't know two"]),
        # the node's word is the peer's too
        ("one", "3", ["one doesn't know go", "go doesn't know one"]),
    ],
)
def test_a_connection_that_a_node_lacks(who, whom, missing):
    answers = network()
    answers[who].connected.discard(whom)
    assert sorted(unknown(answers, PEERS, book=False)) == sorted(missing)


def test_a_peer_that_another_peer_has_not_heard_of():
    answers = network()
    answers["go"].known.discard("4")
    assert unknown(answers, PEERS, book=False) == ["go doesn't know rust"]


def test_the_address_book_counts_in_large_networks_only():
    answers = network()
    answers["one"].connected.discard("2")
    answers["one"].known.add("2")
    assert unknown(answers, PEERS, book=False) == ["one doesn't know two"]
    assert unknown(answers, PEERS, book=True) == []


def test_what_a_peers_table_says_of_a_node_is_no_connection():
    answers = network()
    answers["two"].connected.discard("4")
    assert sorted(unknown(answers, PEERS, book=False)) == ["rust doesn't know two", "two doesn't know rust"]


def test_who_does_not_answer_is_missing():
    assert unknown({**network(), "two": "no node is running"}, PEERS, book=False) == [
        "two doesn't answer: no node is running"
    ]
