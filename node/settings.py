"""Where a node's settings come from: four layers over each other.

    defaults  <  TOML file  <  environment  <  flags

    field of Config   max_streams              min_versions                listen
    TOML              max_streams = 256        { vouch = "0.1.0" }         ["/ip4/0.0.0.0/tcp/4001"]
    environment       VOUCH_MAX_STREAMS=256    NAME=N.N.N,NAME=N.N.N       comma-separated
    flag              --max-streams 256        NAME=N.N.N, repeated        repeated

A layer replaces a list as a whole. TOML keys may have hyphens for underscores. The file is the one that the caller or
VOUCH_CONFIG names and no other: nothing is read because it happens to lie somewhere. `~` is expanded in paths, and
a relative path in the file is relative to the file. Unknown keys are errors, so that a slip doesn't pass as a default;
unknown VOUCH_* variables are warnings, since a container has some that nobody set on purpose.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.config import SETTINGS, Config, default_data_dir
from node.errors import UsageError
from node.setting import ENVIRONMENT_PREFIX, SettingError, expand_home

CONFIG_VARIABLE = "VOUCH_CONFIG"


@dataclass(frozen=True)
class Loaded:
    """A Config, for each of its fields the layer that had the last word, and what was ignored."""

    config: Config
    sources: Mapping[str, str]  # "default", "file PATH", "environment VOUCH_NAME", "flag --name"
    warnings: tuple[str, ...] = ()


def load(flags: Mapping[str, Any], *, file: Path | None, environ: Mapping[str, str]) -> Loaded:
    """Put the layers on top of each other.

    `flags` maps names of fields to texts (lists of texts where the flag repeats) or to values of the field's type;
    None is a flag that wasn't given. `file` goes before VOUCH_CONFIG. UsageError for anything that can't be used.
    """
    values: dict[str, Any] = {}
    sources = dict.fromkeys(SETTINGS, "default")
    warnings: list[str] = []

    if file is None and environ.get(CONFIG_VARIABLE):
        file = expand_home(Path(environ[CONFIG_VARIABLE]))
    if file is not None:
        for name, value in _read_file(file).items():
            values[name] = SETTINGS[name].from_value(value, file.parent)
            sources[name] = f"file {file}"

    variables = {setting.variable: setting for setting in SETTINGS.values()}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == CONFIG_VARIABLE:
            continue
        if variable not in variables:
            # not an error: a Kubernetes service named "vouch" sets variables of this form for every container
            warnings.append(f"environment: unknown variable {variable}{nearest(variable, variables)}")
            continue
        setting = variables[variable]
        parts = [part.strip() for part in text.split(",") if part.strip()] if setting.repeats else [text]
        values[setting.name] = setting.from_text(parts)
        sources[setting.name] = f"environment {variable}"

    for name, value in flags.items():
        if value is None:
            continue
        if name not in SETTINGS:
            raise UsageError(f"flags: unknown setting {name!r}{nearest(name, SETTINGS)}")
        setting = SETTINGS[name]
        if isinstance(value, str):
            value = [value]
        texts = isinstance(value, list) and all(isinstance(text, str) for text in value)
        values[name] = setting.from_text(value) if texts and value else setting.from_value(value, Path())
        sources[name] = f"flag {setting.flag}"

    if "data_dir" not in values:  # else it isn't asked for: there may be no home folder to derive it from
        values["data_dir"] = default_data_dir(environ)
    try:
        return Loaded(Config(**values), sources, tuple(warnings))
    except SettingError as error:
        if len(error.names) == 1:
            raise UsageError(f"{error} ({sources[error.names[0]]})") from None
        where = ", ".join(f"{name}: {sources[name]}" for name in error.names)
        raise UsageError(f"{error} ({where})") from None


def nearest(name: str, options: Iterable[str]) -> str:
    """`; did you mean OPTION?` for the option that is nearest to a misspelt name, or nothing if none is near."""
    near = difflib.get_close_matches(name, list(options), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _read_file(path: Path) -> dict[str, Any]:
    """The file's values by field name."""
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"config file {path}: expected a TOML file, got: {error.strerror}") from error
    except ValueError as error:  # TOMLDecodeError, bytes that aren't UTF-8, numbers of thousands of digits
        raise UsageError(f"config file {path}: expected TOML, got: {error}") from error
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in SETTINGS:
            raise UsageError(f"config file {path}: unknown key {key!r}{nearest(name, SETTINGS)}")
        if name in values:
            raise UsageError(f"config file {path}: expected {name} once, got it with hyphens and with underscores")
        values[name] = value
    return values
