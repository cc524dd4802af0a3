"""`vouch token` and `vouch open`: the way into the running node's HTTP API and its dashboard.

`open` prints a URL with the token behind `#`: a browser sends that part to nobody, and the page takes it from there.
"""

from __future__ import annotations

import argparse
import json
import webbrowser

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
    if args.browser and not webbrowser.open(whole):
        raise VouchError("found no browser to open it with")
    return 0
