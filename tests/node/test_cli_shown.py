"""How commands show things: each in its form, and nothing of a stranger's that a terminal would take for commands."""

from __future__ import annotations

import argparse

import pytest

from node.cli import _status_of, remote
from node.cli.shown import duration, rank, round_trip, safe, short, size
from node.errors import VouchError

HOSTILE = "\x1b]0;owned\x07\x1b[2J\nvouch 1.0\u202e"
PEER = {
    "peer": "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
    "addr": f"/dns4/{HOSTILE}/tcp/1",
    "direction": "inbound",
    "client_version": "",
    "agent": HOSTILE,
    "connected_for": 1.0,
    "rtt": None,
    "flaky": False,
}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (duration(0.4), "0 s"),
        (duration(119), "119 s"),
        (duration(7000), "117 min"),
        (duration(100_000), "28 h"),
        (duration(1e6), "12 d"),
        (size(512), "512 B"),
        (size(1536), "1.5 KiB"),
        (size(5 << 40), "5120.0 GiB"),
        (round_trip(None), "-"),
        (round_trip(0.01234), "12.3 ms"),
        (short("12D3KooW" + "x" * 38 + "nXTN99"), "12D3KooW…nXTN99"),
        (short("short"), "short"),
        (safe("agent/1.0 é"), "agent/1.0 é"),
        (safe("x" * 70, 64), "x" * 63 + "…"),
        (rank([1.0, 2.0, 3.0, 4.0], 0.5), 2.0),
        (rank([1.0], 0.99), 1.0),
    ],
)
def test_forms(shown, expected):
    assert shown == expected


def test_a_peer_cannot_command_the_terminal(monkeypatch, capsys):
    """An agent comes from whoever connects, and `vouch peers` prints it."""

    class Told:
        def __init__(self, _path):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def call(self, _name):
            return {"peers": [PEER]}

    monkeypatch.setattr(remote, "Client", Told)
    monkeypatch.setattr(
        remote, "settings_from", lambda args: argparse.Namespace(config=argparse.Namespace(control_socket=""))
    )
    assert remote.peers(argparse.Namespace(json=False)) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.removesuffix("\n").isprintable()


def test_an_error_with_a_peers_words_cannot_either(capsys):
    assert _status_of(VouchError(f"the peer says {HOSTILE}")) == 1
    assert capsys.readouterr().err.removesuffix("\n").isprintable()
