"""`vouch doctor`: checks what a node of these settings needs on this machine, and says what to do.

It gathers facts and prints what `node.cli.checkup` makes of them. It changes nothing; ports are bound for a moment, and
bootstraps dialled by a short-lived node with an identity of its own.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import resource
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from node.api.client import Client, NoNodeError
from node.cli import checkup
from node.cli.checkup import Finding
from node.cli.parser import settings_from
from node.cli.shown import safe
from node.config import Config, node_version
from node.datadir import LOCK
from node.errors import UsageError, VouchError
from node.hostport import parse_address
from node.identity import key_file_warning, load_key
from node.sockets import bound

WATCH = 0.2  # seconds
ANSWER = 5.0
MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


def doctor(args: argparse.Namespace) -> int:
    """Exit status 1 if something would keep the node from its work."""
    loaded = settings_from(args)
    findings = []
    for finding in examine(loaded.config, offline=args.offline, api_asked=loaded.sources["api"] != "default"):
        findings.append(finding)
        if not args.json:
            print(f"{MARKS[finding.state]}  {finding.name}: {safe(finding.detail)}", flush=True)
            if finding.todo:
                print(f"      -> {finding.todo}", flush=True)
    status = checkup.status_of(findings)
    if args.json:
        print(json.dumps({"ok": not status, "findings": [finding.as_dict() for finding in findings]}))
    return status


def examine(config: Config, *, offline: bool = False, api_asked: bool = True) -> Iterator[Finding]:
    """The findings, as they are made. `api_asked`: the address of the API isn't the default, which gives way."""
    yield Finding("versions", "ok", _versions())
    finding, ours = _running(config)
    yield finding
    yield _data_dir(config.data_dir)
    yield _key(config.key_path)
    yield checkup.disk(str(config.data_dir), shutil.disk_usage(_existing(config.data_dir)).free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = config.max_half_open + config.max_dials + config.max_api_connections + config.max_control_clients
    yield checkup.open_files(soft, hard, config.max_connections, others)
    for text in config.listen:
        yield _listening(text, ours)
    api = parse_address(config.api)
    if api is not None:
        yield checkup.listening(
            f"{api} (HTTP API)", *_bind(api.host, api.port, socket.SOCK_STREAM), ours=ours, spare=not api_asked
        )
    if any("/quic" in text for text in config.listen):
        yield checkup.udp_buffers(*(_number(f"/proc/sys/net/core/{name}") for name in ("rmem_max", "wmem_max")))
    yield _clock(config)
    if not offline:
        yield from _bootstraps(config)


def _versions() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        libp2p = version("libp2p")
    except PackageNotFoundError:
        libp2p = "missing"
    system = f"{platform.system()} {platform.release()}"
    return f"vouch {node_version()}, libp2p {libp2p}, Python {platform.python_version()}, {system}"


def _running(config: Config) -> tuple[Finding, bool]:
    """The running node, and whether there is one that answers."""
    try:
        with Client(config.control_socket, timeout=ANSWER) as client:
            answer = client.call("status")
        return checkup.running(answer["peer_id"], answer["peers"], "", ""), True
    except NoNodeError:
        return checkup.running("", 0, "it has no control socket", _locked_by(config.data_dir)), False
    except UsageError as error:
        return Finding("running node", "warn", str(error), "ask as the user of the node"), False
    except VouchError as error:
        return checkup.running("", 0, str(error), _locked_by(config.data_dir) or "?"), False


def _locked_by(data_dir: Path) -> str:
    """The process that holds the folder's lock, or ""."""
    try:
        file = os.open(data_dir / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.read(file, 32).decode("ascii", "replace").strip() or "?"
    finally:
        os.close(file)
    return ""


def _existing(path: Path) -> Path:
    """The nearest folder above that is there."""
    path = path.absolute()
    while not os.path.exists(path):  # Path's raises where this user may not look
        path = path.parent
    return path


def _data_dir(path: Path) -> Finding:
    there = _existing(path)
    exists = there == path.absolute()
    return checkup.data_dir(
        str(path),
        exists=exists,
        writable=there.is_dir() and os.access(there, os.W_OK | os.X_OK),
        mode=there.stat().st_mode & 0o7777,
        file_system=_file_system(there),
    )


def _file_system(path: Path) -> str:
    """The type of the file system with this folder, or ""."""
    best, found = -1, ""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        _, mount, kind, *_ = line.split(" ")
        mount = mount.replace("\\040", " ")
        if path.is_relative_to(mount) and len(mount) >= best:
            best, found = len(mount), kind
    return found


def _key(path: Path) -> Finding:
    error, warning, exists = "", "", False
    try:
        exists = path.exists()
        if exists:
            load_key(path)
            warning = key_file_warning(path) or ""
    except (UsageError, OSError) as failed:
        error = str(failed)
    return checkup.key(str(path), exists=exists, error=error, warning=warning)


def _listening(text: str, ours: bool) -> Finding:
    try:
        host, way, port = text.split("/")[2], text.split("/")[3], int(text.split("/")[4])
    except (IndexError, ValueError):
        return Finding(f"listen {text}", "fail", "expected a port", "write it as /ip4/0.0.0.0/tcp/4001")
    kind = socket.SOCK_DGRAM if way == "udp" else socket.SOCK_STREAM
    return checkup.listening(text, *_bind(host, port, kind), ours=ours)


def _bind(host: str, port: int, kind: socket.SocketKind) -> tuple[OSError | None, str]:
    """Why it can't be bound, and who has it; None if it can."""
    try:
        with bound(host, port, kind) as made:
            if kind == socket.SOCK_STREAM:
                made.listen(1)
    except OSError as error:
        return error, _holder(port, "udp" if kind == socket.SOCK_DGRAM else "tcp")
    return None, ""


def _holder(port: int, way: str) -> str:
    """The process that has a port: Linux tells it to root, and to its user."""
    inodes = set()
    for file in (f"/proc/net/{way}", f"/proc/net/{way}6"):
        try:
            rows = [line.split() for line in Path(file).read_text().splitlines()[1:]]
        except OSError:
            continue
        listening = ("0A", "07")  # states of TCP and UDP
        inodes |= {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] in listening}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(one) in inodes for one in (folder / "fd").iterdir()):
                return f"process {folder.name} ({(folder / 'comm').read_text().strip()})"
        except OSError:  # another user's, or it has just ended
            continue
    return ""


def _number(path: str) -> int:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return 0


def _clock(config: Config) -> Finding:
    wall, steady = time.time(), time.monotonic()
    time.sleep(WATCH)
    jump = (time.time() - wall) - (time.monotonic() - steady)
    return checkup.clock(time.gmtime().tm_year, jump, config.message_max_ahead)


def _bootstraps(config: Config) -> list[Finding]:
    findings: list[Finding] = []
    direct = [text for text in config.bootstrap if "/p2p/" in text]
    if direct:
        from node.cli import short_lived  # libp2p with it, which takes a second

        def dial(ask: short_lived.Ask) -> int:
            for text in direct:
                error: VouchError | None = None
                answer = {"seconds": 0.0}
                try:
                    answer = ask("connect", address=text)
                except VouchError as failed:
                    error = failed
                findings.append(checkup.bootstrap(text, error, answer["seconds"]))
            return 0

        short_lived.run(config, dial)
    findings += [
        Finding(f"bootstrap {text}", "warn", "a name without a peer isn't dialled here", "name one with /p2p/PEERID")
        for text in config.bootstrap
        if text not in direct
    ]
    return checkup.bootstraps(findings, len(config.bootstrap))
