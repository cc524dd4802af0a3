"""Every log call of the code: its event's name, its keys, and what docs/logs.md says of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.logkeys import KEYS, LIBRARIES, MEASURES, PARTS, STATES, STRANGERS
from node.logline import is_secret

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "logs.md").read_text()
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
NOT_KEYS = {"exc_info"}
# written by the log itself: node/log.py, node/repeats.py
OWN = {"log_lines_dropped": ("warning", {"count"}), "repeated": ("any", {"what", "count", "seconds"})}
LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \[(\w+) *\] (\w+) \[vouch\.(\w+)\](( \w+=(\"[^\"]*\"|[^ =\"]+))*)"
)


@dataclass(frozen=True)
class LogCall:
    place: str
    part: str
    levels: frozenset[str]
    event: str | None
    keys: tuple[tuple[str, str], ...]  # with their values, as they are written


def calls_of(file: Path) -> Iterator[LogCall]:
    tree = ast.parse(file.read_text())
    parts = {
        node.targets[0].id: node.value.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "get_logger"
    }
    tells: dict[str, frozenset[str]] = {}  # `tell = log.info if first else log.debug`
    tables: dict[str, ast.Dict] = {}  # `about = {...}`, for **about
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            used = {
                (inner.value.id, inner.attr)
                for inner in ast.walk(node.value)
                if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.attr in LEVELS
            }
            found = frozenset(level for name, level in used if name in parts)
            if found and not isinstance(node.value, ast.Call):
                tells[node.targets[0].id] = found
            if isinstance(node.value, ast.Dict):
                tables[node.targets[0].id] = node.value
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id in parts:
            part, levels = parts[called.value.id], frozenset({called.attr})
        elif isinstance(called, ast.Name) and called.id in tells:
            part, levels = next(iter(parts.values())), tells[called.id]
        else:
            continue
        event = node.args[0].value if len(node.args) == 1 and isinstance(node.args[0], ast.Constant) else None
        keys: list[tuple[str, str]] = []
        for keyword in node.keywords:
            if keyword.arg is not None:
                keys.append((keyword.arg, ast.unparse(keyword.value)))
            else:
                table = tables[ast.unparse(keyword.value)]
                keys += [(name.value, ast.unparse(value)) for name, value in zip(table.keys, table.values, strict=True)]
        yield LogCall(f"{file.relative_to(ROOT)}:{node.lineno}", part, levels, event, tuple(keys))


FILES = sorted(file for room in ("node", "protocols") for file in (ROOT / room).rglob("*.py"))
CALLS = [call for file in FILES for call in calls_of(file)]


def table(title: str, page: str = PAGE) -> dict[str, list[str]]:
    """The rows of the first table after a heading or a text, by what their first cell has between backquotes."""
    text = page.split(title, 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {first.strip("`"): rest for first, *rest in cells}


def test_there_are_calls():
    assert len(CALLS) > 100
    assert any(call.levels == {"info", "debug"} for call in CALLS)
    assert any(call.event == "mdns_link" and dict(call.keys).keys() >= {"interface", "version"} for call in CALLS)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.place.split(':')[0]} {call.event}")
def test_a_log_call_keeps_the_rules(call):
    assert call.event is not None, f"{call.place}: expected one name, in quotes"
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", call.event), call.place
    assert call.levels <= {"debug", "info", "warning", "error"}, call.place
    for key, value in call.keys:
        assert key in KEYS or key in NOT_KEYS, f"{call.place}: expected a key of node.logkeys.KEYS, got {key}"
        value = re.sub(r"^str\((.*)\)$", r"\1", value)
        if re.search(r"(^|\.)(peer|peer_id)$", value):
            assert key == "peer", f"{call.place}: expected peer={value}, got {key}"
        if re.search(r"(^|[._])addr$", value):
            assert key == "addr", f"{call.place}: expected addr={value}, got {key}"


def test_only_these_loggers_are_used():
    """What goes past get_logger is neither cut nor without secrets."""
    past = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in FILES
        for number, text in enumerate(file.read_text().splitlines(), 1)
        if "getLogger" in text and file.name != "log.py" and "_log = " not in text
    ]
    assert past == []
    assert {call.part for call in CALLS} <= set(PARTS)


def test_every_part_is_one():
    assert {name for file in FILES for name in re.findall(r'get_logger\("(\w+)"\)', file.read_text())} == (set(PARTS))


def test_every_key_is_used():
    used = {key for call in CALLS for key, _ in call.keys} | {key for _, keys in OWN.values() for key in keys}
    assert used - NOT_KEYS | {"exception"} == set(KEYS)
    assert not [key for key in KEYS if is_secret(key)]


def test_the_rules_name_what_there_is():
    events = {call.event for call in CALLS}
    assert events >= STATES | STRANGERS
    assert set(KEYS) | {"timestamp"} >= MEASURES


def test_the_page_has_the_parts_and_the_keys():
    assert {name: text for name, (text,) in table("The parts:").items() if name != LIBRARIES} == dict(PARTS)
    assert {name: text for name, (text,) in table("## Keys").items()} == dict(KEYS)


def test_the_page_has_the_events():
    loudest = {}
    for call in CALLS:
        for level in call.levels - {"debug"}:
            assert loudest.setdefault(call.event, level) == level, f"{call.event} has two levels"
    loudest |= {event: level for event, (level, _) in OWN.items()}
    assert {name: level for name, (level, _) in table("## Events").items()} == loudest


def test_the_page_names_the_states_that_are_always_printed():
    text = PAGE.split("always printed: ")[1].split(".\n")[0]
    assert set(re.findall(r"`(\w+)`", text)) == STATES


def test_the_pages_excerpt_is_what_the_code_logs():
    excerpt = re.search(r"```text\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
    assert len(excerpt) > 5
    for line in excerpt:
        found = LINE.fullmatch(line)
        assert found, line
        level, event, part, rest = found.group(1, 2, 3, 4)
        keys = re.findall(r" (\w+)=", re.sub(r'"[^"]*"', '""', rest))
        if event in OWN:
            assert set(keys) > OWN[event][1]
            continue
        known = [
            [key for key, _ in call.keys]
            for call in CALLS
            if (call.event, call.part) == (event, part) and level in call.levels
        ]
        assert keys in known, line
