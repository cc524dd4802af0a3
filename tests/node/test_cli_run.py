"""`vouch run` as a process: what it says, how it ends, and how it refuses what it can't use.

A process costs two seconds of CPU, so one fixture runs all that serve and another all that refuse; the tests look at
what they left.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ifaddr
import pytest

from node.api.client import Client, NoNodeError
from node.config import Config
from node.datadir import LOCK, locked
from node.identity import Identity, load_key

ROOT = Path(__file__).parents[2]
# a start takes 2 s of CPU, and up to four share two cores
DEADLINE = 60.0
# what the node promises is 2 s
STOP_DEADLINE = 6.0
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def environment(**variables):
    return {**{name: value for name, value in os.environ.items() if not name.startswith("VOUCH_")}, **variables}


class Running:
    """`vouch run` in a process of its own. Its log lines are read as they come."""

    def __init__(self, *flags, **variables):
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            [sys.executable, "-m", "node", "run", *map(str, flags)],
            cwd=ROOT,
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()

    def lines_with(self, text, count=1):
        """The lines that hold `text`, once there are `count` of them."""
        with self._more:
            self._more.wait_for(lambda: self._ended or len(self._with(text)) >= count, DEADLINE)
            found = self._with(text)
        assert len(found) >= count, f"expected {count} lines with {text!r} within {DEADLINE} s, got {self.lines}"
        return found

    def _with(self, text):
        return [line for line in self.lines if text in line]

    def logged(self, event, count=1):
        """The JSON lines of `event`, once there are `count` of them."""
        return list(map(json.loads, self.lines_with(f'"event": "{event}"', count)))

    def stop(self, number=signal.SIGTERM):
        """Ends it with a signal; the seconds that took."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(DEADLINE)
        took = time.monotonic() - began
        self._reader.join()
        return took

    def close(self):
        """Ends it however it is, for a `finally`."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def client_of(data_dir):
    """A client of the node that runs there, once it answers: its control socket comes a little after its log lines."""
    give_up = time.monotonic() + DEADLINE
    while True:
        try:
            return Client(data_dir / "control.sock")
        except NoNodeError:
            if time.monotonic() > give_up:
                raise
        time.sleep(0.02)


def ask(data_dir, call):
    with client_of(data_dir) as client:
        return client.call(call)


@dataclass
class Story:
    """What four nodes did: one of defaults, one that knows it, one whose bootstrap is dead, and the first once more."""

    folder: Path
    first: Running
    second: Running
    lonely: Running
    again: Running
    first_status: dict[str, Any]
    second_peers: list[dict[str, Any]]
    lonely_status: dict[str, Any]
    key_mode: int
    took: dict[str, float]


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    file = folder / "vouch.toml"
    file.write_text(
        f'listen = ["{LOOPBACK}"]\nlog_format = "json"\n'
        'network_id = "of-the-file"\nclient_version = "file/1.0.0"\ndata_dir = "second"\n'
    )
    json_lines = ("--network-id", "harbour", "--log-format", "json")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: refuses, and is nobody else's
        dead = f"/ip4/127.0.0.1/tcp/{nobody.getsockname()[1]}/p2p/{Identity.generate().peer_id}"
        with (
            Running("--data-dir", folder / "first", *json_lines) as first,
            Running(
                *("--data-dir", folder / "lonely", *json_lines, "--listen", LOOPBACK),
                *("--bootstrap", dead, "--bootstrap-retry-min", "0.2", "--bootstrap-retry-max", "60"),
                *("--log-repeat-window", "0.001"),
            ) as lonely,
        ):
            first.logged("is_bootstrap")
            bootstrap = ask(folder / "first", "status")["addrs"][0]
            with Running(
                *("--config", file, "--network-id", "harbour", "--bootstrap", bootstrap),
                VOUCH_NETWORK_ID="of-the-environment",
                VOUCH_CLIENT_VERSION="environment/2.0.0",
            ) as second:
                second.logged("admitted")
                first.logged("admitted")
                first_status = ask(folder / "first", "status")
                second_peers = ask(folder / "second", "peers")["peers"]
                took = {"second": second.stop(signal.SIGINT)}
                first.logged("disconnected")
            lonely.logged("bootstrap_unreachable", 3)
            lonely_status = ask(folder / "lonely", "status")
            took["first"] = first.stop(signal.SIGTERM)
            took["lonely"] = lonely.stop(signal.SIGTERM)
        key_mode = (folder / "first" / "node.key").stat().st_mode & 0o777
        # once more, without `--log-format`: text
        with Running("--data-dir", folder / "first", "--network-id", "harbour") as again:
            again.lines_with("is_bootstrap")
            took["again"] = again.stop(signal.SIGINT)
        yield Story(folder, first, second, lonely, again, first_status, second_peers, lonely_status, key_mode, took)


def dialable_hosts():
    """The machine's addresses, without the link-local ones of IPv6."""
    ips = [ip.ip if ip.is_IPv4 else ip.ip[0] for adapter in ifaddr.get_adapters() for ip in adapter.ips]
    return {ip for ip in ips if not ip.startswith("fe80:")}


