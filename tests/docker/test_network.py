"""The network of docker-compose.yml on a real engine: it comes up, and is one again after a crash and a partition."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests import required

NORTH = ("bootstrap", "node1", "go")
SOUTH = ("node2", "node3", "rust", "js")
AGAIN = 30.0  # seconds, for whatever has happened


@pytest.mark.docker
def test_everybody_knows_everybody_and_gossip_reaches_all(network):
    """Twice: nothing of the first makes the second fail, such as what is thought of who published what was rejected."""
    network.check()
    said = network.check()
    assert "7 members, each knows the other 6 (connected)" in said
    assert [line.partition(":")[0] for line in said.splitlines() if ":" in line] == ["known", "gossip", "rejected"]


@pytest.mark.docker
def test_a_peer_is_healthy_by_its_control_and_a_node_by_its_control_socket(network):
    states = network.states()
    for service, words in (("node1", ["CMD", "vouch", "health"]), ("go", ["CMD", "bash", "-c"])):
        test = states[service]["Config"]["Healthcheck"]["Test"]
        assert test[: len(words)] == words


@pytest.fixture
def redis():
    required.program("redis-server", why="the local Redis is this machine's (apt-get install redis-server)")


@pytest.mark.docker
def test_the_transport_program_of_the_fields_suites_meets_itself(network, redis):
    listener = network.compose("--profile", "contract", "run", "--detach", "transport").split()[-1]
    try:
        said = network.compose("--profile", "contract", "run", "--rm", "-e", "IS_DIALER=true", "transport", timeout=150)
    finally:
        network.run("docker", "rm", "--force", listener)
    assert "handshake_plus_one_rtt:" in said


@pytest.mark.docker
def test_nobody_is_root(network):
    for service in ("bootstrap", "go", "js"):
        container = network.state(service)["Id"]
        assert network.run("docker", "exec", container, "id", "-u").strip() == "10001"


@pytest.mark.docker
def test_the_check_fails_if_a_member_is_missing(network):
    with pytest.raises(AssertionError, match="stranger doesn't answer"):
        network.check("--nodes=node1,stranger", "--only=known", "--within=3")


@pytest.mark.docker
def test_a_node_that_was_killed_returns_and_is_known_again(network):
    before = network.state("node2")
    killed = time.monotonic()
    os.kill(before["State"]["Pid"], signal.SIGKILL)
    said = network.check("--only=known", f"--within={AGAIN}")
    took = time.monotonic() - killed
    assert network.state("node2")["RestartCount"] == before["RestartCount"] + 1
    assert took < AGAIN, f"known again after {took:.1f} s: {said}"


@pytest.mark.docker
@pytest.mark.bar_quick
def test_a_short_partition_heals(network):
    heals(network, 15)


@pytest.mark.bar
def test_a_partition_of_a_minute_heals(network):
    heals(network, 60)


def heals(network, seconds: float) -> None:
    """Two halves apart for so long: gossip doesn't pass, and once they may meet it reaches all again."""
    running = network.states()
    north, south = ([name for name in half if name in running] for half in (NORTH, SOUTH))
    with network.partition(north, south):
        parted = time.monotonic()
        with pytest.raises(AssertionError, match="had none that the rest had"):
            network.check("--only=gossip", "--within=5")
        time.sleep(max(0.0, seconds - (time.monotonic() - parted)))
    healed = time.monotonic()
    said = network.check("--only=gossip", "--only=known", f"--within={AGAIN}")
    took = time.monotonic() - healed
    print(f"healed {took:.1f} s after a partition of {seconds:g} s")
    assert took < AGAIN, f"{took:.1f} s after healing: {said}"
