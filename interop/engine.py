"""A Docker engine for a machine that has none running, nor base images: `python -m interop.engine COMMAND`.

    up              installs what is missing (Debian's packages; needs root), starts an engine, makes its base image
    env             prints what points docker and compose at it:  eval "$(python -m interop.engine env)"
    base [NAME:TAG] makes the base image again, under that name (default LOCAL_IMAGE)
    down            ends its containers and itself, and removes all that it kept

The engine has a network and a mount namespace of its own. They have no names: they are gone with its last process, and
with them its bridges, its firewall and its mounts. So nothing that runs in it reaches this machine's network, or is
reached from there but by `docker exec`. Its data are in ENGINE_DIR (default vouch-engine in the temporary folder),
fresh at every start: an old data root would bring back networks of a namespace that is gone. An engine for each
ENGINE_DIR.

The base image holds links, users and empty folders only: docker/compose.local.yml gives its containers this machine's
/usr, this checkout, and what `make setup` and `make peers` have built in it. `env` sets what that file asks for, and
COMPOSE_FILE, so that plain `docker-compose up` then starts the network without building or pulling anything.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCAL_IMAGE = "vouch-local:1"
# as in the Dockerfiles
USER, UID = "vouch", 10001
STATE = "var/lib/vouch"
CACHE = "var/cache/python"

TOOLS = {"dockerd": "docker.io", "docker": "docker.io", "iptables": "iptables", "docker-compose": "docker-compose"}
INSTALL_TIMEOUT = 300
START_TIMEOUT = 30.0
STOP_TIMEOUT = 20.0
DOCKER_TIMEOUT = 60.0
POLL = 0.1
LINKS = ("bin", "lib", "lib64")
# /sbin is a folder: docker puts its init there
FOLDERS = ("usr", "sbin", "etc", "proc", "sys", "dev", "run", "root", "opt", "var", "var/lib", "var/cache")
COPIED = ("nsswitch.conf", "ld.so.conf", "ld.so.conf.d", "ld.so.cache", "ssl/certs/ca-certificates.crt")


class EngineError(Exception):
    """The engine couldn't be had; the text says what was expected, and what came."""


def folder() -> Path:
    """Where the engine keeps its data."""
    return Path(os.environ.get("ENGINE_DIR") or Path(tempfile.gettempdir()) / "vouch-engine").absolute()


