"""`make docs`: the site is built strictly, has every page, and asks nobody else for anything."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

from tests.docs.reading import PAGES, ROOT

DOCS = ROOT / "docs"
MAKE = (ROOT / "Makefile").read_text()


def build(source: Path, to: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs` does it."""
    [line] = re.findall(r"^\t\$\(BIN\)/python (-m sphinx .*) docs \.site$", MAKE, re.MULTILINE)
    command = [sys.executable, *line.split(), str(source), str(to)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


class Resources(HTMLParser):
    """What a browser fetches for a page by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [given[name] for name in ("src", "srcset", "data", "poster") if given.get(name)]
        if tag == "link" and given.get("rel") not in ("canonical", "index", "search", "next", "prev", "author"):
            self.found.append(given.get("href") or "")


def test_the_site_is_whole_and_asks_nobody_else(tmp_path):
    """One test, for one build: every page is there, and what a browser fetches for it is the site's own."""
    done = build(DOCS, tmp_path)
    assert done.returncode == 0, done.stderr
    for page in PAGES[1:]:
        html = (tmp_path / page.relative_to(DOCS)).with_suffix(".html")
        resources = Resources()
        resources.feed(html.read_text())
        assert resources.found
        outside = [one for one in resources.found if re.match(r"(?:https?:)?//", one)]
        assert outside == [], html.name
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text()), style.name
    for script in tmp_path.rglob("*.js"):
        assert not re.search(r"(?:fetch|import|importScripts)\(\s*[\"']https?://", script.read_text()), script.name
    # the search is by an index of its own
    assert "gossip" in (tmp_path / "searchindex.js").read_text()
    captions = re.findall(r'<span class="caption-text">([^<]+)', (tmp_path / "index.html").read_text())
    assert captions == re.findall(r"^## (.+)$", (DOCS / "index.md").read_text(), re.MULTILINE)


def test_links_to_nothing_are_errors(tmp_path):
    links = ["nobody.md", "index.md#nothing", "#nowhere", "../nobody.py"]
    source = tmp_path / "docs"
    source.mkdir()
    shutil.copy(DOCS / "conf.py", source)
    (source / "index.md").write_text("# A page\n\n" + "\n".join(f"- [a link]({link})" for link in links) + "\n")
    done = build(source, tmp_path / "site")
    assert done.returncode != 0
    for word in ("nobody.md", "nothing", "nowhere", "nobody.py"):
        assert word in done.stderr


def test_the_reference_is_what_the_code_says():
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
