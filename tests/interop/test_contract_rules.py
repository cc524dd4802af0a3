"""What the programs for libp2p's suites decide without a peer: their variables, statistics, requests and scripts."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interop.contract.__main__ import main
from interop.contract.failing import UNSUPPORTED, UnsupportedError
from interop.contract.perf import Amounts, wanted_by
from interop.contract.script import (
    Connect,
    Publish,
    Script,
    Subscribe,
    ValidationDelay,
    WaitUntil,
    gossip_params,
    identity_of,
    message_id,
    shown_id,
)
from interop.contract.stats import Summary
from interop.contract.transport import results
from interop.contract.variables import Variables
from protocols.gossip.rpc import PubsubMessage

# as the harness of unified-testing writes them (generate_modern_env_vars in lib/lib-test-execution.sh)
LISTENER = {
    "IS_DIALER": "false",
    "REDIS_ADDR": "transport-redis:6379",
    "TEST_KEY": "a5b50d5e",
    "TRANSPORT": "tcp",
    "LISTENER_IP": "0.0.0.0",
    "DEBUG": "false",
    "SECURE_CHANNEL": "noise",
    "MUXER": "yamux",
}


# variables


def test_variables_of_unified_testing():
    variables = Variables.read(LISTENER)
    assert (variables.redis_host, variables.redis_port) == ("transport-redis", 6379)
    assert variables.redis_key == "a5b50d5e_listener_multiaddr"
    assert variables.listen == "/ip4/0.0.0.0/tcp/0"
    assert (variables.security, variables.timeout) == ("noise", 180)
    assert not variables.is_dialer
    assert not variables.legacy


def test_variables_of_test_plans():
    variables = Variables.read({"transport": "tcp", "muxer": "yamux", "security": "noise", "is_dialer": "true"})
    assert (variables.redis_host, variables.redis_port, variables.redis_key) == ("redis", 6379, "listenerAddr")
    assert variables.legacy
    assert variables.is_dialer


@pytest.mark.parametrize(
    ("transport", "listen"),
    [
        ("ws", "/ip4/0.0.0.0/tcp/0/ws"),
        ("wss", "/ip4/0.0.0.0/tcp/0/tls/ws"),
        ("quic-v1", "/ip4/0.0.0.0/udp/0/quic-v1"),
    ],
)
def test_transports_are_multiaddrs(transport, listen):
    assert Variables.read({**LISTENER, "TRANSPORT": transport}).listen == listen


def test_a_transport_with_its_own_security_asks_for_none():
    quic = {**LISTENER, "TRANSPORT": "quic-v1"}
    del quic["SECURE_CHANNEL"], quic["MUXER"]
    assert Variables.read(quic).security == ""
    assert Variables.read({**quic, "SECURE_CHANNEL": "null", "MUXER": "null"}).security == ""


@pytest.mark.parametrize("suite", ["transport", "perf"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRANSPORT", "webtransport"),
        ("MUXER", "mplex"),
        ("SECURE_CHANNEL", "plaintext"),
        ("IS_DIALER", "perhaps"),
        ("TEST_KEY", ""),
        ("REDIS_ADDR", "redis"),
        ("LISTENER_IP", "everywhere"),
        ("TEST_TIMEOUT_SECS", "0"),
    ],
)
def test_what_isnt_offered_is_told_and_fails(suite, name, value, told):
    assert told([suite], {**LISTENER, name: value}).startswith(f"error: {name}: expected ")


@pytest.mark.parametrize(("name", "value"), [("ROLE", "spectator"), ("TEST_KEY", ""), ("REDIS_ADDR", "")])
def test_kad_checks_its_variables(name, value, told):
    variables = {"ROLE": "bootstrap", "REDIS_ADDR": "127.0.0.1:1", "TEST_KEY": "0badcafe", name: value}
    assert told(["kad"], variables).startswith(f"error: {name}: expected ")


@pytest.fixture
def told(monkeypatch, capsys):
    """Runs a program that says on standard error why it can't be run; what it said."""
    monkeypatch.setattr("node.log.configure", lambda **_: None)

    def run(argv: list[str], environ: dict[str, str]) -> str:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        assert main(argv) == UNSUPPORTED
        out, err = capsys.readouterr()
        assert out == ""
        return err

    return run


# results


def test_results_of_transport():
    text = results(0.0050114, 0.000599, legacy=False)
    assert text.splitlines()[1:] == ["latency:", "  handshake_plus_one_rtt: 5.011", "  ping_rtt: 0.599", "  unit: ms"]
    assert json.loads(results(0.0050114, 0.000599, legacy=True)) == {
        "handshakePlusOneRTTMillis": 5.011,
        "pingRTTMilllis": 0.599,
    }


def test_amounts_have_the_suites_defaults():
    assert Amounts.read({"UPLOAD_ITERATIONS": "null"}) == Amounts(1 << 30, 1 << 30, 10, 10, 100)
    with pytest.raises(UnsupportedError, match="UPLOAD_BYTES"):
        Amounts.read({"UPLOAD_BYTES": "much"})


def test_statistics_by_the_suites_rules():
    summary = Summary.of([5.0, 1.0, 2.0, 3.0, 4.0, 100.0])
    assert (summary.q1, summary.median, summary.q3) == (2.25, 3.5, 4.75)
    assert summary.outliers == (100.0,)
    assert (summary.minimum, summary.maximum) == (1.0, 5.0)
    assert summary.text("upload", "Gbps", 2).splitlines() == [
        "upload:",
        "  iterations: 6",
        "  min: 1.00",
        "  q1: 2.25",
        "  median: 3.50",
        "  q3: 4.75",
        "  max: 5.00",
        "  outliers: [100.00]",
        "  samples: [1.00, 2.00, 3.00, 4.00, 5.00, 100.00]",
        "  unit: Gbps",
    ]


