"""The site: `make docs` builds it from the Markdown of this folder, with Sphinx and MyST.

The order of the pages is index.md's: each of its headings is a caption of the navigation, each link below one a page.
So the pages stay plain Markdown that reads as well on a code host. Every link and anchor is checked, and a
warning ends the build. Nothing in a page comes from elsewhere, and the search runs in the reader's browser.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent

project = "vouch"
author = "the vouch authors"
copyright = author
extensions = ["myst_parser"]
exclude_patterns = ["conf.py", "generate.py"]
nitpicky = True
suppress_warnings: list[str] = []
myst_heading_anchors = 4
myst_enable_extensions: list[str] = []
highlight_language = "none"

html_theme = "furo"
html_title = "vouch"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False


def navigation(text: str) -> str:
    """The table of contents that Sphinx wants, from the headings and lists of index.md."""
    trees = []
    for heading, body in re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", text, re.MULTILINE):
        pages = re.findall(r"^- \[[^\]]+\]\(([^)#:]+)\.md\)", body, re.MULTILINE)
        if pages:
            trees.append("\n".join(["```{toctree}", ":hidden:", f":caption: {heading}", "", *pages, "```", ""]))
    return "\n".join(trees)


def without_folders(text: str, folder: Path) -> str:
    """The text with links to folders of the repository, which a site can't show, as text. A link to nothing stays."""

    def words(match: re.Match[str]) -> str:
        return match[1] if (folder / match[2]).is_dir() else match[0]

    return re.sub(r"\[([^\]]+)\]\((\.\.[^)#]*)\)", words, text)


def read(_app: Any, name: str, source: list[str]) -> None:
    source[0] = without_folders(source[0], (DOCS / name).parent)
    if name == "index":
        source[0] += "\n" + navigation(source[0])


def setup(app: Any) -> None:
    app.connect("source-read", read)
