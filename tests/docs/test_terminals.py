"""What holds the pages to what is printed says no where it should."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.docs import terminals
from tests.docs.reading import ROOT, Block, blocks, indented
from tests.docs.terminals import Different, Terminals

ONE, OTHER = (f"12D3KooW{letter * 44}" for letter in "AB")


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(terminals, "TIMEOUT", 1.0)
    with closing(Terminals(tmp_path)) as found:
        yield found


def follow(page: Terminals, text: str) -> None:
    page.run(console(text))
    page.check_status()


def console(text: str, terminal: str = "") -> Block:
    return Block(ROOT / "README.md", 1, "console", text, "terminal" if terminal else "", terminal)


@pytest.mark.parametrize(
    "text",
    [
        "$ echo hello\nhello\n",
        "$ echo hello\nh…o\n",
        "$ printf 'a\\nb\\nc\\n'\na\n…\nc\n",
        "$ printf 'a\\nb\\nc\\n'\na\n…\n",
        "$ echo a\na\n…\n",
        "$ a=1\n$ echo $a\n1\n",
        "$ false\n$ echo $?\n1\n",
        "$ echo a \\\n>   b\na b\n",
        f"$ echo {ONE}\n12D3KooWAnna…\n$ echo 12D3KooWAnna…\n{ONE}\n",
        "$ echo /tcp/12345\n/tcp/4001\n$ echo :4001 /tcp/4001\n:4001 /tcp/12345\n",
        "$ cat\n",
    ],
)
def test_what_is_true(page, text):
    follow(page, text)


@pytest.mark.parametrize(
    "text",
    [
        "$ echo hello\nhallo\n",
        "$ echo hello\n",
        "$ true\nhello\n",
        "$ printf 'a\\nb\\n'\na\n",
        "$ printf 'a\\nb\\nc\\n'\na\n…\nb\n",
        "$ false\n",
        "$ false\n$ true\n",
        f"$ echo {ONE} {OTHER}\n12D3KooWAnna… 12D3KooWAnna…\n",
        f"$ echo {ONE}\n12D3KooWAnna…\n$ echo {OTHER}\n12D3KooWAnna…\n",
        "$ echo nobody\n12D3KooW…\n",
        "$ sleep 20\n",
    ],
)
def test_what_is_not(page, text):
    with pytest.raises(Different):
        follow(page, text)


def test_a_terminal_goes_on_until_it_is_interrupted(page):
    page.run(console("$ echo one; sleep 0.3; echo two; sleep 60\none\n", "first"))
    page.run(console("two\n", "first"))
    page.run(console("^C\n", "first"))
    page.run(console("$ echo again\nagain\n", "first"))


def test_a_terminal_that_prints_something_else_is_told(page):
    page.run(console("$ echo one; sleep 60\none\n", "first"))
    with pytest.raises(Different, match="two"):
        page.run(console("two\n", "first"))


def test_what_a_page_says_of_its_blocks(tmp_path):
    page: Path = tmp_path / "page.md"
    page.write_text("a\n\n<!-- not run: it\nis long -->\n```sh\nx\n```\n\n```\n$ y\n```\n\n    indented\n\nb\n")
    first, second = blocks(page)
    assert (first.mark, first.value, first.language, first.line) == ("not run", "it is long", "sh", 5)
    assert (second.mark, second.text) == ("", "$ y\n")
    assert indented(page)
