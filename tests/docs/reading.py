"""The blocks of a page, and what the page says about each.

A comment on the line above a block's fence tells more of it; readers of the site and of a code host don't see it:

    <!-- not run: REASON -->       it can't be run here
    <!-- run by: FILE::TEST -->    that test runs it, and is looked for
    <!-- file: NAME -->            it is a file of that name, in the page's folder
    <!-- terminal: NAME -->        console: in a terminal of its own, whose last command goes on
    <!-- in the browser: NAME -->  console: run while `given.NAME` looks at the dashboard
    <!-- printed: in any order --> text: what the program above it prints, its tasks taking turns as they come
    <!-- with: NAME -->            python: a piece of a program, run with what `given.NAME` gives
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_BLOCK = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=indent)(?P=fence) *$",
    re.DOTALL | re.MULTILINE,
)
_MARK = re.compile(
    r"<!-- (not run|run by|file|terminal|in the browser|printed|with): ((?:(?!-->).)+) -->\s*\Z", re.DOTALL
)
_INDENTED = re.compile(r"(?:\A|\n)\n(?: {4}[^\n]+\n)+")


@dataclass(frozen=True)
class Block:
    """A fenced block. `mark`: which of the comments is above it, "" for none; `value`: what that says."""

    page: Path
    line: int
    language: str
    text: str
    mark: str
    value: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @cached_property
    def steps(self) -> list[Step]:
        """Of a console block: its commands, each with what it prints; first what comes without a command."""
        steps = [Step("", [])]
        for line in self.text.splitlines():
            if line.startswith("$ "):
                steps.append(Step(line[2:], []))
            elif line.startswith("> ") and len(steps) > 1 and not steps[-1].printed:
                steps[-1] = Step(f"{steps[-1].command}\n{line[2:]}", [])
            else:
                steps[-1].printed.append(line.rstrip())
        return steps if steps[0].printed else steps[1:]


@dataclass(frozen=True)
class Step:
    """A command and the lines that it prints, as the page shows them."""

    command: str
    printed: list[str]


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in their order."""
    text = page.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        mark = _MARK.search(text[: match.start()])
        value = " ".join(mark[2].split()) if mark else ""
        inner = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match["language"].strip(), inner, mark[1] if mark else "", value))
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks and comments."""
    return re.sub(r"<!--.*?-->", "", _BLOCK.sub("", page.read_text()), flags=re.DOTALL)


def indented(page: Path) -> list[str]:
    """Blocks that are indented instead of fenced, which nobody would run."""
    return _INDENTED.findall(re.sub(r"^[-*|\d].*\n(?:^(?: +\S.*)?\n)*", "", prose(page), flags=re.MULTILINE))
