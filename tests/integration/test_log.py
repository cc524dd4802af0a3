"""The log of a node in a process of its own: its forms, its secrets, and a reader that doesn't read."""

from __future__ import annotations

import base64
import fcntl
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from node.api.client import Client
from node.errors import VouchError
from node.identity import load_key
from tests.node.test_cli_run import DEADLINE, LOOPBACK, ROOT, STOP_DEADLINE, Running, client_of, environment

FLAGS = ("--network-id", "log-tests", "--listen", LOOPBACK, "--dht", "off", "--api", "127.0.0.1:0")
EVERYTHING = ("--log-level", "debug", "--log-levels", "libp2p=debug")
SMALL_QUEUE = ("--log-format", "json", "--log-level", "debug", "--max-log-queue", "20000")
PIPE = 4096


def put(url, token, content):
    """A PUT that needs the token; its status."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, json.dumps(content).encode(), headers, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_log_at_debug_has_no_secrets_and_keeps_its_form(form, tmp_path):
    data, other = tmp_path / "data", tmp_path / "other"
    with (
        Running(*FLAGS, "--log-format", form, *EVERYTHING, "--data-dir", data) as node,
        Running(*FLAGS, "--data-dir", other, "--log-levels", "api=debug", "--log-levels", "run=error") as peer,
    ):
        node.lines_with("started")
        peer.lines_with("started")
        with client_of(data) as client, client_of(other) as another:
            connected = another.call("connect", address=client.call("status")["addrs"][0])
            client.call("ping", target=another.call("status")["peer_id"], count=2)
            url = client.call("status")["api"]
            token = (data / "api.token").read_text().strip()
            assert another.call("loglevel")["levels"] == {"": "info", "api": "debug", "run": "error"}
        assert put(f"{url}v1/loglevel", token, {"part": "gossip", "level": "error"}) == 200
        assert put(f"{url}v1/loglevel", token + "x", {"part": "gossip", "level": "error"}) == 401
        node.lines_with("identified")
        node.stop()
        peer.stop()
    assert connected["peer"]
    log = "\n".join(node.lines)
    pair = load_key(data / "node.key").key_pair()
    for secret in (pair.private_key.to_bytes(), pair.private_key.serialize()):
        for shown in (secret.hex(), base64.b64encode(secret).decode().rstrip("="), repr(secret)[2:-1]):
            assert shown not in log
    assert token not in log
    assert "libp2p." in log, "expected to hear py-libp2p too"
    if form == "json":
        assert all({"timestamp", "level", "logger", "event"} <= json.loads(line).keys() for line in node.lines)
    else:
        line = re.compile(r"\d{4}-\S+Z \[\w+ *\] .+ \[[\w.]+\]( .*)?|    .*")
        assert [text for text in node.lines if not line.fullmatch(text)] == []
    assert "key_made" not in "\n".join(peer.lines), "expected only errors of this part"
    assert node.lines_with("stopped")


def test_a_part_that_there_is_not(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "node", "run", *FLAGS, "--data-dir", tmp_path, "--log-levels", "gosip=debug"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 2
    assert "log_levels: expected one of the parts" in done.stderr
    assert "'gosip'" in done.stderr


def test_a_pipe_that_nobody_reads_stops_no_node(tmp_path):
    """And when somebody reads again, the log says what is missing."""
    data = tmp_path / "data"
    process = subprocess.Popen(
        [sys.executable, "-m", "node", "run", *FLAGS, *SMALL_QUEUE, "--data-dir", str(data)],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, PIPE)
        with client_of(data) as client:
            slowest = flood(client)
            assert slowest < 5.0
            found = b""
            while b"log_lines_dropped" not in found:
                more = process.stdout.read1(65536)
                assert more, "the node has ended"
                found += more
            flood(client)  # once more, for its end
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE)
        assert time.monotonic() - began < STOP_DEADLINE
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    lines = [json.loads(line) for line in found.split(b"\n")[:-1]]
    (dropped,) = [line["count"] for line in lines if line["event"] == "log_lines_dropped"]
    assert dropped > 10


def flood(client: Client) -> float:
    """Has the node log far more than the queue holds; the seconds that the slowest answer took."""
    slowest = 0.0
    name = client.call("status")["peer_id"]
    for number in range(300):
        began = time.monotonic()
        with pytest.raises(VouchError):
            client.call("connect", address=f"/ip4/127.0.0.1/tcp/{number + 1}/p2p/{name[:-4]}{number + 1000:04d}")
        client.call("status")
        slowest = max(slowest, time.monotonic() - began)
    return slowest
