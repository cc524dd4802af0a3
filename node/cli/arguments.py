"""What the command line is made of: argparse with our errors, the flags for settings, and checked numbers.

Which commands there are is `node.cli.commands`.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from node.config import SETTINGS, node_version
from node.errors import UsageError
from node.settings import nearest

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction["Parser"]  # no public name, and generic for mypy only


class Parser(argparse.ArgumentParser):
    """Whole flags only, and errors as UsageError instead of a usage text and exit."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)
        self.summary = ""  # what its line in the list of commands says

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """argparse would list thirty commands, and not say that a flag stood before them."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            known = f" ({', '.join(action.choices)})" if len(action.choices) < 10 else ""
            self.error(f"expected {action.metavar}{known} first, got {value!r}{nearest(value, action.choices)}")
        super()._check_value(action, value)

    def unexpected(self, argument: str) -> NoReturn:
        """Refuse an argument that was left over."""
        flag = argument.partition("=")[0]
        if flag.startswith("-"):
            self.error(f"unknown flag {flag!r}{nearest(flag, self._option_string_actions)}")
        self.error(f"unexpected argument {argument!r}")


class Root(Parser):
    """The command line's own, which lists its commands by purpose."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.purposes: dict[str, list[tuple[str, str]]] = {}  # name and summary of each command

    def format_help(self) -> str:
        formatter = self._get_formatter()
        formatter.add_usage(f"{self.prog} [-h] [--version] COMMAND ...", [], [])
        formatter.add_text(self.description)
        options = [action for action in self._actions if action.option_strings]
        for purpose, commands in self.purposes.items():
            formatter.start_section(purpose)
            formatter.add_arguments(argparse.Action([], name, help=summary) for name, summary in commands)
            formatter.end_section()
        formatter.start_section("options")
        formatter.add_arguments(options)
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()


class Version(argparse.Action):
    """Prints the version, which takes 40 ms to look up and so isn't looked up for anything else."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"vouch {node_version()}")
        parser.exit()


def command(commands: Commands, name: str, runs: str, text: str, example: str, *, after: str = "") -> Parser:
    """Add a command that does something, its implementation being `module:function`."""
    parser = _add(commands, name, text, example, after)
    parser.set_defaults(handler=runs, parser=parser)
    return parser


def group(commands: Commands, name: str, text: str, example: str) -> Commands:
    """Add a command that only has commands of its own."""
    return _add(commands, name, text, example).add_subparsers(dest="action", metavar="ACTION", required=True)


def _add(commands: Commands, name: str, text: str, example: str, after: str = "") -> Parser:
    epilog = f"example: {example}" + (f"\n\n{after}" if after else "")
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog)
    parser.summary = text
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for programs instead of text for people")


def add_settings(parser: argparse.ArgumentParser, names: Collection[str]) -> None:
    """A flag for each of the named settings, absent from the arguments unless given."""
    parser.set_defaults(settings=tuple(names))  # not all that has a setting's name is one: `vouch topics TOPIC`
    parser.add_argument("--config", metavar="FILE", type=Path, help="TOML file of settings (default: VOUCH_CONFIG)")
    if names is SETTINGS:  # else argparse lists them all
        parser.usage = f"{parser.prog} [--config FILE] [--SETTING VALUE ...]"
    common = parser.add_argument_group("settings")
    advanced = parser.add_argument_group("advanced")
    for setting in map(SETTINGS.__getitem__, names):
        often = "; may be repeated" if setting.repeats else ""
        (advanced if setting.advanced else common).add_argument(
            setting.flag,
            dest=setting.name,
            metavar=setting.metavar,
            action="append" if setting.repeats else "store",
            default=argparse.SUPPRESS,
            help=f"{setting.help}{often} (default: {setting.shown})".replace("%", "%%"),
        )


def count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return number


MAX_NUMBER = 0xFFFFFFFE  # a message's type, at most: the one behind it says that an answer is an error


def number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) or int(text) > MAX_NUMBER:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {MAX_NUMBER}, got {text!r}")
    return int(text)


def size(text: str) -> int:
    """Bytes: 65536, 64K, 16M, 1G."""
    match = re.fullmatch(r"([0-9]{1,11})([KMG]?)", text, re.ASCII | re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected bytes such as 65536, 64K or 16M, got {text!r}")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]


def pause(text: str) -> float:
    return 0.0 if text in ("0", "0.0") else seconds(text)


def seconds(text: str) -> float:
    return _positive(text, "seconds")


def rate(text: str) -> float:
    return _positive(text, "a number")


def _positive(text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected {what} above 0, got {text!r}")
    return number
