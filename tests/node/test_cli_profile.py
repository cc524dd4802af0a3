"""`vouch run --profile FILE`: what is in the file, and when it is written."""

from __future__ import annotations

import os
import pstats
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from node.cli.profiled import profiled
from node.errors import UsageError, VouchError

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0


def work(divisor=1):
    return sum(range(1000)) / divisor


def functions(file):
    """The names in a profile."""
    return {name for _, _, name in pstats.Stats(str(file)).stats}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_is_profiled_until_its_signal(tmp_path, number):
    file = tmp_path / "run.prof"
    flags = ["--listen", "/ip4/127.0.0.1/tcp/0", "--data-dir", str(tmp_path / "data"), "--profile", str(file)]
    with subprocess.Popen(
        [sys.executable, "-m", "node", "run", *flags],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("VOUCH_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout:
            if " started " in line:
                break
        process.send_signal(number)
        _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert errors == f"vouch: wrote the profile; read it with: python -m pstats {file} (sort tottime, stats 20)\n"
    assert {"_serve", "listen_on", "_listen"} <= functions(file)  # of serve.py, swarm.py and node.py


def test_the_file_is_what_the_standard_librarys_reader_reads(tmp_path):
    file = tmp_path / "run.prof"
    with profiled(file):
        work()
    shown = subprocess.run(
        [sys.executable, "-m", "pstats", str(file)],
        input="sort tottime\nstats 20\n",
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    ).stdout
    assert "(work)" in shown


def test_a_run_that_fails_is_written_too(tmp_path):
    file = tmp_path / "run.prof"
    with pytest.raises(ZeroDivisionError), profiled(file):
        work(divisor=0)
    assert "work" in functions(file)


@pytest.mark.parametrize(
    ("name", "text"),
    [("", "Is a directory"), ("nowhere/run.prof", "No such file or directory")],
    ids=["folder", "none"],
)
def test_a_file_that_cannot_be_written_is_told_before_the_run(tmp_path, name, text):
    ran = []
    file = tmp_path / name
    with (
        pytest.raises(UsageError, match=f"^profile {file}: expected a file that can be written, got: {text}$"),
        profiled(file),
    ):
        ran.append(True)
    assert not ran


def test_a_full_disk_is_told_in_the_end():
    with pytest.raises(VouchError, match=r"^profile /dev/full: No space left on device$"), profiled(Path("/dev/full")):
        work()
