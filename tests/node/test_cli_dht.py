"""`vouch dht`: two nodes in processes of their own, as people use them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time

import base58
import pytest

from node.cli import main
from node.identity import Identity
from protocols.kad.cid import multihash_of
from tests.node.test_cli_run import LOOPBACK, Running, ask, client_of

NETWORK = "cli-dht-tests"
STRANGER = Identity.generate().peer_id
DEADLINE = 20.0
CID = "b" + base64.b32encode(b"\x01\x55\x12\x20" + hashlib.sha256(b"hello").digest()).decode().lower().rstrip("=")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """The data directories of two nodes that have each other in their tables, and the status of each."""
    folder = tmp_path_factory.mktemp("dht")
    flags = ("--network-id", NETWORK, "--listen", LOOPBACK, "--log-format", "json", "--data-dir")
    with Running(*flags, folder / "a") as a, Running(*flags, folder / "b") as b:
        for running in (a, b):
            running.logged("is_bootstrap")
        status = {name: ask(folder / name, "status") for name in ("a", "b")}
        with client_of(folder / "a") as client:
            client.call("connect", address=status["b"]["addrs"][0])
        give_up = time.monotonic() + DEADLINE
        while not all(ask(folder / name, "status")["routing_table"] for name in ("a", "b")):
            assert time.monotonic() < give_up
            time.sleep(0.05)
        yield folder / "a", folder / "b", status["a"], status["b"]
        for running in (a, b):
            running.stop()


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    for variable in [name for name in os.environ if name.startswith("VOUCH_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_addresses_of_strangers_are_harmless(monkeypatch, capsys, tmp_path):
    addr = "/dns4/\x1b[2Jharbour/tcp/1"
    answer = {"peer": STRANGER, "addrs": [addr], "providers": [{"peer": STRANGER, "addrs": [addr]}]}
    monkeypatch.setattr("node.cli.dht._ask", lambda *_args, **_params: answer)
    for command in ("find-peer", STRANGER), ("find-providers", CID):
        assert main(["dht", *command, "--data-dir", str(tmp_path)]) == 0
        assert "/dns4/�[2Jharbour/tcp/1" in capsys.readouterr().out


@pytest.fixture
def vouch(capfdbinary):
    def run(*argv):
        status = main(["dht", *map(str, argv)])
        out, err = capfdbinary.readouterr()
        return status, out, err.decode()

    return run


def test_find_peer(nodes, vouch):
    a, _, _, status = nodes
    assert vouch("find-peer", status["peer_id"], "--data-dir", a) == (0, f"{status['addrs'][0]}\n".encode(), "")
    code, out, _ = vouch("find-peer", status["peer_id"], "--data-dir", a, "--json")
    assert code == 0
    assert json.loads(out)["peer"] == status["peer_id"]
    code, out, err = vouch("find-peer", STRANGER, "--data-dir", a)
    assert (code, out) == (1, b"")
    assert "wasn't found" in err


def test_provide_and_find(nodes, vouch):
    a, b, status, _ = nodes
    code, _, err = vouch("find-providers", CID, "--data-dir", b)
    assert (code, err) == (1, f"vouch: error: nobody is known to provide {CID}\n")
    assert vouch("provide", CID, "--data-dir", a) == (0, b"told 1 peer\n", "")
    code, out, err = vouch("find-providers", CID, "--data-dir", b, "--json")
    assert (code, err) == (0, "")
    (provider,) = json.loads(out)["providers"]
    assert provider["peer"] == status["peer_id"]
    assert f"{provider['addrs'][0]}/p2p/{provider['peer']}" in status["addrs"]
    # a v0 CID of the same multihash is the same key
    assert vouch("find-providers", base58.b58encode(multihash_of(CID)).decode(), "--data-dir", b)[0] == 0
    assert vouch("withdraw", CID, "--data-dir", a)[0] == 0
    assert vouch("withdraw", CID, "--data-dir", a)[0] == 1


def test_put_and_get(nodes, vouch, tmp_path):
    a, b, _, _ = nodes
    author = Identity.generate()
    value = base58.b58decode(author.peer_id)[2:]  # an Ed25519 key's ID holds the key
    (tmp_path / "key.pb").write_bytes(value)
    key = f"/pk/{author.peer_id}"
    code, _, err = vouch("get", key, "--data-dir", b)
    assert code == 1
    assert "expected a value under" in err
    assert vouch("put", key, tmp_path / "key.pb", "--data-dir", a, "--json") == (0, b'{"peers": 1, "table": 1}\n', "")
    assert vouch("get", key, "--data-dir", b) == (0, value, "")
    assert vouch("get", key, "--data-dir", b, "--out", tmp_path / "got")[0] == 0
    assert (tmp_path / "got").read_bytes() == value


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (("provide", "nonsense"), "expected a CID such as bafkrei… or Qm…, got 'nonsense'"),
        (("find-peer", "nobody"), "expected a peer ID such as 12D3KooW…, got 'nobody'"),
        (("get", "pk"), "expected a key such as /pk/12D3KooW…, got 'pk'"),
        (("get", "/free/all"), "expected a key of at most 256 bytes under /pk/…, got b'/free/all'"),
        (("put", "/pk/" + STRANGER, os.devnull), "expected under /pk/PEER the public key"),
        (("put", "/pk/" + STRANGER, "/nowhere"), "file /nowhere: expected to read it, got: No such file"),
    ],
)
def test_errors(nodes, vouch, argv, text):
    code, out, err = vouch(*argv, "--data-dir", nodes[0])
    assert (code, out) == (2, b"")
    assert text in err


def test_no_node(vouch, tmp_path):
    code, _, err = vouch("find-peer", STRANGER, "--data-dir", tmp_path)
    assert code == 1
    assert "no node" in err.lower()
