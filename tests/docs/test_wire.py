"""docs/wire.md defines messages; the code's .proto files are those."""

from __future__ import annotations

import re

import pytest

from tests.docs.reading import ROOT, blocks

_MESSAGE = re.compile(r"message (\w+)\s*\{")
_FIELD = re.compile(r"(?:(repeated|optional) )?\b([\w.]+) +(\w+) += (\d+)\b")
FILES = sorted((ROOT / "protocols").rglob("*.proto"))


def messages(text: str) -> dict[str, set[tuple[str, ...]]]:
    """The fields of each message, those of enums and of what is within it among them."""
    text = re.sub(r"//[^\n]*", "", text)
    found = {}
    for match in _MESSAGE.finditer(text):
        end, depth = match.end(), 1
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        found[match[1]] = {field.groups("") for field in _FIELD.finditer(text[match.end() : end])}
    return found


def of_the_page() -> list[tuple[str, set[tuple[str, ...]]]]:
    page = ROOT / "docs" / "wire.md"
    return [item for block in blocks(page) if block.language == "proto" for item in messages(block.text).items()]


@pytest.mark.parametrize(("name", "fields"), of_the_page(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_messages_of_the_page_are_those_of_the_code(name, fields):
    there = [found[name] for found in (messages(file.read_text()) for file in FILES) if name in found]
    assert there, f"no .proto file has a message {name}"
    assert fields, name
    assert fields in there
