"""From a log call's fields to one line: bounded, escaped, and without secrets. Rules, without I/O.

    clean(fields)   what may be shown: values cut to MAX_VALUE characters, all of them to MAX_FIELDS, a traceback to
                    MAX_TRACEBACK; what a key's name says is secret becomes HIDDEN; bytes are shown by their number
    as_text, as_json   fields that are clean, as a line of at most MAX_LINE characters without its end

No value can end a line, start another one or move a terminal's cursor: JSON has its own escapes, and everything beyond
ASCII is escaped there; in text, whatever isn't printable is. A traceback is in JSON a string and in text lines that
are indented, as no line's beginning is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

MAX_VALUE = 1024
MAX_FIELDS = 4096
MAX_TRACEBACK = 8192
MAX_LINE = 32 * 1024
MAX_ITEMS = 32
MAX_DEPTH = 4
HIDDEN = "(hidden)"

_SECRET_WORDS = frozenset(
    {"token", "tokens", "secret", "secrets", "password", "passwords", "passphrase", "authorization"}
    | {"cookie", "cookies", "private", "key", "keys", "seed", "psk"}
)
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_IN_TEXT = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<=bearer )\s*[^\s\"']+"
    r"|(?<=[#?&]token=)[^\s&\"']+",
    re.DOTALL | re.IGNORECASE,
)
_HEAD = ("timestamp", "level", "logger", "event")
_BARE = re.compile(r"[^\s\"'=\\]+")
_COLOURS = {"debug": 36, "info": 32, "warning": 33, "error": 31, "critical": 31}


def clean(fields: MutableMapping[str, Any], *, part: int = 1) -> MutableMapping[str, Any]:
    """The same mapping with what may be shown; names that begin with _ are the logging libraries' own. `part`: all
    bounds are this many times less."""
    budget = _Budget(MAX_FIELDS // part, MAX_VALUE // part)
    for name in sorted((name for name in fields if not name.startswith("_")), key=lambda name: name != "event"):
        value = fields[name]
        if name == "exception":
            fields[name] = _middle_cut(_spoken(str(value)), MAX_TRACEBACK // part)
        elif name not in ("timestamp", "level", "logger"):
            del fields[name]
            if budget.left > 0:
                shown = HIDDEN if name != "event" and is_secret(name) else budget.value(value, 0)
                fields[budget.text(name)] = shown
    return fields


def is_secret(name: str) -> bool:
    """Whether a key's name says that its value is nobody's business."""
    words = {word.lower() for word in _WORDS.findall(name)}
    return bool(words & _SECRET_WORDS) and "public" not in words


def as_json(fields: Mapping[str, Any]) -> str:
    """One line of JSON, in ASCII."""
    return _bounded(_json, fields)


def as_text(fields: Mapping[str, Any], *, colours: bool = False) -> str:
    """A line for people, `TIME [LEVEL] EVENT [LOGGER] KEY=VALUE …`; the lines of a traceback follow, indented."""
    return _bounded(_coloured if colours else _plain, fields)


def escaped(text: str) -> str:
    """The text with everything that isn't printable as an escape; U+00E9 and the like stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


