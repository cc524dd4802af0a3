"""The commands of docs/api.md, run as printed, on a node of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from node.api.http.openapi import document
from tests.node.test_cli_run import LOOPBACK, Running

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()
MARK = "-- end of a command --"


def commands():
    """Each command of the page, with what it prints."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed.strip()))
    return found


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api-docs")
    flags = ("--data-dir", folder / "harbour", "--network-id", "harbour", "--listen", LOOPBACK, "--log-format", "json")
    with Running(*flags, "--api", "127.0.0.1:0") as running:
        running.logged("started")
        yield folder, running.logged("api_listening")[0]["url"].rstrip("/")
        running.stop()


def test_the_commands_print_what_the_page_says(node):
    folder, url = node
    asked = commands()
    assert len(asked) > 12
    script = f"\necho; echo '{MARK}'\n".join(command for command, _ in asked)
    script = script.replace("http://127.0.0.1:4780", url)
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-u"], input=script, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert not done.stderr
    for (command, printed), got in zip(asked, done.stdout.split(MARK), strict=True):
        expected = ".*".join(map(re.escape, printed.split("…")))
        # a peer ID in a message has an ellipsis of its own, which stands for itself as well
        assert re.fullmatch(expected, got.strip(), re.DOTALL), (command, got)


def test_every_route_is_on_the_page():
    for path in document()["paths"]:
        words = re.sub(r"{\w+}", "", path).rstrip("/").split("/")
        assert words[-1] in PAGE or words[1] in PAGE, path
        assert "/".join(words[:3]) in PAGE, path
