"""The data directory: who holds it, and how its socket is named. No libp2p, no trio: commands use it too.

data_dir/          mode 0700
  node.key         the identity, mode 0600
  lock             held (flock) by the running node; its process ID is inside
  dht.db           Kademlia's records, mode 0600; and dht.db-wal, dht.db-shm while it runs
  api.token        what changes over the HTTP API need, mode 0600
  control.sock     the running node's control socket, mode 0600
  addressbook.db   the peers that are known (node/peers/bookfile.py)
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.errors import UsageError

LOCK = "lock"
# what a socket's address holds on Linux, its closing NUL included
MAX_ADDRESS = 108


@contextmanager
def locked(data_dir: Path, name: str = LOCK, *, what: str = "the data directory") -> Iterator[None]:
    """Makes the directory if need be, and holds it for this process, or with another `name` one thing in it. Raises
    UsageError if another node does.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(data_dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"can't use the data directory {data_dir}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(file, 32).decode("ascii", "replace").strip() or "?"
            raise UsageError(
                f"another node (process {holder}) uses {what} {data_dir}: give this one another --data-dir"
            ) from None
        os.truncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(file)


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """The name to bind or connect a Unix socket by: a long path goes through its folder's descriptor."""
    if len(os.fsencode(path)) < MAX_ADDRESS:
        yield str(path)
        return
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"can't use the data directory {path.parent}: {error.strerror}") from error
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
