"""`vouch token` and `vouch open`: the way into the running node's HTTP API and its dashboard.

`open` prints a URL with the token behind `#`: a browser sends that part to nobody, and the page takes it from there.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import webbrowser
from pathlib import Path

from node.api.client import Client
from node.api.http.token import read_token, token_path
from node.cli.parser import settings_from
from node.errors import VouchError


def token(args: argparse.Namespace) -> int:
    """Prints the token."""
    data_dir = settings_from(args).config.data_dir
    found = read_token(data_dir)
    print(json.dumps({"token": found, "file": str(token_path(data_dir))}) if args.json else found)
    return 0


def open_(args: argparse.Namespace) -> int:
    """Prints the dashboard's URL, and opens it if that is asked for."""
    config = settings_from(args).config
    with Client(config.control_socket) as client:
        url = client.call("status")["api"]
    if not url:
        raise VouchError('the running node has no HTTP API: expected api to be an address in its settings, it is "off"')
    whole = f"{url}#token={read_token(config.data_dir)}"
    print(json.dumps({"url": url, "with_token": whole}) if args.json else whole)
    if args.browser and not webbrowser.open(_way(config.data_dir, whole).as_uri()):
        raise VouchError("found no browser to open it with")
    return 0


def _way(data_dir: Path, url: str) -> Path:
    """A page that goes on to the URL, readable by its owner alone: a browser's arguments are for all users to read."""
    path = data_dir.absolute() / "dashboard.html"
    try:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={html.escape(url)}">\n')
    except OSError as error:
        raise VouchError(f"can't write {path}: {error.strerror}") from error
    return path