def host_of(addr):
    return addr.split("/")[2]


# what it says


def test_a_line_for_each_address_that_wildcards_stand_for(story):
    addrs = [line["addr"] for line in story.first.logged("listening")]
    peer = story.first_status["peer_id"]
    assert all(re.fullmatch(rf"/ip[46]/[^/]+/tcp/[1-9][0-9]*/p2p/{peer}", addr) for addr in addrs)
    assert {host_of(addr) for addr in addrs} == dialable_hosts()
    assert len(set(addrs)) == len(addrs)
    assert addrs == story.first_status["addrs"]


def test_one_line_for_one_address(story):
    (line,) = story.lonely.logged("listening")
    assert line["addr"].startswith("/ip4/127.0.0.1/tcp/")
    assert line["addr"].endswith("/p2p/" + story.lonely_status["peer_id"])


def test_started(story):
    (line,) = story.first.logged("started")
    assert line["peer"] == story.first_status["peer_id"]
    assert line["network_id"] == "harbour"
    assert line["client_version"] == story.first_status["client_version"]


def test_only_a_node_without_a_bootstrap_is_one(story):
    assert len(story.first.logged("is_bootstrap")) == 1
    assert not [line for line in story.second.lines + story.lonely.lines if "is_bootstrap" in line]


def test_every_line_is_json_with_the_same_keys(story):
    for running in (story.first, story.second, story.lonely):
        for line in map(json.loads, running.lines):
            assert {"event", "level", "logger", "timestamp"} <= set(line)
            assert line["logger"].startswith("vouch.")


def test_the_text_form_has_a_line_for_each_address_too(story):
    listening = story.again.lines_with("] listening ", len(Config.listen))
    addrs = [line.partition("addr=")[2] for line in listening]
    assert {host_of(addr) for addr in addrs} == dialable_hosts()
    assert all(addr.endswith("/p2p/" + story.first_status["peer_id"]) for addr in addrs)
    for event in ("started", "is_bootstrap", "stopping", "stopped"):
        (line,) = [line for line in story.again.lines if f"] {event} " in line]
        assert not line.startswith("{")


