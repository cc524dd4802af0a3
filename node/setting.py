"""One setting: how its value is read from a file, the environment and flags, and what it must be.

Which settings there are is `node.config`. Every number must be above 0.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from node.errors import UsageError

MAX_NUMBER = 2**31 - 1  # of seconds, 68 years; of anything else, more than memory holds
ENVIRONMENT_PREFIX = "VOUCH_"


class SettingError(UsageError):
    """A value that Config refuses; `names` are the fields involved, for `load` to add where they came from."""

    def __init__(self, text: str, *names: str) -> None:
        super().__init__(f"{names[0]}: {text}")
        self.names = names


def setting(default: Any, text: str, *, shown: str = "", form: str = "", advanced: bool = False) -> Any:
    """A field of Config. `text` is its help with the unit; `shown`, a default in words; `form`, its own metavar."""
    metadata = {"help": text, "shown": shown, "form": form, "advanced": advanced}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


advanced = functools.partial(setting, advanced=True)


@dataclass(frozen=True)
class Setting:
    """One row of the table, as file, environment, flags and help see it."""

    name: str
    hint: Any  # the field's type
    help: str
    shown: str  # the default, in words
    form: str  # "" if the type tells it
    advanced: bool

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def choices(self) -> tuple[str, ...]:
        return get_args(self.hint) if get_origin(self.hint) is Literal else ()

    @property
    def repeats(self) -> bool:
        return self.hint in (_LIST, _TABLE)

    @property
    def metavar(self) -> str:
        return self.form or ("{" + ",".join(self.choices) + "}" if self.choices else _METAVARS[self.hint])

    def check(self, value: object) -> None:
        """Raise unless the value has the field's type (numbers: range too)."""
        if not self._holds(value):
            raise SettingError(f"expected {self._expected()}, got {value!r}", self.name)

    def from_text(self, texts: list[str]) -> Any:
        """The value of a variable or flag; one text each, or several where the setting repeats.

        What can't be converted is returned as it came: Config refuses it, and says what it expected.
        """
        if self.hint == _LIST:
            return tuple(texts)
        if self.hint == _TABLE:
            pairs = [text.partition("=") for text in texts]
            table = {name: value for name, _, value in pairs}
            return table if len(table) == len(pairs) else texts
        text = texts[-1]
        try:
            if self.hint is int:
                return int(text)
            if self.hint is float:
                return float(text)
        except ValueError:
            return text
        return self.from_value(text, Path())

    def from_value(self, value: Any, folder: Path) -> Any:
        """The value of TOML's own types, relative paths below the folder; what doesn't fit is returned as it came."""
        if self.hint == _LIST and isinstance(value, list):
            return tuple(value)
        if self.hint in _PATHS and isinstance(value, str) and value:
            return folder / expand_home(Path(value))
        if self.hint is float and type(value) is int and abs(value) <= MAX_NUMBER:
            return float(value)
        return value

    def _holds(self, value: object) -> bool:
        if self.choices:
            return value in self.choices
        if isinstance(value, (int, float)):
            wanted: tuple[type, ...] = (int,) if self.hint is int else (int, float) if self.hint is float else ()
            return type(value) in wanted and 0 < value <= MAX_NUMBER
        if isinstance(value, Path):
            return self.hint in _PATHS and _is_utf8(str(value))
        if value is None:
            return bool(self.hint == _OPTIONAL_PATH)
        if self.hint == _LIST:
            return isinstance(value, tuple) and all(map(_is_utf8, value))
        if self.hint == _TABLE:
            return isinstance(value, Mapping) and all(_is_utf8(text) for pair in value.items() for text in pair)
        return self.hint is str and _is_utf8(value)

    def _expected(self) -> str:
        if self.choices:
            return "one of " + ", ".join(self.choices)
        return _EXPECTED[self.hint]


_LIST = tuple[str, ...]
_TABLE = Mapping[str, str]
_OPTIONAL_PATH = Path | None
_PATHS = (Path, _OPTIONAL_PATH)
_EXPECTED = {
    int: f"a whole number from 1 to {MAX_NUMBER}",
    float: f"a number above 0, at most {MAX_NUMBER}",
    str: "text in UTF-8",
    Path: "a path",
    _OPTIONAL_PATH: "a path",
    _LIST: "a list of texts (in Python a tuple)",
    _TABLE: "a table of texts, each name once",
}

_METAVARS = {
    int: "N",
    float: "SECONDS",
    str: "TEXT",
    Path: "PATH",
    _OPTIONAL_PATH: "PATH",
    _LIST: "MULTIADDR",
    _TABLE: "NAME=N.N.N",
}


def expand_home(path: Path) -> Path:
    """The path with its leading `~` or `~user` replaced."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UsageError(f"path {str(path)!r}: expected to know the home folder it stands for, got none") from error


def _is_utf8(value: object) -> bool:
    """Whether it is text that can be written down: no NUL and no stray bytes of another encoding."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
