"""Writes docs/reference/: from the table of settings, from the command line's parser, from docstrings.

    python docs/generate.py            writes them
    python docs/generate.py --check    exit status 1 if what is there differs

The parser is walked, not asked for its help: what argparse prints differs between Python's versions.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from enum import Enum
from itertools import chain
from pathlib import Path
from types import UnionType
from typing import Any, ForwardRef, get_args

import node.config
from node.api.operate import KINDS
from node.cli.arguments import Parser, Root
from node.cli.parser import build
from node.config import SETTINGS, Config

DOCS = Path(__file__).parent
MADE = "This page is made by `make docs-reference`; it isn't edited by hand."
MODULES = {
    "node": "What a program that holds a node needs: `from node import Node`.",
    "node.metrics": "Metrics of a node that a program holds; [metrics](../metrics.md) has the list.",
    "protocols": "What the author of a protocol needs: [writing a protocol](../writing-a-protocol.md).",
    "protocols.messages": "Signed messages and requests: [messages](../messages.md).",
    "protocols.gossip": "Gossip: [gossip](../gossip.md).",
}


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    differ = [name for name, text in pages().items() if not put(DOCS / "reference" / name, text, check)]
    for name in differ:
        print(f"docs/reference/{name} isn't what the code says: `make docs-reference` writes it anew", file=sys.stderr)
    return 1 if differ else 0


def pages() -> dict[str, str]:
    """The text of each page."""
    return {"settings.md": settings(), "commands.md": commands(), "events.md": events(), "python.md": python()}


def put(file: Path, text: str, check: bool) -> bool:
    """Writes a page, or says whether it is there."""
    if check:
        return file.exists() and file.read_text() == text
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return True


# settings


def settings() -> str:
    lines = ["# Settings", "", MADE, ""]
    lines += textwrap.dedent("""\
        Each is a key of the TOML file (`--config FILE` or `VOUCH_CONFIG`), a variable and a flag: `max_streams`,
        `VOUCH_MAX_STREAMS`, `--max-streams`. Flags go before variables, these before the file, that before the
        defaults. Durations are seconds and sizes bytes. `vouch config show` prints what holds, and where it comes from.
        What they are for, by subject, is in [operating a node](../operating.md#settings).
        """).splitlines()
    for title, names in sections().items():
        lines += ["", f"## {title}", "", "| Setting | Value | Default | |", "|---|---|---|---|"]
        for row in map(SETTINGS.__getitem__, names):
            value = row.metavar.strip("{}").replace(",", ", ") if row.choices else row.metavar
            often = ", any number of them" if row.repeats else ""
            lines.append(f"| `{row.name}` | {cell(f'`{value}`')}{often} | {cell(code(row.shown))} | {cell(row.help)} |")
    return "\n".join([*lines, ""])


def sections() -> dict[str, list[str]]:
    """The names of settings, under the comments that they stand below in `Config`."""
    found: dict[str, list[str]] = {}
    title, before = "", ""
    for line in inspect.getsource(Config).splitlines():
        # a title may go on with an explanation, over several lines
        if (match := re.match(r"    # ([^.]+?)(?:\..*)?$", line)) and not before.startswith("    # "):
            title = match[1]
        elif (match := re.match(r"    (\w+): ", line)) and match[1] in SETTINGS:
            found.setdefault(title, []).append(match[1])
        before = line
    missing = set(SETTINGS) - {name for names in found.values() for name in names}
    assert not missing, f"settings that {node.config.__file__} has under no heading: {missing}"
    return found


def code(shown: str) -> str:
    return shown if (" " in shown and not shown.startswith("/")) or shown == "none" else f"`{shown}`"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


# commands


def commands() -> str:
    root = build()
    assert isinstance(root, Root)
    lines = ["# Commands", "", MADE, "", "`vouch COMMAND --help` prints the same. Exit status 0 is success, 1 that it"]
    lines += ["didn't work, 2 that the command or a setting makes no sense."]
    choices = subcommands(root)
    for purpose, members in root.purposes.items():
        lines += ["", f"## {purpose[0].upper()}{purpose[1:]}"]
        for name, _ in members:
            for parser in leaves(choices[name]):
                lines += ["", *command(parser)]
    return "\n".join([*lines, ""])


def subcommands(parser: argparse.ArgumentParser) -> dict[str, Parser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def leaves(parser: Parser) -> Iterator[Parser]:
    """The commands that do something."""
    inner = subcommands(parser)
    if not inner:
        yield parser
    for one in inner.values():
        yield from leaves(one)


def command(parser: Parser) -> list[str]:
    name = parser.prog
    own: list[argparse.Action] = []
    of_settings: list[argparse.Action] = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        (of_settings if action.dest in SETTINGS and action.option_strings else own).append(action)
    words = " ".join(word(action) for action in own if not action.option_strings)
    lines = [f"### {name}", "", f"`{name}{' ' + words if words else ''}`: {parser.summary or parser.description}.", ""]
    if own:
        lines += ["| | |", "|---|---|"]
        lines += [f"| {cell(f'`{flag(action)}`')} | {cell(described(action))} |" for action in own]
    if len(of_settings) == len(SETTINGS):
        lines += ["", "And every [setting](settings.md)."]
    elif of_settings:
        lines += ["", f"And the [settings](settings.md) {', '.join(f'`{a.option_strings[0]}`' for a in of_settings)}."]
    example, _, after = (parser.epilog or "").partition("\n\n")
    after = after.strip()
    lines += ["", f"Example: `{example.removeprefix('example: ')}`"]
    if after and len(of_settings) < len(SETTINGS):
        if re.search(r"^ {2,}|\S {2,}\S", after, re.MULTILINE):
            lines += ["", "<!-- not run: words of the command's help -->", "```", after, "```"]
        else:
            lines += ["", after]
    return lines


def word(action: argparse.Action) -> str:
    shown = metavar(action)
    return {"?": f"[{shown}]", "*": f"[{shown} ...]"}.get(str(action.nargs), shown)


def metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    return "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()


def flag(action: argparse.Action) -> str:
    if not action.option_strings:
        return metavar(action)
    takes = "" if action.nargs == 0 else f" {metavar(action)}"
    return f"{action.option_strings[-1]}{takes}"


def described(action: argparse.Action) -> str:
    return (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")


# events


def events() -> str:
    lines = ["# Events", "", MADE, ""]
    lines += textwrap.dedent("""\
        What happens at a node. The kind is the word for `vouch events KIND`, for `/v1/events?kinds=` of the
        [HTTP API](../api.md#what-goes-on-telling) and for the dashboard's filter; the class is what a program listens
        to, `node.events.listen(Admitted)` ([how](../operating.md#events-in-a-program)). Without a kind it is all.
        """).splitlines()
    lines += ["", "| Kind | Class | What has happened | Fields |", "|---|---|---|---|"]
    for kind, event in sorted(KINDS.items()):
        fields = ", ".join(f"`{field.name}`" for field in dataclasses.fields(event))
        text = " ".join(doc_of(event).split())
        lines.append(f"| `{kind}` | `{event.__name__}` | {cell(text)} | {fields} |")
    return "\n".join([*lines, ""])


# python


def python() -> str:
    lines = ["# Python", "", MADE, ""]
    for module, text in MODULES.items():
        names = importlib.import_module(module)
        lines += [f"## {module}", "", text]
        for name in public(names):
            lines += ["", *described_object(name, getattr(names, name))]
        lines.append("")
    return "\n".join(lines)


def public(module: Any) -> list[str]:
    return sorted(module.__all__, key=lambda name: (not name[0].isupper(), name))


def described_object(name: str, found: Any) -> list[str]:
    lines = [f"### {name}", ""]
    if isinstance(found, UnionType):
        return [*lines, f"Any of {', '.join(f'`{one.__name__}`' for one in get_args(found))}."]
    if not inspect.isclass(found):
        raise TypeError(f"expected classes and unions among the public names, got {name}: {found!r}")
    lines += markdown(doc_of(found))
    if issubclass(found, BaseException):
        return [*lines, "", f"An exception: {', '.join(f'`{base.__name__}`' for base in found.__bases__)}."]
    if issubclass(found, Enum):
        return [*lines, "", f"One of {', '.join(f'`{one.name}`' for one in found)}."]
    if found is Config:
        return [*lines, "", "Its fields are the [settings](settings.md)."]
    if dataclasses.is_dataclass(found):
        fields = [f"`{shown(field)}`" for field in dataclasses.fields(found) if not field.name.startswith("_")]
        if fields:
            lines += ["", f"Fields: {', '.join(fields)}."]
    elif not getattr(found, "_is_protocol", False):
        lines += ["", f"`{name}{signature(found)}`"]
    members = [as_item(*member) for member in own_members(found) if inspect.getdoc(member[1])]
    return [*lines, "", *chain.from_iterable(members)] if members else lines


def doc_of(found: type) -> str:
    """Its own docstring, neither its base's nor the one that a dataclass is given."""
    doc = inspect.cleandoc(vars(found).get("__doc__") or "")
    return "" if doc.startswith(f"{found.__name__}(") else doc


def shown(field: dataclasses.Field[Any]) -> str:
    default = "" if field.default is dataclasses.MISSING else f" = {value_of(field.default)}"
    return f"{field.name}: {annotation(field.type)}{default}"


def own_members(found: type) -> list[tuple[str, Any]]:
    """Methods and properties that it or a base of this project defines."""
    members: dict[str, Any] = {}
    for base in reversed(found.__mro__):
        if not base.__module__.startswith(("node", "protocols")):
            continue
        for name, value in vars(base).items():
            if name.startswith("_"):
                continue
            if isinstance(value, (property, classmethod, staticmethod)) or inspect.isfunction(value):
                members[name] = value
    return list(members.items())


def as_item(name: str, value: Any) -> list[str]:
    if isinstance(value, property):
        head, doc = f"`{name}`", inspect.getdoc(value.fget)
    else:
        function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        shape = signature(function)
        awaited = "await " if inspect.iscoroutinefunction(inspect.unwrap(function)) else ""
        if inspect.isasyncgenfunction(inspect.unwrap(function)) or "AsyncContextManager" in shape:
            awaited = "async with "
        head, doc = f"`{awaited}{name}{shape}`", inspect.getdoc(function)
    first, *rest = markdown(doc or "")
    return [f"- {head}: {first}", *(f"  {line}" if line else "" for line in rest)]


def signature(found: Any) -> str:
    """As inspect's, in the same words with every version of Python."""
    parts, before = [], None
    parameters = inspect.signature(found).parameters.values()
    for one in parameters:
        if one.name in ("self", "cls", "task_status"):
            continue
        if one.kind is one.KEYWORD_ONLY and before not in (one.KEYWORD_ONLY, one.VAR_POSITIONAL):
            parts.append("*")
        before = one.kind
        star = "*" if one.kind == one.VAR_POSITIONAL else "**" if one.kind == one.VAR_KEYWORD else ""
        kind = "" if one.annotation is one.empty else f": {annotation(one.annotation)}"
        default = "" if one.default is one.empty else f" = {value_of(one.default)}"
        parts.append(f"{star}{one.name}{kind}{default}")
    if parts and parts[-1] == "*":
        parts.pop()
    returned = inspect.signature(found).return_annotation
    tells = not inspect.isclass(found) and returned not in (inspect.Signature.empty, None, "None")
    return f"({', '.join(parts)})" + (f" -> {annotation(returned)}" if tells else "")


def annotation(kind: Any) -> str:
    if isinstance(kind, ForwardRef):
        return kind.__forward_arg__
    return kind.removeprefix("typing.") if isinstance(kind, str) else getattr(kind, "__name__", str(kind))


def value_of(default: Any) -> str:
    return repr(default) if isinstance(default, (str, bytes, int, float, tuple, type(None))) else "…"


def markdown(doc: str) -> list[str]:
    """A docstring: `name: what it is` becomes an item of a list, what is indented after a blank line a block."""
    lines: list[str] = []
    paragraphs = re.split(r"\n\n(?! )", doc)
    for paragraph in paragraphs:
        text, _, block = paragraph.partition("\n\n    ")
        joined = re.sub(r"\n    +", " ", text)
        if all(re.match(r"[a-z_]\w*(, \w+)*: ", line) for line in joined.splitlines()):
            lines += [re.sub(r"^([a-z_]\w*(?:, \w+)*): ", r"- `\1`: ", line) for line in joined.splitlines()]
        else:
            lines += text.splitlines()
        if block:
            fenced = textwrap.dedent("    " + block).rstrip().splitlines()
            lines += ["", "<!-- not run: of a docstring, with names of its own -->", "```", *fenced, "```"]
        lines.append("")
    return lines[:-1]


if __name__ == "__main__":
    sys.exit(main())