@given(st.lists(st.floats(0, 1e6)))
def test_statistics_of_any_samples(samples):
    summary = Summary.of(samples)
    assert sorted(samples) == list(summary.samples)
    usual = [sample for sample in samples if sample not in summary.outliers]
    assert (summary.minimum, summary.maximum) == ((min(usual), max(usual)) if samples else (0.0, 0.0))


# both forms of a perf request


@given(st.integers(0, 1 << 34), st.integers(0, 1 << 34))
def test_a_request_of_two_counts(upload, download):
    head = upload.to_bytes(8, "big") + download.to_bytes(8, "big")
    assert wanted_by(head, 16 + upload) == download


# where the first count of the other form would fit, the two can't be told apart; the suite measures one way at a time
@given(st.integers(0, 1 << 34).filter(lambda count: count != 8))
def test_a_request_by_the_specification(amount):
    assert wanted_by(bytes(8) + bytes(min(amount, 8)), 8 + amount) == 0
    assert wanted_by(amount.to_bytes(8, "big"), 8) == amount
    assert wanted_by((1).to_bytes(8, "big") + b"\x00", 9) == 1


@given(st.binary(max_size=7))
def test_no_request(head):
    assert wanted_by(head, len(head)) is None


def test_what_the_dialer_asks_first_is_answered_differently_by_the_two():
    probe = (1).to_bytes(8, "big") + bytes(8)
    assert wanted_by(probe, len(probe)) == 1  # and a server of the other form reads: nothing is wanted


# gossipsub's scripts


def script(*instructions: dict[str, object], node: int = 3) -> Script:
    init = {"type": "initGossipSub", "gossipSubParams": {"D": 4, "Dlo": 3, "HeartbeatInitialDelay": 1e8}}
    return Script.read(json.dumps({"script": [init, *instructions]}), node)


def test_a_script_is_what_it_means_for_one_node():
    def only(node: int, topic: str) -> dict[str, object]:
        return {"type": "ifNodeIDEquals", "nodeID": node, "instruction": {"type": "subscribeToTopic", "topicID": topic}}

    read = script(
        {"type": "connect", "connectTo": [1, 2]},
        only(3, "ours"),
        only(4, "theirs"),
        {"type": "setTopicValidationDelay", "topicID": "ours", "delaySeconds": 0.005},
        {"type": "waitUntil", "elapsedSeconds": 30},
        {"type": "publish", "topicID": "other", "messageID": 258, "messageSizeBytes": 10},
    )
    assert read.steps == (
        Connect((1, 2)),
        Subscribe("ours"),
        ValidationDelay("ours", 0.005),
        WaitUntil(30),
        Publish("other", 258, 10),
    )
    assert read.topics == ["ours", "other"]
    assert (read.params.d, read.params.d_lo, read.params.heartbeat_initial_delay) == (4, 3, 0.1)


@pytest.mark.parametrize(
    ("instruction", "what"),
    [
        ({"type": "addPartialMessage", "topicID": "a", "groupID": 1, "parts": 255}, "partial messages"),
        ({"type": "publishPartial", "topicID": "a", "groupID": 1}, "partial messages"),
        ({"type": "subscribeToTopic", "topicID": "a", "partial": True}, "partial messages"),
        ({"type": "publish", "topicID": "a", "messageID": 1, "messageSizeBytes": 7}, "at least 8"),
        ({"type": "connect"}, "instruction 1.*connectTo"),
        ({"type": "dance"}, "expected a type"),
    ],
)
def test_what_a_script_cant_ask_for(instruction, what):
    with pytest.raises(UnsupportedError, match=what):
        script(instruction)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"script": {}}', '{"script": []}', '{"script": [1]}'])
def test_what_is_no_script(text):
    with pytest.raises(UnsupportedError):
        Script.read(text, 0)


def test_gossipsub_tells_what_it_cant_do(tmp_path, told):
    params = tmp_path / "params.json"
    params.write_text('{"script": [{"type": "addPartialMessage"}]}')
    assert "partial messages" in told(["gossipsub", "--params", str(params), "--node-id", "0"], {})


def test_parameters_are_go_libp2p_pubsubs():
    some = {
        "Dhi": 13,
        "FanoutTTL": 6e10,
        "GossipFactor": 0.5,
        "IDontWantMessageTTL": 4,
        "SlowHeartbeatWarning": 0.2,
    }
    params = gossip_params(some)
    assert (params.d_hi, params.fanout_ttl, params.gossip_factor, params.idontwant_message_ttl) == (13, 60, 0.5, 4)
    with pytest.raises(UnsupportedError, match="Dmax"):
        gossip_params({"Dmax": 1})


def test_the_nodes_keys_are_the_suites():
    """All peer IDs of 10,000 nodes, as its Go and JVM programs are tested by (main_test.go)."""
    lines = "".join(f">{node}:{identity_of(node).peer_id}\n" for node in range(10_000))
    digest = hashlib.sha256(lines.encode()).hexdigest()
    assert digest == "11395ea896d00ca25f7f648ebb336488ee092096a5498d90d76b92eaec27867a"


def test_a_messages_id_is_its_first_eight_bytes():
    message = PubsubMessage("a", Publish("a", 258, 100).payload)
    assert len(message.data) == 100
    assert shown_id(message_id(message)) == "258"
    with pytest.raises(ValueError, match="at least 8"):
        message_id(PubsubMessage("a", b"short"))
