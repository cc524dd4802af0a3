"""The bars of gossip's rules at full size: how long a whole network takes to simulate, and in how much memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def simulated(nodes: int, messages: int) -> dict[str, float]:
    command = [sys.executable, "-m", "interop.lab.gossip_sim", "--seed", "1", "--json"]
    command += ["--nodes", str(nodes), "--messages", str(messages)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    print(f"\n{figures}")
    return figures


@pytest.mark.bar
@pytest.mark.parametrize(("nodes", "messages", "seconds", "gigabytes"), [(1000, 100, 30, 4), (10_000, 100, 360, 4)])
def test_a_network_is_simulated_in_time_and_everything_arrives(nodes, messages, seconds, gigabytes):
    figures = simulated(nodes, messages)
    assert figures["coverage"] == 1
    assert figures["cpu_seconds"] < seconds
    assert figures["memory_mb"] < gigabytes * 1000
