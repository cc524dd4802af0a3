"""`vouch publish`, `subscribe` and `run --topic`: two nodes in processes of their own, as people use them."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.cli import main
from node.cli.gossip import MAX_PAYLOAD, shown
from tests.node.test_cli_run import LOOPBACK, ROOT, Running, ask, client_of, environment

DEADLINE = 30.0
NETWORK = "cli-gossip-tests"
SCRIPT = 'read word; echo "$VOUCH_TOPIC: $word" >&2; case "$word" in good) exit 0;; bad) exit 65;; *) exit 1;; esac'


@dataclass
class Nodes:
    """The author's data directory, the judge's, the judge's log."""

    author: Path
    judge: Path
    running: Running


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gossip")
    flags = ("--network-id", NETWORK, "--listen", LOOPBACK, "--log-format", "json", "--dht", "off", "--data-dir")
    judged = f"judged={shlex.join(['/bin/sh', '-c', SCRIPT])}"
    with (
        Running(*flags, folder / "judge", "--topic", judged, "--topic", "plain", "--log-level", "debug") as judge,
        Running(*flags, folder / "author") as author,
    ):
        for running in (judge, author):
            running.logged("is_bootstrap")
        yield Nodes(folder / "author", folder / "judge", judge)
        for running in (judge, author):
            running.stop()


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    for variable in [name for name in os.environ if name.startswith("VOUCH_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def vouch(capfdbinary, tmp_path, monkeypatch):
    """Runs a command; its exit status, what it wrote to stdout and what to stderr."""

    def run(*argv, given=b""):
        (tmp_path / "stdin").write_bytes(given)
        with (tmp_path / "stdin").open() as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            status = main([str(text) for text in argv])
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()

    return run


@contextmanager
def subscribing(data_dir, topic, *flags):
    """`vouch subscribe` in a process, once it listens and the author knows."""
    with subprocess.Popen(
        [sys.executable, "-m", "node", "subscribe", topic, "--data-dir", str(data_dir), *flags],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            if "--json" not in flags:
                assert f"listening to {topic}" in process.stderr.readline().decode()
            else:
                assert json.loads(process.stdout.readline())["event"] == "subscribed"
            yield process
        finally:
            process.kill()


def connect(nodes, topic=None):
    """Connects the two; returns once the author knows that the judge subscribes to `topic`."""
    give_up = time.monotonic() + DEADLINE
    with client_of(nodes.author) as client:
        client.call("connect", address=ask(nodes.judge, "status")["addrs"][0])
        while topic and not client.call("publish", topic=topic, payload="")["subscribers"]:
            assert time.monotonic() < give_up
            time.sleep(0.02)


# publish


def test_publish_to_nobody(nodes, vouch):
    with client_of(nodes.author) as client:
        for peer in client.call("peers")["peers"]:
            client.call("disconnect", peer=peer["peer"])
    status, out, err = vouch("publish", "plain", "--data-dir", nodes.author, given=b"hello")
    assert (status, out) == (1, "")
    assert err == (
        "vouch: error: the message on plain was handed to nobody: "
        "the node has no peers: `vouch connect MULTIADDR` finds it one\n"
    )


def test_publish_where_nobody_subscribes(nodes, vouch):
    connect(nodes, "plain")
    status, out, err = vouch("publish", "unheard-of", "--json", "--data-dir", nodes.author)
    assert status == 1
    assert json.loads(out)["peers"] == []
    assert "handed to nobody: of 1 connected peers none subscribes to it: `vouch subscribe unheard-of` or" in err


def test_publish_a_file_and_standard_input(nodes, vouch, tmp_path):
    connect(nodes, "plain")
    (tmp_path / "file").write_bytes(b"of a file")
    status, out, err = vouch("publish", "plain", tmp_path / "file", "--data-dir", nodes.author)
    assert (status, err) == (0, "")
    message_id, _, rest = out.partition("  ")
    assert len(bytes.fromhex(message_id)) == 20
    assert rest == "handed to 1 peer\n"
    status, out, _ = vouch("publish", "plain", "-", "--json", "--type", 7, "--data-dir", nodes.author, given=b"hello")
    assert status == 0
    assert json.loads(out)["peers"] == [ask(nodes.judge, "status")["peer_id"]]


@pytest.mark.parametrize(
    ("argv", "given", "text"),
    [
        (["plain", "no-such-file"], b"", "file no-such-file: expected to read it, got: No such file or directory"),
        (["plain"], b"x" * (MAX_PAYLOAD + 1), f"expected a message of at most {MAX_PAYLOAD} bytes, got more from -"),
        (["No Name"], b"", "expected a name of 1 to 64 of a-z, 0-9, '.', '_' and '-', got 'No Name'"),
        (["plain", "--type", "-1"], b"", "expected a whole number from 0 to 4294967294, got '-1'"),
    ],
)
def test_publish_what_cannot_be(nodes, vouch, argv, given, text):
    status, out, err = vouch("publish", *argv, "--data-dir", nodes.author, given=given)
    assert (status, out) == (2, "")
    assert text in err


def test_without_a_node(vouch, tmp_path):
    for command in ("publish", "subscribe"):
        status, out, err = vouch(command, "plain", "--data-dir", tmp_path / "none")
        assert (status, out) == (1, "")
        assert "no node is running with the data directory" in err
        assert "start one with `vouch run`" in err


# subscribe, and verdicts by a program


def test_the_program_decides_and_a_subscriber_sees_what_it_accepts(nodes, vouch):
    connect(nodes, "judged")
    with subscribing(nodes.judge, "judged", "--json", "--count", "1") as process:
        for word in (b"bad\n", b"odd\n", b"good\n"):
            assert vouch("publish", "judged", "--type", 7, "--data-dir", nodes.author, given=word)[0] == 0
        item = json.loads(process.stdout.readline())
        assert process.wait(DEADLINE) == 0
    assert (item["event"], item["topic"], item["type"]) == ("message", "judged", 7)
    assert base64.b64decode(item["payload"]) == b"good\n"
    lines = nodes.running.logged("program_verdict", 3)
    found = {(line["detail"], line["verdict"], line["status"]) for line in lines}
    assert {("judged: bad", "reject", 65), ("judged: odd", "ignore", 1), ("judged: good", "accept", 0)} <= found


def test_text_for_people_and_raw_payloads(nodes, vouch):
    author = ask(nodes.author, "status")["peer_id"]
    connect(nodes, "plain")
    with (
        subscribing(nodes.judge, "plain", "--count", "2") as text,
        subscribing(nodes.judge, "plain", "--raw", "--count", "2") as raw,
    ):
        for payload in (b"is anybody there?\n", b"\0\xff"):
            assert vouch("publish", "plain", "--data-dir", nodes.author, given=payload)[0] == 0
        out, _ = text.communicate(timeout=DEADLINE)
        assert out.decode() == (
            f"{author[:8]}…{author[-6:]}  is anybody there?\n{author[:8]}…{author[-6:]}  2 bytes: 00ff\n"
        )
        assert raw.communicate(timeout=DEADLINE)[0] == b"is anybody there?\n\0\xff"


def test_a_topic_that_nobody_decides_on_is_joined(nodes, vouch):
    connect(nodes)
    with subscribing(nodes.judge, "free", "--json", "--count", "1") as process:
        give_up = time.monotonic() + DEADLINE
        while vouch("publish", "free", "--data-dir", nodes.author, given=b"hello")[0]:
            assert time.monotonic() < give_up
        assert base64.b64decode(json.loads(process.stdout.readline())["payload"]) == b"hello"


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", ""),
        ("Grüße, 世界".encode(), "Grüße, 世界"),
        (b"one line\n", "one line"),
        (b"two\n\tlines\n", "two\n    \tlines"),
        (b"\x1b[2Jhidden", "10 bytes: 1b5b324a 68696464 656e"),
        (b"\r\n", "2 bytes: 0d0a"),
        ("right-to-left \u202e".encode(), "17 bytes: 72696768 742d746f 2d6c6566 7420e280 ae"),
        (b"\xff" * 100, "100 bytes: " + " ".join(["ffffffff"] * 6) + "…"),
    ],
)
def test_payloads_for_people(payload, text):
    assert shown(payload) == text
