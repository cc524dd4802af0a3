"""What the documentation says of the repository; tests/docs runs what is on its pages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)


def command(file: Path, *args: str) -> list[str]:
    return [sys.executable, "-W", "error::ResourceWarning", str(file), *args]


# messages.md: each program is followed by a `main` for several machines
CHAT, CHAT_MAIN, STORE, STORE_MAIN = range(4)


def test_the_programs_with_messages_are_short():
    for program in (CHAT, STORE):
        assert len(blocks("messages.md", "python")[program].splitlines()) < 80


def test_the_chat_runs_on_two_machines(tmp_path):
    program = for_several_machines(CHAT, CHAT_MAIN)
    with running(program, tmp_path / "anna", "anna", LOOPBACK) as anna:
        addr = read_line(anna)
        with running(program, tmp_path / "bert", "bert", LOOPBACK, addr) as bert:
            read_line(bert)
            say_until_heard(bert, "is anybody there?\n", anna, "bert: is anybody there?")
            say_until_heard(anna, "only me\n", bert, "anna: only me")
            for end in bert, anna:
                end.stdin.close()
                assert end.wait(30) == 0


def test_the_store_is_copied_between_machines(tmp_path):
    program = for_several_machines(STORE, STORE_MAIN)
    with running(program, tmp_path / "first", LOOPBACK, "colour=blue", "size=small") as first:
        addr = read_line(first)
        with running(program, tmp_path / "second", LOOPBACK, addr) as second:
            read_line(second)
            assert read_line(second) == "version 1: 1 entries, 21 bytes"
            assert read_line(second).startswith("version 2: 2 entries")


def for_several_machines(program: int, main: int) -> str:
    texts = blocks("messages.md", "python")
    return texts[program].partition("async def main()")[0] + texts[main]


@contextmanager
def running(program: str, folder: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A process with a data directory of its own, killed at the block's end and after a minute."""
    folder.mkdir()
    file = folder / "program.py"
    file.write_text(program)
    process = subprocess.Popen(
        command(file, *args),
        cwd=folder,
        env=os.environ | {"XDG_DATA_HOME": str(folder), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    timer = threading.Timer(60, process.kill)
    timer.start()
    try:
        with process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        timer.cancel()


def read_line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline()
    assert line, "the program has ended"
    return line.rstrip("\n")


def write(process: subprocess.Popen[str], text: str) -> None:
    process.stdin.write(text)
    process.stdin.flush()


def say_until_heard(speaker: subprocess.Popen[str], text: str, listener: subprocess.Popen[str], line: str) -> None:
    """Says it again and again, since nobody hears it before the two are connected."""
    heard = threading.Event()

    def speak() -> None:
        while not heard.is_set():
            write(speaker, text)
            heard.wait(1)

    thread = threading.Thread(target=speak)
    thread.start()
    try:
        while read_line(listener) != line:
            pass  # before the name was known
    finally:
        heard.set()
        thread.join()


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_links_between_pages_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", prose):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


OF_THE_SUITES = {"test_timeout_seconds"}  # a variable of libp2p's own suites, no test


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_the_tests_that_a_page_names_are_there(page):
    files = list((ROOT / "tests").rglob("*.py"))
    there = {path.stem for path in files}
    there |= {name for path in files for name in re.findall(r"def (test_\w+)", path.read_text())}
    for name in re.findall(r"\btest_\w+", page.read_text()):
        if name in OF_THE_SUITES:
            continue
        # a long name may be cut with an ellipsis
        assert any(one.startswith(name) for one in there), f"{page.name} names {name}, which isn't there"


CODE = ("*.py", "*.proto", "*.go", "*.rs", "*.js", "*.yml", "*.html", "*.service", "Makefile", "*.Dockerfile")
OF_OTHERS = ("docs/write-a-", "docs/images-yaml-schema")  # pages of libp2p's own suites
MADE = {"node_modules", ".built", ".venv", "target"}


def test_the_pages_that_the_code_names_are_there():
    for top in ("node", "protocols", "interop", "tests", "docker", "packaging"):
        for file in (file for pattern in CODE for file in (ROOT / top).rglob(pattern)):
            if MADE.isdisjoint(file.parts):
                for named in re.findall(r"\bdocs/[\w/-]+\.md\b", file.read_text()):
                    there = named.startswith(OF_OTHERS) or (ROOT / named).exists()
                    assert there, f"{file.relative_to(ROOT)} names {named}"
