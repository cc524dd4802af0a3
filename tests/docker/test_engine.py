"""The engine of our own leaves nothing behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from interop.engine import Engine, EngineError, why_not

pytestmark = pytest.mark.docker


@pytest.fixture
def another(tmp_path, engine):
    """An engine beside that of the other tests, which has installed what is needed."""
    one = Engine(tmp_path / "engine")
    yield one
    one.down()


def processes(engine: Engine) -> list[str]:
    """Command lines that name something of that engine's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(engine.dir) in command or str(engine.exec_root) in command:
            found.append(command)
    return found


def gone(engine: Engine) -> bool:
    assert processes(engine) == []
    assert not engine.exec_root.exists()
    assert str(engine.dir) not in Path("/proc/self/mounts").read_text()
    return not engine.dir.exists()


def test_down_removes_all_of_it_with_what_runs_in_it(another, engine):
    another.up()
    assert another.pid() is not None
    another.up()  # nothing more happens
    run = ["docker", "run", "--detach", "--volume", "/usr:/usr:ro", another.environ["LOCAL_IMAGE"], "sleep", "300"]
    subprocess.run(run, env={"PATH": "/usr/bin:/bin", **another.environ}, check=True, capture_output=True, timeout=60)
    assert any("containerd-shim" in command for command in processes(another))
    another.down()
    assert gone(another)
    another.down()
    assert engine.pid() is not None, "the other one stays"


def test_an_engine_that_cannot_start_leaves_nothing(another, monkeypatch):
    monkeypatch.setenv("ENGINE_DRIVER", "nonsense")
    with pytest.raises(EngineError, match="expected dockerd to answer"):
        another.up()
    assert gone(another)


def test_what_the_pid_file_names_is_ours_or_nobody(another):
    another.dir.mkdir()
    another.pid_file.write_text("1")
    assert another.pid() is None


def test_it_says_why_not(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert why_not() == "a Docker engine of our own needs root"


def test_a_docker_that_does_not_answer_is_an_error(tmp_path, monkeypatch):
    hangs = tmp_path / "docker"
    hangs.write_text("#!/bin/sh\nexec sleep 60\n")
    hangs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("interop.engine.DOCKER_TIMEOUT", 0.2)
    with pytest.raises(EngineError, match=r"got: no answer within 0\.2 s"):
        Engine(tmp_path / "engine").base("vouch-local:1")
