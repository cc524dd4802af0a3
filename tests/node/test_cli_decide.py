"""`vouch subscribe --verdict`: two nodes in processes of their own, and who is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from node.cli import main
from node.cli.deciding import Asking, Decision, Program, decider
from node.errors import UsageError
from tests.node.test_cli_run import LOOPBACK, ROOT, Running, ask, client_of, environment

DEADLINE = 30.0
ITEM = {"topic": "t", "author": "12D3Koo", "type": 7, "message_id": "ab", "payload": "aGVsbG8="}
SCRIPT = 'read word; case "$word" in good) exit 0;; bad) exit 65;; *) exit 1;; esac'


# rules and programs


@pytest.mark.parametrize(
    ("script", "verdict"),
    [("exit 0", "accept"), ("exit 65", "reject"), ("exit 3", "ignore"), ("kill -9 $$", "ignore")],
)
def test_a_program_decides_by_its_exit_status(script, verdict):
    assert Program(f"/bin/sh -c '{script}'")(ITEM, 5.0).verdict == verdict


def test_what_a_program_is_given():
    check = '[ "$(cat)$VOUCH_TOPIC$VOUCH_AUTHOR$VOUCH_TYPE$VOUCH_MESSAGE_ID" = hellot12D3Koo7ab ]'
    assert Program(f"/bin/sh -c '{check}'")(ITEM, 5.0).verdict == "accept"


def test_a_program_that_does_not_end():
    began = time.monotonic()
    decision = Program("/bin/sh -c 'sleep 60 & sleep 60'")(ITEM, 0.2)
    assert decision == Decision("ignore", "no end within 0.2 s")
    assert time.monotonic() - began < 10
    assert Program("/bin/true")(ITEM, 0.0).verdict == "ignore"


@pytest.mark.parametrize("command", ["", "no-such-program-anywhere --x", "'"])
def test_commands_that_cannot_be_run(command):
    with pytest.raises(UsageError, match="--verdict: expected "):
        decider(command)


@pytest.mark.parametrize("verdict", ["accept", "reject", "ignore"])
def test_always_the_same(verdict):
    decide, at_once = decider(verdict)
    assert decide(ITEM, 1.0) == Decision(verdict)
    assert at_once == 1


def test_asking():
    reading, writing = os.pipe()
    said = []
    asked = Asking(reading, said.append)
    os.write(writing, b"hm\nA\nrej\n")
    assert asked(ITEM, 5.0) == Decision("accept", "by hand")
    assert asked(ITEM, 5.0) == Decision("reject", "by hand")
    assert asked(ITEM, 0.05).reason.startswith("no answer within")
    os.close(writing)
    assert asked(ITEM, 5.0) is None
    os.close(reading)
    assert said.count("accept, reject or ignore? ") == 5


# with nodes


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deciding")
    flags = ("--network-id", "deciding", "--listen", LOOPBACK, "--log-format", "json", "--dht", "off", "--api", "off")
    with (
        Running(*flags, "--data-dir", folder / "judge") as judge,
        Running(*flags, "--data-dir", folder / "a") as author,
    ):
        for running in (judge, author):
            running.logged("is_bootstrap")
        with client_of(folder / "a") as client:
            client.call("connect", address=ask(folder / "judge", "status")["addrs"][0])
        yield folder / "judge", folder / "a"
        for running in (judge, author):
            running.stop()


def publish(author, topic, *payloads):
    for payload in payloads:
        give_up = time.monotonic() + DEADLINE
        with client_of(author) as client:
            while not client.call("publish", topic=topic, payload=payload)["peers"]:
                assert time.monotonic() < give_up
                time.sleep(0.05)


def subscribe(judge, topic, *flags):
    return subprocess.Popen(
        [sys.executable, "-m", "node", "subscribe", topic, "--data-dir", str(judge), *flags],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_command_decides_from_outside(nodes):
    judge, author = nodes
    with subscribe(judge, "cmd", "--json", "--count", "3", "--verdict", f"/bin/sh -c '{SCRIPT}'") as process:
        try:
            assert json.loads(process.stdout.readline())["event"] == "subscribed"
            publish(author, "cmd", "Z29vZAo=", "YmFkCg==", "b2RkCg==")
            out, _ = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
    found = {item["payload"]: (item["verdict"], item["counted"]) for item in map(json.loads, out.splitlines())}
    assert found == {"Z29vZAo=": ("accept", True), "YmFkCg==": ("reject", True), "b2RkCg==": ("ignore", True)}
    verdicts = ask(judge, "gossip")["verdicts"]
    assert (verdicts["accept"], verdicts["reject"]) == (1, 1)


def test_somebody_decides_at_the_terminal(nodes):
    judge, author = nodes
    with subscribe(judge, "asked", "--verdict", "ask") as process:
        try:
            assert b"listening to asked" in process.stderr.readline()
            publish(author, "asked", "aGVsbG8=")
            assert b"hello" in process.stderr.readline()
            process.stdin.write(b"r\n")
            process.stdin.flush()
            assert process.stdout.readline().startswith(b"reject    12D3KooW")
            publish(author, "asked", "b3RoZXI=")  # and nobody there any more
            process.communicate(timeout=DEADLINE)
            assert process.returncode == 0
        finally:
            process.kill()


def test_one_decider_for_a_topic(nodes, capsys):
    judge, _ = nodes
    with subscribe(judge, "one", "--verdict", "accept") as process:
        try:
            assert b"listening to one" in process.stderr.readline()
            assert main(["subscribe", "one", "--verdict", "accept", "--data-dir", str(judge)]) == 2
            assert "one" in capsys.readouterr().err
        finally:
            process.kill()
