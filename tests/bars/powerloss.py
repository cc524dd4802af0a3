"""The disks that a power loss could leave behind, from a log of what a process did to its files (powerloss.c).

    written --fsync of the file--> on disk              named --fsync of the folder--> on disk
       |                                                  |
       +--power loss--> any of the writes since,          +--power loss--> the first few changes of names since
                        each torn at SECTOR

That is the most that a disk may do by POSIX, but for names, which every journal keeps in order. One log has as many
points to lose power at as it has records.
"""

from __future__ import annotations

import random
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests import required

SECTOR = 512
SOURCE = Path(__file__).with_name("powerloss.c")
_HEAD = struct.Struct("=cQQI")


@dataclass(frozen=True)
class Record:
    what: str
    inode: int
    offset: int
    data: bytes


@dataclass
class Disk:
    """What is surely on disk, and what may be. `acknowledged`: what was written to the file of acknowledgements."""

    contents: dict[int, bytearray] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    unsynced: dict[int, list[Record]] = field(default_factory=dict)
    unsynced_names: list[Record] = field(default_factory=list)
    acknowledged: bytes = b""

    def lose_power(self, folder: Path, how: str, rng: random.Random) -> None:
        """Makes a folder as it could be afterwards. `how`: "lost", "kept" or "torn", of what was unsynced."""
        names = dict(self.names)
        count = {"lost": 0, "kept": len(self.unsynced_names)}.get(how, rng.randint(0, len(self.unsynced_names)))
        for record in self.unsynced_names[:count]:
            _rename(names, record)
        for name, inode in names.items():
            content = bytearray(self.contents.get(inode, b""))
            for record in self.unsynced.get(inode, []):
                if how == "kept":
                    _apply(content, record)
                elif how == "torn":
                    _apply_torn(content, record, rng)
            (folder / name).write_bytes(content)


def build(folder: Path) -> Path:
    """The library for LD_PRELOAD. Without a C compiler the test ends, see tests/required.py."""
    compiler = required.program("cc", "gcc", why="the layer that loses power is compiled")
    library = folder / "powerloss.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl", "-lpthread"], check=True)
    return library


def read(log: Path) -> list[Record]:
    """The records of a log."""
    data, at, records = log.read_bytes(), 0, []
    while at + _HEAD.size <= len(data):
        what, inode, offset, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        records.append(Record(what.decode(), inode, offset, data[at : at + size]))
        at += size
    return records


def replay(records: list[Record], acknowledgements: str):
    """The disk before the first record and after each; always the same object, changed. The file of that name is the
    test's own: what is written to it is acknowledged.
    """
    disk, own = Disk(), 0
    yield disk
    for record in records:
        inode = record.inode
        if record.what == "C" and record.data.decode() == acknowledgements:
            own = inode
        elif inode and inode == own:
            disk.acknowledged += record.data
        elif record.what in "WT":
            disk.unsynced.setdefault(inode, []).append(record)
        elif record.what == "S":
            content = disk.contents.setdefault(inode, bytearray())
            for earlier in disk.unsynced.pop(inode, []):
                _apply(content, earlier)
        elif record.what == "D":
            for earlier in disk.unsynced_names:
                _rename(disk.names, earlier)
            disk.unsynced_names.clear()
        else:
            disk.unsynced_names.append(record)
        yield disk


def _apply(content: bytearray, record: Record) -> None:
    if record.what == "T":
        del content[record.offset :]
        content.extend(bytes(record.offset - len(content)))
        return
    _write(content, record.offset, record.data)


def _write(content: bytearray, offset: int, data: bytes) -> None:
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


def _apply_torn(content: bytearray, record: Record, rng: random.Random) -> None:
    fate = rng.choice(("lost", "kept", "torn"))
    if fate == "kept":
        _apply(content, record)
    elif fate == "torn" and record.what == "W":
        at, end = record.offset, record.offset + len(record.data)
        while at < end:
            until = min(end, (at // SECTOR + 1) * SECTOR)
            if rng.random() < 0.5:
                _write(content, at, record.data[at - record.offset : until - record.offset])
            at = until


def _rename(names: dict[str, int], record: Record) -> None:
    text = record.data.decode()
    if record.what == "C":
        names[text] = record.inode
    elif record.what == "U":
        names.pop(text, None)
    else:
        old, new = text.split("\0")
        names[new] = names.pop(old)
