"""`vouch config show`: every setting, its value, and the layer that set it.

    max_streams = 64           # flag --max-streams
    # key       = "/…/node.key"  # default        (a setting without a value: commented out, with what is used)

What stands left of the comments is TOML that gives the same node wherever it is pasted: paths are absolute.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.cli.parser import settings_from
from node.settings import Loaded


def show(args: argparse.Namespace) -> int:
    loaded = settings_from(args)
    if args.json:
        values = {name: {"value": _plain(value), "source": source} for name, value, source in _rows(loaded)}
        print(json.dumps(values, indent=2))
    else:
        print(as_toml(loaded))
    return 0


def as_toml(loaded: Loaded) -> str:
    """One aligned line for each setting, the source as a comment."""
    rows = []
    for name, value, source in _rows(loaded):
        if value is None:  # TOML has no word for it; of these only `key` stands for something
            name, value = f"# {name}", loaded.config.key_path if name == "key" else ""
        rows.append((name, _toml(_plain(value)), source))
    name_width = max(len(name) for name, _, _ in rows)
    # One long list shouldn't push every comment off the screen.
    value_width = max(len(value) for _, value, _ in rows if len(value) <= 40)
    return "\n".join(f"{name:<{name_width}} = {value:<{value_width}}  # {source}" for name, value, source in rows)


def _rows(loaded: Loaded) -> list[tuple[str, Any, str]]:
    return [(name, getattr(loaded.config, name), source) for name, source in loaded.sources.items()]


def _plain(value: Any) -> Any:
    """The value as JSON and TOML know it."""
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        # JSON's strings are TOML's basic strings, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
