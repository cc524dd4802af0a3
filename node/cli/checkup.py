"""What `vouch doctor` makes of what it finds: rules without I/O. Facts go in, findings with advice come out.

Each finding is ok, warn (it works, or may) or fail (the node won't do its work), and says what was found; the latter
two say what to do. `node.cli.doctor` gathers the facts.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from node.errors import RefusedError, VouchError

State = Literal["ok", "warn", "fail"]

# locks and SQLite's shared memory are not what they should be there
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs"}
DISK_FAIL, DISK_WARN = 64 << 20, 1 << 30
# files that a node has open beside its connections: libraries, databases, pipes of programs
OWN_FILES = 128
UDP_BUFFER = 4 << 20
# before the first release, and after what keys and certificates reckon with
YEARS = 2025, 2100
MAX_JUMP = 0.05


@dataclass(frozen=True)
class Finding:
    """One line. `todo`: what to do, empty for ok."""

    name: str
    state: State
    detail: str
    todo: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def status_of(findings: Iterable[Finding]) -> int:
    """The exit status: 1 if one of them fails."""
    return int(any(finding.state == "fail" for finding in findings))


def data_dir(path: str, *, exists: bool, writable: bool, mode: int, file_system: str) -> Finding:
    """The data folder, or where it would be made."""
    name = "data folder"
    if not writable:
        found = "may not be written" if exists else "isn't there and can't be made"
        return Finding(
            name, "fail", f"{path} {found} by this user", "give it to the user of the node, or name another (data_dir)"
        )
    if file_system in NETWORK_FILE_SYSTEMS:
        return Finding(
            name, "fail", f"{path} is on {file_system}", "use a local disk: locks and databases aren't safe on this one"
        )
    if exists and mode & 0o022:
        return Finding(name, "warn", f"{path} has mode {mode:04o}: others may change it", f"chmod 0700 {path}")
    return Finding(name, "ok", f"{path}{'' if exists else ' will be made'} ({file_system or 'unknown file system'})")


def key(path: str, *, exists: bool, error: str, warning: str) -> Finding:
    """The key file."""
    if error:
        return Finding("key", "fail", error, "`vouch key generate --out FILE` makes one; a lost key is a new identity")
    if warning:
        return Finding("key", "warn", warning, f"chmod 0600 {path}")
    return Finding("key", "ok", f"{path}, readable by its owner alone" if exists else f"{path} will be made")


def disk(path: str, free: int) -> Finding:
    """Room for the databases, in bytes."""
    told = f"{free / (1 << 30):.1f} GiB are free at {path}"
    if free < DISK_FAIL:
        return Finding("disk", "fail", told, f"make room: the node wants {DISK_FAIL >> 20} MiB at least")
    if free < DISK_WARN:
        return Finding(
            "disk", "warn", told, "make room before it is used up: an address book that can't be written ages"
        )
    return Finding("disk", "ok", told)


def open_files(soft: int, hard: int, connections: int, others: int) -> Finding:
    """The limit of open files; `connections` with peers at most, `others`: dials, clients. Below 0: no limit."""
    needed = connections + others + OWN_FILES
    if soft < 0:
        return Finding("open files", "ok", "no limit")
    told = f"the limit is {soft}, and these settings may need {needed}"
    if soft >= needed:
        return Finding("open files", "ok", told)
    way = f"`ulimit -n {needed}`" if hard < 0 or hard >= needed else "LimitNOFILE in systemd, nofile in docker"
    return Finding(
        "open files",
        "fail" if soft < OWN_FILES + others else "warn",
        told,
        f"raise it ({way}), or lower max_connections ({connections})",
    )


def listening(address: str, error: OSError | None, holder: str, *, ours: bool, spare: bool = False) -> Finding:
    """Whether an address can be listened on. `error`: why not; `holder`: who has the port, if known; `ours`: the
    running node has; `spare`: the node takes another port then.
    """
    name = f"listen {address}"
    if error is None:
        return Finding(name, "ok", "free")
    if ours:
        return Finding(name, "ok", "in use by the node that runs here")
    told = f"{error.strerror or error}{f', by {holder}' if holder else ''}"
    if spare and error.errno == errno.EADDRINUSE:
        return Finding(name, "warn", told, "the node takes a free port instead; name one to know it")
    if error.errno in (errno.EACCES, errno.EPERM):
        todo = "use a port above 1023, or give the right (AmbientCapabilities=CAP_NET_BIND_SERVICE in systemd)"
    elif error.errno == errno.EADDRNOTAVAIL:
        todo = "name an address of this machine, or 0.0.0.0 for all of them"
    else:
        todo = "end what uses it, or choose another port"
    return Finding(name, "fail", told, todo)


def udp_buffers(receive: int, send: int) -> Finding:
    """The largest socket buffers that the system allows, in bytes, for QUIC. 0: unknown."""
    if not receive or not send:
        return Finding("UDP buffers", "ok", "this system doesn't tell")
    told = f"{min(receive, send) >> 10} KiB at most"
    if min(receive, send) >= UDP_BUFFER:
        return Finding("UDP buffers", "ok", told)
    todo = f"sysctl -w net.core.rmem_max={UDP_BUFFER} net.core.wmem_max={UDP_BUFFER}; fast QUIC loses datagrams else"
    return Finding("UDP buffers", "warn", told, todo)


def clock(year: int, jump: float, ahead: float) -> Finding:
    """The wall clock. `jump`: seconds by which it and the monotonic clock differed over a moment; `ahead`: seconds that
    a peer's clock may differ (message_max_ahead).
    """
    first, last = YEARS
    if not first <= year <= last:
        return Finding(
            "clock", "fail", f"it says the year {year}", "set it; signed messages and records carry its time"
        )
    if abs(jump) > MAX_JUMP:
        return Finding("clock", "warn", f"it moved by {jump:+.2f} s while it was watched", "keep it in step (NTP)")
    return Finding(
        "clock",
        "ok",
        f"it runs evenly; whether it is right can't be told from here, and peers bear {ahead:g} s ahead at most",
    )


def bootstrap(address: str, error: VouchError | None, seconds: float) -> Finding:
    """What came of dialling a bootstrap; without `error` it was reached, and admitted us."""
    name = f"bootstrap {address}"
    if error is None:
        return Finding(name, "ok", f"admitted us after {seconds * 1000:.0f} ms")
    if not isinstance(error, RefusedError):
        todo = (
            "check the address, that the peer runs and hasn't banned us (`vouch bans` there), and firewalls on the way"
        )
    elif error.reason == "client_version":
        todo = "one side is too old for the other (min_versions)"
    else:
        todo = "network_id and admission must be the same on both sides, and min_versions let both in; its log says why"
    return Finding(name, "fail", str(error), todo)


def bootstraps(findings: Sequence[Finding], named: int) -> list[Finding]:
    """Of several bootstraps one is enough: the failures of others are warnings then."""
    if not named:
        return [Finding("bootstrap", "ok", "none is named: others come to this node")]
    if any(finding.state == "ok" for finding in findings):
        return [Finding(one.name, "warn", one.detail, one.todo) if one.state == "fail" else one for one in findings]
    return list(findings)


def running(peer_id: str, peers: int, error: str, locked_by: str) -> Finding:
    """Whether a node runs with this data folder. `locked_by`: the process that holds its lock, or empty."""
    if peer_id:
        return Finding("running node", "ok", f"{peer_id}, with {peers} peers")
    if locked_by:
        return Finding(
            "running node",
            "fail",
            f"process {locked_by} holds the data folder, and doesn't answer: {error}",
            "wait if it has just been started; else see its log, and end it",
        )
    return Finding("running node", "ok", "none with this data folder")
