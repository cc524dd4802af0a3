"""The command line: keys, settings, help and errors, all of what needs no node."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from node.cli import main
from node.cli.parser import handler, parse, settings_from
from node.config import SETTINGS
from node.errors import DialError, UsageError
from node.identity import load_key
from node.settings import load

# RFC 8032, section 7.1, test 1
SECRET = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
PEER_ID = "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for variable in [name for name in os.environ if name.startswith("VOUCH_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "node.key"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


# vouch key


def test_generate_prints_the_peer_id_and_under_it_the_secret(capsys, tmp_path):
    assert main(["key", "generate"]) == 0
    peer_id, secret = capsys.readouterr().out.splitlines()
    path = tmp_path / "copied"
    path.write_text(secret)
    assert load_key(path).peer_id == peer_id


def test_generate_to_a_file_prints_the_peer_id_alone(capsys, tmp_path):
    path = tmp_path / "node.key"
    assert main(["key", "generate", "--out", str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.out == load_key(path).peer_id + "\n"
    assert captured.err == ""
    assert path.stat().st_mode & 0o777 == 0o600


def test_generate_as_json(capsys, tmp_path):
    assert main(["key", "generate", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"peer_id", "secret"}
    assert len(bytes.fromhex(answer["secret"])) == 32

    path = tmp_path / "node.key"
    assert main(["key", "generate", "--json", "--out", str(path)]) == 0
    assert json.loads(capsys.readouterr().out) == {"peer_id": load_key(path).peer_id, "file": str(path)}


def test_generate_does_not_overwrite(capsys, key_file):
    assert main(["key", "generate", "--out", str(key_file)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"vouch: error: key file {key_file}: expected a new file")
    assert captured.err.count("\n") == 1
    assert key_file.read_text() == SECRET


def test_inspect(capsys, key_file):
    assert main(["key", "inspect", str(key_file)]) == 0
    assert capsys.readouterr() == (PEER_ID + "\n", "")
    assert main(["key", "inspect", "--json", str(key_file)]) == 0
    assert json.loads(capsys.readouterr().out) == {"peer_id": PEER_ID, "type": "ed25519", "file": str(key_file)}


def test_inspect_warns_of_a_file_that_others_can_read(capsys, key_file):
    key_file.chmod(0o644)
    assert main(["key", "inspect", str(key_file)]) == 0
    captured = capsys.readouterr()
    assert captured.out == PEER_ID + "\n"
    assert captured.err.startswith("vouch: warning: key file")
    assert "0644" in captured.err


def test_inspect_of_something_else(capsys, tmp_path):
    path = tmp_path / "poem"
    path.write_text("roses are red\n")
    assert main(["key", "inspect", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (
        captured.err
        == f"vouch: error: key file {path}: expected 64 hex digits or 32 raw bytes, got 14 bytes of another form\n"
    )


# vouch config show


def test_show_says_where_each_value_comes_from(capsys, tmp_path, monkeypatch):
    file = tmp_path / "vouch.toml"
    file.write_text("max_half_open = 20")
    monkeypatch.setenv("VOUCH_LOG_LEVEL", "debug")
    assert main(["config", "show", "--json", "--config", str(file), "--max-streams", "64"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == set(SETTINGS)
    assert shown["max_streams"] == {"value": 64, "source": "flag --max-streams"}
    assert shown["log_level"] == {"value": "debug", "source": "environment VOUCH_LOG_LEVEL"}
    assert shown["max_half_open"] == {"value": 20, "source": f"file {file}"}
    assert shown["key"] == {"value": None, "source": "default"}


def test_shown_settings_pasted_into_a_file_give_the_same_settings(capsys, tmp_path):
    flags = ["--network-id", 'quo"te\\\n\x7fé🜁', "--data-dir", "rel", "--dial-timeout", "1e-7"]
    flags += ["--min-versions", "a.b=1.2.3", "--min-versions", "c=0.0.1", "--listen", "/ip4/127.0.0.1/tcp/1"]
    assert main(["config", "show", *flags]) == 0
    text = capsys.readouterr().out
    file = tmp_path / "elsewhere.toml"
    file.write_text(text)
    pasted = load({}, file=file, environ=os.environ).config
    original = settings_from(parse(["config", "show", *flags])).config
    assert pasted.data_dir == Path("rel").absolute()
    for name in SETTINGS:
        if name != "data_dir":
            assert getattr(pasted, name) == getattr(original, name)
    assert pasted.dial_timeout == 1e-7
    assert pasted.min_versions == {"a.b": "1.2.3", "c": "0.0.1"}
    assert "key" not in tomllib.loads(text)
    assert re.search(rf'^# key += "{Path("rel").absolute()}/node.key"', text, re.MULTILINE)
    assert re.search(r'^# api_cert += ""', text, re.MULTILINE)  # there is none


def test_show_is_aligned(capsys):
    assert main(["config", "show"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "tcp" not in line]
    assert len({line.index(" = ") for line in lines}) == 1


def test_every_setting_has_a_flag_on_run_and_show():
    values = {"listen": "/ip4/127.0.0.1/tcp/1", "bootstrap": f"/ip4/127.0.0.1/tcp/1/p2p/{PEER_ID}"}
    values |= {"client_version": "x/1.0.0", "min_versions": "x=1.0.0", "kad_protocol": "/kad"}
    values |= {"max_stream_window": "1000000", "max_connection_window": "100000000"}
    values |= {"heartbeat_steady": "2", "mdns_service": "_x._udp.local"}
    values |= dict.fromkeys(("gossip_direct", "rendezvous"), values["bootstrap"])
    values |= {"dns_servers": "192.0.2.1", "api": "127.0.0.1:7", "security": "tls", "log_levels": "gossip=debug"}
    values |= {"low_peers": "7", "target_peers": "30", "high_peers": "70", "subnet_share": "0.5", "source_share": "0.5"}
    for command in (["run"], ["config", "show"]):
        for name, setting in SETTINGS.items():
            value = setting.choices[-1] if setting.choices else values.get(name, "7")
            loaded = settings_from(parse([*command, setting.flag, value, *_room_for(name)]))
            assert loaded.sources[name] == f"flag {setting.flag}"


@pytest.mark.parametrize("command", [["topics", "x"], ["publish", "x"], ["dht", "get", ""], ["dht", "put", "x"]])
def test_an_argument_is_no_setting_of_its_name(command):
    sources = settings_from(parse([*command, "--data-dir", "x"])).sources
    assert [name for name, source in sources.items() if source.startswith("flag")] == ["data_dir"]


def _room_for(name: str) -> list[str]:
    """The flags that the value 7 needs beside it: a minimum stays under its maximum, a key has its certificate."""
    return {
        "max_connections": ["--max-inbound", "7"],
        "max_half_open": ["--max-half-open-per-ip", "7"],
        "api_key": ["--api-cert", "7"],
    }.get(name, [])


# The command line as such


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "COMMAND"),
        (["rnu"], "expected COMMAND first, got 'rnu'; did you mean run?"),
        (["--data-dir", "x", "status"], "expected COMMAND first, got 'x' (see vouch --help)"),
        (["key", "inspekt"], "expected ACTION (generate, inspect) first, got 'inspekt'; did you mean inspect?"),
        (["key"], "ACTION"),
        (["connect"], "MULTIADDR (see vouch connect --help)"),
        (
            ["run", "--netwrok-id", "x"],
            "unknown flag '--netwrok-id'; did you mean --network-id? (see vouch run --help)",
        ),
        (["run", "--network", "x"], "unknown flag '--network'"),  # no abbreviations
        (["run", "--network-id"], "--network-id: expected one argument (see vouch run --help)"),
        (["run", "--json"], "unknown flag '--json'"),
        (["status", "extra\nline"], "unexpected argument 'extra\\nline' (see vouch status --help)"),
        (["ping", "x", "--count", "0"], "--count: expected a whole number above 0, got '0'"),
        (["ping", "x", "--interval", "inf"], "--interval: expected seconds above 0, got 'inf'"),
        (["demo", "--nodes", "few"], "--nodes: expected a whole number above 0, got 'few'"),
        (["config", "show", "--max-streams", "-5"], "got -5 (flag --max-streams)"),
        (["config", "show", "--config", "/none/vouch.toml"], "config file /none/vouch.toml"),
    ],
)
def test_usage_errors_are_one_line(capsys, argv, says):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("vouch: error: ")
    assert says in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "argv",
    [
        *([name] for name in ("run", "status", "peers", "connect", "ping", "demo")),
        ["key", "generate"],
        ["key", "inspect"],
        ["config", "show"],
    ],
)
def test_help_of_each_command_has_an_example(capsys, argv):
    assert main([*argv, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"example: vouch {' '.join(argv)}" in out
    assert ("--json" in out) == (argv != ["run"])


def test_rare_settings_are_apart_in_help(capsys):
    assert main(["run", "--help"]) == 0
    common, advanced = capsys.readouterr().out.split("\nadvanced:\n")
    assert "--network-id" in common
    assert "--drain-timeout" in advanced


def test_commands_are_listed_once_by_purpose(capsys):
    assert main(["--help"]) == 0
    sections = capsys.readouterr().out.split("\n\n")
    purposes = {text.partition(":\n")[0]: re.findall(r"^  ([a-z]+)  +\S", text, re.MULTILINE) for text in sections}
    listed = [name for names in purposes.values() for name in names]
    assert len(set(listed)) == len(listed)
    assert {"run", "demo"} < set(purposes["run nodes"])
    assert {"ping", "perf", "ban"} < set(purposes["its peers"])
    assert "doctor" in purposes["this machine and its files"]


@pytest.mark.parametrize(
    ("text", "expected"), [("0", 0), ("65536", 65536), ("64K", 65536), ("16m", 16 << 20), ("2G", 2 << 30)]
)
def test_bytes_on_the_command_line(text, expected):
    assert parse(["perf", "x", "--upload", text]).upload == expected


@pytest.mark.parametrize("text", ["", "-1", "1.5M", "1T", "many", "1 M"])
def test_what_is_no_number_of_bytes(capsys, text):
    assert main(["perf", "x", f"--upload={text}"]) == 2
    assert "expected bytes such as 65536, 64K or 16M" in capsys.readouterr().err


def test_version(capsys, monkeypatch):
    monkeypatch.setattr("node.cli.arguments.node_version", lambda: "1.2.3")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "vouch 1.2.3\n"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["connect", "/a"], {"address": "/a", "json": False, "config": None}),
        (["ping", "x", "--json"], {"target": "x", "count": 4, "interval": 1.0, "json": True}),
        (["ping", "x", "--count", "2", "--interval", "0.5"], {"count": 2, "interval": 0.5}),
        (["demo", "--nodes", "5", "--timeout", "9"], {"nodes": 5, "timeout": 9.0, "json": False}),
        (["peers", "--data-dir", "d", "--network-id", "n"], {"data_dir": "d", "network_id": "n"}),
    ],
)
def test_arguments_that_handlers_find(argv, expected):
    args = vars(parse(argv))
    assert {name: args[name] for name in expected} == expected


def test_each_command_names_its_own_function():
    commands = [["run"], ["status"], ["peers"], ["connect", "x"], ["ping", "x"], ["demo"]]
    assert [parse(argv).handler for argv in commands] == [
        "node.cli.run:run",
        "node.cli.remote:status",
        "node.cli.remote:peers",
        "node.cli.remote:connect",
        "node.cli.probe:ping",
        "node.cli.demo:demo",
    ]
    for argv in (["key", "generate"], ["key", "inspect", "x"], ["config", "show"]):
        args = parse(argv)
        assert handler(args).__name__ == args.action


@pytest.mark.parametrize(
    ("raised", "status", "err"),
    [
        (KeyboardInterrupt(), 130, ""),
        (UsageError("expected a\nport, got a ship"), 2, "vouch: error: expected a port, got a ship\n"),
        (DialError("nobody answered"), 1, "vouch: error: nobody answered\n"),
        (ExceptionGroup("nursery", [ExceptionGroup("nursery", [DialError("inner")])]), 1, "vouch: error: inner\n"),
        (BaseExceptionGroup("nursery", [KeyboardInterrupt()]), 130, ""),
    ],
)
def test_how_exceptions_end_the_command(capsys, monkeypatch, raised, status, err):
    def fail(args: argparse.Namespace) -> int:
        raise raised

    monkeypatch.setattr("node.cli.key.generate", fail)
    assert main(["key", "generate"]) == status
    assert capsys.readouterr() == ("", err)


@pytest.mark.parametrize("raised", [ZeroDivisionError("ours"), ExceptionGroup("two", [DialError("a"), DialError("b")])])
def test_faults_keep_their_traceback(monkeypatch, raised):
    def fail(args: argparse.Namespace) -> int:
        raise raised

    monkeypatch.setattr("node.cli.key.generate", fail)
    with pytest.raises(type(raised)) as escaped:
        main(["key", "generate"])
    assert escaped.value is raised


def test_reader_that_goes_away_ends_the_command_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    environ = dict(os.environ)
    environ.pop("PYTHONUNBUFFERED", None)  # with it nothing is left to flush at the end
    try:
        command = [sys.executable, "-m", "node", "config", "show"]
        done = subprocess.run(command, cwd=ROOT, env=environ, stdout=writing, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("redirected", "expected"), [(">/dev/full", (1, b"vouch: error: No space left on device\n")), (">&-", (0, b""))]
)
def test_output_that_goes_nowhere(redirected, expected):
    command = shlex.join([sys.executable, "-m", "node", "config", "show"])
    done = subprocess.run(["/bin/sh", "-c", f"{command} {redirected}"], cwd=ROOT, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == expected


def test_help_imports_nothing_slow():
    program = (
        "import sys; from node.cli import main; status = main(['--help'])\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "vouch COMMAND --help" in done.stdout
    loaded = set(done.stderr.strip("[]\n").replace("'", "").split(", "))
    assert "argparse" in loaded  # else the list was misread
    assert not loaded & {"libp2p", "structlog", "rich", "trio", "multiaddr", "cryptography", "msgspec", "google"}