def why_not() -> str | None:
    """Why there can be no engine of our own here; None if it is worth a try."""
    if sys.platform != "linux":
        return f"a Docker engine of our own needs Linux, this is {sys.platform}"
    if os.geteuid() != 0:
        return "a Docker engine of our own needs root"
    missing = _missing()
    if missing and shutil.which("apt-get") is None:
        return f"expected {', '.join(missing)} to be installed, or apt-get to install them with"
    made = subprocess.run(
        ["unshare", "--net", "--mount", "ip", "link", "add", "t0", "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no network namespaces here: {made.stderr.strip()}" if made.returncode else None


class Engine:
    """The engine of one folder."""

    def __init__(self, at: Path | None = None) -> None:
        self.dir = at or folder()
        self.pid_file = self.dir / "pid"
        self.log = self.dir / "log"
        # the address of a socket has 107 bytes at most, and containerd's are further down
        short = hashlib.sha256(str(self.dir).encode()).hexdigest()[:12]
        self.exec_root = Path("/run") / f"vouch-engine-{short}"
        self.socket = self.exec_root / "docker.sock"
        self._process: subprocess.Popen[bytes] | None = None  # if this object has started it

    @property
    def environ(self) -> dict[str, str]:
        """What docker and compose need to be told, and docker/compose.local.yml."""
        prefix = Path(sys.base_prefix)
        mounted = Path("/opt/python") if prefix.is_relative_to("/usr") else prefix
        return {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.dir / "config"),
            "COMPOSE_FILE": f"{ROOT}/docker-compose.yml:{ROOT}/docker/compose.local.yml",
            "COMPOSE_PROJECT_NAME": "vouch",
            "LOCAL_IMAGE": LOCAL_IMAGE,
            "LOCAL_ROOT": str(ROOT),
            "LOCAL_PYTHON": str(prefix),
            "LOCAL_PYTHON_AT": str(mounted),
        }

    def pid(self) -> int | None:
        """The engine's process, if it runs: what the file names may be somebody else's by now."""
        try:
            pid = int(self.pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self.pid_file).encode() in command.split(b"\0") else None

    def up(self) -> None:
        """Starts it, if it isn't up. Raises EngineError; then nothing is left of it."""
        if self.pid() is not None:
            return
        reason = why_not()
        if reason is not None:
            raise EngineError(reason)
        install()
        self.down()
        (self.dir / "config").mkdir(parents=True)
        self.exec_root.mkdir(mode=0o700)
        try:
            self._start()
            self.base(LOCAL_IMAGE)
        except BaseException:
            self.down()
            raise

    def _start(self) -> None:
        dockerd = [
            *("dockerd", "--host", f"unix://{self.socket}", "--pidfile", str(self.pid_file)),
            *("--data-root", str(self.dir / "data"), "--exec-root", str(self.exec_root)),
            *("--storage-driver", os.environ.get("ENGINE_DRIVER", "overlay2")),
            # a negative score, its default, may be refused
            "--oom-score-adjust=0",
        ]
        with self.log.open("wb") as log:
            self._process = process = subprocess.Popen(
                ["unshare", "--net", "--mount", "sh", "-c", f"ip link set lo up && exec {shlex.join(dockerd)}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                tail = self.log.read_text(errors="replace").splitlines()[-5:]
                raise EngineError("expected dockerd to answer, got:\n" + "\n".join(tail))
            time.sleep(POLL)

    def _answers(self) -> bool:
        return self.socket.exists() and self._docker("version").returncode == 0

    def base(self, name: str) -> None:
        """Makes the base image."""
        with tempfile.TemporaryFile() as file:
            _skeleton(file)
            file.seek(0)
            done = self._docker("import", "--change", f"USER {UID}:{UID}", "-", name, stdin=file)
        if done.returncode:
            raise EngineError(f"expected docker to import a base image, got: {done.stderr.strip()}")

    def down(self) -> None:
        """Ends what runs in it and itself, and removes its data. It may be called at any time, and more than once."""
        pid = self.pid()
        if pid is not None:
            listed = self._docker("ps", "--all", "--quiet")
            if containers := listed.stdout.split():
                self._docker("rm", "--force", "--volumes", *containers)
            mine = _family(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            if not _wait_for_end([pid], STOP_TIMEOUT):
                mine |= _family(pid)
            # shims and containers that it has left behind
            left = [one for one in mine if Path(f"/proc/{one.pid}").exists() and _process(one.pid) == one]
            for one in left:
                _kill(one.pid)
            _wait_for_end([one.pid for one in left], STOP_TIMEOUT)
        if self._process is not None:
            self._process.wait()
            self._process = None
        shutil.rmtree(self.exec_root, ignore_errors=True)
        shutil.rmtree(self.dir, ignore_errors=True)

    def _docker(self, *args: str, stdin: io.BufferedRandom | None = None) -> subprocess.CompletedProcess[str]:
        """One command of docker. What takes too long has failed, like any other, so that `down` goes on."""
        command: Sequence[str] = ("docker", *args)
        environ: Mapping[str, str] = {**os.environ, **self.environ}
        try:
            return subprocess.run(
                command, env=environ, stdin=stdin, capture_output=True, text=True, check=False, timeout=DOCKER_TIMEOUT
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 1, "", f"no answer within {DOCKER_TIMEOUT:g} s")


def install() -> None:
    """Installs what is missing. Raises EngineError."""
    packages = sorted({TOOLS[tool] for tool in _missing()})
    if not packages:
        return
    print(f"installing {', '.join(packages)}", file=sys.stderr, flush=True)
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
    for command in ([*apt, "update"], [*apt, "install", "--yes", "--no-install-recommends", *packages]):
        try:
            done = subprocess.run(
                command, env=environ, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT
            )
        except subprocess.TimeoutExpired:
            raise EngineError(f"expected {', '.join(packages)} to be installed within {INSTALL_TIMEOUT} s") from None
        if done.returncode:
            raise EngineError(f"expected {', '.join(packages)} to be installed, got: {done.stderr.strip()}")


def _missing() -> list[str]:
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def _skeleton(file: io.BufferedRandom) -> None:
    """A root file system without /usr, as a tar archive."""
    with tarfile.open(fileobj=file, mode="w") as tar:

        def add(name: str, kind: bytes, mode: int = 0o755, **more: object) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, mode
            for key, value in more.items():
                setattr(info, key, value)
            tar.addfile(info)

        def write(name: str, text: str) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))

        for name in FOLDERS:
            add(name, tarfile.DIRTYPE)
        for name in ("tmp", "var/tmp"):
            add(name, tarfile.DIRTYPE, 0o1777)
        for name in (STATE, CACHE):
            add(name, tarfile.DIRTYPE, uid=UID, gid=UID)
        for name in LINKS:
            if (Path("/usr") / name).exists():
                add(name, tarfile.SYMTYPE, 0o777, linkname=f"usr/{name}")
        write("etc/passwd", f"root:x:0:0::/root:/bin/sh\n{USER}:x:{UID}:{UID}::/{STATE}:/bin/sh\n")
        write("etc/group", f"root:x:0:\n{USER}:x:{UID}:\n")
        for name in COPIED:
            if (Path("/etc") / name).exists():
                # contents, not links, which may lead elsewhere
                tar.dereference = True
                tar.add(f"/etc/{name}", f"etc/{name}")


class _Process:
    """A process, told from a later one with its number by when it began."""

    def __init__(self, pid: int, parent: int, began: str) -> None:
        self.pid, self.parent, self.began = pid, parent, began

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Process) and (self.pid, self.began) == (other.pid, other.began)

    def __hash__(self) -> int:
        return hash((self.pid, self.began))


def _process(pid: int) -> _Process | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return _Process(pid, int(fields[1]), fields[19])


def _family(pid: int) -> set[_Process]:
    """Whatever shares the engine's network namespace, and all that descends from that: its shims have no parent."""
    try:
        mine = os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return set()
    if mine == os.readlink("/proc/self/ns/net"):
        raise EngineError("expected the engine in a network namespace of its own, got this machine's")
    everyone = {one.pid: one for path in Path("/proc").glob("[0-9]*") if (one := _process(int(path.name)))}
    family = {one.pid for one in everyone.values() if _in_namespace(one.pid, mine)}
    grown = True
    while grown:
        more = {one.pid for one in everyone.values() if one.parent in family} - family
        family |= more
        grown = bool(more)
    return {everyone[one] for one in family}


def _in_namespace(pid: int, namespace: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/net") == namespace
    except OSError:
        return False


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _wait_for_end(pids: Iterable[int], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    waiting = set(pids)
    while waiting and time.monotonic() < deadline:
        waiting = {pid for pid in waiting if _alive(pid)}
        time.sleep(POLL if waiting else 0)
    return not waiting


def _alive(pid: int) -> bool:
    """Whether it runs: one that has ended may only wait for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="interop.engine", description="A Docker engine of our own.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("up", "start it"), ("env", "print how it is reached"), ("down", "end it")):
        commands.add_parser(name, help=text)
    commands.add_parser("base", help="make the base image").add_argument("name", nargs="?", default=LOCAL_IMAGE)
    args = parser.parse_args(argv)
    engine = Engine()
    try:
        match args.command:
            case "up":
                engine.up()
                print(f"up; its log: {engine.log}")
            case "env":
                for name, value in engine.environ.items():
                    print(f"export {name}={shlex.quote(value)}")
            case "base":
                engine.base(args.name)
            case _:
                engine.down()
                print("down")
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
