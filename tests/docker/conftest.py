"""A Docker engine of our own for these tests, and the network of docker-compose.yml on it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from interop.build import RECIPES, BuildError
from interop.engine import ROOT, Engine, EngineError, why_not
from tests import required

PEERS = ("go", "rust", "js")
NODES = ("bootstrap", "node1", "node2", "node3")
UP_TIMEOUT = 180
CHECK_TIMEOUT = 120


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """An engine that is up."""
    reason = why_not()
    if reason is not None:
        required.missing(reason)
    # the same at every run: what a run that was killed has left is removed by the next
    engine = Engine(Path(tempfile.gettempdir()) / f"vouch-engine-{ROOT.as_posix().strip('/').replace('/', '-')}")
    engine.down()
    try:
        engine.up()
    except EngineError as error:
        required.missing(str(error))
    try:
        yield engine
    finally:
        engine.down()


class Network:
    """The services of docker-compose.yml, from outside."""

    def __init__(self, engine: Engine) -> None:
        self._environ = {**os.environ, **engine.environ}

    def run(self, *command: str, timeout: float = 60, check: bool = True) -> str:
        """What a command printed, its complaints included."""
        done = subprocess.run(
            command,
            env=self._environ,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}")
        return done.stdout

    def compose(self, *args: str, timeout: float = 60, check: bool = True) -> str:
        return self.run("docker-compose", *args, timeout=timeout, check=check)

    def check(self, *flags: str) -> str:
        """`check` exits 0; what it said."""
        return self.compose("run", "--rm", "--no-deps", "check", *flags, timeout=CHECK_TIMEOUT)

    def states(self) -> dict[str, dict]:
        """What the engine knows about the services' containers. Asked of docker: compose takes a second to load."""
        ids = self.run("docker", "ps", "--all", "--quiet", "--filter", "label=com.docker.compose.oneoff=False").split()
        found = json.loads(self.run("docker", "inspect", *ids))
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def state(self, service: str) -> dict:
        return self.states()[service]

    @contextmanager
    def partition(self, one: Sequence[str], other: Sequence[str]) -> Iterator[None]:
        """Nothing passes between those services: each drops what comes from the others' addresses."""
        states = self.states()
        ruled: list[str] = []
        try:
            for mine, theirs in ((one, other), (other, one)):
                sources = ",".join(_addr(states[service]) for service in theirs)
                for service in mine:
                    enter = f"--net=/proc/{states[service]['State']['Pid']}/ns/net"
                    self.run("nsenter", enter, "iptables", "-A", "INPUT", "-s", sources, "-j", "DROP")
                    ruled.append(enter)
            yield
        finally:
            for enter in ruled:
                self.run("nsenter", enter, "iptables", "-F", "INPUT")


def _addr(state: dict) -> str:
    (network,) = state["NetworkSettings"]["Networks"].values()
    return network["IPAddress"]


@pytest.fixture(scope="session")
def network(engine: Engine) -> Iterator[Network]:
    """All services are up and healthy."""
    for name in PEERS:
        recipe = RECIPES[name]
        try:
            if not recipe.binary.is_file():
                recipe.build()
        except BuildError as error:
            required.missing(str(error))
    network = Network(engine)
    try:
        network.compose("up", "--detach", *NODES, *PEERS, timeout=UP_TIMEOUT)
        deadline = time.monotonic() + UP_TIMEOUT
        waiting = set(NODES) | set(PEERS)
        while waiting:
            states = network.states()
            waiting = {name for name in waiting if states[name]["State"]["Health"]["Status"] != "healthy"}
            if waiting and time.monotonic() > deadline:
                pytest.fail(f"not healthy: {waiting}\n{network.compose('logs', '--tail=20')}")
        yield network
    finally:
        network.compose("down", "--volumes", "--remove-orphans", "--timeout=1", timeout=UP_TIMEOUT, check=False)
