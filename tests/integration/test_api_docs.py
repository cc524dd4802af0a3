"""docs/api.md names every route; its commands are run by tests/docs."""

from __future__ import annotations

import re
from pathlib import Path

from node.api.http.openapi import document

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def test_every_route_is_on_the_page():
    for path in document()["paths"]:
        words = re.sub(r"{\w+}", "", path).rstrip("/").split("/")
        assert words[-1] in PAGE or words[1] in PAGE, path
        assert "/".join(words[:3]) in PAGE, path
