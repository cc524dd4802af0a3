"""`vouch top`: what it makes of what a node answers."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from node.cli.top import look
from node.cli.topview import Look, as_dict, rates, render
from node.errors import OffError, UsageError

STATUS = {
    "peer_id": "12D3KooWBomvN7cnd5KXszmXTyfX61E49XRhHzCTNrFwdMYtQAhX",
    "network_id": "harbour",
    "client_version": "vouch/0.1.0",
    "addrs": ["/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWBomvN7cnd5KXszmXTyfX61E49XRhHzCTNrFwdMYtQAhX"],
    "uptime": 100.0,
    "peers": 2,
    "inbound": 1,
    "outbound": 1,
    "routing_table": ["a"],
    "limits": {"max_connections": {"used": 2, "limit": 256}, "max_half_open": {"used": 30, "limit": 32}},
}
GOSSIP = {"published": 10, "delivered": 20, "duplicates": 30, "bytes_received": 4096, "cpu_ns": 10**9}
PEER = {
    "peer": STATUS["peer_id"],
    "direction": "inbound",
    "client_version": "",
    "agent": "go\x1b[2J/1.0",
    "rtt": 0.0012,
    "score": 1.0,
    "flaky": False,
    "connected_for": 90.0,
    "addr": "/ip4/192.0.2.7/tcp/4001",
}
TOPIC = {"topic": "blo\x1b]0;x\x07cks", "mesh": 2, "subscribers": 2, "decided_by": ""}
LOOK = Look(5.0, STATUS, [PEER], GOSSIP, [TOPIC])


def screen(look, *, width=80, height=24, found=None):
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(render(look, found or rates(None, look), height))
    return console.file.getvalue().splitlines()


def test_rates():
    later = replace(
        LOOK,
        at=7.0,
        status={**STATUS, "uptime": 102.0},
        gossip={"published": 12, "delivered": 30, "duplicates": 30, "bytes_received": 6144, "cpu_ns": 2 * 10**9},
    )
    assert rates(LOOK, later) == {
        "published": 1.0, "delivered": 5.0, "duplicates": 0.0, "gossip_bytes": 1024.0, "cpu": 0.5
    }  # fmt: skip
    assert set(rates(None, LOOK).values()) == {0.0}
    assert set(rates(later, replace(LOOK, at=9.0, status={**STATUS, "uptime": 1.0})).values()) == {0.0}
    assert set(rates(replace(LOOK, gossip=None), LOOK).values()) == {0.0}


@pytest.mark.parametrize("peers", [0, 1, 5, 300])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 12), (200, 60)])
def test_it_fits_the_screen(peers, width, height):
    rows = [{**PEER, "peer": f"12D3KooW{number:044}"} for number in range(peers)]
    lines = screen(replace(LOOK, peers=rows), width=width, height=height)
    assert max(map(len, lines)) <= width
    assert len(lines) <= max(height, 16)


def test_the_screen_shows_what_matters():
    text = "\n".join(screen(LOOK))
    for part in ("12D3KooW…YtQAhX", "harbour", "peers 2 (1 in, 1 out, 0 flaky)", "30 of 32", "1.2 ms", "192.0.2.7"):
        assert part in text
    assert text.index("max_half_open") < text.index("max_connections")  # the fullest first


def test_the_text_of_strangers_is_harmless():
    assert not any(ord(one) < 32 for line in screen(LOOK, width=200) for one in line)


def test_flaky_peers_come_first_and_the_rest_is_counted():
    rows = [{**PEER, "peer": f"12D3KooW{number:044}", "flaky": number == 99} for number in range(100)]
    lines = screen(replace(LOOK, peers=rows))
    first = next(number for number, line in enumerate(lines) if line.startswith("peer "))
    assert lines[first + 1].startswith("12D3KooW…000099")
    assert "more" in lines[-1]


def test_without_gossip_and_peers():
    text = "\n".join(screen(Look(1.0, STATUS, [], None)))
    assert "gossip is off" in text
    assert "no peers" in text


class Answers:
    """A node whose gossip answers with an error."""

    def __init__(self, error):
        self._error = error

    def call(self, name):
        if name == "gossip":
            raise self._error
        return {"peers": []}


def test_gossip_that_is_off_is_known_by_the_kind_of_its_error():
    assert look(Answers(OffError("switched off"))).gossip is None
    with pytest.raises(UsageError):
        look(Answers(UsageError("gossip: something else")))


def test_for_programs():
    assert as_dict(LOOK, rates(None, LOOK))["rates"]["cpu"] == 0.0
