"""The data directory: one node at a time holds it, nobody else reads it, and long names work."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from node.datadir import LOCK, MAX_ADDRESS, locked, socket_address
from node.errors import UsageError

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from node.datadir import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def mode(path):
    return path.stat().st_mode & 0o7777


def descriptors():
    return set(os.listdir("/proc/self/fd"))


# the lock


def test_it_is_made_for_its_owner_alone(tmp_path):
    folder = tmp_path / "a" / "b"
    before = os.umask(0)
    try:
        with locked(folder):
            assert mode(folder) == 0o700
            assert mode(folder / LOCK) == 0o600
            assert (folder / LOCK).read_text() == f"{os.getpid()}\n"
    finally:
        os.umask(before)


def test_a_folder_that_exists_is_used(tmp_path):
    (tmp_path / "other").write_text("stays")
    with locked(tmp_path):
        pass
    assert (tmp_path / "other").read_text() == "stays"


def test_it_can_be_held_again_afterwards(tmp_path):
    for _ in range(2):
        with locked(tmp_path):
            pass


def test_it_is_let_go_when_the_block_raises(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path):
        raise RuntimeError
    with locked(tmp_path):
        pass


def test_a_second_holder_is_refused_and_told_of_the_first(tmp_path):
    with locked(tmp_path):
        with pytest.raises(UsageError) as refused, locked(tmp_path):
            pass
        assert str(refused.value) == (
            f"another node (process {os.getpid()}) uses the data directory {tmp_path}: give this one another --data-dir"
        )
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"


def test_a_longer_process_id_leaves_nothing_behind(tmp_path):
    (tmp_path / LOCK).write_text("123456789012345\n")
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"


def test_another_process_holds_it_until_it_is_killed(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(UsageError, match=rf"another node \(process {holder.pid}\)"), locked(tmp_path):
                pass
        finally:
            holder.kill()
    with locked(tmp_path):
        pass


def test_a_refusal_leaves_no_descriptor_open(tmp_path):
    with locked(tmp_path):
        before = descriptors()
        with pytest.raises(UsageError), locked(tmp_path):
            pass
        assert descriptors() == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "data"
    with pytest.raises(UsageError) as refused, locked(folder):
        pass
    assert str(refused.value) == f"can't use the data directory {folder}: Not a directory"


def test_a_lock_that_is_a_folder(tmp_path):
    (tmp_path / LOCK).mkdir()
    with pytest.raises(UsageError, match=r"can't use the data directory .*: Is a directory"), locked(tmp_path):
        pass


# the socket's name


def path_of_length(folder, length):
    """A path below `folder` of that many bytes, its folders made and its last part short."""
    missing = length - len(os.fsencode(folder)) - len("/s")
    while missing:
        size = missing - 1 if missing <= 200 else 100
        folder /= "d" * size
        missing -= size + 1
    folder.mkdir(parents=True)
    return folder / "s"


@pytest.mark.parametrize("length", [MAX_ADDRESS - 1, MAX_ADDRESS, MAX_ADDRESS + 1, 400])
def test_a_socket_of_any_length_is_bound_and_found(length):
    with (
        tempfile.TemporaryDirectory() as folder,  # tmp_path may be too long for the first of them
        socket.socket(socket.AF_UNIX) as server,
        socket.socket(socket.AF_UNIX) as client,
    ):
        path = path_of_length(Path(folder), length)
        assert len(os.fsencode(path)) == length
        before = descriptors()
        with socket_address(path) as address:
            assert (address == str(path)) == (length < MAX_ADDRESS)
            server.bind(address)
        server.listen()
        assert path.is_socket()
        with socket_address(path) as address:
            client.connect(address)
        assert descriptors() == before


def test_a_long_name_in_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / ("d" * 120) / "control.sock"
    with pytest.raises(UsageError) as refused, socket_address(path):
        pass
    assert str(refused.value) == f"can't use the data directory {path.parent}: No such file or directory"
