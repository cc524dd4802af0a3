"""Every command and program of the documentation is run as printed, and prints what the page says.

A page is one test: its blocks are run in their order, in one temporary folder. What a block needs that can't be run is
a comment above it; its commands are still held to the flags, targets and modules that there are.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import CodeType

import pytest
import trio

from node import Identity
from node.cli.parser import build, parse
from tests import required
from tests.docs import given
from tests.docs.reading import PAGES, ROOT, Block, blocks, indented, prose
from tests.docs.terminals import Terminals

REFERENCE = ROOT / "docs" / "reference"
MAKEFILE = (ROOT / "Makefile").read_text()


def inner(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands of a command."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


COMMANDS = {word: set(inner(parser)) for word, parser in inner(build()).items()}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def is_run(block: Block) -> bool:
    return block.mark in ("", "with", "terminal", "in the browser", "file") and block.language in (
        "console",
        "python",
        "text",
    )


def with_something_to_run() -> list[Path]:
    return [page for page in PAGES if any(is_run(block) for block in blocks(page))]


@pytest.mark.parametrize("page", with_something_to_run(), ids=name)
def test_a_page_is_true(page, tmp_path):
    found = blocks(page)
    need_programs(found)
    terminals = Terminals(tmp_path)
    try:
        for number, block in enumerate(found):
            follows = found[number + 1] if number + 1 < len(found) else None
            if block.mark == "file":
                terminals.write(block)
            elif block.language == "console" and block.mark in ("", "terminal"):
                terminals.run(block)
            elif block.mark == "in the browser":
                getattr(given, block.value)(terminals, block)
            elif block.language == "python" and block.mark == "":
                check_program(block, follows, terminals.folder)
            elif block.language == "python" and block.mark == "with":
                check_piece(block)
        terminals.check_status()
    finally:
        print(terminals.transcript)
        terminals.close()


def need_programs(found: list[Block]) -> None:
    """What isn't the project's."""
    text = "\n".join(step.command for block in found if is_run(block) for step in block.steps)
    for word in ("bash", "curl", "make"):
        if re.search(rf"\b{word} ", text):
            required.program(word, why="the page has commands with it")


def check_program(block: Block, follows: Block | None, folder: Path) -> None:
    """A whole program; a block of text after it is what it prints."""
    file = folder / "program.py"
    file.write_text(block.text)
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(file)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{block.where}: {done.stderr}"
    if prints(block, follows):
        by = sorted if follows.mark == "printed" else list
        assert by(done.stdout.splitlines()) == by(follows.text.splitlines()), block.where
    else:
        assert done.stdout == "", f"{block.where}: it prints something that the page doesn't show"


def prints(block: Block, follows: Block | None) -> bool:
    return follows is not None and follows.language == "text" and follows.mark in ("", "printed")


def check_piece(block: Block) -> None:
    """A piece of a program, within a function that has what it needs."""
    what, *also = block.value.split()
    assert not also, f"{block.where}: expected `with: NAME`, got {block.value!r}"
    # addresses of others are loopback's here, and a peer ID is somebody's
    text = block.text.replace("/ip4/192.0.2.", "/ip4/127.0.0.").replace("12D3KooW…", Identity.generate().peer_id)
    compiled = compile(text, block.where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def run() -> None:
        with trio.fail_after(30):
            async with getattr(given, what)() as names:
                await execute(compiled, names)

    trio.run(run)


async def execute(code: CodeType, names: dict[str, object]) -> None:
    # without an await in it, it is plain code that eval runs to its end
    ended = eval(code, names)
    if ended is not None:
        await ended


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_run_or_says_why_not(page):
    """What isn't run by this file is run by a test that the comment names, or says why it can't be."""
    found = blocks(page)
    for number, block in enumerate(found):
        if block.language == "text" and block.mark in ("", "printed"):
            before = found[number - 1] if number else None
            printed = before is not None and before.language == "python" and before.mark == ""
            assert printed, f"{block.where}: nothing prints this"
        elif block.mark == "run by":
            file, _, test = block.value.partition("::")
            assert re.search(rf"def {re.escape(test)}\b", (ROOT / file).read_text()), f"{block.where}: {block.value}"
        elif block.mark == "not run":
            assert len(block.value) > 15, f"{block.where}: expected a reason, got {block.value!r}"
        elif block.mark != "file":
            assert is_run(block), f"{block.where}: a block of {block.language or 'no language'} that nothing runs"
    assert not indented(page), f"{name(page)}: expected fences, got an indented block"


def test_what_is_not_run_says_why():
    """Prints the list: `pytest tests/docs -s -k says_why`."""
    found = [(block.where, block.value) for page in PAGES for block in blocks(page) if block.mark == "not run"]
    print("", *(f"{where:<40} {why}" for where, why in found), sep="\n")
    assert all(len(why) > 15 for _, why in found)


def commands_that_are_not_run() -> list[tuple[str, str]]:
    """Each line of such a block that begins with a program of ours, and where it is."""
    found = []
    for block in (block for page in PAGES for block in blocks(page) if block.mark == "not run"):
        for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
            line = re.split(r"\s+#|[|&;<>]", line.removeprefix("$ "))[0].strip()
            if re.match(r"(vouch [a-z]|make [a-z]|python -m interop)", line):
                found.append((block.where, line))
    return found


@pytest.mark.parametrize(("where", "line"), commands_that_are_not_run())
def test_a_command_that_is_not_run_could_be_read(where, line):
    """Its flags, target or module are there."""
    program, *words = shlex.split(line)
    if program == "vouch":
        # a placeholder is as good as an address: whether it is one is looked at when it is used
        parse(words)
    elif program == "make":
        for target in (word for word in words if "=" not in word):
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), f"{where}: no target {target}"
    else:
        assert importlib.util.find_spec(words[1]), f"{where}: no module {words[1]}"


def test_the_examples_of_the_reference_could_be_read():
    text = (REFERENCE / "commands.md").read_text()
    examples = re.findall(r"^Example: `(?:[^`]*\| )?vouch ([^`>]+)[^`]*`$", text, re.MULTILINE)
    assert len(examples) > 30
    for words in examples:
        parse(shlex.split(words))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_commands_that_the_text_names_are_there(page):
    for words in re.findall(r"`(?:\.venv/bin/)?vouch ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)?)", prose(page)):
        first, _, second = words.partition(" ")
        assert first in COMMANDS, f"{name(page)}: vouch {words}"
        if second and COMMANDS[first]:
            assert second in COMMANDS[first], f"{name(page)}: vouch {words}"
    for target in re.findall(r"`make ([a-z][a-z-]*)", prose(page)):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), f"{name(page)}: make {target}"
