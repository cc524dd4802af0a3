"""The token of the HTTP API: `api.token` in the data folder, mode 0600, made at the first start."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from node.errors import UsageError

FILE = "api.token"
BYTES = 32
LEAST = 32  # characters, for one that somebody wrote there
MOST = 1024


def token_path(data_dir: Path) -> Path:
    """Where it is, or will be."""
    return data_dir / FILE


def load_or_make_token(data_dir: Path) -> tuple[str, bool]:
    """The token, and whether it was made now. Raises UsageError for a file that can't be used, or that others read."""
    path = token_path(data_dir)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return read_token(data_dir), False
    except OSError as error:
        raise UsageError(f"can't make the API's token {path}: {error.strerror}") from error
    token = secrets.token_urlsafe(BYTES)
    with os.fdopen(file, "w") as out:
        out.write(f"{token}\n")
    return token, True


def read_token(data_dir: Path) -> str:
    """The token of a node that has been started once. Raises UsageError."""
    path = token_path(data_dir)
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(file, "rb") as source:
            mode = stat.S_IMODE(os.fstat(source.fileno()).st_mode)
            data = source.read(MOST + 1)
    except FileNotFoundError:
        raise UsageError(f"no token {path}: a node that runs with its HTTP API makes one") from None
    except OSError as error:
        raise UsageError(f"can't read the API's token {path}: {error.strerror}") from error
    if mode & 0o077:
        raise UsageError(f"{path}: expected a file that only its owner can read (chmod 600), got mode {mode:04o}")
    token = data.decode("ascii", "replace").strip()
    if not LEAST <= len(token) <= MOST or not all("!" <= one <= "~" for one in token):
        text = f"expected {LEAST} to {MOST} visible ASCII characters"
        raise UsageError(f"{path}: {text}, got something else; without the file a new token is made")
    return token
