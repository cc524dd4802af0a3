"""`vouch addressbook list`, `export` and `import`: with a running node, and without one."""

from __future__ import annotations

import base64
import json
import os
import sys

import pytest

from node.api.addressbook import read_entries
from node.cli import main
from node.datadir import locked
from node.errors import UsageError
from node.identity import Identity
from node.peers.bookfile import BookFile
from tests.node.test_book import addr, record
from tests.node.test_cli_run import LOOPBACK, Running

PEERS = [Identity.generate().peer_id for _ in range(3)]


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    for variable in [name for name in os.environ if name.startswith("VOUCH_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def vouch(capsys, tmp_path, monkeypatch):
    """Runs a command; its exit status, what it wrote to stdout and what to stderr."""

    def run(*argv, given=""):
        (tmp_path / "stdin").write_text(given)
        with (tmp_path / "stdin").open() as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            status = main(["addressbook", *map(str, argv)])
        return (status, *capsys.readouterr())

    return run


def line(peer: str, **more) -> str:
    known = {"addr": addr(1), "source": "dial", "last_success": 1000.0}
    return json.dumps({"peer": peer, "addrs": [known], "last_seen": 1000.0, **more}) + "\n"


def test_without_a_file_nothing_is_known_and_nothing_is_made(vouch, tmp_path):
    folder = tmp_path / "none"
    assert vouch("list", "--data-dir", folder) == (0, "no peers are known\n", "")
    assert vouch("export", "--data-dir", folder) == (0, "", "")
    assert vouch("list", "--json", "--data-dir", folder) == (0, '{"peers":[]}\n', "")
    assert not folder.exists()


def test_what_was_exported_is_imported_elsewhere(vouch, tmp_path):
    given = (
        line(PEERS[0], tags=["static"], agent="x", protocols=["/a"])
        + "\n"
        + json.dumps({"peer": PEERS[1], "addrs": [f"{addr(2)}/p2p/{PEERS[1]}", addr(3)]})
    )
    assert vouch("import", "--data-dir", tmp_path / "a", given=given) == (0, "imported 2 peers\n", "")
    _, lines, _ = vouch("export", "--data-dir", tmp_path / "a")
    first, second = map(json.loads, lines.splitlines())
    assert (first["peer"], first["tags"], first["addrs"][0]["last_success"]) == (PEERS[0], ["static"], 1000.0)
    assert [known["addr"] for known in second["addrs"]] == [addr(2), addr(3)]
    _, document, _ = vouch("export", "--json", "--data-dir", tmp_path / "a")
    for number, exported in enumerate((lines, document, json.dumps(json.loads(document)["peers"], indent=2))):
        folder = tmp_path / str(number)
        (tmp_path / "exported").write_text(exported)
        answer = vouch("import", tmp_path / "exported", "--json", "--data-dir", folder)
        assert answer == (0, '{"imported":2,"left_out":0}\n', "")
        assert vouch("export", "--data-dir", folder) == (0, lines, "")
    _, out, _ = vouch("list", "--data-dir", tmp_path / "a")
    assert [row.split()[:2] for row in out.splitlines()] == [[PEERS[0], "worked"], [PEERS[1], "heard"]]
    assert "and 1 more" in out
    assert vouch("import", "--data-dir", tmp_path / "a", given="") == (0, "imported 0 peers\n", "")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("nonsense", "line 2: JSON is malformed"),
        ("17", "line 2: Expected `object`, got `int`"),
        ("{}", "line 2: Object missing required field `peer`"),
        (line("12D3KooWnobody"), "line 2: expected a peer ID such as 12D3KooW…, got '12D3KooWnobody'"),
        (line(PEERS[1], more=1), "line 2: Object contains unknown field `more`"),
        (line(PEERS[1], addrs=["/ip4/300.0.0.1/tcp/1"]), f"line 2: expected a multiaddr of {PEERS[1]}, got"),
        (line(PEERS[1], addrs=["nowhere"]), f"line 2: expected a multiaddr of {PEERS[1]}, got 'nowhere'"),
        (line(PEERS[1], addrs=[f"{addr(1)}/p2p/{PEERS[0]}"]), f"line 2: expected a multiaddr of {PEERS[1]}, got"),
        (line(PEERS[1], addrs=[addr(n) for n in range(17)]), "line 2: expected at most 16 addresses, got 17"),
        (line(PEERS[1], last_seen=-1), "line 2: expected seconds since 1970, got -1.0"),
        (line(PEERS[1], tags=["x"] * 17), "line 2: expected at most 16 tags of 256 characters, got more"),
        (line(PEERS[1], record="AAAA"), "line 2: expected a"),
        (
            line(PEERS[1], record=base64.b64encode(record(5, PEERS[1])).decode()),
            "line 2: expected a signed peer record, got one that doesn't hold",
        ),
    ],
)
def test_an_import_that_is_wrong_names_its_line_and_changes_nothing(vouch, tmp_path, wrong, said):
    status, out, err = vouch("import", "--data-dir", tmp_path / "a", given=line(PEERS[0]) + wrong)
    assert (status, out) == (2, "")
    assert err.startswith(f"vouch: error: {said}"), err
    assert vouch("list", "--data-dir", tmp_path / "a")[1] == "no peers are known\n"


