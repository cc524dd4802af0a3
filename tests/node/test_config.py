"""The table of settings and its four layers."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.config import (
    _BEAT_INTERVALS,
    _MAX_BEAT_WINDOW,
    SETTINGS,
    Config,
    default_client_version,
    default_data_dir,
)
from node.errors import UsageError
from node.settings import load
from protocols.heartbeat import engine

PEER = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
ENVIRON = {"HOME": "/home/ada"}


def from_file(tmp_path, text, **more):
    path = tmp_path / "vouch.toml"
    path.write_text(text)
    return load({}, file=path, environ=ENVIRON | more)


# Config itself


def test_defaults_are_valid_and_derived_values_follow():
    config = Config(data_dir=Path("/data"), network_id="é")
    assert config.network_id_bytes == b"\xc3\xa9"
    assert config.key_path == Path("/data/node.key")
    assert config.control_socket == Path("/data/control.sock")
    assert config.kademlia_protocol == "/vouch/c3a9/kad/1.0.0"
    assert re.fullmatch(r"vouch/\d+\.\d+\.\d+", config.client_version)


def test_given_values_go_before_derived_ones():
    config = Config(data_dir=Path("/data"), key=Path("/keys/a"), kad_protocol="/ipfs/kad/1.0.0")
    assert config.key_path == Path("/keys/a")
    assert config.kademlia_protocol == "/ipfs/kad/1.0.0"


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().network_id = "other"


@pytest.mark.parametrize("name", [s.name for s in SETTINGS.values() if s.hint in (int, float)])
@pytest.mark.parametrize("value", [0, -1, True, "5", None, 2**31, float("nan"), float("inf")])
def test_numbers_have_a_range_and_a_type(name, value):
    with pytest.raises(UsageError, match=rf"^{name}: expected a .*number.*, got {re.escape(repr(value))}$"):
        Config(**{name: value})


def test_whole_numbers_have_no_fraction():
    with pytest.raises(UsageError, match=r"^max_streams: expected a whole number"):
        Config(max_streams=1.0)
    assert Config(dial_timeout=1).dial_timeout == 1


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ("bootstrap_retry_min", "bootstrap_retry_max"),
        ("refused_backoff_min", "refused_backoff_max"),
    ],
)
def test_pairs_are_ordered(low, high):
    assert getattr(Config(**{low: 7, high: 7}), low) == 7
    with pytest.raises(UsageError, match=f"^{low}: expected at most {high}, which is 7, got 8$"):
        Config(**{low: 8, high: 7})


@pytest.mark.parametrize(
    "refused",
    [
        {"network_id": ""},
        {"network_id": "n" * 65},
        {"network_id": "é" * 33},
        {"network_id": "\udcff"},
        {"network_id": b"bytes"},
        {"log_format": "xml"},
        {"log_level": "INFO"},
        {"admission": "maybe"},
        {"dht": ""},
        {"data_dir": "text"},
        {"data_dir": None},
        {"key": Path("a\0b")},
        {"client_version": "vouch"},
        {"client_version": "vouch/1.0"},
        {"client_version": "vouch/1.0.00"},
        {"client_version": "vouch/01.0.0"},
        {"client_version": "vouch/1.0.0\n"},
        {"client_version": "vouch/1.0.0rc1"},
        {"client_version": "a" * 33 + "/1.0.0"},
        {"client_version": "/1.0.0"},
        {"min_versions": {"vouch": "1"}},
        {"min_versions": {"vouch": "1.0.0-rc1"}},
        {"min_versions": {"": "1.0.0"}},
        {"min_versions": {"a b": "1.0.0"}},
        {"min_versions": {"vouch": 1}},
        {"min_versions": ["vouch=1.0.0"]},
        {"log_levels": {"gossip": "loud"}},
        {"log_levels": {"": "debug"}},
        {"log_levels": {"gossip": 1}},
        {"kad_protocol": "kad"},
        {"kad_protocol": "/kad 1"},
        {"kad_protocol": "/kad\n"},
        {"listen": "/ip4/0.0.0.0/tcp/0"},
        {"listen": ("",)},
        {"listen": ("/",)},
        {"listen": ("localhost:4001",)},
        {"listen": ("/ip4/0.0.0.0/tcp/70000",)},
        {"listen": ("/ip4/0.0.0.0/tcp/0\n",)},
        {"listen": ("/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0/tcp/0")},
        {"listen": (4001,)},
        {"bootstrap": ("/ip4/192.0.2.1/tcp/4001",)},
        {"bootstrap": ("/ip4/192.0.2.1/tcp/4001/p2p/",)},
        {"bootstrap": ("/ip4/192.0.2.1/tcp/4001/p2p/ada",)},
        {"bootstrap": (f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}/p2p-circuit",)},
    ],
    ids=repr,
)
def test_refused_values_name_the_field_in_one_line(refused):
    (name,) = refused
    with pytest.raises(UsageError, match=rf"^{name}: expected .+, got .+\Z") as refusal:
        Config(**refused)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "accepted",
    [
        {"network_id": "n" * 64},
        {"network_id": "é" * 32},
        {"client_version": "a.b_c-D9/10.0.123"},
        {"min_versions": {"vouch": "0.0.0", "go.vouch": "1.20.3"}},
        {"log_levels": {"gossip": "debug", "of-a-protocol": "error"}},
        {"listen": ()},
        {"listen": ("/dns4/example.org/tcp/443/wss", "/ip6/::1/udp/4001/quic-v1")},
        {"bootstrap": (f"/dns4/example.org/tcp/4001/p2p/{PEER}",)},
        {"bootstrap": (f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}/p2p-circuit/p2p/{PEER}",)},
    ],
    ids=repr,
)
def test_accepted_values(accepted):
    ((name, value),) = accepted.items()
    assert getattr(Config(**accepted), name) == value


# Defaults that depend on the environment


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"HOME": "/home/ada"}, "/home/ada/.local/share/vouch"),
        ({"HOME": "/home/ada", "XDG_DATA_HOME": "/xdg"}, "/xdg/vouch"),
        ({"HOME": "/home/ada", "XDG_DATA_HOME": "relative"}, "/home/ada/.local/share/vouch"),
        ({"HOME": "/home/ada", "XDG_DATA_HOME": ""}, "/home/ada/.local/share/vouch"),
    ],
)
def test_default_data_folder(environ, folder):
    assert default_data_dir(environ) == Path(folder)
    loaded = load({}, file=None, environ=environ)
    assert loaded.config.data_dir == Path(folder)
    assert loaded.sources["data_dir"] == "default"


def test_given_data_folder_needs_no_home(monkeypatch):
    def homeless(_):
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(UsageError, match="expected to know the home folder"):
        load({}, file=None, environ={})
    monkeypatch.undo()
    assert load({"data_dir": "/data"}, file=None, environ={}).config.data_dir == Path("/data")


@pytest.mark.parametrize(
    ("installed", "told"), [("1.2.3", "vouch/1.2.3"), ("1.2.0rc1", "vouch/1.2.0"), ("unknown", "vouch/0.0.0")]
)
def test_client_version_is_that_of_the_distribution(monkeypatch, installed, told):
    monkeypatch.setattr("node.config.node_version", lambda: installed)
    assert default_client_version() == told


# Layers


def test_each_layer_goes_before_the_one_under_it(tmp_path):
    file = tmp_path / "vouch.toml"
    file.write_text("max_streams = 2\nmax_inbound = 2\nmax_half_open = 20\n")
    environ = ENVIRON | {"VOUCH_MAX_STREAMS": "3", "VOUCH_MAX_INBOUND": "3"}
    loaded = load({"max_streams": "4"}, file=file, environ=environ)
    names = ["max_streams", "max_inbound", "max_half_open", "max_connections"]
    assert [getattr(loaded.config, name) for name in names] == [4, 3, 20, 256]
    assert [loaded.sources[name] for name in names] == [
        "flag --max-streams",
        "environment VOUCH_MAX_INBOUND",
        f"file {file}",
        "default",
    ]
    assert set(loaded.sources) == {field.name for field in dataclasses.fields(Config)}


def test_flag_that_was_not_given_leaves_the_layer_under_it(tmp_path):
    loaded = load({"max_streams": None}, file=None, environ=ENVIRON | {"VOUCH_MAX_STREAMS": "3"})
    assert loaded.config.max_streams == 3


def test_lists_are_replaced_as_a_whole(tmp_path):
    loaded = from_file(tmp_path, 'listen = ["/ip4/127.0.0.1/tcp/1"]', VOUCH_LISTEN="/ip4/127.0.0.1/tcp/2")
    assert loaded.config.listen == ("/ip4/127.0.0.1/tcp/2",)


def test_one_value_of_each_kind_from_each_layer(tmp_path):
    expected = {
        "max_streams": 5,
        "dial_timeout": 2.5,
        "network_id": "harbour",
        "log_format": "json",
        "data_dir": Path("/data"),
        "key": Path("/keys/a"),
        "listen": ("/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"),
        "min_versions": {"vouch": "0.1.0", "other": "2.0.0"},
    }
    text = """
        max_streams = 5
        dial-timeout = 2.5
        network_id = "harbour"
        log_format = "json"
        data_dir = "/data"
        key = "/keys/a"
        listen = ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"]
        min_versions = { vouch = "0.1.0", other = "2.0.0" }
    """
    texts = {
        "max_streams": "5",
        "dial_timeout": "2.5",
        "network_id": "harbour",
        "log_format": "json",
        "data_dir": "/data",
        "key": "/keys/a",
        "listen": ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"],
        "min_versions": ["vouch=0.1.0", "other=2.0.0"],
    }
    environ = ENVIRON | {
        f"VOUCH_{name.upper()}": text if isinstance(text, str) else ", ".join(text) for name, text in texts.items()
    }
    for loaded in (
        from_file(tmp_path, text),
        load({}, file=None, environ=environ),
        load(texts, file=None, environ=ENVIRON),
        load(expected, file=None, environ=ENVIRON),
    ):
        assert {name: getattr(loaded.config, name) for name in expected} == expected


def test_whole_number_in_the_file_serves_as_seconds(tmp_path):
    timeout = from_file(tmp_path, "dial_timeout = 3").config.dial_timeout
    assert timeout == 3.0
    assert isinstance(timeout, float)


def test_empty_variable_is_an_empty_list(tmp_path):
    text = f'bootstrap = ["/ip4/192.0.2.1/tcp/1/p2p/{PEER}"]'
    assert from_file(tmp_path, text, VOUCH_BOOTSTRAP="").config.bootstrap == ()
    assert from_file(tmp_path, text, VOUCH_MIN_VERSIONS="").config.min_versions == {}


def test_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    loaded = from_file(tmp_path, 'data_dir = "data"\nkey = "~/node.key"')
    assert loaded.config.data_dir == tmp_path / "data"
    assert loaded.config.key == Path("/home/ada/node.key")
    loaded = load({"data_dir": "data", "key": "~/node.key"}, file=None, environ=ENVIRON)
    assert loaded.config.data_dir == Path("data")
    assert loaded.config.key == Path("/home/ada/node.key")


def test_file_named_by_the_environment(tmp_path):
    file = tmp_path / "named.toml"
    file.write_text('network_id = "named"')
    other = tmp_path / "flag.toml"
    other.write_text('network_id = "flag"')
    environ = ENVIRON | {"VOUCH_CONFIG": str(file)}
    assert load({}, file=None, environ=environ).sources["network_id"] == f"file {file}"
    assert load({}, file=other, environ=environ).config.network_id == "flag"


def test_file_in_the_data_folder_is_not_read_by_itself(tmp_path):
    (tmp_path / "config.toml").write_text('network_id = "implicit"')
    assert load({"data_dir": str(tmp_path)}, file=None, environ=ENVIRON).config.network_id == "vouch-local"


# What is refused, and how


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_stream = 1", "unknown key 'max_stream'; did you mean max_streams?"),
        ("[network]", "unknown key 'network'"),
        ("max_streams = 1\nmax-streams = 1", "expected max_streams once"),
        ("max_streams = ", "expected TOML, got: "),
        ("max_streams = " + "1" * 5000, "expected TOML, got: "),
        ('max_streams = "1"', "max_streams: expected a whole number from 1 to 2147483647, got '1' (file "),
        ("max_streams = true", "got True (file "),
        (f"dial_timeout = {10**400}", "dial_timeout: expected a number above 0"),
        ("dial_timeout = inf", "got inf (file "),
        ("network_id = 1", "network_id: expected text"),
        ('network_id = ["a"]', "network_id: expected text"),
        ("data_dir = 1", "data_dir: expected a path, got 1 (file "),
        ('data_dir = ""', "data_dir: expected a path, got '' (file "),
        ('key = "a\\u0000b"', "key: expected a path"),
        ('listen = "/ip4/127.0.0.1/tcp/1"', "listen: expected a list"),
        ("listen = [1]", "listen: expected a list"),
        ('min_versions = "vouch=1.0.0"', "min_versions: expected a table"),
        ("min_versions = { vouch = 1 }", "min_versions: expected a table"),
        ('log_level = "loud"', "expected one of debug, info, warning, error, got 'loud' (file "),
        ("refused_backoff_min = 700", "got 700.0 (refused_backoff_min: file "),
    ],
    ids=lambda value: value[:30],
)
def test_refused_files(tmp_path, text, says):
    with pytest.raises(UsageError, match=re.escape(says)) as refusal:
        from_file(tmp_path, text)
    assert "vouch.toml" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match=r"none\.toml: .*No such file"):
        load({}, file=tmp_path / "none.toml", environ=ENVIRON)
    (tmp_path / "latin.toml").write_bytes(b'network_id = "\xe9"')
    with pytest.raises(UsageError, match=r"latin\.toml: expected TOML"):
        load({}, file=tmp_path / "latin.toml", environ=ENVIRON)


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("VOUCH_MAX_STREAMS", "many", "got 'many' (environment VOUCH_MAX_STREAMS)"),
        ("VOUCH_MAX_STREAMS", "", "got '' (environment VOUCH_MAX_STREAMS)"),
        ("VOUCH_MAX_STREAMS", "1.5", "got '1.5' (environment VOUCH_MAX_STREAMS)"),
        ("VOUCH_MAX_STREAMS", "1" * 5000, "expected a whole number"),
        ("VOUCH_DIAL_TIMEOUT", "nan", "got nan (environment VOUCH_DIAL_TIMEOUT)"),
        ("VOUCH_DATA_DIR", "", "data_dir: expected a path, got ''"),
        ("VOUCH_NETWORK_ID", "\udcff", "network_id: expected text in UTF-8"),
        ("VOUCH_MIN_VERSIONS", "vouch", "expected NAME=N.N.N, got 'vouch='"),
        ("VOUCH_LOG_LEVELS", "gossip=loud", "expected PART=LEVEL with one of the levels debug, info, warning, error"),
        ("VOUCH_MIN_VERSIONS", "vouch=1.0.0,vouch=2.0.0", "each name once"),
        ("VOUCH_CONFIG", "/none/vouch.toml", "config file /none/vouch.toml"),
    ],
)
def test_refused_variables(variable, text, says):
    with pytest.raises(UsageError, match=re.escape(says)):
        load({}, file=None, environ=ENVIRON | {variable: text})


def test_other_programs_variables_are_left_alone():
    loaded = load({}, file=None, environ=ENVIRON | {"VOUCHER": "1", "vouch_max_streams": "x"})
    assert set(loaded.sources.values()) == {"default"}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"max_streams": "many"}, "got 'many' (flag --max-streams)"),
        ({"max_stream": "1"}, "unknown setting 'max_stream'; did you mean max_streams?"),
        (
            {"bootstrap_retry_min": "100"},
            "(bootstrap_retry_min: flag --bootstrap-retry-min, bootstrap_retry_max: default)",
        ),
    ],
)
def test_refused_flags(flags, says):
    with pytest.raises(UsageError, match=re.escape(says)):
        load(flags, file=None, environ=ENVIRON)


@given(name=st.sampled_from(list(SETTINGS)), text=st.text(max_size=40))
def test_any_text_is_a_config_or_a_usage_error(name, text):
    for flags, environ in (({name: text}, {}), ({}, {SETTINGS[name].variable: text})):
        try:
            loaded = load(flags, file=None, environ=ENVIRON | environ)
        except UsageError as error:
            told = str(error)
        else:
            assert loaded.sources[name] in (f"flag {SETTINGS[name].flag}", f"environment {SETTINGS[name].variable}")
            continue
        assert name in told or "home folder" in told
        assert "\n" not in told


@given(
    address=st.from_regex(
        r"(/(ip4|ip6|dns4|tcp|p2p|unix|quic-v1|onion3|certhash|ip6zone|[a-z0-9]{1,8})){1,4}/?", fullmatch=True
    )
)
def test_any_address_is_a_config_or_a_usage_error(address):
    try:
        told = Config(listen=(address,)).listen[0]
    except UsageError as error:
        told = str(error)
    assert told == address or told.startswith("listen: expected a multiaddr")


# The table


def test_every_setting_has_help_and_one_name_in_every_layer():
    for name, setting in SETTINGS.items():
        assert setting.help
        assert setting.shown or name == "kad_protocol"
        assert setting.flag == f"--{name.replace('_', '-')}"
        assert setting.variable == f"VOUCH_{name.upper()}"


def test_unknown_variables_are_warned_about_and_ignored():
    """A Kubernetes service named "vouch" sets VOUCH_PORT and its like for every container."""
    loaded = load({}, file=None, environ={**ENVIRON, "VOUCH_NETWROK_ID": "a", "VOUCH_PORT": "tcp://10.0.0.1:80"})
    assert loaded.config.network_id == "vouch-local"
    assert loaded.warnings[0] == "environment: unknown variable VOUCH_NETWROK_ID; did you mean VOUCH_NETWORK_ID?"
    assert "VOUCH_PORT" in loaded.warnings[1]


def test_a_window_is_not_smaller_than_a_stream_begins_with():
    with pytest.raises(
        UsageError, match=r"^max_stream_window: expected at least 262144, the window that a stream begins"
    ):
        Config(max_stream_window=1000)
    with pytest.raises(UsageError, match="expected at most max_connection_window"):
        Config(max_stream_window=1 << 20, max_connection_window=1 << 19)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"heartbeat_interval": 0.4}, "heartbeat_interval: expected 0.5 to 300 seconds, got 0.4"),
        ({"heartbeat_interval": 301.0}, "heartbeat_interval: expected 0.5 to 300 seconds, got 301"),
        ({"heartbeat_window": 1001}, "heartbeat_window: expected at most 1000 beats, got 1001"),
        ({"heartbeat_flaky": 11}, "heartbeat_flaky: expected at most heartbeat_window, which is 10, got 11"),
        ({"heartbeat_steady": 3}, "heartbeat_steady: expected less than heartbeat_flaky, which is 3, got 3"),
    ],
)
def test_the_heartbeats_settings_fit_each_other(wrong, text):
    with pytest.raises(UsageError, match=f"^{text}$"):
        Config(**wrong)


def test_what_the_settings_allow_the_heartbeat_takes():
    assert (engine.MIN_INTERVAL, engine.MAX_INTERVAL) == _BEAT_INTERVALS
    assert engine.MAX_WINDOW == _MAX_BEAT_WINDOW
    config, params = Config(), engine.Params()
    assert (config.heartbeat_interval, config.heartbeat_window) == (params.interval, params.window)
    assert (config.heartbeat_flaky, config.heartbeat_steady) == (params.flaky_at, params.steady_at)
