"""That nothing is skipped where everything has to be there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import required


@pytest.mark.parametrize(
    ("environ", "ends"),
    [
        ({}, pytest.skip.Exception),
        ({"INTEROP": "require"}, pytest.fail.Exception),
        ({"CI": "true"}, pytest.fail.Exception),
    ],
    ids=["anywhere", "INTEROP=require", "CI"],
)
def test_what_is_missing_skips_or_fails_with_its_reason(monkeypatch, environ, ends):
    for name in ("INTEROP", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ends, match="there is no lighthouse or beacon on the PATH: ships need it"):
        required.program("lighthouse", "beacon", why="ships need it")


def test_the_first_that_is_installed_is_taken(monkeypatch):
    here = Path(sys.executable)
    monkeypatch.setenv("PATH", str(here.parent))
    assert required.program("lighthouse", here.name, why="it runs this") == str(here)