def test_an_entry_of_a_document_that_is_wrong_is_named():
    with pytest.raises(UsageError, match=r"peers\[1\]: expected a peer ID"):
        read_entries(f'{{"peers": [{line(PEERS[0])}, {line("x")}]}}'.encode())
    with pytest.raises(UsageError, match="expected a list of peers"):
        read_entries(b'{"peers": 1}')


def test_records_that_hold_are_kept(vouch, tmp_path):
    from libp2p.peer.envelope import seal_record
    from libp2p.peer.id import ID
    from libp2p.peer.peer_record import PeerRecord
    from multiaddr import Multiaddr

    pair = Identity.generate().key_pair()
    peer = ID.from_pubkey(pair.public_key)
    sealed = seal_record(PeerRecord(peer, [Multiaddr(addr(1))], 7), pair.private_key).marshal_envelope()
    encoded = base64.b64encode(sealed).decode()
    assert vouch("import", "--data-dir", tmp_path, given=line(str(peer), record=encoded))[0] == 0
    assert json.loads(vouch("export", "--data-dir", tmp_path)[1])["record"] == encoded


def test_a_directory_that_is_in_use_is_left_alone(vouch, tmp_path):
    BookFile(tmp_path / "addressbook.db").close()
    with locked(tmp_path):
        for command in ("list", "export", "import"):
            status, _, err = vouch(command, "--data-dir", tmp_path)
            assert status == 2
            assert "uses the data directory" in err


def test_with_a_running_node(vouch, tmp_path):
    folder = tmp_path / "node"
    flags = ("--network-id", "book-tests", "--listen", LOOPBACK, "--log-format", "json", "--dht", "off")
    with Running(*flags, "--data-dir", folder) as running:
        running.logged("is_bootstrap")
        assert vouch("list", "--data-dir", folder) == (0, "no peers are known\n", "")
        assert vouch("import", "--data-dir", folder, given=line(PEERS[0])) == (0, "imported 1 peer\n", "")
        status, _, err = vouch("import", "--data-dir", folder, given=line(PEERS[1]) + "{}")
        assert (status, err.startswith("vouch: error: line 2: ")) == (2, True)
        _, out, _ = vouch("export", "--data-dir", folder)
        assert [json.loads(exported)["peer"] for exported in out.splitlines()] == [PEERS[0]]
        assert not list(folder.glob(".import-*"))
        running.process.kill()
        running.process.wait()
    # killed: what was imported had been acknowledged
    assert json.loads(vouch("export", "--data-dir", folder)[1])["peer"] == PEERS[0]