class _Budget:
    """What is left of a line."""

    def __init__(self, left: int, each: int) -> None:
        self.left = left
        self._each = each

    def text(self, text: str) -> str:
        limit = max(0, min(self._each, self.left))
        text = _cut(_spoken(text), limit)
        self.left -= len(text) + 1
        return text

    def value(self, value: object, depth: int) -> Any:
        if value is None or isinstance(value, (bool, float)):
            self.left -= 5
            return value
        if isinstance(value, int):
            self.left -= 5
            # beyond 64 bits other languages' readers of JSON fail, and beyond 4300 digits Python's own
            return value if -(2**63) <= value < 2**63 else f"a number of {value.bit_length()} bits"
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self.text(f"({len(value)} bytes)")
        if depth < MAX_DEPTH and isinstance(value, Mapping):
            return self._mapping(value.items(), len(value), depth)
        if depth < MAX_DEPTH and isinstance(value, (list, tuple, set, frozenset)):
            return self._items(value, len(value), depth)
        try:
            return self.text(str(value))
        except Exception as error:  # of somebody's __str__: the line is worth more than this value
            return self.text(f"({type(value).__name__} that can't be shown: {type(error).__name__})")

    def _mapping(self, items: Iterable[tuple[Any, Any]], count: int, depth: int) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for number, (name, value) in enumerate(items):
            if number >= MAX_ITEMS or self.left <= 0:
                shown["…"] = f"{count - number} more"
                break
            text = name if isinstance(name, str) else str(self.value(name, MAX_DEPTH))
            shown[self.text(text)] = HIDDEN if is_secret(text) else self.value(value, depth + 1)
        return shown

    def _items(self, items: Iterable[Any], count: int, depth: int) -> list[Any]:
        shown: list[Any] = []
        for number, item in enumerate(items):
            if number >= MAX_ITEMS or self.left <= 0:
                shown.append(f"… {count - number} more")
                break
            value_of_header = number == 1 and count == 2 and _is_header(shown[0])
            shown.append(HIDDEN if value_of_header else self.value(item, depth + 1))
        return shown


def _is_header(name: object) -> bool:
    """Pairs are how HTTP's headers come."""
    return isinstance(name, str) and is_secret(name)


def _spoken(text: str) -> str:
    """Without what is recognized as secret inside a text, and without what isn't Unicode."""
    if len(text) > 2 * MAX_TRACEBACK:
        text = _middle_cut(text, 2 * MAX_TRACEBACK)
    text = _IN_TEXT.sub(HIDDEN, text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf8", "backslashreplace").decode()
    return text


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} more)"


def _middle_cut(text: str, limit: int) -> str:
    """Of a traceback both ends matter: who called, and what was raised."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… ({len(text) - 2 * half} more)\n{text[-half:]}"


def _bounded(render: Any, fields: Mapping[str, Any]) -> str:
    line: str = render(fields)
    if len(line) > MAX_LINE:  # nearly all of it escapes: up to 12 characters for one
        line = render(clean(dict(fields), part=8))
    return line


def _json(fields: Mapping[str, Any]) -> str:
    first = {name: fields[name] for name in _HEAD if name in fields}
    last = {"exception": fields["exception"]} if "exception" in fields else {}
    rest = {name: value for name, value in fields.items() if name not in first and name not in last}
    return json.dumps(first | rest | last)


def _plain(fields: Mapping[str, Any]) -> str:
    return _line(fields, str(fields.get("level", "")).ljust(9))


def _coloured(fields: Mapping[str, Any]) -> str:
    level = str(fields.get("level", ""))
    return _line(fields, f"\x1b[{_COLOURS.get(level, 0)}m{level.ljust(9)}\x1b[0m")


def _line(fields: Mapping[str, Any], level: str) -> str:
    words = [
        f"{fields.get('timestamp', '')} [{level}] {escaped(str(fields.get('event', '')))} "
        f"[{escaped(str(fields.get('logger', '')))}]",
        *(f"{escaped(name)}={_shown(fields[name])}" for name in fields if name not in _HEAD and name != "exception"),
    ]
    line = " ".join(words)
    for row in str(fields.get("exception", "")).split("\n") if "exception" in fields else ():
        line += f"\n    {escaped(row)}"
    return line


def _shown(value: Any) -> str:
    """A value that stands alone as it is, another in quotes, so that none can pass for the next key."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        return escaped(text)
    if _BARE.fullmatch(text):
        return escaped(text)
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped(quoted)}"'


def _escape(char: str) -> str:
    return (
        char.encode("ascii", "backslashreplace").decode() if char > "\x7f" else _SHORT.get(char, f"\\x{ord(char):02x}")
    )


_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