def test_each_has_an_http_api_of_its_own(story):
    urls = [getattr(story, name).logged("api_listening")[0]["url"] for name in ("first", "second", "lonely")]
    assert len(set(urls)) == 3  # the port that nobody asked for gives way
    assert all(re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/", url) for url in urls)
    assert len((story.folder / "first" / "api.token").read_text().strip()) == 43


# two nodes


def test_both_admit_each_other(story):
    (there,) = story.second.logged("admitted")
    (here,) = story.first.logged("admitted")
    (second,) = story.second.logged("started")
    assert (there["peer"], there["direction"]) == (story.first_status["peer_id"], "outbound")
    assert (here["peer"], here["direction"]) == (second["peer"], "inbound")
    assert (story.first_status["peers"], story.first_status["inbound"]) == (1, 1)
    assert [peer["peer"] for peer in story.second_peers] == [story.first_status["peer_id"]]


def test_the_one_that_stays_notes_the_others_end(story):
    (line,) = story.first.logged("disconnected")
    assert line["peer"] == story.second.logged("started")[0]["peer"]


def test_flags_go_before_variables_before_the_file(story):
    (started,) = story.second.logged("started")  # in JSON, as the file says
    assert started["network_id"] == "harbour"
    assert started["client_version"] == "environment/2.0.0"
    assert story.first.logged("admitted")[0]["client_version"] == "environment/2.0.0"
    assert [host_of(line["addr"]) for line in story.second.logged("listening")] == ["127.0.0.1"]
    assert (story.folder / "second" / "node.key").exists()  # the file's folder, beside the file


# a bootstrap that can't be reached


def test_an_unreachable_bootstrap_is_tried_again_less_and_less_often(story):
    waits = [line["retry_in"] for line in story.lonely.logged("bootstrap_unreachable")]
    assert len(waits) >= 3
    for number, wait in enumerate(waits):  # doubling from 0.2 s, up to a quarter more by chance, a decimal each
        assert 0.2 * 2**number - 0.05 <= wait <= 0.25 * 2**number + 0.05
    assert waits == sorted(set(waits))


def test_and_the_node_serves_meanwhile(story):
    assert story.lonely_status["peers"] == 0
    assert story.lonely_status["addrs"] == [story.lonely.logged("listening")[0]["addr"]]


# the key


def test_the_key_is_made_once_for_its_owner_alone(story):
    (made,) = story.first.logged("key_made")
    assert made["file"] == str(story.folder / "first" / "node.key")
    assert story.key_mode == 0o600
    assert load_key(story.folder / "first" / "node.key").peer_id == made["peer"] == story.first_status["peer_id"]


def test_the_peer_id_is_the_same_after_a_restart(story):
    assert not [line for line in story.again.lines if "key_made" in line]
    (line,) = [line for line in story.again.lines if "] started " in line]
    assert f"peer={story.first_status['peer_id']}" in line


# the end


@pytest.mark.parametrize(
    ("name", "number"), [("first", "SIGTERM"), ("second", "SIGINT"), ("lonely", "SIGTERM"), ("again", "SIGINT")]
)
def test_signals_end_it_in_order(story, name, number):
    running = getattr(story, name)
    assert running.process.returncode == 0
    assert story.took[name] < STOP_DEADLINE
    assert number in running.lines_with("stopping")[0]
    assert "stopped" in running.lines[-1]
    assert not [line for line in running.lines if "Traceback" in line]


@pytest.mark.parametrize("name", ["first", "second", "lonely"])
def test_nothing_is_left_but_key_token_locks_and_address_book(story, name):
    assert {path.name for path in (story.folder / name).iterdir()} == {
        LOCK,
        "node.key",
        "api.token",
        "addressbook.db",
        "addressbook.lock",
    }


# what it refuses


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """The result of each start that is refused, and of each the text to expect; two run at a time."""
    folder = tmp_path_factory.mktemp("refused")
    (folder / "garbage.key").write_text("roses are red\n")
    (folder / "folder.key").mkdir()
    (folder / "bad.toml").write_text("max_streams = many\n")
    with socket.socket() as bound, locked(folder / "held"):
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        taken = f"/ip4/127.0.0.1/tcp/{bound.getsockname()[1]}"
        cases = {
            "bad flag": (
                ["--max-stream", "7"],
                "unknown flag '--max-stream'; did you mean --max-streams? (see vouch run --help)",
            ),
            "bad address": (
                ["--listen", "localhost:4001"],
                "listen: expected a multiaddr like /ip4/0.0.0.0/tcp/4001, got 'localhost:4001' (flag --listen)",
            ),
            "port in use": (["--listen", taken], f"can't listen on {taken}: Address already in use"),
            "garbage for a key": (
                ["--key", folder / "garbage.key"],
                f"key file {folder / 'garbage.key'}: expected 64 hex digits or 32 raw bytes, "
                "got 14 bytes of another form",
            ),
            "a key that can't be read": (
                ["--key", folder / "folder.key"],
                f"key file {folder / 'folder.key'}: expected to read or write it, got: Is a directory",
            ),
            "a config file that isn't TOML": (
                ["--config", folder / "bad.toml"],
                f"config file {folder / 'bad.toml'}: expected TOML, got: Invalid value (at line 1, column 15)",
            ),
            "a profile that can't be written": (
                ["--profile", folder / "nowhere" / "run.prof"],
                f"profile {folder / 'nowhere' / 'run.prof'}: expected a file that can be written, "
                "got: No such file or directory",
            ),
            "data directory in use": (
                ["--data-dir", folder / "held"],
                f"another node (process {os.getpid()}) uses the data directory {folder / 'held'}: "
                "give this one another --data-dir",
            ),
        }
        limit = threading.BoundedSemaphore(2)
        results: dict[str, subprocess.CompletedProcess[str]] = {}

        def start(number, name):
            given = list(map(str, cases[name][0]))
            defaults = {"--data-dir": str(folder / f"data-{number}"), "--listen": LOOPBACK}
            given += [text for flag in defaults if flag not in given for text in (flag, defaults[flag])]
            with limit:
                results[name] = subprocess.run(
                    [sys.executable, "-m", "node", "run", *given],
                    cwd=ROOT,
                    env=environment(),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=DEADLINE,
                )

        threads = [threading.Thread(target=start, args=case) for case in enumerate(cases)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return {name: (results[name], text) for name, (_, text) in cases.items()}


@pytest.mark.parametrize(
    "name",
    [
        "bad flag",
        "bad address",
        "port in use",
        "garbage for a key",
        "a key that can't be read",
        "a config file that isn't TOML",
        "a profile that can't be written",
        "data directory in use",
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(refusals, name):
    result, text = refusals[name]
    assert result.stderr == f"vouch: error: {text}\n"
    assert result.returncode == 2
    assert "Traceback" not in result.stdout
